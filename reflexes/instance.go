package reflexes

import (
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/intent/expr"
)

// instance is a rule about one target.
type instance struct {
	engine *Engine
	state0 *ruleState
	rule   *Rule
	target Target
	cells  []*cell // what the conditions read, and what that is mistrusted for
	now    Boot    // of the evaluation that goes on
	dirty  bool
	wants  bool
	dead   bool
	wake   Boot
	slot   int // in the heap, -1 outside

	state     State
	truth     expr.Truth // of when, as judged last
	over      expr.Truth // of clear, as judged last
	last      Boot       // when that was
	held      time.Duration
	calm      time.Duration
	since     Boot // of the state
	begun     Boot // of being active
	false_    Boot // since when the condition has been seen false without a break, else unwell
	unknown   Boot // since when it is Unknown, else unwell
	missing   VarID
	undecided bool  // that was told
	because   *cell // what changed last when the condition began to hold

	edges   int64 // that wait to be acted on
	unsure  int64 // that wait for what is not known
	edge    Cause // of the last edge
	level   int   // the rung
	tries   int   // acts on it without improvement
	checked bool  // the last act's effect was judged
	lasts   bool  // what it did lasts, under a lease
	acted   Boot  // when its last act ended, or was refused for good; unwell if never
	act     ActID
	actAt   Boot
	on      *targetState
	id      uint64 // of the proposal, 0 if none stands
	asked   Boot   // when that was made

	refused Reason
	retry   Boot   // when a refused act is tried again
	lacks   string // why no token is held
	times   int    // refusals for that reason since it was told
	toldAt  Boot
	shouted Boot
	passed  Boot // when it was told last that an edge was passed over for what the story says of it
	seen    []Fact
	sensed  Boot
}

// begin makes the instance of a rule about t, if the rule is about it.
func (e *Engine) begin(now Boot, s *ruleState, t Target) {
	k := instanceKey{s.rule.Name, t}
	if s.why != "" || !s.rule.selects(t) || e.instances[k] != nil {
		return
	}
	in := &instance{
		engine: e, state0: s, rule: s.rule, target: t, slot: -1, wake: never, last: now, since: now,
		false_: unwell, unknown: unwell, acted: unwell, toldAt: unwell, shouted: unwell, passed: unwell,
	}
	e.instances[k] = in
	for _, id := range in.rule.reads {
		in.read(e.cellOf(id, t))
		if guarded(id) {
			in.read(e.cell(CheckTimeouts, t))
			in.read(e.cell(AppRunning, t))
			for _, c := range e.pressure {
				in.read(c)
			}
		}
		if accused(id) && !slices.Contains(e.accusers, in) {
			e.accusers = append(e.accusers, in)
		}
	}
	for _, id := range in.rule.edges {
		c := e.cellOf(id, t)
		in.read(c)
		c.askers = append(c.askers, in)
	}
	in.seen = make([]Fact, 0, len(in.cells))
	e.carryInstance(in, now)
	e.dirty(in)
}

// read makes the instance a reader of c. A condition that is asked for edges is
// not judged anew because a level has changed.
func (in *instance) read(c *cell) {
	if slices.Contains(in.cells, c) {
		return
	}
	in.cells = append(in.cells, c)
	c.readers = append(c.readers, in)
	if age := in.maxAge(c); age > 0 && (c.least == 0 || age < c.least) {
		c.least = age
	}
}

func (in *instance) rung() *Rung { return &in.rule.Rungs[in.level] }

// enter changes the state.
func (in *instance) enter(now Boot, s State) {
	if in.state != s {
		in.state, in.since = s, now
	}
}

// active tells that the rule has fired and is not over.
func (in *instance) active() bool { return in.state >= StateFiring }

// wantsToAct tells that the rule would act now if it may.
func (in *instance) wantsToAct() bool { return in.state == StateFiring || in.state == StateExhausted }

// remember copies what the rule sees, for those who ask why.
func (in *instance) remember(now Boot) {
	in.now = now
	in.seen, in.sensed = in.seen[:0], 0
	for _, c := range in.cells {
		if !slices.Contains(in.rule.reads, c.id) {
			continue
		}
		v := in.valueOf(c)
		if !v.Known() && c.id.Info().With != 0 {
			continue
		}
		in.seen = append(in.seen, Fact{Var: c.id, Target: c.target, Value: v, At: c.at, Cause: c.cause})
		in.sensed = max(in.sensed, c.at)
	}
}

// changed is the cell of those that are read which changed last.
func (in *instance) changed() *cell {
	var last *cell
	for _, c := range in.cells {
		if slices.Contains(in.rule.reads, c.id) && (last == nil || c.turn > last.turn) {
			last = c
		}
	}
	return last
}

// fresh tells that all that is sampled was seen after at.
func (in *instance) fresh(at Boot) bool {
	for _, c := range in.cells {
		if c.id.Info().Sampled() && c.at < at && slices.Contains(in.rule.reads, c.id) {
			return false
		}
	}
	return true
}

// deadline is when the instance has to be judged although nothing happens.
func (in *instance) deadline(now Boot) Boot {
	at := never
	sooner := func(t Boot) {
		if t > now && t < at {
			at = t
		}
	}
	if len(in.rule.edges) == 0 {
		in.levelDeadlines(now, sooner)
	}
	switch in.state {
	case StateFiring, StateExhausted:
		if in.id != 0 {
			sooner(in.asked + unanswered)
		} else {
			sooner(in.retry)
		}
		if in.state == StateExhausted {
			sooner(in.shouted + shoutEvery)
		}
	case StateActing:
		sooner(in.actAt + actTimeout)
	case StateCooling:
		sooner(in.acted + in.pause())
		if len(in.rule.edges) > 0 {
			sooner(in.acted + resetAfter)
			if in.on != nil && in.on.well != unwell {
				sooner(in.on.well + resetAfter)
			}
		}
	case StateOff:
		sooner(in.shouted + offEvery)
		sooner(in.acted + offEvery)
	}
	if in.unknown != unwell && !in.undecided {
		sooner(in.unknown + 3*in.patience())
	}
	return at
}

func (in *instance) levelDeadlines(now Boot, sooner func(Boot)) {
	if in.state == StatePending && in.truth == expr.True {
		sooner(in.last + in.rule.for_ - in.held)
	}
	if in.active() && in.over == expr.True {
		sooner(in.last + in.rule.clearFor - in.calm)
	}
	for _, c := range in.cells {
		if age := in.maxAge(c); age > 0 && c.value.Known() {
			sooner(c.at + age + 1)
		}
		if c.window != nil {
			sooner(c.window.next(now))
		}
		if accused(c.id) {
			sooner(in.engine.doubtUntil)
		}
	}
}

// pause is how long after an act its effect is judged.
func (in *instance) pause() time.Duration {
	if len(in.rule.edges) > 0 {
		return in.rule.cooldown
	}
	return max(settle, in.rule.cooldown)
}

// patience is how long what is missing may be unknown; a rule says so after
// three times that.
func (in *instance) patience() time.Duration {
	if in.missing != 0 {
		if in.rule.maxAge > 0 {
			return in.rule.maxAge
		}
		if age := in.missing.Info().MaxAge; age > 0 {
			return age
		}
	}
	return 20 * time.Second
}
