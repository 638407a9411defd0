package reflexes

import (
	"slices"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/intent/expr"
)

// Authority is what the owner knows, at the moment of an act and not before, of
// what the mesh allows. The zero value allows what needs nobody: class A.
type Authority struct {
	Frozen     bool          // the whole mesh is frozen
	FrozenApps []string      // these apps are
	Hard       bool          // the freeze holds restarts in place too
	SameRule   int           // hosts, this one among them, on which the rule fired or wanted to in the last minute; see Engine.Wants
	GateShut   bool          // too many hosts look unhealthy to this one
	Needless   bool          // what the act is for is so already, or under way
	Asking     bool          // a leader is being asked for its permit and a token, or will be if one is missing: nothing is told yet
	AskAt      Boot          // when a leader is asked again, if not now
	Lacks      string        // what a leader said when it lent no token, or why none could be asked
	PermitAge  time.Duration // how long ago a leader last permitted class B
	Permitted  bool          // a leader ever did, in this boot
	Witnessed  bool          // of a rule about a peer: another host has seen the same
	Leased     bool          // of claim: this host holds the lease
	Staged     string        // of class B: why the rule is not in force on this host, as it is known by now; empty: it is
	Scarce     bool          // acting would leave too few ready copies, or the mesh's ledger of disruptions is full
}

// Act is what may be done now. It has been recorded and paid for: it is done,
// or it is lost.
type Act struct {
	ID      ActID
	Rule    string
	Target  Target // what the rule is about
	On      Target // what to act on
	Tell    []intent.Action
	Do      intent.Action // Op "" if it only tells
	Class   Class
	Durable bool   // its record has to be on disk before it begins
	Loan    uint64 // of class B: the loan that paid for it
	Until   Boot   // of class B: when that is over, and it may begin no more
	Stage   uint64 // Staging.ID of the rule
	Chain   string // rules whose acts led to it and, last, its own: what is behind all that it causes
	Sensed  Boot   // when what led to it was seen
	Facts   []Fact
}

// Permit tells, just before the act and on the goroutine that will do it or has
// ordered it, whether a firing may act. If it may, the act's record is made and
// all that it costs is spent; the caller writes the record, acts, and calls
// Done. If it may not, the rule tries again by itself.
func (e *Engine) Permit(now Boot, f Firing, a Authority) (Act, bool) {
	now = e.enter(now)
	in := f.in
	if in == nil || in.dead || in.id != f.id || !in.wantsToAct() {
		e.tell(Outcome{Kind: Suppressed, Reason: ReasonGone, Rule: f.Rule, Target: f.Target, At: now, Action: f.Rung.String()})
		return Act{}, false
	}
	rung, ts := in.rung(), in.on
	r, retry := e.current(now, in)
	if r == ReasonNone {
		r, retry = e.local(now, in, ts)
	}
	staged := in.staged()
	if staged == "" && rung.op.class == ClassB {
		staged = a.Staged
	}
	switch {
	case r == ReasonNone && staged != "":
		r, in.lacks = ReasonStaged, staged
	case r == ReasonNone:
		r = e.allowed(now, in, a)
		retry = now + time.Second
		switch r {
		case ReasonTokens, ReasonDeadMan:
			in.lacks, retry = a.Lacks, max(retry, a.AskAt) // or with any answer: see Lend
		case ReasonLease:
			in.lacks = a.Lacks
		}
	}
	switch {
	case in.rule.Observe, staged != "":
		e.observe(now, in, r)
		e.settle(now)
		return Act{}, false
	case r != ReasonNone:
		e.refuse(now, in, r, retry)
		e.dirty(in)
		e.settle(now)
		return Act{}, false
	}
	act := e.start(now, in, ts, rung)
	e.heap.set(in, in.deadline(now))
	e.promise(now)
	return act, true
}

// current tells whether what fired still holds.
func (e *Engine) current(now Boot, in *instance) (Reason, Boot) {
	if len(in.rule.edges) > 0 {
		return ReasonNone, 0
	}
	switch in.conditionTruth(in.rule.when, now).Truth {
	case expr.False:
		return ReasonOver, now
	case expr.Unknown:
		return ReasonUnknown, now + time.Second
	}
	return ReasonNone, 0
}

// allowed holds an act against what the mesh allows.
func (e *Engine) allowed(now Boot, in *instance, a Authority) Reason {
	rung := in.rung()
	if rung.op.class == ClassTell {
		return ReasonNone
	}
	frozen := a.Frozen || slices.Contains(a.FrozenApps, in.on.target.app()) && in.on.target.app() != ""
	switch {
	case frozen && (a.Hard || !rung.revives):
		return ReasonFrozen
	case rung.revives:
		return ReasonNone // nothing that runs is disturbed
	case a.SameRule >= correlated && !rung.op.leased:
		return ReasonCorrelated
	case a.Scarce:
		return ReasonDisruption
	case rung.op.class == ClassA:
		return ReasonNone
	case now < e.doubtUntil:
		return ReasonDoubt
	case a.GateShut:
		return ReasonGate
	case a.Needless:
		return ReasonNeedless
	case in.rule.Scope == ScopePeer && !a.Witnessed:
		return ReasonWitness
	case in.rule.Observe:
		return ReasonNone // nobody asks a leader for what is not done
	case rung.op.leased:
		return e.leased(a)
	}
	if now < in.state0.since+listen {
		return ReasonListening
	}
	return e.covered(now, in, a)
}

// leased holds an act against the lease that it needs, which is a leader's fresh
// permit too. It is looked at last, so that no lease is asked for in vain.
func (e *Engine) leased(a Authority) Reason {
	switch {
	case a.Leased:
		return ReasonNone
	case a.Asking:
		e.unleased = true
		return ReasonAsking
	}
	e.unleased = true
	return ReasonLease
}

// Unleased tells whether, since it was asked last, an act was refused for want of
// its lease alone: then it is time to ask for that.
func (e *Engine) Unleased() bool {
	unleased := e.unleased
	e.unleased = false
	return unleased
}

// Leased tells that the lease has come that an act of a rule waits for.
func (e *Engine) Leased(now Boot, rule string, t Target) {
	now = e.enter(now)
	if in := e.instances[instanceKey{rule, t}]; in != nil && in.wantsToAct() && in.id == 0 && in.rung().op.leased {
		in.retry = min(in.retry, now)
		e.dirty(in)
	}
	e.settle(now)
}

// Lapsed tells that what an act did under a lease is so no more, though the matter
// is not over: the rule wants it again.
func (e *Engine) Lapsed(now Boot, rule string, t Target) {
	now = e.enter(now)
	if in := e.instances[instanceKey{rule, t}]; in != nil && in.lasting() {
		in.lasts = false
		e.again(now, in)
	}
	e.settle(now)
}

// covered holds an act that reaches further against what only a leader can give.
// It is looked at last, so that nobody asks for it in vain.
func (e *Engine) covered(now Boot, in *instance, a Authority) Reason {
	permitted := a.Permitted && a.PermitAge <= deadMan
	if permitted && e.escrow.Tokens(now) > 0 {
		return ReasonNone
	}
	e.lacks(in)
	switch {
	case a.Asking:
		return ReasonAsking
	case !permitted:
		return ReasonDeadMan
	}
	return ReasonTokens
}

// Short tells whether, since it was asked last, an act was refused for want of a
// token or of a leader's permit alone: then it is time to ask one.
func (e *Engine) Short() bool {
	short := e.short
	e.short = false
	return short
}

// start pays for an act and records it.
func (e *Engine) start(now Boot, in *instance, ts *targetState, rung *Rung) Act {
	e.acts++
	rec := Record{
		Kind: RecordIntent, Act: e.acts, At: now, Boot: e.config.Boot, Class: rung.op.class, Rule: in.rule.Name, Hash: in.rule.Hash, Target: in.target, On: ts.target,
		Action: rung.text, Rung: in.level, Durable: rung.op.durable, Revives: rung.revives, Leased: rung.op.leased,
	}
	rec.Chain = e.chain(in.cause(now))
	var until Boot
	if rung.op.class == ClassB && !rung.op.leased {
		rec.Loan, until = e.escrow.spend(now)
	}
	e.pay(now, in.state0, ts, rung)
	e.note(rec)
	if rung.occupies() {
		ts.acting, ts.by = e.acts, in
	}
	e.flights = append(e.flights, flight{act: e.acts, in: in, ts: ts, at: now})
	in.id, in.edges, in.act, in.actAt, in.checked = 0, 0, e.acts, now, false
	in.lasts = false
	in.refused, in.times, in.retry = ReasonNone, 0, 0
	in.enter(now, StateActing)
	e.tell(Outcome{Kind: Fired, Rule: in.rule.Name, Target: in.target, Action: rung.text, Act: e.acts, At: now, Sensed: in.sensed, Facts: in.seen})
	return Act{
		ID: e.acts, Rule: in.rule.Name, Target: in.target, On: ts.target, Tell: rung.Tell, Do: rung.Do,
		Class: rung.op.class, Durable: rung.op.durable, Loan: rec.Loan, Until: until, Stage: in.state0.stage.ID, Sensed: in.sensed, Facts: in.seen,
		Chain: rec.Through(),
	}
}

// pay spends what an act costs: of the rule's limit, the host's, and the
// target's patience.
func (e *Engine) pay(now Boot, s *ruleState, ts *targetState, rung *Rung) {
	if s != nil && s.rule.limit.N > 0 {
		s.spent.spend(s.rule.limit, now)
	}
	if !rung.occupies() {
		return
	}
	if !rung.revives {
		e.host.spend(hostLimit, now)
	}
	ts.count(now, e.config.Seed)
}

// observe tells what a rule that only observes would have done, and goes on as
// if it had, at the cost of its own limit alone.
func (e *Engine) observe(now Boot, in *instance, r Reason) {
	in.release()
	o := Outcome{Kind: Observed, Reason: r, Rule: in.rule.Name, Target: in.target, Action: in.rung().text, At: now, Sensed: in.sensed, Facts: in.seen}
	if r == ReasonStaged {
		o.Detail = in.lacks
	}
	e.tell(o)
	if l := in.rule.limit; l.N > 0 {
		in.state0.spent.spend(l, now)
	}
	in.edges, in.checked, in.lasts, in.acted = 0, true, false, now
	in.enter(now, StateCooling)
	e.dirty(in)
}

// Done ends an act: ok, or what went wrong. Facts that it has caused carry its
// ID, before Done and after.
func (e *Engine) Done(now Boot, act ActID, ok bool, detail string) {
	now = e.enter(now)
	e.end(now, act, ok, detail)
	e.settle(now)
}

func (e *Engine) end(now Boot, act ActID, ok bool, detail string) {
	i := slices.IndexFunc(e.flights, func(f flight) bool { return f.act == act })
	if i < 0 {
		return // known already, or of another life
	}
	f := e.flights[i]
	e.flights = slices.Delete(e.flights, i, i+1)
	e.note(Record{Kind: RecordResult, Act: act, At: now, Boot: e.config.Boot, OK: ok, Detail: beginning(detail)})
	if f.ts != nil && f.ts.acting == act {
		f.ts.acting, f.ts.by, f.ts.acted = 0, nil, now
	}
	in := f.in
	if in == nil || in.act != act {
		return
	}
	e.tell(Outcome{Kind: Finished, Rule: in.rule.Name, Target: in.target, Action: in.rung().text, Act: act, At: now, OK: ok, Detail: detail, Facts: in.seen})
	in.act, in.acted = 0, now
	in.enter(now, StateCooling)
	if in.lasts = ok && in.rung().op.leased; in.lasts { // it is not there to help
		in.tries = 0
	}
	if !ok && len(in.rule.edges) > 0 && in.edges == 0 {
		in.edges = 1 // what the edge asked for has not been done
	}
	if in.edges > 0 {
		e.notHelped(now, in)
	}
	e.dirty(in)
}

// beginning is what of a detail is kept with a record: an event has all of it.
func beginning(detail string) string {
	const most = 512
	if len(detail) <= most {
		return detail
	}
	return strings.ToValidUTF8(detail[:most], "") + "…"
}

// Wants returns the rules that fired, or wanted to, on this host within the last
// minute, and would disturb something: what hosts tell each other, so that each
// can see a common cause.
func (e *Engine) Wants(now Boot) []string {
	var out []string
	for _, s := range e.rules {
		if s.wanted != unwell && now-s.wanted < time.Minute {
			out = append(out, s.rule.Name)
		}
	}
	return out
}

// wish notes that a rule wants to disturb something.
func (e *Engine) wish(now Boot, s *ruleState) {
	if s.wanted == unwell || now-s.wanted >= time.Minute {
		s.since = now
	}
	s.wanted = now
	if s.shown == unwell || now-s.shown >= tellOthers {
		s.shown, e.wished = now, true
	}
}

// Wished tells whether, since it was asked last, Wants has got something that other
// hosts are to be told, or to be told again.
func (e *Engine) Wished() bool {
	wished := e.wished
	e.wished = false
	return wished
}

// Reset lets a person begin a rule anew with a target, its back-off too.
func (e *Engine) Reset(now Boot, rule string, t Target) bool {
	now = e.enter(now)
	in := e.instances[instanceKey{rule, t}]
	if in == nil || in.state == StateActing {
		return false
	}
	if in.on != nil {
		in.on.streak, in.on.ready = 0, 0
	}
	e.beginAnew(now, in)
	e.settle(now)
	return true
}
