package topology

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/ganglion-mesh/ganglion/intent"
)

const (
	maxDiffers = 64  // fields of one intent that are told
	maxPath    = 256 // bytes of the name of one
)

// Differs holds what differs about each intent that a command changes, by kind and
// name. It is for the story alone: what a change is, Apply sees for itself.
type Differs map[string][]string

// DiffersIn is what the story needs of changes.
func DiffersIn(changes []intent.Change) Differs {
	out := Differs{}
	for _, c := range changes {
		for _, f := range c.Fields[:min(len(c.Fields), maxDiffers)] {
			if key := c.Kind + "/" + c.Name; len(f.Path) <= maxPath {
				out[key] = append(out[key], f.Path)
			}
		}
	}
	return out
}

// IntentFact is an intent that was declared, changed or removed.
type IntentFact struct {
	Op     string   `json:"op"`   // of intent.Change
	Kind   string   `json:"kind"` // likewise
	Name   string   `json:"name"`
	Fields []string `json:"fields,omitempty"` // that differ
}

// What becomes of hosts that are not removed.
const (
	HostJoined   = "joined"
	HostDraining = "draining"
	HostDrained  = "drained"
)

// HostFact is a host that was enrolled, or is emptied.
type HostFact struct {
	Name   string `json:"name"`
	What   string `json:"what"`             // one of the Host… names
	Copies int    `json:"copies,omitempty"` // that are placed there
	ID     string `json:"id,omitempty"`     // of a host that joined
}

// CopyFact is a copy that got a host, lost it, or goes from one to another.
type CopyFact struct {
	App     string         `json:"app"`
	N       int            `json:"n"`
	From    string         `json:"from,omitempty"` // host it was on, if any
	To      string         `json:"to,omitempty"`   // host it is on, if any
	Version string         `json:"version,omitempty"`
	Ports   map[string]int `json:"ports,omitempty"`
	Why     string         `json:"why,omitempty"`    // as it was decided; empty: the rest says it
	As      *CopyKey       `json:"as,omitempty"`     // as Move.As
	Relief  *Relief        `json:"relief,omitempty"` // as Placement.Relief, and Surge
	Surge   bool           `json:"surge,omitempty"`
	Run     bool           `json:"run,omitempty"` // of a job, which is due since Due, if it is by a schedule
	Due     int64          `json:"due,omitempty"`
	Gone    Gone           `json:"gone,omitempty"`
}

// Gone is what was removed, and a placement with it.
type Gone string

// What can be removed with placements.
const (
	GoneApp  Gone = "app"
	GoneHost Gone = "host"
)

// Key names the copy.
func (c CopyFact) Key() CopyKey { return CopyKey{App: c.App, N: c.N} }

// Steps of rollouts that are told.
const (
	RolloutBegan    = "started"
	RolloutStepped  = "progressed"
	RolloutFinished = "done"
	RolloutFailed   = "failed"
	RolloutBack     = "rolledback"
	RolloutHeld     = "held"
)

// RolloutFact is one step of a rollout. A restart or a change of count tells only
// that it failed.
type RolloutFact struct {
	App     string `json:"app"`
	What    string `json:"what"` // one of the Rollout… names
	Version string `json:"version"`
	Other   string `json:"other,omitempty"` // started: what runs so far; rolledback: what runs again
	Phase   Phase  `json:"phase,omitempty"`
	Why     string `json:"why,omitempty"`
	Updated int    `json:"updated,omitempty"` // copies that have the version
	Want    int    `json:"want,omitempty"`    // copies there are to be
}

// RunFact is what was recorded of the runs of a job: that one ended, or, with
// Passed, why due times have none.
type RunFact struct {
	App     string     `json:"app"`
	Of      uint64     `json:"of,omitempty"`
	Outcome RunOutcome `json:"outcome,omitempty"`
	Why     string     `json:"why,omitempty"`
	Again   bool       `json:"again,omitempty"` // another run begins with it
	Passed  string     `json:"passed,omitempty"`
	Overlap bool       `json:"overlap,omitempty"`
}

// tell adds what c did to what the mesh is to be told: the one place where that is
// decided. It compares the state before with the one that has come about.
func (t *txn) tell(before *State, c Command) {
	switch {
	case c.PutIntents != nil:
		t.tellIntents(before, c.PutIntents.Differs)
	case c.Restore != nil:
		t.tellIntents(before, c.Restore.Differs)
	case c.DeleteApp != nil || c.DeleteReflex != nil || c.DeleteSense != nil:
		t.tellIntents(before, nil)
	case c.EnrolHost != nil:
		t.note(Fact{Host: &HostFact{Name: c.EnrolHost.Name, What: HostJoined, ID: c.EnrolHost.ID}})
	case c.SetDrain != nil:
		t.tellDrain(before, c.SetDrain.Host)
	case c.SetRollout != nil:
		t.tellRollout(before, *c.SetRollout)
	case c.RecordRuns != nil:
		t.tellRuns(c.RecordRuns.Runs)
	}
	t.tellCopies(before, c)
}

// named is an intent of any kind, as far as it matters for what became of it.
type named struct {
	kind, name string
	modified   uint64
}

func (s *State) allNamed() []named {
	list := make([]named, 0, s.apps.Len()+s.reflexes.Len()+s.senses.Len())
	for e := range values(s.apps) {
		list = append(list, named{intent.ChangeApp, e.Spec.Name, e.Modified})
	}
	for r := range values(s.reflexes) {
		list = append(list, named{intent.ChangeReflex, r.Spec.Name, r.Modified})
	}
	for x := range values(s.senses) {
		list = append(list, named{intent.ChangeSense, x.Spec.Name, x.Modified})
	}
	return list
}

func (t *txn) tellIntents(before *State, differs Differs) {
	had := map[named]bool{}
	for _, n := range before.allNamed() {
		n.modified = 0
		had[n] = true
	}
	for _, n := range t.allNamed() {
		op, modified := intent.OpAdd, n.modified
		n.modified = 0
		if had[n] {
			op = intent.OpChange
		}
		if delete(had, n); modified != t.index {
			continue
		}
		fields := differs[n.kind+"/"+n.name]
		t.note(Fact{Intent: &IntentFact{Op: op, Kind: n.kind, Name: n.name, Fields: fields[:min(len(fields), maxDiffers)]}})
	}
	for _, n := range slices.SortedFunc(maps.Keys(had), func(a, b named) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.name, b.name))
	}) {
		t.note(Fact{Intent: &IntentFact{Op: intent.OpRemove, Kind: n.kind, Name: n.name}})
	}
}

// tellDrain tells that a host is emptied, or is empty. To take it back is told by
// what is placed there.
func (t *txn) tellDrain(before *State, name string) {
	was, _ := before.Host(name)
	now, _ := t.Host(name)
	if now.Drain == was.Drain || now.Drain == DrainNone {
		return
	}
	fact := HostFact{Name: name, What: HostDrained}
	if now.Drain == DrainDraining {
		fact.What, fact.Copies = HostDraining, len(before.PlacementsOn(name))
	}
	t.note(Fact{Host: &fact, Chain: now.DrainChain})
}

// chainOf is what led to it that a copy has to go from its host, where acts of
// reflexes did.
func (s *State) chainOf(p Placement) string {
	if p.Evicted != "" {
		return p.EvictedChain
	}
	host, _ := s.Host(p.Host)
	return host.DrainChain
}

// tellCopies tells which copies have another host than before, and how far those
// of a rollout are.
func (t *txn) tellCopies(before *State, c Command) {
	hint := map[CopyKey]*Move{}
	for i := range c.moves() {
		hint[c.Place.Moves[i].Copy] = &c.Place.Moves[i]
	}
	rolled := map[string]bool{}
	for _, key := range slices.SortedFunc(maps.Keys(t.shifted), compareKeys) {
		old, had := before.Placement(key)
		now, has := t.Placement(key)
		had, has = had && !(has && before.Spent(old)), has && !t.Spent(now)
		fact, chain := CopyFact{App: key.App, N: key.N, From: old.Host, To: now.Host}, ""
		if had {
			chain = before.chainOf(old)
		}
		switch {
		case had && !has && !t.placed(key):
			t.tellGone(&fact, old, hint[key], c.RemoveHost != nil)
		case has && !had:
			fact.From, fact.Version, fact.Ports, fact.Relief, fact.Surge = "", now.Version, now.Ports, now.Relief, now.Surge
			if now.Relief != nil {
				relieved, _ := before.Placement(CopyKey{App: key.App, N: now.Relief.N})
				chain = before.chainOf(relieved)
			}
			app, _ := t.App(key.App)
			fact.Run, fact.Due = app.Job.Run.Index != 0, app.Job.Run.Due
		case has && had && old.Host != now.Host:
			if fact.Why = old.Leaving; hint[key] != nil {
				fact.Why = short1k(hint[key].Reason)
			}
		default:
			fact.From, fact.To = "", ""
		}
		if fact.From != fact.To {
			t.note(Fact{Copy: &fact, Chain: chain})
		}
		if app, ok := t.App(key.App); ok && has && c.Place != nil && app.Stable != "" && now.Version == app.Version && (!had || old.Version != now.Version) {
			rolled[key.App] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rolled)) {
		app, _ := t.App(name)
		t.note(Fact{Rollout: t.step(app, RolloutStepped)})
	}
}

// tellGone says what became of a copy that has no placement any more: it goes on
// under another name, or it does not.
func (t *txn) tellGone(fact *CopyFact, old Placement, move *Move, removed bool) {
	if move != nil && move.As != nil {
		fact.To, fact.As, fact.Why = move.To, move.As, short1k(move.Reason)
		return
	}
	fact.To, fact.Why, fact.Relief, fact.Surge = "", old.Leaving, old.Relief, old.Surge
	if _, ok := t.apps.Get([]byte(old.App)); !ok {
		fact.Gone = GoneApp
	} else if removed {
		fact.Gone = GoneHost
	}
}

func compareKeys(a, b CopyKey) int { return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.N, b.N)) }

// short1k bounds a reason as others are that are stored.
func short1k(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxReason)], "") }

// moves is what a Place says of why copies move.
func (c Command) moves() []Move {
	if c.Place == nil {
		return nil
	}
	return c.Place.Moves
}

func (t *txn) tellRollout(before *State, c SetRollout) {
	e, _ := before.App(c.App)
	was, now := e.Rollout, c.Rollout
	note := func(what, version, other, why string) {
		fact := t.step(e, what)
		fact.Version, fact.Other, fact.Why, fact.Phase = version, other, why, now.Phase
		t.note(Fact{Rollout: fact})
	}
	if was.Phase == "" && now.Phase != "" {
		note(RolloutBegan, now.Version, now.From, "")
	}
	if now.Reason != "" && was.Reason == "" {
		note(RolloutFailed, now.Version, "", now.Reason)
	}
	switch {
	case c.Revert:
	case now.Outcome == OutcomeHeld:
		note(RolloutHeld, now.Version, "", now.Reason)
	case now.Outcome == OutcomeRolledBack:
		note(RolloutBack, now.Failed, now.Version, now.Reason)
	case now.Outcome == OutcomeDone && now.Phase != "":
		note(RolloutFinished, now.Version, "", "")
	case was.Phase != "" && now.Phase != was.Phase:
		note(RolloutStepped, now.Version, "", "")
	}
}

// step is how far a rollout to the app's version is.
func (t *txn) step(a App, what string) *RolloutFact {
	fact := RolloutFact{App: a.Spec.Name, What: what, Version: a.Version, Phase: a.Rollout.Phase, Want: a.Spec.Copies()}
	perHost := 0
	for p := range prefixed(t.copies, a.Spec.Name) {
		if p.Version == a.Version {
			fact.Updated++
		}
		if !p.Surge {
			perHost++
		}
	}
	if a.Spec.PerHost {
		fact.Want = perHost
	}
	return &fact
}

func (t *txn) tellRuns(runs []RunRecord) {
	for _, r := range runs {
		if r.Outcome == RunDone || r.Outcome == RunFailed {
			t.note(Fact{Run: &RunFact{App: r.App, Of: r.Of, Outcome: r.Outcome, Why: r.Why, Again: r.Begin}})
		}
		if r.Passed != "" {
			t.note(Fact{Run: &RunFact{App: r.App, Of: r.Of, Passed: r.Passed, Overlap: r.Overlap}})
		}
	}
}
