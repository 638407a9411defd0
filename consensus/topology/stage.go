package topology

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ganglion-mesh/ganglion/intent"
	iradix "github.com/hashicorp/go-immutable-radix/v2"
)

// Reach is how far a new or changed reflex is in force (rail 18).
type Reach string

// How far a reflex has come: on no host yet, on one, on some more, or on all, where
// it is on trial a last time. One that was taken back is in force nowhere.
const (
	ReachNone  Reach = ""
	ReachHost  Reach = "host"
	ReachPart  Reach = "part"
	ReachAll   Reach = "all"
	ReachTaken Reach = "reverted"
	ReachDone  Reach = "done" // of SetStage alone: it is staged no more
)

// maxStageActs bounds the acts that a Stage remembers: the budget lets a mesh do no
// more of them while they matter.
const maxStageActs = 512

// Stage is a reflex that reaches beyond the copies of its host and is new, or was
// changed, and is not yet in force everywhere. Where it is not, what it would do is
// only told, and Former is in force in its stead.
type Stage struct {
	Rule  string   `json:"rule"`            // as RuleKey names it
	Begun uint64   `json:"begun"`           // the index at which it was declared: what tells it from other versions
	Step  uint64   `json:"step"`            // the index at which it came to Reach
	Reach Reach    `json:"reach,omitempty"` //
	Hosts []string `json:"hosts,omitempty"` // on which it is in force, of ReachHost and ReachPart; sorted
	First string   `json:"first,omitempty"` // the host that was chosen first
	Zone  string   `json:"zone,omitempty"`  // that Hosts are of; empty: they are a share of all hosts
	Why   string   `json:"why,omitempty"`   // of ReachTaken
	// Former is the version before, as far as it was in force everywhere; nil: there
	// was none.
	Former *intent.Reflex `json:"former,omitempty"`
	Acts   []StageAct     `json:"acts,omitempty"` // what it has done beyond copies, in order
}

// StageAct is an act of a staged reflex that reached beyond copies.
type StageAct struct {
	Host  string `json:"host"`
	Index uint64 `json:"index"`
}

// RuleRef names the version of a reflex that acts: Stage is Stage.Begun of the slice
// by which its host has it, 0 if it was not staged there.
type RuleRef struct {
	Rule  string `json:"rule"`
	Stage uint64 `json:"stage,omitempty"`
}

// SetStage takes a staged reflex from one step to another. It is rejected if the
// step is another than Expect by now.
type SetStage struct {
	Rule   string   `json:"rule"`
	Expect uint64   `json:"expect"` // Stage.Step
	Reach  Reach    `json:"reach,omitempty"`
	Hosts  []string `json:"hosts,omitempty"`
	First  string   `json:"first,omitempty"`
	Zone   string   `json:"zone,omitempty"`
	Why    string   `json:"why,omitempty"`
}

// NoteAct records that a host is about to do something, by a staged reflex, that
// reaches beyond copies and that no other command does, and takes the token of its
// loan that pays for it.
type NoteAct struct {
	Host string  `json:"host"`
	What string  `json:"what"` // "restart of nginx.service"
	Loan uint64  `json:"loan"`
	For  RuleRef `json:"for"`
}

// RuleStage is what a host gets to know of a staged reflex.
type RuleStage struct {
	Rule    string         `json:"rule"`
	Begun   uint64         `json:"begun"`
	InForce bool           `json:"in_force,omitempty"` // here
	Why     string         `json:"why,omitempty"`      // how far it is, in words
	Former  *intent.Reflex `json:"former,omitempty"`   // in force here instead
}

// RuleKey is the name by which hosts know a reflex: its own, and before it that of
// the app that it is in.
func RuleKey(app, reflex string) string {
	if app == "" {
		return reflex
	}
	return app + "/" + reflex
}

// Stages returns the reflexes that are staged, by name.
func (s *State) Stages() []Stage { return listed(s.stages) }

// Stage returns how far a reflex is, by its RuleKey; false: it is in force
// everywhere, or there is none.
func (s *State) Stage(rule string) (Stage, bool) { return found(s.stages, rule) }

// StageSteps returns the indexes whose ages decide about staged reflexes: see
// Observations.Staged.
func (s *State) StageSteps() (list []uint64) {
	for st := range values(s.stages) {
		list = append(list, st.Step)
		for _, a := range st.Acts {
			list = append(list, a.Index)
		}
	}
	return list
}

// InForce reports whether the new version is in force on a host.
func (st Stage) InForce(host string) bool {
	switch st.Reach {
	case ReachAll:
		return true
	case ReachHost, ReachPart:
		_, found := slices.BinarySearch(st.Hosts, host)
		return found
	}
	return false
}

// String says how far it is.
func (st Stage) String() string {
	switch st.Reach {
	case ReachHost:
		return "stage 1 of 3: on host " + st.First + " alone"
	case ReachPart:
		if st.Zone != "" {
			return fmt.Sprintf("stage 2 of 3: in zone %s, hosts: %d", st.Zone, len(st.Hosts))
		}
		return fmt.Sprintf("stage 2 of 3: on a tenth of the hosts: %d", len(st.Hosts))
	case ReachAll:
		return "stage 3 of 3: on all hosts, for a last look"
	case ReachTaken:
		return "taken back: " + st.Why
	}
	return "stage 1 of 3: no host was chosen yet"
}

// Refuses says why a version of a reflex is not to act on a host beyond its copies,
// or "".
func (s *State) Refuses(ref RuleRef, host string) string {
	st, staged := s.stages.Get([]byte(ref.Rule))
	switch {
	case !staged: // it is in force everywhere, or was never staged
		return ""
	case ref.Stage == st.Begun:
		if !st.InForce(host) {
			return fmt.Sprintf("reflex %s is not in force on host %s (%s)", ref.Rule, host, st)
		}
	case ref.Stage == 0 && st.Former != nil && !st.InForce(host):
	default:
		return fmt.Sprintf("host %s has a version of reflex %s that is not in force there any more", host, ref.Rule)
	}
	return ""
}

// stagesOn is what a host gets to know of staged reflexes: those of the mesh, and
// those of the apps that it has copies of.
func (s *State) stagesOn(host string) (list []RuleStage) {
	for st := range values(s.stages) {
		if app, _, of := strings.Cut(st.Rule, "/"); of && !s.hasOn(host, app) {
			continue
		}
		one := RuleStage{Rule: st.Rule, Begun: st.Begun, InForce: st.InForce(host), Why: st.String()}
		if !one.InForce {
			one.Former = st.Former
		}
		list = append(list, one)
	}
	return list
}

func (s *State) hasOn(host, app string) bool {
	for p := range prefixed(s.onHost, host) {
		if p.App == app {
			return true
		}
	}
	return false
}

// rule returns a declared reflex by its RuleKey.
func (s *State) rule(key string) (intent.Reflex, bool) {
	app, name, of := strings.Cut(key, "/")
	if !of {
		r, ok := s.Reflex(key)
		return r.Spec, ok
	}
	if e, ok := s.apps.Get([]byte(app)); ok {
		for _, r := range e.Spec.Reflexes {
			if r.Name == name {
				return r, true
			}
		}
	}
	return intent.Reflex{}, false
}

// rulesOf are the RuleKeys of the reflexes in intents, in their order.
func rulesOf(in intent.Intents) (keys []string) {
	for _, r := range in.Reflexes {
		keys = append(keys, RuleKey("", r.Name))
	}
	for _, a := range in.Apps {
		for _, r := range a.Reflexes {
			keys = append(keys, RuleKey(a.Name, r.Name))
		}
	}
	return keys
}

// Reverted reports whether a reflex of in was taken back: to declare it again, as it
// is, tries it once more.
func (s *State) Reverted(in intent.Intents) bool {
	return slices.ContainsFunc(rulesOf(in), func(key string) bool {
		st, ok := s.Stage(key)
		return ok && st.Reach == ReachTaken
	})
}

// restage begins the stages of what was declared since before and is not as it was.
func (t *txn) restage(before *iradix.Tree[*appEntry], rules *iradix.Tree[*Reflex], c PutIntents) {
	old := &State{apps: before, reflexes: rules}
	for _, key := range rulesOf(c.Intents) {
		spec, ok := t.rule(key)
		if !ok {
			continue
		}
		former, had := old.rule(key)
		st, staged := t.stages.Get([]byte(key))
		if had && sameStored(former, spec) && !(staged && st.Reach == ReachTaken) {
			continue // it keeps its stage
		}
		next := Stage{Rule: key, Begun: t.index, Step: t.index}
		switch {
		case staged:
			next.Former = st.Former // what came between was never in force everywhere
		case had:
			next.Former = &former
		}
		same := next.Former != nil && sameStored(*next.Former, spec)
		if same || !slices.Contains(c.Far, key) || t.hosts.Len() <= 1 || t.reflexStage.Off {
			if staged {
				t.dropStage(key)
			}
			continue
		}
		t.stages = insert(t.stages, key, &next)
		t.touchAll()
	}
	t.sweepStages()
}

// wouldStage are the reflexes that a PutIntents would stage.
func (s *State) wouldStage(c PutIntents) (rules []string) {
	index := s.revision + 1
	c.Expect = nil
	next, _ := s.Apply(index, Command{PutIntents: &c})
	for st := range values(next.stages) {
		if st.Begun == index {
			rules = append(rules, st.Rule)
		}
	}
	return rules
}

func (t *txn) dropStage(rule string) {
	t.stages = remove(t.stages, rule)
	t.touchAll()
}

// sweepStages forgets the stages of reflexes that are no more.
func (t *txn) sweepStages() {
	for _, st := range t.Stages() {
		if _, ok := t.rule(st.Rule); !ok {
			t.dropStage(st.Rule)
		}
	}
}

func (t *txn) setStage(c SetStage) *Rejected {
	old, ok := t.stages.Get([]byte(c.Rule))
	switch {
	case !ok:
		return reject(RejectUnknown, "stage reflex %s: it is not staged", clip(c.Rule))
	case old.Step != c.Expect:
		return reject(RejectConflict, "stage reflex %s: it has gone on to another step meanwhile", c.Rule)
	case len(c.Why) > maxReason || len(c.Zone) > maxReason || len(c.Hosts) > MaxHosts || !slices.IsSorted(c.Hosts):
		return reject(RejectInvalid, "stage reflex %s: out of bounds", c.Rule)
	}
	next := *old
	next.Step, next.Reach, next.Hosts, next.First, next.Zone, next.Why = t.index, c.Reach, c.Hosts, c.First, c.Zone, c.Why
	switch c.Reach {
	case ReachNone, ReachHost, ReachPart, ReachAll, ReachTaken:
		if old.Reach == ReachTaken {
			return reject(RejectConflict, "stage reflex %s: it was taken back; declare it anew", c.Rule)
		}
		t.stages = insert(t.stages, c.Rule, &next)
		t.touchAll()
	case ReachDone:
		t.dropStage(c.Rule)
	default:
		return reject(RejectInvalid, "stage reflex %s: there is no stage %q", c.Rule, clip(string(c.Reach)))
	}
	t.note(Fact{Staged: &StageChange{Rule: c.Rule, Reach: c.Reach, Hosts: c.Hosts, Zone: c.Zone, Why: c.Why, Former: old.Former != nil}})
	return nil
}

// actBy holds an act against the stage of its reflex, and notes it there.
func (t *txn) actBy(ref RuleRef, host string) *Rejected {
	if why := t.Refuses(ref, host); why != "" {
		return reject(RejectConflict, "act on host %s: %s", clip(host), why)
	}
	st, staged := t.stages.Get([]byte(ref.Rule))
	if !staged || ref.Stage == 0 {
		return nil
	}
	next := *st
	next.Acts = append(slices.Clone(st.Acts[max(0, len(st.Acts)+1-maxStageActs):]), StageAct{host, t.index})
	t.stages, t.changed = insert(t.stages, ref.Rule, &next), true
	return nil
}

func (t *txn) noteAct(c NoteAct) *Rejected {
	if r := t.actBy(c.For, c.Host); r != nil {
		return r
	}
	return t.useLoan(clip(c.What), c.Loan, c.Host)
}

// restoreStages takes what is staged back to what was when a backup was made. Stages
// under way begin anew: nobody knows what has happened since.
func (t *txn) restoreStages(saved []Stage) {
	t.stages = iradix.New[*Stage]()
	for _, st := range saved {
		if _, ok := t.rule(st.Rule); !ok {
			continue
		}
		next := Stage{Rule: st.Rule, Begun: t.index, Step: t.index, Former: st.Former}
		if st.Reach == ReachTaken {
			next.Reach, next.Why = st.Reach, st.Why
		}
		t.stages = insert(t.stages, st.Rule, &next)
	}
}

// checkStages holds what a snapshot says of stages.
func (s *State) checkStages() error {
	for _, st := range s.Stages() {
		if _, ok := s.rule(st.Rule); !ok || st.Begun == 0 || st.Step < st.Begun || !slices.IsSorted(st.Hosts) {
			return fmt.Errorf("stage of reflex %s cannot have come about", st.Rule)
		}
	}
	return nil
}
