package topology

import (
	"errors"
	"fmt"
)

// The settings of a mesh that there are.
const (
	SettingRebalance  = "rebalance"
	SettingSignatures = "signatures" // whether packages must be signed
	SettingKeys       = "keys"       // whose signatures count

	SettingReflexStage = "reflex_stage"
)

const (
	// MaxUntold is how many facts wait to be told, the latest ones. A leader tells
	// them as they come: they pile up only while it cannot write to its disk.
	MaxUntold = 5000
	maxBy     = 256 // bytes of who asked for something
)

// Fact is a decision that the mesh is to be told of, as an event. It is kept until
// a leader has told it: one that dies between the decision and the event leaves
// that to the next, so that it may be told twice, but is not lost. Index and Nth
// tell it from every other of this log. One of the pointers is set.
type Fact struct {
	Index uint64 `json:"index"`         // of the command
	Nth   int    `json:"nth,omitempty"` // of those of the command
	At    int64  `json:"at,omitempty"`  // Unix milliseconds by the clock of who proposed it; for display alone
	By    string `json:"by,omitempty"`  // who asked for it; empty: the mesh itself
	// Chain are the rules of reflexes whose acts led to it, in their order.
	Chain string `json:"chain,omitempty"`

	Removed *Revocation    `json:"removed,omitempty"`
	Setting *SettingChange `json:"setting,omitempty"`
	Staged  *StageChange   `json:"staged,omitempty"`
	Intent  *IntentFact    `json:"intent,omitempty"`
	Host    *HostFact      `json:"host,omitempty"`
	Copy    *CopyFact      `json:"copy,omitempty"`
	Rollout *RolloutFact   `json:"rollout,omitempty"`
	Run     *RunFact       `json:"run,omitempty"`
	// Missed is how many facts up to this one were not kept.
	Missed uint64 `json:"missed,omitempty"`
}

// StageChange is a step of a staged reflex.
type StageChange struct {
	Rule   string   `json:"rule"` // as RuleKey names it
	Reach  Reach    `json:"reach,omitempty"`
	Hosts  []string `json:"hosts,omitempty"`
	Zone   string   `json:"zone,omitempty"`
	Why    string   `json:"why,omitempty"`
	Former bool     `json:"former,omitempty"` // there is a version that is in force in its stead
}

// SettingChange is a change of a setting of the mesh, in words as users write
// them. A key that is trusted has no From, one that no longer is no To.
type SettingChange struct {
	Setting string `json:"setting"` // one of the Setting… names
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
}

// Told takes the facts up to an index for told.
type Told struct {
	Index uint64 `json:"index"`
}

// unkept counts the facts that were not kept, and up to which index.
type unkept struct {
	Facts uint64 `json:"facts"`
	Index uint64 `json:"index"`
}

// Untold returns the facts from an index on that no leader is known to have told,
// in order. Where some were not kept the first one says so.
func (s *State) Untold(from uint64) []Fact {
	var list []Fact
	if s.missed.Facts > 0 && s.missed.Index >= from {
		list = append(list, Fact{Index: s.missed.Index, Missed: s.missed.Facts})
	}
	it := s.untold.Root().Iterator()
	it.SeekLowerBound(indexKey(from))
	for _, batch, ok := it.Next(); ok; _, batch, ok = it.Next() {
		list = append(list, batch...)
	}
	return list
}

// kept is what is kept of facts.
func (s *State) kept() (list []Fact) {
	for batch := range values(s.untold) {
		list = append(list, batch...)
	}
	return list
}

// AllTold reports whether there is nothing to tell, and Crowded whether so much
// that it should be recorded at once that it is told.
func (s *State) AllTold() bool { return s.untoldN == 0 && s.missed.Facts == 0 }

// Crowded is described at AllTold.
func (s *State) Crowded() bool { return s.untoldN > MaxUntold/4 || s.missed.Facts > 0 }

// note adds a fact.
func (t *txn) note(f Fact) { t.facts = append(t.facts, f) }

// noteSetting adds the change of a setting; what is as it was is none.
func (t *txn) noteSetting(setting, from, to string) {
	if from != to {
		t.note(Fact{Setting: &SettingChange{setting, from, to}})
	}
}

// keepFacts keeps what the command has added, and forgets the oldest of too many.
func (t *txn) keepFacts(by string, at int64) {
	if len(t.facts) == 0 {
		return
	}
	for i := range t.facts {
		f := &t.facts[i]
		f.Index, f.Nth, f.By, f.At = t.index, i, by, at
	}
	if excess := len(t.facts) - MaxUntold; excess > 0 {
		t.facts = t.facts[excess:]
		t.miss(excess, t.index)
	}
	t.untold, _, _ = t.untold.Insert(indexKey(t.index), t.facts)
	for t.untoldN += len(t.facts); t.untoldN > MaxUntold; {
		key, oldest, _ := t.untold.Root().Minimum()
		t.untold, _, _ = t.untold.Delete(key)
		t.untoldN -= len(oldest)
		t.miss(len(oldest), oldest[0].Index)
	}
}

func (t *txn) miss(facts int, index uint64) {
	t.missed = unkept{t.missed.Facts + uint64(facts), max(t.missed.Index, index)}
}

// told forgets what was told. The revision stays: nothing that anyone acts on is
// another.
func (t *txn) told(c Told) {
	if t.missed.Index <= c.Index {
		t.missed = unkept{}
	}
	for t.untold.Len() > 0 {
		key, oldest, _ := t.untold.Root().Minimum()
		if oldest[0].Index > c.Index {
			return
		}
		t.untold, _, _ = t.untold.Delete(key)
		t.untoldN -= len(oldest)
	}
}

// word is the policy as users write it.
func (p Signing) word() string {
	if p.Required {
		return "required"
	}
	return "optional"
}

// noteSigning adds what differs between two policies.
func (t *txn) noteSigning(before, after Signing) {
	t.noteSetting(SettingSignatures, before.word(), after.word())
	for _, k := range after.Keys {
		if before.Name(k.Key) != k.Name {
			t.noteSetting(SettingKeys, "", k.Name+" "+k.Key)
		}
	}
	for _, k := range before.Keys {
		if after.Name(k.Key) != k.Name {
			t.noteSetting(SettingKeys, k.Name+" "+k.Key, "")
		}
	}
}

// keep holds what a snapshot says of facts, and takes it in.
func (s *State) keep(list []Fact, missed unkept) error {
	last := Fact{Nth: -1}
	for i, f := range list {
		again := f.Index == last.Index && f.Nth > last.Nth
		if (!again && f.Index <= last.Index) || f.Index > s.revision || f.kinds() != 1 {
			return fmt.Errorf("the fact of index %d cannot have come about", f.Index)
		}
		if last = f; !again {
			s.untold, _, _ = s.untold.Insert(indexKey(f.Index), batchOf(list[i:]))
		}
	}
	if s.untoldN, s.missed = len(list), missed; len(list) > MaxUntold || missed.Index > s.revision {
		return errors.New("too many facts")
	}
	return nil
}

// batchOf is what is of one index at the head of a list.
func batchOf(list []Fact) []Fact {
	n := 0
	for n < len(list) && list[n].Index == list[0].Index {
		n++
	}
	return list[:n:n]
}

// kinds is how many of its pointers are set.
func (f Fact) kinds() (n int) {
	for _, set := range []bool{f.Removed != nil, f.Setting != nil, f.Staged != nil, f.Intent != nil, f.Host != nil, f.Copy != nil, f.Rollout != nil, f.Run != nil} {
		if set {
			n++
		}
	}
	return n
}
