package reflexes

import (
	"strings"
	"time"
)

// muteKey is what is muted: a rule, a target, or everything. Exactly one of
// rule and target is set, or none.
type muteKey struct {
	rule   string
	target Target
}

type mute struct {
	until Boot
	why   Reason // ReasonMuted or ReasonDeploying
}

// Mute keeps rules from acting until a time: all that act on t, or, with the
// zero Target, the rule; with neither, everything. A mute of an app is one of
// its copies too; one of the host is one of everything. It always ends by
// itself. With a time that is past it ends at once.
func (e *Engine) Mute(now Boot, rule string, t Target, until Boot, deploying bool) {
	now = e.enter(now)
	if t == Host() {
		t = Target{}
	}
	m := mute{until: until, why: ReasonMuted}
	if deploying {
		m.why = ReasonDeploying
	}
	e.mutes[muteKey{rule, t}] = m
	for k, m := range e.mutes {
		if m.until <= now {
			delete(e.mutes, k)
		}
	}
	for _, in := range e.instances {
		if in.wantsToAct() && in.id == 0 {
			in.retry = min(in.retry, now)
			e.dirty(in)
		}
	}
	e.settle(now)
}

// muted returns why and until when in may not act on t.
func (e *Engine) muted(in *instance, t Target) (Reason, Boot) {
	if len(e.mutes) == 0 {
		return ReasonNone, 0
	}
	var found mute
	look := func(rule string, t Target) {
		if m, ok := e.mutes[muteKey{rule, t}]; ok && m.until > e.now && m.until > found.until {
			found = m
		}
	}
	look("", Target{})
	look(in.rule.Name, Target{})
	for _, x := range [2]Target{t, in.target} {
		look("", x)
		if x.Scope == ScopeCopy {
			look("", Target{ScopeApp, x.app()})
		}
	}
	return found.why, found.until
}

// caused tells why an edge, or a level, with a cause is no reason to act.
func (e *Engine) caused(in *instance, c Cause) Reason {
	switch c.Kind {
	case CauseRequested:
		return ReasonRequested
	case CauseDeploy:
		return ReasonDeploying
	case CauseAct, CauseChain:
		chain := e.chain(c)
		for rule := range strings.SplitSeq(chain, chainSep) {
			if rule == in.rule.Name {
				return ReasonOwnAct
			}
		}
		if depth(chain) >= maxDepth {
			return ReasonDepth
		}
	}
	return ReasonNone
}

// chain is the rules whose acts led to what has the cause c, in their order, as far
// as they are remembered.
func (e *Engine) chain(c Cause) string {
	switch c.Kind {
	case CauseChain:
		return c.Chain
	case CauseAct:
		if r := e.intent(c.Act); r != nil {
			return r.Through()
		}
	}
	return ""
}

// chainOf is the chain that goes on from what is told of a rule.
func (e *Engine) chainOf(o Outcome) string {
	if r := e.intent(o.Act); o.Act != 0 && r != nil {
		return r.Through()
	}
	if in := e.instances[instanceKey{o.Rule, o.Target}]; in != nil {
		return through(e.chain(in.cause(e.now)), o.Rule)
	}
	return o.Rule
}

// cause is what the act of an instance would be caused by.
func (in *instance) cause(now Boot) Cause {
	if len(in.rule.edges) > 0 {
		return in.edge
	}
	// A level that an act has changed and that stays as it is for a stable period
	// stands for itself.
	if c := in.because; c != nil && (c.cause.Kind != CauseAct || now-c.at < resetAfter && now-in.begun < resetAfter) {
		return c.cause
	}
	return Cause{}
}

// local holds an act against the limits that this host alone keeps.
func (e *Engine) local(now Boot, in *instance, ts *targetState) (Reason, Boot) {
	rung := in.rung()
	if r := e.caused(in, in.cause(now)); r != ReasonNone {
		return r, now + settle
	}
	if r, until := e.muted(in, ts.target); r != ReasonNone {
		return r, until
	}
	if in.acted != unwell && now < in.acted+in.rule.cooldown {
		return ReasonCooldown, in.acted + in.rule.cooldown
	}
	if l := in.rule.limit; l.N > 0 {
		if at := in.state0.spent.next(l); at > now {
			return ReasonLimit, at
		}
	}
	if !rung.occupies() {
		return ReasonNone, 0
	}
	if ts.acting != 0 && ts.by != in {
		return ReasonBusy, now + time.Second
	}
	if len(in.rule.edges) == 0 && ts.acted != unwell && now < ts.acted+settle {
		return ReasonSettling, ts.acted + settle
	}
	switch {
	case ts.well != unwell && now-ts.well >= resetAfter:
		ts.streak, ts.ready = 0, 0
	case len(in.rule.edges) > 0 && !e.hasHealth(ts.target) && sinceOf(now, ts.acted) >= offEvery:
		ts.streak, ts.ready = 0, 0 // nothing tells of its health but that no edge came
	}
	if now < ts.ready {
		return ReasonBackoff, ts.ready
	}
	if !rung.revives {
		if at := e.host.next(hostLimit); at > now {
			return ReasonHostLimit, at
		}
	}
	return ReasonNone, 0
}

// propose lets an instance fire, if the limits of this host allow.
func (e *Engine) propose(now Boot, in *instance) {
	if !in.wantsToAct() || in.id != 0 || in.dead {
		return
	}
	rung := in.rung()
	if rung.op.class != ClassTell && !rung.revives {
		e.wish(now, in.state0)
	}
	ts := e.targetFor(rung.acts(in.target))
	in.on = ts
	if len(in.rule.edges) == 0 || in.refused == ReasonNone {
		in.remember(now)
	}
	r, retry := e.local(now, in, ts)
	if r == ReasonBusy && ts.by != nil && ts.by.state != StateActing {
		r = ReasonPriority
	}
	if r != ReasonNone {
		e.refuse(now, in, r, retry)
		return
	}
	e.proposals++
	in.id, in.asked = e.proposals, now
	if rung.occupies() {
		ts.acting, ts.by = proposed, in
	}
	e.firings = append(e.firings, Firing{
		Rule: in.rule.Name, Target: in.target, On: ts.target, Rung: rung, Class: rung.op.class,
		Facts: in.seen, Sensed: in.sensed, Stage: in.state0.stage.ID, id: in.id, in: in,
	})
}

// proposed stands for the act that a firing may become.
const proposed ActID = 1<<64 - 1

// release takes a proposal back.
func (in *instance) release() {
	in.id = 0
	if ts := in.on; ts != nil && ts.by == in && ts.acting == proposed {
		ts.acting, ts.by = 0, nil
	}
}

// refuse notes that an act may not be taken before retry, and why. The same
// reason is told once a minute.
func (e *Engine) refuse(now Boot, in *instance, r Reason, retry Boot) {
	in.release()
	in.retry = max(retry, now+time.Millisecond)
	in.times++
	if in.dry() {
		e.wouldRefuse(now, in, r)
		return
	}
	if r == ReasonAsking || r == ReasonListening {
		if !in.awaits() {
			in.refused, in.toldAt = r, unwell
		}
		return // what comes of it is told
	}
	loud := r == ReasonLimit || in.tries >= manyTries && in.rung().revives
	switch {
	case loud && in.state == StateFiring:
		in.enter(now, StateExhausted)
		in.refused = r
		if sinceOf(now, in.shouted) >= shoutEvery {
			e.shout(now, in, Exhausted, r)
		}
		return
	case !loud && in.state == StateExhausted && r != in.refused:
		in.enter(now, StateFiring)
	case in.state == StateExhausted:
		in.refused = r
		return // it shouts
	}
	lasting := r == ReasonRequested || r == ReasonDeploying || r == ReasonOwnAct || r == ReasonDepth || r == ReasonLease
	if r == in.refused && (lasting || sinceOf(now, in.toldAt) < tellEvery) {
		return
	}
	in.refused, in.toldAt = r, now
	o := Outcome{Kind: Suppressed, Reason: r, Rule: in.rule.Name, Target: in.target, Action: in.rung().text, At: now, Retry: retry, Facts: in.seen, Since: in.times}
	if r == ReasonBusy || r == ReasonPriority {
		if ts := in.on; ts != nil && ts.by != nil {
			o.Detail = ts.by.rule.Name
		}
	}
	if r == ReasonTokens || r == ReasonDeadMan || r == ReasonLease {
		o.Detail = in.lacks
	}
	e.tell(o)
	in.times = 0
}

// wouldRefuse tells, of a rule that only observes, what would have kept it.
func (e *Engine) wouldRefuse(now Boot, in *instance, r Reason) {
	if r == in.refused && sinceOf(now, in.toldAt) < tellEvery {
		return
	}
	in.refused, in.toldAt, in.times = r, now, 0
	e.tell(Outcome{Kind: Observed, Reason: r, Rule: in.rule.Name, Target: in.target, Action: in.rung().text, At: now, Facts: in.seen})
}
