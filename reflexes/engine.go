package reflexes

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// never is a time that does not come.
const never Boot = math.MaxInt64

// The most that the engine keeps of a host.
const (
	maxCells   = 65536
	maxTargets = 4096
	maxHistory = 256
)

// State is where a rule stands with one target.
type State uint8

// The states, in the order in which a rule goes through them. Exhausted is
// Firing, slowly and loudly. Off waits for the condition to be over, or for a
// person.
const (
	StateInactive  State = iota
	StatePending         // the condition holds, not yet for long enough
	StateFiring          // it wants to act
	StateActing          // an act is under way
	StateCooling         // an act has ended; did it help?
	StateExhausted       // it wants to act, and has done so too often
	StateOff             // it acts no more
)

var stateNames = [...]string{"inactive", "pending", "firing", "acting", "cooling", "exhausted", "off"}

// String returns the state as it stands in a story.
func (s State) String() string { return stateNames[min(int(s), len(stateNames)-1)] }

// Config is what the engine has to know from the start.
type Config struct {
	// Boot names this boot of the host. Without it nothing can be restored.
	Boot string
	// Seed spreads the back-offs of hosts: something that differs between them.
	Seed uint64
	// Disabled are the actions that this host cannot or may not take, with the
	// reason: "run": "allow_run is off".
	Disabled map[string]string
}

// Engine steps rules over facts. It is a state machine: it reads no clock,
// waits for nothing and acts on nothing. It is not safe for concurrent use.
//
// The owner calls Step with the facts that have come in, and again, with none,
// at the time that the last Step asked for. Each Firing is taken to Permit just
// before the act; what is permitted is recorded, done, and ended by Done. After
// any of these calls TakeOutcomes has what is to be told, TakeRecords what is to
// be journalled, and Wake may have changed. Slices that a method returns are good
// until it is called again.
type Engine struct {
	config    Config
	now       Boot
	promised  Boot
	started   bool
	rules     []*ruleState
	cells     map[cellKey]*cell
	known     map[Target]bool
	instances map[instanceKey]*instance
	targets   map[Target]*targetState
	host      spends
	escrow    Escrow
	mutes     map[muteKey]mute
	pressure  [len(pressureVars)]*cell
	accusers  []*instance

	heap      wakes
	marked    []*instance
	wanting   []*instance
	firings   []Firing
	outcomes  []Outcome
	facts     []Fact    // of outcomes
	told      []Outcome // what TakeOutcomes gave out last
	toldFacts []Fact
	flights   []flight
	history   []Record // a ring, of which newest is the last
	newest    int
	records   []Record // not taken by TakeRecords yet
	taken     []Record

	turns      uint64
	proposals  uint64
	acts       ActID
	doubtUntil Boot
	wished     bool // others are to be told what is wanted
	unleased   bool // see Unleased
	short      bool // an act lacked nothing but what a leader gives
	lacking    []Version
	distrust   bool // the state of an earlier life could not be read: limits begin spent
	carried    *carried
	stats      Stats
}

// Stats counts what an engine did.
type Stats struct {
	Judged  uint64 // evaluations of rules
	Refused uint64 // facts that did not fit their variable, or were too many
}

// ruleState is a rule with what all its instances share.
type ruleState struct {
	rule   *Rule
	spent  spends
	wanted Boot // when an instance last wanted to disturb something; unwell if never
	since  Boot // since when it has, with breaks of less than a minute
	shown  Boot // when others were last to be told; unwell if never
	gone   bool
	why    string // why this host cannot run it; "" if it can
	stage  Staging
}

type instanceKey struct {
	rule   string
	target Target
}

// flight is an act whose result is awaited.
type flight struct {
	act ActID
	in  *instance // nil if its rule is gone
	ts  *targetState
	at  Boot
}

// NewEngine returns an engine without rules.
func NewEngine(c Config) *Engine {
	e := &Engine{
		config: c, promised: never, doubtUntil: unwell,
		cells: map[cellKey]*cell{}, known: map[Target]bool{Host(): true}, instances: map[instanceKey]*instance{},
		targets: map[Target]*targetState{}, mutes: map[muteKey]mute{},
	}
	for i, id := range pressureVars {
		e.pressure[i] = e.cell(id, Host())
	}
	return e
}

// Stats returns what the engine did so far.
func (e *Engine) Stats() Stats { return e.stats }

// Firing is a rule that wants to act now. It has to be taken to Permit before
// anything is done.
type Firing struct {
	Rule   string
	Target Target // what the rule is about
	On     Target // what is acted on
	Rung   *Rung
	Class  Class
	Facts  []Fact // what the rule saw
	Sensed Boot   // when the last of these was seen
	Stage  uint64 // Staging.ID of the rule
	id     uint64
	in     *instance
}

// Step takes in facts and returns what wants to act, and when Step has to be
// called again if nothing happens before.
func (e *Engine) Step(now Boot, facts []Fact) ([]Firing, Boot) {
	now = e.enter(now)
	e.firings = e.firings[:0]
	e.late(now)
	for len(e.heap) > 0 && e.heap[0].wake <= now {
		e.dirty(e.heap[0])
		e.heap.set(e.heap[0], never)
	}
	for i := range facts {
		e.take(now, &facts[i])
	}
	e.settle(now)
	e.choose(now)
	return e.firings, e.Wake()
}

// Wake is when Step has to be called if nothing happens before: at once if it is
// not after now. Every other method may bring it forward.
func (e *Engine) Wake() Boot { return e.promised }

// enter begins a call: time does not go back.
func (e *Engine) enter(now Boot) Boot {
	e.now = max(e.now, now)
	return e.now
}

// settle judges what was marked, and finds out when there is more to do.
func (e *Engine) settle(now Boot) {
	for len(e.marked) > 0 {
		in := e.marked[len(e.marked)-1]
		e.marked = e.marked[:len(e.marked)-1]
		in.dirty = false
		if in.dead {
			continue
		}
		e.stats.Judged++
		e.judge(now, in)
		e.heap.set(in, in.deadline(now))
	}
	e.promise(now)
}

// promise finds out when Step has to be called.
func (e *Engine) promise(now Boot) {
	switch {
	case len(e.wanting) > 0:
		e.promised = now // only Step lets anything fire
	case len(e.heap) > 0:
		e.promised = e.heap[0].wake
	default:
		e.promised = never
	}
}

// choose proposes what may act, the rule before others on its target that is
// closer to it, then what disturbs least.
func (e *Engine) choose(now Boot) {
	if len(e.wanting) > 1 {
		slices.SortFunc(e.wanting, before)
	}
	for _, in := range e.wanting {
		in.wants = false
		e.propose(now, in)
		e.heap.set(in, in.deadline(now))
	}
	e.wanting = e.wanting[:0]
	e.promise(now)
}

func before(a, b *instance) int {
	return cmp.Or(
		cmp.Compare(b2i(a.rule.App == ""), b2i(b.rule.App == "")),
		cmp.Compare(a.rung().op.rank, b.rung().op.rank),
		cmp.Compare(a.rule.Name, b.rule.Name),
		cmp.Compare(a.target.Scope, b.target.Scope),
		cmp.Compare(a.target.Name, b.target.Name),
	)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// want remembers that an instance would act.
func (e *Engine) want(in *instance) {
	if !in.wants {
		in.wants = true
		e.wanting = append(e.wanting, in)
	}
}

// tell notes an outcome, with a copy of its facts.
func (e *Engine) tell(o Outcome) {
	o.Stage = e.stageOf(o.Rule)
	if o.Chain == "" {
		o.Chain = e.chainOf(o)
	}
	from := len(e.facts)
	e.facts = append(e.facts, o.Facts...)
	o.Facts = e.facts[from:len(e.facts):len(e.facts)]
	e.outcomes = append(e.outcomes, o)
}

// TakeOutcomes returns what happened since it was called last.
func (e *Engine) TakeOutcomes() []Outcome {
	e.told, e.outcomes = e.outcomes, e.told[:0]
	e.toldFacts, e.facts = e.facts, e.toldFacts[:0]
	return e.told
}

// SetRules exchanges the rules. One whose name and hash are the same keeps its
// state; acts that are under way are ended by Done as ever.
func (e *Engine) SetRules(now Boot, rules []*Rule) {
	now = e.enter(now)
	old := e.rules
	e.rules = make([]*ruleState, 0, len(rules))
	for _, r := range rules {
		i := slices.IndexFunc(old, func(s *ruleState) bool { return s.rule.Name == r.Name && s.rule.Hash == r.Hash })
		if i >= 0 {
			e.restage(now, old[i], r.stage)
			e.rules = append(e.rules, old[i])
			old = slices.Delete(slices.Clone(old), i, i+1)
			continue
		}
		s := &ruleState{rule: r, wanted: unwell, shown: unwell, why: e.unable(r), stage: r.stage}
		e.carryRule(s, now)
		e.rules = append(e.rules, s)
	}
	for _, s := range old {
		s.gone = true
		for k, in := range e.instances {
			if in.state0 == s {
				e.drop(k, in)
			}
		}
	}
	for _, s := range e.rules {
		for t := range e.known {
			e.begin(now, s, t)
		}
	}
	e.settle(now)
}

// unable says why this host cannot run a rule.
func (e *Engine) unable(r *Rule) string {
	for i := range r.Rungs {
		if why := e.config.Disabled[r.Rungs[i].Do.Op]; why != "" {
			return r.Rungs[i].Do.Op + ": " + why
		}
		for _, a := range r.Rungs[i].Tell {
			if why := e.config.Disabled[a.Op]; why != "" {
				return a.Op + ": " + why
			}
		}
	}
	return ""
}

// meet begins the rules about a target that was not known yet.
func (e *Engine) meet(now Boot, t Target) {
	if e.known[t] || len(e.known) >= maxTargets {
		return
	}
	e.known[t] = true
	for _, s := range e.rules {
		e.begin(now, s, t)
	}
}

// Forget drops all that is known of a target that is no more: a copy that was
// moved away, a link that was removed.
func (e *Engine) Forget(now Boot, t Target) {
	now = e.enter(now)
	if t == Host() {
		return
	}
	delete(e.known, t)
	for k, in := range e.instances {
		if in.target == t {
			e.drop(k, in)
		}
	}
	for k := range e.cells {
		if k.t == t {
			delete(e.cells, k)
		}
	}
	if ts := e.targets[t]; ts != nil && ts.acting == 0 {
		delete(e.targets, t)
	}
	e.settle(now)
}

// drop ends an instance.
func (e *Engine) drop(k instanceKey, in *instance) {
	in.dead = true
	e.heap.set(in, never)
	delete(e.instances, k)
	for _, c := range in.cells {
		c.readers = slices.DeleteFunc(c.readers, func(o *instance) bool { return o == in })
		c.askers = slices.DeleteFunc(c.askers, func(o *instance) bool { return o == in })
	}
	e.accusers = slices.DeleteFunc(e.accusers, func(o *instance) bool { return o == in })
	e.wanting = slices.DeleteFunc(e.wanting, func(o *instance) bool { return o == in })
	for i := range e.flights {
		if e.flights[i].in == in {
			e.flights[i].in = nil
		}
	}
	if ts := in.on; ts != nil && ts.by == in {
		ts.by = nil
		if in.state != StateActing {
			ts.acting = 0 // only proposed
		}
	}
}

// targetFor returns the state of what a rung acts on.
func (e *Engine) targetFor(t Target) *targetState {
	ts := e.targets[t]
	if ts == nil {
		ts = &targetState{target: t, acted: unwell, well: unwell}
		e.targets[t] = ts
	}
	return ts
}

// sinceOf is how long ago a time is; for ever if it never was.
func sinceOf(now, at Boot) time.Duration {
	if at == unwell {
		return never
	}
	return now - at
}
