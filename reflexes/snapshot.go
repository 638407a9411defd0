package reflexes

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
)

// snapshot is the engine's state as it is stored. Together with the records
// that were journalled after it, it is all that a restart of the agent needs.
// What is known of the host is not in it: senses look again.
type snapshot struct {
	Format    int                `json:"format"`
	Boot      string             `json:"boot"`
	At        Boot               `json:"at"`
	Acts      ActID              `json:"acts"`
	Doubt     Boot               `json:"doubt,omitempty"`
	Host      []Boot             `json:"host,omitempty"`
	Rules     []ruleSnapshot     `json:"rules,omitempty"`
	Targets   []targetSnapshot   `json:"targets,omitempty"`
	Instances []instanceSnapshot `json:"instances,omitempty"`
	Loans     []Loan             `json:"loans,omitempty"`
	Mutes     []muteSnapshot     `json:"mutes,omitempty"`
	History   []Record           `json:"history,omitempty"`
}

type ruleSnapshot struct {
	Name  string `json:"name"`
	Hash  string `json:"hash"`
	Spent []Boot `json:"spent"`
}

type targetSnapshot struct {
	Target Target `json:"target"`
	Streak int    `json:"streak"`
	Acted  Boot   `json:"acted"`
	Ready  Boot   `json:"ready"`
}

type instanceSnapshot struct {
	Rule    string `json:"rule"`
	Hash    string `json:"hash"`
	Target  Target `json:"target"`
	State   State  `json:"state"`
	Held    Boot   `json:"held,omitempty"`
	Begun   Boot   `json:"begun,omitempty"`
	Level   int    `json:"level,omitempty"`
	Tries   int    `json:"tries,omitempty"`
	Checked bool   `json:"checked,omitempty"`
	Lasts   bool   `json:"lasts,omitempty"`
	Acted   Boot   `json:"acted,omitempty"`
	Act     ActID  `json:"act,omitempty"`
	Edges   int64  `json:"edges,omitempty"`
	Edge    Cause  `json:"edge,omitzero"`
}

type muteSnapshot struct {
	Rule   string `json:"rule,omitempty"`
	Target Target `json:"target,omitzero"`
	Until  Boot   `json:"until"`
	Why    Reason `json:"why"`
}

const snapshotFormat = 1

// Snapshot encodes the state of the engine.
func (e *Engine) Snapshot() ([]byte, error) {
	s := snapshot{
		Format: snapshotFormat, Boot: e.config.Boot, At: e.now, Acts: e.acts, Doubt: e.doubtUntil,
		Host: e.host.at, Loans: e.escrow.loans, History: e.ordered(),
	}
	for _, r := range e.rules {
		if len(r.spent.at) > 0 {
			s.Rules = append(s.Rules, ruleSnapshot{r.rule.Name, r.rule.Hash, r.spent.at})
		}
	}
	for t, ts := range e.targets {
		if ts.streak > 0 || ts.acted != unwell {
			s.Targets = append(s.Targets, targetSnapshot{t, ts.streak, ts.acted, ts.ready})
		}
	}
	for k, in := range e.instances {
		if in.state != StateInactive {
			s.Instances = append(s.Instances, instanceSnapshot{
				Rule: k.rule, Hash: in.rule.Hash, Target: k.target, State: in.state, Held: in.held, Begun: in.begun, Level: in.level,
				Tries: in.tries, Checked: in.checked, Lasts: in.lasts, Acted: in.acted, Act: in.act, Edges: in.edges, Edge: in.edge,
			})
		}
	}
	for k, m := range e.mutes {
		if m.until > e.now {
			s.Mutes = append(s.Mutes, muteSnapshot{k.rule, k.target, m.until, m.why})
		}
	}
	s.order()
	return json.Marshal(s)
}

// order makes equal states encode equally.
func (s *snapshot) order() {
	target := func(a, b Target) int { return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Name, b.Name)) }
	slices.SortFunc(s.Targets, func(a, b targetSnapshot) int { return target(a.Target, b.Target) })
	slices.SortFunc(s.Instances, func(a, b instanceSnapshot) int {
		return cmp.Or(cmp.Compare(a.Rule, b.Rule), target(a.Target, b.Target))
	})
	slices.SortFunc(s.Mutes, func(a, b muteSnapshot) int {
		return cmp.Or(cmp.Compare(a.Rule, b.Rule), target(a.Target, b.Target))
	})
}

// ordered returns the history, oldest first.
func (e *Engine) ordered() []Record {
	if len(e.history) < maxHistory {
		return e.history
	}
	return append(slices.Clone(e.history[e.newest+1:]), e.history[:e.newest+1]...)
}

// carried is what an earlier life left, until the rules that it belongs to are
// set and the targets are met.
type carried struct {
	sameBoot  bool
	at        Boot
	rules     map[string]*ruleSnapshot // by name and hash
	instances map[instanceKey]instanceSnapshot
}

// Restore gives a new engine, before its rules are set, the state of an earlier
// life: its last snapshot, nil if there is none, and the records of the journal,
// oldest first; those that the snapshot has already do no harm.
//
// In the same boot everything goes on: limits, back-offs, what was pending, what
// had fired. An act without a result is taken for done, with a result that
// nobody knows: it is never done again. After a boot what was spent counts as
// spent just now, loans are lost, mutes last as long as they had still to last,
// and nothing is pending: the host is another.
//
// A snapshot that cannot be read is an error, after which the engine works, and
// takes all limits for used up.
func (e *Engine) Restore(now Boot, data []byte, journal []Record) error {
	boot := e.config.Boot
	e.now = max(e.now, now)
	var s snapshot
	var failed error
	if data != nil {
		if failed = decodeSnapshot(data, &s); failed != nil {
			s = snapshot{}
			e.distrust = true
			e.host.exhaust(hostLimit, now)
			e.doubt(now)
		}
	}
	same := boot != "" && s.Boot == boot
	e.carried = &carried{sameBoot: same, at: s.At, rules: map[string]*ruleSnapshot{}, instances: map[instanceKey]instanceSnapshot{}}
	e.acts = s.Acts
	if len(s.Host) > 0 {
		e.host.restored(s.Host, same, hostLimit, now)
	}
	for i := range s.Rules {
		e.carried.rules[s.Rules[i].Name+" "+s.Rules[i].Hash] = &s.Rules[i]
	}
	e.restoreMutes(now, s, same)
	for _, r := range s.History {
		e.keep(r)
	}
	if same {
		e.restoreBoot(now, s)
	} else if data != nil {
		e.doubt(now)
	}
	e.replayJournal(now, boot, s.Acts, journal)
	return failed
}

func decodeSnapshot(data []byte, s *snapshot) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return fmt.Errorf("read state of reflexes: %w; limits begin used up", err)
	}
	if s.Format != snapshotFormat {
		return fmt.Errorf("read state of reflexes: format %d is not known; limits begin used up", s.Format)
	}
	return nil
}

func (e *Engine) restoreMutes(now Boot, s snapshot, same bool) {
	for _, m := range s.Mutes {
		until := m.Until
		if !same {
			until = now + max(m.Until-s.At, 0)
		}
		if m.Why != ReasonDeploying {
			m.Why = ReasonMuted
		}
		e.mutes[muteKey{m.Rule, m.Target}] = mute{until, m.Why}
	}
}

// restoreBoot takes over what means something only within one boot.
func (e *Engine) restoreBoot(now Boot, s snapshot) {
	e.doubtUntil = min(s.Doubt, now+doubtFor)
	for _, l := range s.Loans {
		e.escrow.Lend(l)
	}
	for _, t := range s.Targets {
		if t.Streak < 0 || t.Streak > 1<<20 {
			continue
		}
		ts := e.targetFor(t.Target)
		ts.streak, ts.acted, ts.ready = t.Streak, min(t.Acted, now), min(t.Ready, now+maxBackoff)
		if ts.acted < 0 {
			ts.acted = unwell
		}
	}
	for _, in := range s.Instances {
		e.carried.instances[instanceKey{in.Rule, in.Target}] = in
	}
}

// replayJournal pays for the acts that the snapshot does not know of, and finds
// those that have no result.
func (e *Engine) replayJournal(now Boot, boot string, known ActID, journal []Record) {
	results := map[ActID]Record{}
	for _, r := range journal {
		if r.Kind == RecordResult {
			results[r.Act] = r
		}
	}
	for _, r := range journal {
		switch {
		case r.Act <= known:
			if r.Kind == RecordResult && e.intent(r.Act) != nil {
				e.keep(r)
			}
			continue
		case r.Kind == RecordIntent:
			e.repay(now, boot, r)
			if e.carried.sameBoot || r.Boot == boot {
				result, ended := results[r.Act]
				e.carryAct(r, ended, result.OK)
			}
		}
		e.acts = max(e.acts, r.Act)
		e.keep(r)
	}
}

// repay spends what an act of the journal has cost.
func (e *Engine) repay(now Boot, boot string, r Record) {
	at := min(r.At, now)
	same := r.Boot == boot && boot != ""
	if !same {
		at = now
	}
	k := r.Rule + " " + r.Hash
	if e.carried.rules[k] == nil {
		e.carried.rules[k] = &ruleSnapshot{Name: r.Rule, Hash: r.Hash}
	}
	s := e.carried.rules[k]
	if !e.carried.sameBoot {
		at = now
	}
	s.Spent = append(s.Spent, at)
	if r.Loan != 0 {
		e.escrow.spent(r.Loan)
	}
	if r.Class == ClassTell || r.Leased {
		return
	}
	if !r.Revives {
		e.host.spend(hostLimit, at)
	}
	if same {
		e.targetFor(r.On).count(at, e.config.Seed)
	}
}

// carryAct leaves to the instance of a journalled act that it has acted, and that what
// it did under a lease lasts.
func (e *Engine) carryAct(r Record, ended, ok bool) {
	k := instanceKey{r.Rule, r.Target}
	in, known := e.carried.instances[k]
	if !known || in.Hash != r.Hash {
		in = instanceSnapshot{Rule: r.Rule, Hash: r.Hash, Target: r.Target, Begun: r.At}
	}
	in.Edges, in.Level, in.Checked, in.Lasts, in.Acted = 0, r.Rung, false, ended && ok && r.Leased, r.At
	in.State, in.Act = StateActing, r.Act
	if ended {
		in.State, in.Act = StateCooling, 0
	}
	e.carried.instances[k] = in
}

// carryRule gives a rule what its earlier life spent.
func (e *Engine) carryRule(s *ruleState, now Boot) {
	l := s.rule.limit
	if l.N == 0 {
		return
	}
	if e.distrust {
		s.spent.exhaust(l, now)
		return
	}
	if e.carried == nil {
		return
	}
	k := s.rule.Name + " " + s.rule.Hash
	if old := e.carried.rules[k]; old != nil {
		s.spent.restored(old.Spent, e.carried.sameBoot, l, now)
		delete(e.carried.rules, k)
	}
}

// carryInstance gives an instance the state of its earlier life.
func (e *Engine) carryInstance(in *instance, now Boot) {
	if e.carried == nil {
		return
	}
	k := instanceKey{in.rule.Name, in.target}
	old, ok := e.carried.instances[k]
	delete(e.carried.instances, k)
	if !ok || old.Hash != in.rule.Hash || old.State > StateOff || old.Level < 0 || old.Level >= len(in.rule.Rungs) {
		return
	}
	past := func(b Boot) Boot { return max(min(b, now), unwell) }
	in.state, in.level, in.tries, in.checked = old.State, old.Level, min(max(old.Tries, 0), 1<<20), old.Checked
	in.lasts = old.Lasts
	in.held, in.begun, in.acted = max(old.Held, 0), max(past(old.Begun), 0), past(old.Acted)
	in.edges, in.edge = min(max(old.Edges, 0), 1<<40), old.Edge
	if in.active() {
		in.on = e.targetFor(in.rung().acts(in.target))
	}
	switch in.state {
	case StatePending:
		in.held = min(in.held, in.rule.for_)
	case StateActing:
		// Nobody knows how it ended, and it is not done again.
		in.state, in.acted, in.edges, in.checked = StateCooling, now, 0, false
		if in.rung().occupies() {
			in.on.acted = now
		}
		e.note(Record{Kind: RecordResult, Act: old.Act, At: now, Boot: e.config.Boot, Detail: "the agent ended before it was known"})
	}
}
