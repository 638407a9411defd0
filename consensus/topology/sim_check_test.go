package topology

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
)

var (
	seeds = flag.Int("seeds", 80, "random histories to run")
	first = flag.Int("first", 0, "the first of them")
)

// checkDecision holds one decision against the promises.
func (s *sim) checkDecision(d Decision, obs Observations) {
	if again := Decide(s.state, obs); !reflect.DeepEqual(d, again) {
		s.mistake("two decisions differ:\n%+v\n%+v", d, again)
	}
	if !obs.Settled && len(d.Commands) > 0 {
		s.mistake("an unsettled leader decided")
	}
	for _, c := range d.Commands {
		if c.Place != nil {
			if why := takesWhatIsKept(s.state, obs, c); why != "" {
				s.mistake("%s", why)
			}
			s.checkUpdates(c.Place, obs)
			s.checkBadVersions(c.Place)
			s.balance.check(s, c.Place, obs, d.GateShut)
		}
	}
	for _, m := range d.Moves {
		s.checkMove(m, obs)
	}
	for _, c := range d.Commands {
		if c.SetRollout != nil && c.SetRollout.Flip {
			s.checkFlip(s.app(c.SetRollout.App), obs)
		}
	}
}

// checkFlip: a second set takes over when it is whole and all of it is well.
func (s *sim) checkFlip(a App, obs Observations) {
	well, all := 0, 0
	for _, p := range s.state.PlacementsOf(a.Spec.Name) {
		if !p.Surge || p.Relief != nil {
			continue
		}
		all++
		h := obs.Hosts[p.Host]
		c := h.Copies[p.Key()]
		if p.Version == a.Version && h.Alive && h.ReportAge < reportMissed && c.Generation == p.Generation && c.Ready && c.ReadyFor >= a.Spec.Update.HealthyFor.Std() {
			well++
		}
	}
	if !a.Spec.PerHost && well < a.Spec.Copies() || well == 0 && a.Spec.Copies() > 0 {
		s.mistake("the second set of %s takes over, and %d of %d are well, of %d wanted", a.Spec.Name, well, all, a.Spec.Copies())
	}
}

// checkUpdates: what is stopped on purpose leaves enough (S5), as far as the
// leader can know. Reliefs are counted neither way: they are beyond what is asked for
// until they take over, one ready copy for another, or are asked for themselves.
func (s *sim) checkUpdates(c *Place, obs Observations) {
	serves := func(p Placement) bool {
		h := obs.Hosts[p.Host]
		o := h.Copies[p.Key()]
		standby := p.Surge && s.app(p.App).Spec.Update.Strategy == intent.StrategyBlueGreen
		return p.Relief == nil && h.Alive && h.ReportAge < reportMissed && o.Ready && o.Generation == p.Generation && !standby
	}
	taken, helpers := map[string]int{}, map[string]int{}
	once := map[CopyKey]bool{} // a number may be given up and used again
	take := func(key CopyKey) {
		if old, ok := s.state.Placement(key); ok && serves(old) && !once[key] {
			once[key] = true
			taken[key.App]++
			if old.Surge {
				helpers[key.App]++
			}
		}
	}
	over, gained := map[CopyKey]bool{}, map[string]int{}
	for _, p := range c.Put {
		old, ok := s.state.Placement(p.Key())
		if ok && old.Relief != nil && p.Relief == nil && old.runsAs(p) && !slices.Contains(c.Remove, p.Key()) {
			over[CopyKey{p.App, old.Relief.N}] = true
			gained[p.App]++
		}
	}
	for _, p := range c.Put {
		if old, ok := s.state.Placement(p.Key()); ok && old.Surge && !p.Surge && old.runsAs(p) {
			continue // it goes on as it is; what it took over from is removed
		}
		take(p.Key())
	}
	for _, key := range c.Remove {
		if old, ok := s.state.Placement(key); ok && (old.Surge || over[key]) { // others go because a user wants fewer
			take(key)
		}
	}
	for name, n := range taken {
		a := s.app(name)
		ready, asked, want := gained[name], 0, a.Spec.Copies()-len(a.StoppedCopies)
		for _, p := range s.state.PlacementsOf(name) {
			if serves(p) {
				ready++
			}
			if !p.Surge {
				asked++
			}
		}
		if a.Spec.PerHost {
			want = ready - helpers[name] // those of a replicated app that it was before
		}
		if !a.Spec.PerHost && asked > a.Spec.Copies() {
			continue // a user wanted fewer
		}
		if parallel := max(1, a.Spec.Update.Parallel); ready-n < want-parallel {
			s.mistake("%s: %d of %d ready, %d taken at once (%d surge), parallel %d", name, ready, want, n, helpers[name], parallel)
		}
	}
}

// checkBadVersions: what fails reaches few, and no further (S6).
func (s *sim) checkBadVersions(c *Place) {
	for _, name := range simApps {
		a, ok := s.state.App(name)
		if !ok || !a.onTrial() || s.excused[name] || len(a.StoppedCopies) > 0 {
			continue
		}
		has := map[CopyKey]bool{}
		for _, p := range s.state.PlacementsOf(name) {
			has[p.Key()] = p.Version == a.Version
		}
		for _, key := range c.Remove {
			delete(has, key)
		}
		for _, p := range c.Put {
			if p.App != name || p.Version != a.Version {
				continue
			}
			if a.Rollout.Outcome == OutcomeHeld && !has[p.Key()] {
				s.mistake("%s gets version %.4s after it was held", p.Key(), p.Version)
			}
			has[p.Key()] = true
		}
		most := max(1, a.Spec.Update.Parallel, a.Spec.Update.Canary)
		if a.Spec.Update.Strategy == intent.StrategyBlueGreen {
			if a.Rollout.Phase == PhaseBeside {
				for _, p := range c.Put {
					if p.App == name && !p.Surge && p.Version == a.Version && has[p.Key()] && a.Stable != "" {
						s.mistake("%s of the first set gets version %.4s before the second set took over", p.Key(), p.Version)
					}
				}
			}
			continue
		}
		switch a.Spec.Run.Env["GOES"] {
		case "bad", "hang", "flap":
		default:
			continue
		}
		reached := 0
		for _, yes := range has {
			if yes {
				reached++
			}
		}
		if reached > most {
			s.mistake("a bad version of %s reaches %d copies", name, reached)
		}
	}
}

// checkMove: nothing that could stay moves, and nothing moves blindly (S9).
func (s *sim) checkMove(m Move, obs Observations) {
	from := obs.Hosts[m.From]
	host, _ := s.state.Host(m.From)
	if m.As != nil {
		return // the other runs on until this one is well: see balanceWatch
	}
	unhealthy := 0
	for _, o := range obs.Hosts {
		if !o.Alive || o.ReportAge >= reportMissed {
			unhealthy++
		}
	}
	if !from.Alive {
		if unhealthy > 1 && unhealthy*10 > 3*len(obs.Hosts) {
			s.mistake("%s moved off %s while %d of %d hosts look unhealthy", m.Copy, m.From, unhealthy, len(obs.Hosts))
		}
		if a := s.app(m.Copy.App); a.Spec.Disconnect.Policy == "keep" || max(from.ReportAge, from.DownFor) < a.Spec.Disconnect.Grace.Std() {
			s.mistake("%s moved off %s, silent for %s", m.Copy, m.From, from.ReportAge)
		}
		return
	}
	a := s.app(m.Copy.App)
	refused := len(a.Spec.Place.Require) > 0 && from.Labels["zone"] == "c"
	if host.Drain == DrainNone && !refused && !strings.Contains(m.Reason, "cannot take version") && !strings.Contains(m.Reason, "keeps failing") && !strings.HasPrefix(m.Reason, "evicted by") {
		s.mistake("%s moved off %s for nothing: %s", m.Copy, m.From, m.Reason)
	}
	if x := s.hosts[m.From].procs[m.Copy]; x != nil && !x.gone {
		s.mistake("%s was placed on %s while it runs on %s", m.Copy, m.To, m.From)
	}
}

// checkMesh: of every copy, one process, except on hosts that were cut off; no
// more placements than asked for; no port twice.
func (s *sim) checkMesh() {
	for _, name := range s.names {
		h := s.hosts[name]
		for key, x := range h.procs {
			if p, ok := s.state.Placement(key); ok && p.Host == name && !h.deaf && !h.mute {
				x.tainted = false
			}
		}
	}
	running := map[CopyKey]string{}
	for _, name := range s.names {
		for key, x := range s.hosts[name].procs {
			if x.gone || x.tainted {
				continue
			}
			if other, ok := running[key]; ok {
				s.mistake("%s runs on %s and %s", key, other, name)
			}
			running[key] = name
		}
	}
	for _, a := range s.state.Apps() {
		s.checkCounts(a)
	}
}

// checkCounts: no more copies than asked for, and surge copies within the
// update policy (S5).
func (s *sim) checkCounts(a App) {
	if r := a.Rollout; r.Back && r.Phase == PhaseCanary {
		s.mistake("%s tries out what was proved before: %+v", a.Spec.Name, r)
	}
	asked, surge := 0, 0
	for _, p := range s.state.PlacementsOf(a.Spec.Name) {
		if p.Surge {
			surge++
		} else {
			asked++
		}
	}
	if s.now-s.office <= 6 || s.justChanged(a) {
		return
	}
	if !a.Spec.PerHost && asked > a.Spec.Copies() {
		s.mistake("%s has %d placements, wants %d", a.Spec.Name, asked, a.Spec.Copies())
	}
	limit := max(1, a.Spec.Update.Parallel, a.Spec.Update.Canary)
	switch {
	case a.Spec.Update.Strategy == intent.StrategyBlueGreen && a.Spec.PerHost:
		limit = len(s.state.Hosts())
	case a.Spec.Update.Strategy == intent.StrategyBlueGreen:
		limit = a.Spec.Copies()
	}
	if surge > limit {
		s.mistake("%s has %d surge copies, %d are allowed", a.Spec.Name, surge, limit)
	}
}

func (s *sim) justChanged(a App) bool { return a.Modified+50 > s.index }

// heal ends all trouble and demands that the mesh comes to rest, as declared.
func (s *sim) heal() {
	s.say("HEAL")
	for _, name := range s.names {
		h := s.hosts[name]
		s.revive(h)
		h.mute = false
		h.labels = map[string]string{"zone": []string{"a", "b"}[s.rnd.IntN(2)]}
		s.apply(Command{SetDrain: &SetDrain{Host: name, Drain: DrainNone}})
	}
	quiet := 0
	for range 400 {
		before := s.state
		s.tick()
		if quiet++; s.state != before {
			quiet = 0
		}
		if quiet > 140 { // longer than the gate
			break
		}
	}
	if quiet <= 140 {
		s.mistake("the mesh does not come to rest")
	}
	for _, st := range Status(s.state, s.observe()) {
		a := s.app(st.App)
		bad := a.Spec.Run.Env["GOES"] != "well" && a.Spec.Run.Env["GOES"] != "slow"
		held := bad || a.Spec.Run.Env["SMOKE"] == "bad" || strings.Contains(a.Rollout.Reason, "found no room")
		if slices.ContainsFunc(st.Copies, func(c CopyStatus) bool {
			return strings.Contains(c.Why, "no host will do") || strings.Contains(c.Why, "without enough")
		}) || strings.Contains(st.Why, "no host will do") || strings.Contains(st.Why, "the second set waits for it") {
			continue // it asks for more than there is, and is told so
		}
		if a.Spec.Run.Env["GOES"] == "dies" && !a.onTrial() {
			continue // for ever on its way: on a real host the limit of restarts ends it
		}
		switch {
		case st.State == AppSteady && (st.Ready != st.Want || bad && st.Want > 0 && a.Spec.Run.Env["GOES"] != "flap" && a.Spec.Run.Env["GOES"] != "dies"),
			st.State != AppSteady && st.State != AppStopped && st.State != AppHeld && !(bad && st.State == AppDegraded), // declared while it had no copies

			st.State == AppHeld && !held:
			s.mistake("%s is %s (%s), %d of %d ready: %+v", st.App, st.State, st.Why, st.Ready, st.Want, st.Copies)
		}
	}
	s.checkSnapshot()
}

func (s *sim) checkSnapshot() {
	data := snapshot(s.t, s.state)
	back, err := Read(bytes.NewReader(data))
	if err != nil {
		s.mistake("read snapshot: %v", err)
		return
	}
	if !bytes.Equal(data, snapshot(s.t, back)) {
		s.mistake("a snapshot read and written differs")
	}
	obs := s.observe()
	if !reflect.DeepEqual(Decide(s.state, obs), Decide(back, obs)) {
		s.mistake("a restored state decides otherwise")
	}
}

// TestRandomHistories runs whole meshes through random faults and changes.
func TestRandomHistories(t *testing.T) {
	for seed := *first; seed < *first+*seeds; seed++ {
		randomHistory(t, seed, Rebalance{}, false)
	}
}

// TestHastyHistories are those in which apps are deleted and declared anew before
// hosts have reported what they were told.
func TestHastyHistories(t *testing.T) {
	for seed := *first; seed < *first+*seeds/2; seed++ {
		randomHistory(t, seed, Rebalance{}, true)
	}
}

// randomHistory is one of them, and tells how many copies were moved to balance.
func randomHistory(t *testing.T, seed int, set Rebalance, hasty bool) int {
	s := &sim{hasty: hasty, world: newWorld(t), rnd: rand.New(rand.NewPCG(uint64(seed), 1)), hosts: map[string]*simHost{}, excused: map[string]bool{}}
	s.apply(Command{Rebalance: &SetRebalance{Rebalance: set}})
	for i, zone := range []string{"a", "b", "c", "a", "b"}[:3+s.rnd.IntN(3)] {
		s.addHost("h"+string(rune('1'+i)), zone)
	}
	for range 4 {
		s.declare()
	}
	for range 150 {
		if s.rnd.IntN(5) == 0 {
			s.trouble()
		}
		s.tick()
	}
	s.heal()
	if len(s.mistakes) > 0 {
		t.Fatalf("seed %d:\n%s\n\n%s", seed, strings.Join(s.log, "\n"), strings.Join(s.mistakes, "\n"))
	}
	return s.balance.done
}
