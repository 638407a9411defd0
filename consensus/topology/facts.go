package topology

import "strconv"

// The settings of a mesh whose changes are facts.
const (
	SettingRebalance  = "rebalance"
	SettingSignatures = "signatures" // whether packages must be signed
	SettingKeys       = "keys"       // whose signatures count

	SettingReflexStage = "reflex_stage"
)

const (
	// MaxUntold is how many facts wait to be told, the latest ones.
	MaxUntold = 1000
	maxBy     = 256 // bytes of who asked for something
)

// Fact is a decision that the mesh is to be told of, as an event, and that leaves
// no other trace by which to see that it was told. It is kept until a leader has
// told it: one that dies between the decision and the event leaves that to the
// next, so that it may be told twice, but is not lost. One of Removed, Setting and Staged is set.
type Fact struct {
	Index   uint64         `json:"index"`
	By      string         `json:"by,omitempty"` // who asked for it
	Removed *Revocation    `json:"removed,omitempty"`
	Setting *SettingChange `json:"setting,omitempty"`
	Staged  *StageChange   `json:"staged,omitempty"`
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

// one reports whether exactly one thing is set.
func (f Fact) one() bool {
	return btoi(f.Removed != nil)+btoi(f.Setting != nil)+btoi(f.Staged != nil) == 1
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

// Untold returns the facts that no leader is known to have told, in order.
func (s *State) Untold() []Fact { return s.untold }

// note adds a fact.
func (t *txn) note(f Fact) {
	f.Index = t.index
	list := append([]Fact(nil), t.untold[max(0, len(t.untold)+1-MaxUntold):]...)
	t.untold = append(list, f)
}

// noteSetting adds the change of a setting; what is as it was is none.
func (t *txn) noteSetting(by, setting, from, to string) {
	if from != to {
		t.note(Fact{By: by, Setting: &SettingChange{setting, from, to}})
	}
}

// told forgets what was told. The revision stays: nothing that anyone acts on is
// another.
func (t *txn) told(c Told) {
	var left []Fact
	for _, f := range t.untold {
		if f.Index > c.Index {
			left = append(left, f)
		}
	}
	t.untold = left
}

func checkBy(what, by string) *Rejected {
	if len(by) > maxBy {
		return reject(RejectInvalid, "%s: who asks for it has %d bytes, the limit is %d", what, len(by), maxBy)
	}
	return nil
}

// word is the policy as users write it.
func (p Signing) word() string {
	if p.Required {
		return "required"
	}
	return "optional"
}

// noteSigning adds what differs between two policies.
func (t *txn) noteSigning(by string, before, after Signing) {
	t.noteSetting(by, SettingSignatures, before.word(), after.word())
	for _, k := range after.Keys {
		if before.Name(k.Key) != k.Name {
			t.noteSetting(by, SettingKeys, "", k.Name+" "+k.Key)
		}
	}
	for _, k := range before.Keys {
		if after.Name(k.Key) != k.Name {
			t.noteSetting(by, SettingKeys, k.Name+" "+k.Key, "")
		}
	}
}

// checkUntold holds what a snapshot says of facts.
func (s *State) checkUntold() string {
	last := uint64(0)
	for _, f := range s.untold {
		if !f.one() || f.Index < last || f.Index > s.revision {
			return "the fact of index " + strconv.FormatUint(f.Index, 10) + " cannot have come about"
		}
		last = f.Index
	}
	if len(s.untold) > MaxUntold+1 {
		return "too many facts"
	}
	return ""
}
