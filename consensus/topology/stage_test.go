package topology

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

func flee(when string) intent.Reflex {
	return intent.Reflex{Name: "flee", When: when, Act: []intent.Action{{Op: "drain_self"}}, Mode: intent.ModeEnforce, Limit: "1/10m", Cooldown: intent.Minute}
}

// putFar declares reflexes that reach far.
func putFar(list ...intent.Reflex) Command {
	c := putReflexes("", list...)
	for _, r := range list {
		c.PutIntents.Far = append(c.PutIntents.Far, r.Name)
	}
	return c
}

// staged is a world whose hosts and leader live through time.
type staged struct {
	*world
	now    time.Duration
	hosts  map[string]*stagedHost
	leader string
	seen   map[uint64]time.Duration // when the leader first knew of each step
	list   []string                 // of hosts
}

type stagedHost struct {
	zone    string
	alive   bool
	since   time.Duration // that it is, or is not
	slice   Slice         // as it has it
	trouble uint64        // Begun of the version that it has trouble with
}

func newStaged(t testing.TB, zones ...string) *staged {
	s := &staged{world: newWorld(t), hosts: map[string]*stagedHost{}, seen: map[uint64]time.Duration{}, leader: "h00"}
	for i, zone := range zones {
		name := fmt.Sprintf("h%02d", i)
		s.enrol(name)
		s.hosts[name], s.list = &stagedHost{zone: zone, alive: true}, append(s.list, name)
	}
	return s
}

// fetch gives a host its present slice.
func (s *staged) fetch(names ...string) {
	for _, name := range names {
		s.hosts[name].slice = s.state.Slice(name)
	}
}

func (s *staged) names() []string { return s.list }

// obs is what the leader knows.
func (s *staged) obs() Observations {
	obs := Observations{Settled: true, Hosts: map[string]HostObs{}, Leader: s.leader, Staged: map[uint64]time.Duration{}}
	for _, i := range s.state.StageSteps() {
		if _, ok := s.seen[i]; !ok {
			s.seen[i] = s.now
		}
		obs.Staged[i] = s.now - s.seen[i]
	}
	down := 0
	for name, h := range s.hosts {
		o := HostObs{Alive: h.alive, Reported: true, Labels: map[string]string{"zone": h.zone}, Slice: h.slice.Index}
		if !h.alive {
			o.DownFor, o.ReportAge = s.now-h.since, s.now-h.since+reportMissed
			down++
		}
		for _, st := range h.slice.Stages {
			x := StageObs{Rule: st.Rule, Begun: st.Begun, Has: true}
			if h.trouble == st.Begun {
				x.Trouble = "it went wrong"
			}
			o.Stages = append(o.Stages, x)
		}
		obs.Hosts[name] = o
	}
	return obs
}

// decide takes the steps that a leader takes now, and returns them.
func (s *staged) decide() (out []SetStage) {
	for _, c := range Decide(s.state, s.obs()).Commands {
		if c.SetStage != nil {
			s.must(c)
			out = append(out, *c.SetStage)
		}
	}
	s.obs() // every voter sees them
	return out
}

func (s *staged) stage() Stage {
	st, _ := s.state.Stage("flee")
	return st
}

// TestStagesInTurn: a new rule is in force on one host, then on its zone, then on
// all; a change of it keeps the version before in force meanwhile; an apply of the
// same changes nothing, and a mesh of one host has no stages.
func TestStagesInTurn(t *testing.T) {
	s := newStaged(t, "a", "a", "b", "b")
	if r := s.apply(putFar(flee("x"))); r.Err != nil || s.stage().Begun != s.index {
		t.Fatalf("%v, %+v", r.Err, s.stage())
	}
	var got []string
	run := func(d time.Duration) {
		for end := s.now + d; s.now < end; s.now += time.Second {
			s.fetch(s.names()...)
			for _, c := range s.decide() {
				got = append(got, fmt.Sprintf("%s %s%v", s.now, c.Reach, c.Hosts))
			}
		}
	}
	run(time.Minute)
	s.must(putFar(flee("x"))) // as it is
	run(9 * time.Minute)
	want := []string{"0s host[h01]", "2m0s part[h00 h01]", "4m0s all[]", "6m0s done[]"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	s.must(putFar(flee("y")))
	sl := s.state.Slice("h02")
	if len(sl.Stages) != 1 || sl.Stages[0].InForce || sl.Stages[0].Former == nil || sl.Stages[0].Former.When != "x" || sl.Reflexes[0].When != "y" {
		t.Errorf("slice %+v", sl)
	}
	s.must(putFar(flee("z"))) // what was never in force everywhere is no former version
	if st := s.stage(); st.Former == nil || st.Former.When != "x" || st.Begun != s.index {
		t.Errorf("%+v", st)
	}
	s.must(putFar(flee("x")))
	if len(s.state.Stages()) != 0 {
		t.Errorf("what is in force everywhere is staged: %+v", s.state.Stages())
	}
	s.must(putFar(flee("y")))
	s.must(Command{DeleteReflex: &DeleteReflex{Name: "flee"}})
	if len(s.state.Stages()) != 0 {
		t.Errorf("a rule that is gone is staged: %+v", s.state.Stages())
	}
	s.must(Command{ReflexStage: &SetReflexStage{ReflexStage: ReflexStage{Off: true}}})
	s.must(putFar(flee("y")))
	one := newStaged(t, "a")
	one.must(putFar(flee("x")))
	if len(s.state.Stages())+len(one.state.Stages()) != 0 {
		t.Errorf("staged: %+v %+v", s.state.Stages(), one.state.Stages())
	}
}

// TestStageTakenBack: trouble on a host that has the version takes it back, for good,
// with a fact that tells why; to declare it again tries it once more.
func TestStageTakenBack(t *testing.T) {
	s := newStaged(t, "", "", "")
	s.must(putFar(flee("x")))
	s.fetch(s.names()...)
	s.decide()
	first := s.stage().First
	begun := s.stage().Begun
	other := s.hosts["h02"]
	other.trouble = begun // it has it not in force: what it says counts for nothing
	s.fetch(s.names()...)
	if got := s.decide(); len(got) != 0 {
		t.Fatalf("%+v", got)
	}
	other.trouble, s.hosts[first].trouble = 0, begun
	if got := s.decide(); len(got) != 1 || got[0].Reach != ReachTaken || got[0].Why != "host "+first+": it went wrong" {
		t.Fatalf("%+v", got)
	}
	for ; s.now < time.Hour; s.now += time.Minute {
		s.fetch(s.names()...)
		if got := s.decide(); len(got) != 0 {
			t.Fatalf("after it was taken back: %+v", got)
		}
	}
	facts := slices.DeleteFunc(s.state.Untold(0), func(f Fact) bool { return f.Staged == nil })
	if len(facts) != 2 || facts[1].Staged.Why == "" || facts[1].Staged.Reach != ReachTaken {
		t.Errorf("facts %+v", facts)
	}
	if why := s.state.Refuses(RuleRef{"flee", begun}, first); !strings.Contains(why, "it went wrong") {
		t.Errorf("it may act: %q", why)
	}
	again, err := Read(bytes.NewReader(snapshot(t, s.state)))
	if err != nil || !reflect.DeepEqual(again.Stages(), s.state.Stages()) {
		t.Errorf("read %+v, %v", again.Stages(), err)
	}
	saved := s.state.Restoration()
	s.must(putFar(flee("x")))
	if st := s.stage(); st.Reach != ReachNone || st.Begun != s.index {
		t.Errorf("declared again: %+v", st)
	}
	s.must(Command{Restore: &saved})
	if st := s.stage(); st.Reach != ReachTaken || st.Begun != s.index {
		t.Errorf("restored: %+v", st)
	}
	s.hosts[first].trouble = 0
	s.must(putFar(flee("x")))
	s.fetch(s.names()...)
	s.decide()
	loan := s.index + 1
	s.must(Command{Lend: &Lend{Host: first, Boot: "b", Tokens: 1, Time: time.Minute}})
	act := func(stage uint64, host string) Command {
		return Command{NoteAct: &NoteAct{Host: host, What: "restart", Loan: loan, For: RuleRef{"flee", stage}}}
	}
	s.refuse(RejectConflict, act(begun, first))
	s.refuse(RejectConflict, act(0, first))
	s.refuse(RejectConflict, act(s.stage().Begun, "h00"))
	s.must(act(s.stage().Begun, first))
	s.obs()
	s.hosts[first].alive, s.hosts[first].since = false, s.now
	s.now += 20 * time.Second
	if got := s.decide(); len(got) != 1 || !strings.Contains(got[0].Why, "right after") {
		t.Errorf("after the host of an act fell: %+v", got)
	}
}

// TestStageWithoutZones: a tenth of the hosts stands in for a zone, and lost hosts are
// chosen anew, each with its time.
func TestStageWithoutZones(t *testing.T) {
	s := newStaged(t, make([]string, 40)...)
	s.must(putFar(flee("x")))
	s.fetch(s.names()...)
	s.decide()
	first := s.stage().First
	s.now += time.Minute
	s.hosts[first].alive, s.hosts[first].since = false, s.now
	s.now += time.Minute + time.Second // as long as a stage lasts, had it lived
	if got := s.decide(); len(got) != 1 || got[0].Reach != ReachNone {
		t.Fatalf("%+v", got)
	}
	s.fetch(s.names()...)
	s.decide()
	if st := s.stage(); st.Reach != ReachHost || st.First == first {
		t.Fatalf("%+v", st)
	}
	s.now += 2 * time.Minute
	if got := s.decide(); len(got) != 1 || got[0].Reach != ReachPart || len(got[0].Hosts) != 4 || !slices.Contains(got[0].Hosts, s.stage().First) {
		t.Fatalf("%+v", got)
	}
	lost := s.stage().Hosts[0]
	s.hosts[lost].alive, s.hosts[lost].since = false, s.now
	s.now += 2 * time.Minute
	if got := s.decide(); len(got) != 1 || got[0].Reach != ReachPart || len(got[0].Hosts) != 3 {
		t.Fatalf("%+v", got)
	}
}

// TestStages holds random histories of applies, faults, trouble, stale hosts and
// changes of leader to what rail 18 promises.
func TestStages(t *testing.T) {
	seeds, acts, taken, done := 1000, 0, 0, 0
	if testing.Short() {
		seeds = 300
	}
	for seed := range seeds {
		h := newStageHistory(t, uint64(seed))
		h.run()
		acts, taken, done = acts+h.acts, taken+h.taken, done+h.done
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d acts, %d versions taken back, %d in force everywhere", acts, taken, done)
	if acts < seeds || taken < seeds/4 || done < seeds/4 {
		t.Error("nothing has bitten")
	}
}

type stageHistory struct {
	*staged
	rng                      *rand.Rand
	lent                     []uint64
	version                  int
	bad                      bool     // the version that is staged now makes trouble
	may                      []string // hosts on which it may act, by the steps taken; nil with all: everywhere
	all                      bool
	stepped                  time.Duration // when the step was taken
	calm                     time.Duration // since when its hosts have been well
	acts, taken, done, moves int
}

func newStageHistory(t testing.TB, seed uint64) *stageHistory {
	rng := rand.New(rand.NewPCG(seed, 18))
	zones := make([]string, 2+rng.IntN(12))
	for i := range zones {
		zones[i] = []string{"", "a", "b"}[rng.IntN(3)]
	}
	return &stageHistory{staged: newStaged(t, zones...), rng: rng}
}

func (h *stageHistory) any() string { return h.names()[h.rng.IntN(len(h.hosts))] }

// run lives through faults, then heals all and demands progress.
func (h *stageHistory) run() {
	h.declare()
	for range 40 {
		h.now += time.Duration(1+h.rng.IntN(20)) * time.Second
		h.fault()
		h.fetch(h.any())
		h.act(h.any())
		h.step()
		h.act(h.any())
	}
	for _, name := range h.names() {
		h.hosts[name].alive, h.hosts[name].trouble = true, 0
	}
	for end := h.now + 4*2*time.Minute + meetStage + time.Minute; h.now < end; h.now += 20 * time.Second {
		h.leader = h.any() // leaders come and go: that holds up nothing
		h.fetch(h.names()...)
		h.step()
	}
	if st := h.stage(); st.Begun != 0 && st.Reach != ReachTaken {
		h.t.Errorf("nothing is wrong, and it is not in force: %s (%+v)", st, Decide(h.state, h.obs()).Stages)
	}
}

// quick applies a command that is not encoded: histories are many.
func (h *stageHistory) quick(c Command) (r Result) {
	h.index++
	h.state, r = h.state.Apply(h.index, c)
	return r
}

func (h *stageHistory) declare() {
	h.version++
	h.bad = h.rng.IntN(2) == 0
	h.may, h.all = nil, false
	h.must(putFar(flee(fmt.Sprint("v", h.version))))
	h.stepped = h.now
	h.obs()
}

func (h *stageHistory) fault() {
	name := h.any()
	host := h.hosts[name]
	switch h.rng.IntN(12) {
	case 0:
		if h.rng.IntN(4) == 0 {
			h.declare()
		}
	case 1, 2:
		host.alive, host.since = !host.alive, h.now
	case 3:
		h.leader = name
	case 4, 5:
		for _, x := range h.hosts {
			x.alive = true
		}
	case 6:
		data, err := Read(bytes.NewReader(snapshot(h.t, h.state)))
		if err != nil {
			h.t.Fatal(err)
		}
		h.state = data
	}
	if !slices.ContainsFunc(h.may, func(x string) bool { return !h.hosts[x].alive }) {
		return
	}
	h.calm = h.now // a host of the stage was lost
}

// act has a host do what it believes it may, by the slice that it has.
func (h *stageHistory) act(name string) {
	host := h.hosts[name]
	if !host.alive || len(host.slice.Reflexes) == 0 {
		return
	}
	ref := RuleRef{Rule: "flee"}
	if len(host.slice.Stages) > 0 {
		switch st := host.slice.Stages[0]; {
		case st.InForce && host.trouble != st.Begun:
			ref.Stage = st.Begun
		case st.Former == nil || st.InForce:
			return
		}
	}
	lend := Lend{Host: name, Boot: "b", Tokens: 1, Time: time.Minute, Returned: h.lent}
	h.quick(Command{Lend: &lend})
	h.lent = []uint64{h.index}
	r := h.quick(Command{NoteAct: &NoteAct{Host: name, What: "act", Loan: h.index, For: ref}})
	if r.Err != nil || ref.Stage == 0 {
		return
	}
	st := h.stage()
	if st.Begun == 0 { // it is in force everywhere by now
		return
	}
	h.acts++
	if !h.all && !slices.Contains(h.may, name) || ref.Stage != st.Begun {
		h.t.Errorf("%s acted by version %d, which is %s; it may on %v", name, ref.Stage, st, h.may)
	}
	if h.bad && h.rng.IntN(3) == 0 {
		host.trouble = st.Begun
	}
}

// step has a leader decide, and holds what it does against what was seen.
func (h *stageHistory) step() {
	before := h.stage()
	troubled := before.Begun != 0 && slices.ContainsFunc(h.names(), func(name string) bool {
		return h.hosts[name].trouble == before.Begun && (h.all || slices.Contains(h.may, name)) && len(h.hosts[name].slice.Stages) > 0 && h.hosts[name].slice.Stages[0].Begun == before.Begun
	})
	for _, c := range h.decide() {
		h.moves++
		since := max(h.stepped, h.calm)
		switch {
		case troubled && c.Reach != ReachTaken:
			h.t.Errorf("trouble, and it goes to %s", c.Reach)
		case c.Reach == ReachTaken:
			h.taken++
		case (c.Reach == ReachPart && before.Reach == ReachHost || c.Reach == ReachAll || c.Reach == ReachDone) && h.now-since < defaultReflexStage:
			h.t.Errorf("from %s to %s after %s", before, c.Reach, h.now-since)
		case c.Reach == ReachDone:
			h.done++
		}
		h.may, h.all, h.stepped = c.Hosts, c.Reach == ReachAll || c.Reach == ReachDone, h.now
		if c.Reach == ReachHost && len(c.Hosts) != 1 {
			h.t.Errorf("first on %v", c.Hosts)
		}
	}
}
