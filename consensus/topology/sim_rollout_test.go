package topology

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
)

var rollouts = flag.Int("rollouts", 1000, "virtual rollouts to run")

// trial is one app whose versions are brought out one after the other, in calm
// or in trouble.
type trial struct {
	*sim
	spec    intent.App
	calm    bool // no faults: then more is demanded
	roomy   bool // surge copies fit: then no copy is missing for a moment
	reached map[CopyKey]bool
	failed  bool // the version under way has failed
	least   int  // ready copies that serve, at the worst moment
	version int
	lapses  int  // seen by the leader while their version was on trial
	proved  bool // the canaries of the version under way were all well at once
	ends    map[string]int
}

// versions is what can be brought out, and whether it is fit to stay.
var versions = map[string]bool{"well": true, "slow": true, "bad": false, "hang": false, "flap": false, "late": false, "dies": false}

func newTrial(t *testing.T, seed int, ends map[string]int) *trial {
	tr := &trial{
		sim:  &sim{world: newWorld(t), rnd: rand.New(rand.NewPCG(uint64(seed), 2)), hosts: map[string]*simHost{}, excused: map[string]bool{}},
		ends: ends,
	}
	tr.calm, tr.roomy = tr.rnd.IntN(2) == 0, tr.rnd.IntN(3) > 0
	hosts := 4 + tr.rnd.IntN(3)
	for i := range hosts {
		tr.addHost(fmt.Sprintf("h%d", i+1), []string{"a", "b"}[i%2])
	}
	count := 1 + tr.rnd.IntN(5)
	tr.spec = app("web", count, func(a *intent.App) {
		a.Update.Deadline = 15 * intent.Second
		a.Ports = map[string]intent.Port{"http": {}}
		if !tr.roomy {
			a.Ports["sql"] = intent.Port{Static: 5432}
			*a.Count = min(count, hosts)
		}
		if tr.rnd.IntN(4) == 0 {
			a.Count, a.PerHost, tr.roomy = nil, true, false
		}
	})
	return tr
}

// bringOut applies the next version, lets it come to its end, and judges it.
func (tr *trial) bringOut() {
	goes := []string{"well", "well", "slow", "bad", "hang", "flap", "late", "dies"}[tr.rnd.IntN(8)]
	a := tr.spec
	u := &a.Update
	u.Parallel, u.Canary = 1+tr.rnd.IntN(3), tr.rnd.IntN(3)
	u.OnFailure = []string{"rollback", "rollback", "hold", "forward"}[tr.rnd.IntN(4)]
	u.Strategy = intent.StrategyRolling
	if tr.rnd.IntN(3) == 0 && tr.roomy {
		u.Strategy = intent.StrategyBlueGreen
	}
	first := tr.version == 0
	if first {
		goes = "well"
	}
	tr.version++
	smoke := "ok"
	if a.Checks = nil; tr.rnd.IntN(4) == 0 {
		a.Checks = []intent.Check{{Type: intent.CheckSmoke, Command: []string{"/bin/try"}}}
		if tr.rnd.IntN(3) == 0 && !first {
			smoke = "bad"
		}
	}
	a.Run.Env = map[string]string{"GOES": goes, "SMOKE": smoke, "V": fmt.Sprint(tr.version)}
	a = a.WithDefaults()
	tr.say("apply %s %s smoke %v %s parallel %d canary %d %s count %d per_host %v", a.Version()[:4], goes, smoke, u.Strategy, u.Parallel, u.Canary, u.OnFailure, a.Copies(), a.PerHost)
	tr.put(a)
	tr.reached, tr.failed, tr.proved, tr.least = map[CopyKey]bool{}, false, false, 1<<30
	for i := range 400 {
		if !tr.calm && i < 40 && tr.rnd.IntN(6) == 0 {
			tr.upset()
		}
		if i == 40 {
			tr.mend()
		}
		tr.second(a)
		if app, _ := tr.state.App("web"); i >= 40 && app.Rollout.Outcome != "" && app.Rollout.Outcome != OutcomeDone {
			break
		} else if i >= 60 && (app.Rollout.Outcome != "" || app.Rollout.Reason != "" && app.Rollout.Failed == "") {
			break
		}
	}
	tr.judge(a, goes, smoke, first)
}

// upset is one fault, or one more thing that a user wants at the same time.
func (tr *trial) upset() {
	h := tr.hosts[tr.names[tr.rnd.IntN(len(tr.names))]]
	switch tr.rnd.IntN(8) {
	case 0:
		if !h.dead && !h.deaf {
			h.dead, h.since, h.procs = true, tr.now, map[CopyKey]*proc{}
			tr.say("%s dies", h.name)
		}
	case 1, 2:
		tr.revive(h)
	case 3:
		h.mute = !h.mute // its agent is killed, or back
		tr.say("%s mute: %v", h.name, h.mute)
		for _, x := range h.procs {
			x.tainted = true
		}
	case 4, 5:
		tr.say("new leader")
		tr.office, tr.gate, tr.sim.calm = tr.now, false, tr.now
	case 6:
		drain := []Drain{DrainDraining, DrainNone}[tr.rnd.IntN(2)]
		tr.say("drain %s %s", h.name, drain)
		tr.apply(Command{SetDrain: &SetDrain{Host: h.name, Drain: drain}})
	case 7:
		if now := tr.app("web"); !now.Spec.PerHost && now.Rollout.Outcome != OutcomeHeld { // else it would be one more try
			count := 1 + tr.rnd.IntN(4)
			now.Spec.Count, tr.spec.Count = &count, &count
			tr.say("scale to %d", count)
			tr.put(now.Spec)
		}
	}
}

func (tr *trial) mend() {
	for _, name := range tr.names {
		h := tr.hosts[name]
		tr.revive(h)
		h.mute = false
		tr.apply(Command{SetDrain: &SetDrain{Host: name, Drain: DrainNone}})
	}
}

// second is one second, with what this test demands of it.
func (tr *trial) second(a intent.App) {
	before, obs := tr.state, tr.observe()
	tr.tick()
	tr.checkAfterFailure(a, before, obs)
	tr.checkLapses(a, before)
	tr.checkCanary(a)
	serving := 0
	for _, name := range tr.names {
		for key, x := range tr.hosts[name].procs {
			p, ok := tr.state.Placement(key)
			if ok && p.Host == name && x.ready(tr.now) && !(p.Surge && a.Update.Strategy == intent.StrategyBlueGreen) {
				serving++
			}
		}
	}
	tr.least = min(tr.least, serving)
}

// checkAfterFailure: once a copy of the version has failed, no other copy gets
// it, and no well copy of the old version is stopped for it (S6).
func (tr *trial) checkAfterFailure(a intent.App, before *State, obs Observations) {
	version, forward := a.Version(), a.Update.OnFailure == intent.OnFailureForward
	for _, p := range tr.state.PlacementsOf("web") {
		old, had := before.Placement(p.Key())
		if p.Version == version && !tr.reached[p.Key()] {
			if tr.failed && !forward && had && old.Version != version {
				tr.mistake("%s gets version %.4s after its failure", p.Key(), version)
			}
			tr.reached[p.Key()] = true
		}
	}
	for _, old := range before.PlacementsOf("web") {
		host, _ := before.Host(old.Host)
		p, has := tr.state.Placement(old.Key())
		o := obs.Hosts[old.Host]
		well := o.Alive && o.Copies[old.Key()].Ready && o.Copies[old.Key()].Generation == old.Generation
		if tr.failed && !forward && tr.calm && host.Drain == DrainNone && well && old.Version != version && !old.Surge && (!has || p.Generation != old.Generation) {
			tr.mistake("%s, well at version %.4s, was touched after version %.4s failed", old.Key(), old.Version, version)
		}
	}
	now := tr.app("web")
	tr.failed = tr.failed || now.Version != version || now.Rollout.Outcome == OutcomeHeld
}

// checkLapses: a version that was on trial when a copy died that had been proved is
// given up at once, whatever has become of that copy since.
func (tr *trial) checkLapses(a intent.App, before *State) {
	app, _ := before.App("web")
	if !app.onTrial() || app.Version != a.Version() || app.Rollout.Outcome != "" || a.Update.OnFailure == intent.OnFailureForward || tr.now-tr.office < 3 {
		return
	}
	for _, p := range before.PlacementsOf("web") {
		o := tr.decided.Hosts[p.Host]
		c := o.Copies[p.Key()]
		if p.Version != app.Version || p.Stopped || !o.Alive || o.ReportAge >= reportMissed || c.Generation != p.Generation || c.LapsedAfter < app.Spec.Update.HealthyFor.Std() || c.LapsedAfter == 0 {
			continue
		}
		if p.Generation < app.Modified {
			continue // a user applied since: it is tried again
		}
		if now := tr.app("web"); now.Version == app.Version && now.Rollout.Outcome != OutcomeHeld {
			tr.mistake("%s died after %s of being well, and version %.4s goes on: %+v", p.Key(), c.LapsedAfter, app.Version, now.Rollout)
		}
		tr.lapses++
	}
}

// checkCanary: until its canaries have been well for healthy_for, as far as the
// leader can know, a version reaches no other copy.
func (tr *trial) checkCanary(a intent.App) {
	app := tr.app("web")
	if a.Update.Canary == 0 || a.Update.Strategy != intent.StrategyRolling || !app.onTrial() || app.Version != a.Version() {
		return
	}
	all := tr.state.PlacementsOf("web")
	have, well := 0, 0
	for _, p := range all {
		if p.Version != app.Version {
			continue
		}
		have++
		h := tr.decided.Hosts[p.Host]
		c := h.Copies[p.Key()]
		if h.Alive && h.ReportAge < reportMissed && c.Generation == p.Generation && c.Ready && c.ReadyFor >= app.Spec.Update.HealthyFor.Std() {
			well++
		}
	}
	canaries := min(a.Update.Canary, max(app.Spec.Copies(), len(all)))
	tr.proved = tr.proved || well >= canaries || well > 0 && have == len(all)
	if have > canaries && !tr.proved {
		tr.mistake("%d copies have version %.4s, %d are to prove it first, and %d are well", have, app.Version, canaries, well)
	}
}

// judge holds the end of a rollout against what should have come of it.
func (tr *trial) judge(a intent.App, goes, smoke string, first bool) {
	now := tr.app("web")
	outcome := string(now.Rollout.Outcome)
	switch {
	case outcome == "" && now.Rollout.Reason != "" && now.Rollout.Failed == "":
		outcome = "waits"
	case outcome == string(OutcomeDone) && now.Version != a.Version():
		outcome = string(OutcomeRolledBack) // and then there was a change of count
	}
	if first {
		if tr.ends["first "+outcome]++; smoke == "ok" && outcome != string(OutcomeDone) {
			tr.mistake("the first version ends %q: %+v", outcome, now.Rollout)
		}
		return
	}
	tr.ends[goes+" "+outcome]++
	fit, want := versions[goes] && (smoke == "ok" || len(a.Checks) == 0), ""
	switch a.Update.OnFailure {
	case intent.OnFailureRollback:
		want = string(OutcomeRolledBack)
	case intent.OnFailureHold:
		want = string(OutcomeHeld)
	default:
		want = "waits"
	}
	switch {
	case fit && outcome == want && !(tr.calm && tr.roomy) && strings.Contains(now.Rollout.Reason, "found no room"):
		tr.ends["no room"]++
	case fit && outcome != string(OutcomeDone):
		tr.mistake("a fit version ends %q: %+v", outcome, now.Rollout)
	case goes == "dies" && outcome == "" && now.Stable == now.Version: // it was done, and a later change of count is not, while copies die
	case !fit && outcome != want && !((goes == "late" || goes == "dies") && (outcome == string(OutcomeDone) || outcome == string(OutcomeHeld))): // it died after it was done, or in a later change of count
		tr.mistake("a %s version (smoke %s) ends %q, not %q: %+v", goes, smoke, outcome, want, now.Rollout)
	case !fit && outcome == string(OutcomeRolledBack) && now.Version == a.Version():
		tr.mistake("it was rolled back and is still version %s", now.Version)
	}
	if dies := goes == "late" || goes == "dies"; tr.calm && tr.roomy && !dies && tr.least < a.Copies() {
		tr.mistake("%d of %d copies served at the worst moment", tr.least, a.Copies())
	}
	if outcome != string(OutcomeDone) || goes == "late" || goes == "dies" {
		tr.recover()
	}
}

// recover brings the app back to a version that is well, for the next trial.
func (tr *trial) recover() {
	if now := tr.app("web"); !versions[now.Spec.Run.Env["GOES"]] || now.Rollout.Outcome == OutcomeHeld || now.Rollout.Outcome == "" {
		tr.say("user: rollback")
		if r := tr.apply(Command{Rollback: &Rollback{App: "web"}}); r.Err != nil {
			tr.mistake("rollback: %v", r.Err)
		}
	}
	left := func() (list []Placement) {
		for _, p := range tr.state.PlacementsOf("web") {
			if p.Version != tr.app("web").Version || p.Surge {
				list = append(list, p)
			}
		}
		return list
	}
	for range 200 { // a host that was lost while the others went back follows when it returns
		tr.tick()
		if now := tr.app("web"); now.Rollout.Outcome != "" && len(left()) == 0 {
			break
		}
	}
	now := tr.app("web")
	if now.Rollout.Outcome != OutcomeRolledBack && now.Rollout.Outcome != OutcomeDone || !versions[now.Spec.Run.Env["GOES"]] {
		tr.mistake("back on %s: %+v", now.Spec.Run.Env["GOES"], now.Rollout)
	}
	for _, p := range left() {
		tr.mistake("left over: %+v", p)
	}
}

// TestRollouts brings out versions that are good, bad, slow, that flap and that
// die late, by every strategy, while agents and leaders die, hosts are drained
// and counts change (S5, S6).
func TestRollouts(t *testing.T) {
	ends, done, lapses := map[string]int{}, 0, 0
	for seed := *first; done < *rollouts; seed++ {
		tr := newTrial(t, seed, ends)
		for range 6 {
			tr.bringOut()
			done++
			if len(tr.mistakes) > 0 {
				t.Fatalf("seed %d:\n%s\n\n%s", seed, strings.Join(tr.log, "\n"), strings.Join(tr.mistakes, "\n"))
			}
		}
		lapses += tr.lapses
	}
	t.Logf("%d rollouts, %d given up for a copy that died late: %v", done, lapses, ends)
	if lapses < *rollouts/50 {
		t.Error("too few: the faults did not bite")
	}
	for _, must := range []string{"well done", "slow done", "bad rolledback", "bad held", "bad waits", "flap rolledback", "late rolledback", "late done", "dies rolledback", "dies held", "dies waits"} {
		if ends[must] == 0 {
			t.Errorf("no rollout ended as %q: the faults did not bite", must)
		}
	}
}
