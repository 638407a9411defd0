package topology

import (
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
)

// What the smoke checks of an earlier try came to says nothing of the present one,
// though the copy is the same and its host goes on reporting it.
func TestSmokeOfAnEarlierTryCountsForNothing(t *testing.T) {
	w, obs := newWorld(t), Observations{Settled: true, Hosts: map[string]HostObs{}}
	w.enrol("h1")
	obs.Hosts["h1"] = HostObs{Alive: true, Reported: true, Slice: upToDate, CPU: 4, Memory: 8 << 30, PortMin: 20000, PortMax: 20100}
	spec := app("web", 1, func(a *intent.App) {
		a.Checks = []intent.Check{{Type: intent.CheckSmoke, Command: []string{"/bin/try"}}}
		a.Update.OnFailure = intent.OnFailureHold
	})
	tried := func(id uint64, end SmokeState) { // is what the host reports
		well(w.state, obs)
		c := obs.Hosts["h1"].Copies[CopyKey{"web", 0}]
		c.Smoke, c.SmokeEnd = id, end
		obs.Hosts["h1"].Copies[CopyKey{"web", 0}] = c
	}
	asked := func(id uint64, end SmokeState) uint64 { // decides until the checks are asked for
		t.Helper()
		for range 10 {
			tried(id, end)
			for _, c := range Decide(w.state, obs).Commands {
				w.must(c)
			}
			if r := w.app("web").Rollout; r.Phase == PhaseSmoke && r.SmokeID > id && r.Outcome == "" {
				return r.SmokeID
			}
		}
		t.Fatalf("not asked for: %+v", w.app("web").Rollout)
		return 0
	}
	w.put(spec)
	first := asked(0, "")
	tried(first, SmokeFailed)
	w.must(Decide(w.state, obs).Commands[0])
	if r := w.app("web").Rollout; r.Outcome != OutcomeHeld {
		t.Fatalf("it failed: %+v", r)
	}
	w.put(spec)
	second := asked(first, SmokeFailed)
	for _, end := range []SmokeState{SmokeFailed, SmokePassed, ""} {
		tried(first, end)
		if d := Decide(w.state, obs); len(d.Commands) > 0 {
			t.Errorf("%q of try %d decides try %d: %+v", end, first, second, d.Commands[0].SetRollout)
		}
	}
	tried(second, SmokePassed)
	w.must(Decide(w.state, obs).Commands[0])
	if a := w.app("web"); a.Rollout.Outcome != OutcomeDone || a.Stable != a.Version {
		t.Errorf("it passed: %+v", a.Rollout)
	}
}
