package reflexes

import (
	"strings"

	"github.com/ganglion-mesh/ganglion/intent/expr"
)

// judge moves an instance on by what is known at now.
func (e *Engine) judge(now Boot, in *instance) {
	if len(in.rule.edges) > 0 {
		e.judgeEdge(now, in)
	} else {
		e.judgeLevel(now, in)
	}
	e.judgeAct(now, in)
	in.last = now
}

// judgeLevel evaluates the conditions of a rule that is about levels. How long
// something has held counts only while it was known to hold.
func (e *Engine) judgeLevel(now Boot, in *instance) {
	res := in.conditionTruth(in.rule.when, now)
	e.noteUnknown(now, in, res)
	if in.state == StatePending && in.truth == expr.True && res.Truth != expr.False {
		in.held += now - in.last
	}
	if res.Truth == expr.True && in.truth != expr.True {
		in.because = in.changed()
	}
	in.truth = res.Truth
	switch {
	case in.truth != expr.False:
		in.restStreak(now)
		in.false_ = unwell
	case in.false_ == unwell:
		in.false_ = now
	}
	if !in.active() {
		e.judgeInactive(now, in)
		return
	}
	e.judgeOver(now, in)
}

// restStreak begins the back-off of the target anew if this condition is all
// that tells of its health, and was seen false for a stable period.
func (in *instance) restStreak(now Boot) {
	if in.on != nil && in.on.well == unwell && in.on.acting == 0 && !in.engine.hasHealth(in.on.target) && in.false_ != unwell && now-in.false_ >= resetAfter {
		in.on.streak, in.on.ready = 0, 0
	}
}

// hasHealth tells that a sense tells of the target's health.
func (e *Engine) hasHealth(t Target) bool {
	var id VarID
	switch t.Scope {
	case ScopeCopy:
		id = AppReady
	case ScopeApp:
		id = AppReadyRatio
	case ScopeUnit:
		id = UnitState
	default:
		return false
	}
	c := e.cells[cellKey{id, t}]
	return c != nil && c.value.Known()
}

func (e *Engine) judgeInactive(now Boot, in *instance) {
	switch in.truth {
	case expr.False:
		in.enter(now, StateInactive)
		in.held = 0
	case expr.True:
		if in.state == StateInactive {
			in.enter(now, StatePending)
			in.held = 0
		}
		if in.held >= in.rule.for_ {
			e.activate(now, in)
		}
	}
}

// activate begins to want to act.
func (e *Engine) activate(now Boot, in *instance) {
	in.enter(now, StateFiring)
	in.begun, in.calm, in.level, in.tries, in.checked = now, 0, 0, 0, true
	in.refused, in.times, in.toldAt, in.retry = ReasonNone, 0, unwell, 0
	e.want(in)
}

// judgeOver finds out whether what fired is over: clear, or not when, for
// clear_for.
func (e *Engine) judgeOver(now Boot, in *instance) {
	over := not(in.truth)
	if in.rule.clear != nil {
		over = in.conditionTruth(in.rule.clear, now).Truth
	}
	switch {
	case over == expr.True && in.over == expr.True:
		in.calm += now - in.last
	case over == expr.False:
		in.calm = 0
	}
	in.over = over
	if over == expr.True && in.calm >= in.rule.clearFor && in.state != StateActing {
		e.clear(now, in)
	}
}

func not(t expr.Truth) expr.Truth {
	switch t {
	case expr.True:
		return expr.False
	case expr.False:
		return expr.True
	}
	return expr.Unknown
}

// clear ends what had fired.
func (e *Engine) clear(now Boot, in *instance) {
	in.release()
	e.tell(Outcome{Kind: Cleared, Rule: in.rule.Name, Target: in.target, At: now, Held: now - in.begun})
	in.enter(now, StateInactive)
	in.held, in.calm, in.level, in.tries, in.edges = 0, 0, 0, 0, 0
	in.over = expr.Unknown
}

// noteUnknown tells, once, of a condition that has been Unknown for long.
func (e *Engine) noteUnknown(now Boot, in *instance, res expr.Result) {
	if res.Truth != expr.Unknown {
		in.unknown, in.undecided, in.missing = unwell, false, 0
		return
	}
	if in.unknown == unwell {
		in.unknown = now
	}
	if res.Missing >= 0 {
		in.missing = varOf(res.Missing)
	}
	if !in.undecided && now-in.unknown >= 3*in.patience() {
		in.undecided = true
		o := Outcome{Kind: Undecided, Reason: ReasonUnknown, Rule: in.rule.Name, Target: in.target, At: now, Var: in.missing}
		if res.Err != nil {
			o.Reason, o.Detail = ReasonMeaningless, res.Err.Error()
		}
		e.tell(o)
	}
}

// ask asks a rule about n new edges of its counter.
func (e *Engine) ask(now Boot, in *instance, n int64) {
	in.now = now
	res := in.rule.when.Eval(in)
	e.noteUnknown(now, in, res)
	in.truth = res.Truth
	switch res.Truth {
	case expr.False:
		in.unsure = 0
		return
	case expr.Unknown:
		in.unsure += n // asked again when more is known
		return
	}
	n += in.unsure
	in.unsure = 0
	c := e.cellOf(in.rule.edges[0], in.target)
	in.remember(now)
	if r := e.caused(in, c.cause); r != ReasonNone {
		e.pass(now, in, r, c.cause)
		return
	}
	in.edges += n
	in.edge = c.cause
	if !in.active() {
		e.activate(now, in)
	} else if in.state == StateCooling {
		e.notHelped(now, in)
	}
}

// pass passes over an edge for its cause, and tells of it. What came by the story is
// told once a minute, for others may hear that too and answer; and a rule that
// hears itself has nothing to tell.
func (e *Engine) pass(now Boot, in *instance, r Reason, c Cause) {
	chain := e.chain(c)
	if c.Kind == CauseChain {
		last := chain[strings.LastIndex(chain, chainSep)+1:]
		if last == in.rule.Name || sinceOf(now, in.passed) < tellEvery {
			return
		}
		in.passed = now
	}
	e.tell(Outcome{Kind: Suppressed, Reason: r, Rule: in.rule.Name, Target: in.target, At: now, Facts: in.seen, Chain: through(chain, in.rule.Name)})
}

// judgeEdge goes on with a rule that is about edges: one that could not be
// decided, one that waits, or a time without any.
func (e *Engine) judgeEdge(now Boot, in *instance) {
	if in.unsure > 0 {
		n := in.unsure
		in.unsure = 0
		was := in.undecided
		e.ask(now, in, n)
		if in.undecided && !was {
			in.unsure = 0 // too late to act on it; it was told
		}
	}
	quiet := resetAfter
	if in.state == StateOff {
		quiet = offEvery
	}
	if in.edges == 0 && (in.state == StateCooling || in.state == StateOff) && now-in.acted >= quiet && e.healthy(now, in) {
		e.clear(now, in)
	}
}

// healthy tells that nothing says that what a rule acted on is not well.
func (e *Engine) healthy(now Boot, in *instance) bool {
	if in.on == nil || !e.hasHealth(in.on.target) {
		return true
	}
	return in.on.well != unwell && now-in.on.well >= resetAfter
}

// judgeAct goes on with what wants to act, acts or has acted.
func (e *Engine) judgeAct(now Boot, in *instance) {
	switch in.state {
	case StateFiring, StateExhausted:
		e.judgeWish(now, in)
	case StateActing:
		if now-in.actAt >= actTimeout {
			e.end(now, in.act, false, "no result came")
		}
	case StateCooling:
		e.judgeEffect(now, in)
	case StateOff:
		if now-in.shouted >= offEvery {
			e.shout(now, in, Off, ReasonNoEffect)
		}
	}
}

func (e *Engine) judgeWish(now Boot, in *instance) {
	if in.id != 0 && now-in.asked >= unanswered {
		in.release() // nobody asked for the permit
	}
	if in.state == StateExhausted && sinceOf(now, in.shouted) >= shoutEvery {
		e.shout(now, in, Exhausted, in.refused)
	}
	if in.id == 0 && now >= in.retry && (len(in.rule.edges) > 0 || in.truth == expr.True) {
		e.want(in)
	}
}

// judgeEffect finds out, once the target has settled after an act, whether it
// helped.
func (e *Engine) judgeEffect(now Boot, in *instance) {
	if in.lasting() || now-in.acted < in.pause() {
		return
	}
	if len(in.rule.edges) > 0 {
		if in.edges > 0 {
			e.again(now, in)
		}
		return
	}
	switch {
	case in.truth == expr.False:
		in.tries, in.checked = 0, true
	case in.truth == expr.True && in.checked:
		e.again(now, in) // it had helped, and is back
	case in.truth == expr.True && in.fresh(in.acted):
		e.notHelped(now, in)
		if in.state == StateCooling {
			e.again(now, in)
		}
	}
}

// lasting tells that the instance's last act goes on, under a lease.
func (in *instance) lasting() bool {
	return in.state == StateCooling && in.lasts && in.rung().op.leased
}

func (e *Engine) again(now Boot, in *instance) {
	in.enter(now, StateFiring)
	in.retry = 0
	e.want(in)
}

// notHelped counts an act that changed nothing: the ladder goes up, or ends.
func (e *Engine) notHelped(now Boot, in *instance) {
	if in.checked {
		return
	}
	in.checked = true
	if e.longWell(now, in) {
		in.level, in.tries = 0, 0 // it had helped for long enough: this is a new fault
		return
	}
	in.tries++
	rung := in.rung()
	switch {
	case in.tries < noEffect:
	case in.level+1 < len(in.rule.Rungs):
		in.level++
		in.tries = 0
	case rung.revives, rung.op.leased, rung.op.class == ClassTell: // they disturb nothing
	default:
		in.edges = 0
		in.enter(now, StateOff)
		in.shouted = unwell
		e.shout(now, in, Off, ReasonNoEffect)
	}
}

// longWell tells that the target was well for a stable period since the last
// act.
func (e *Engine) longWell(now Boot, in *instance) bool {
	if len(in.rule.edges) == 0 {
		return false
	}
	if in.on != nil && e.hasHealth(in.on.target) {
		return in.on.streak == 0 || in.on.well != unwell && now-max(in.on.well, in.acted) >= resetAfter
	}
	return now-in.acted >= resetAfter
}

// shout calls for a person.
func (e *Engine) shout(now Boot, in *instance, k OutcomeKind, r Reason) {
	in.shouted = now
	in.remember(now)
	e.tell(Outcome{Kind: k, Reason: r, Rule: in.rule.Name, Target: in.target, Action: in.rung().text, At: now, Retry: in.retry, Facts: in.seen, Since: in.times})
	in.times = 0
}
