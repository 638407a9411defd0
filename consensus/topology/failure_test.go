package topology

import (
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// A host that says that a version cannot run is heeded at once: the rollout does
// not wait for its deadline.
func TestFailureIsHeededAtOnce(t *testing.T) {
	w, obs := newWorld(t), Observations{Settled: true, Hosts: map[string]HostObs{}}
	w.enrol("h1")
	obs.Hosts["h1"] = HostObs{Alive: true, Reported: true, Slice: upToDate, CPU: 4, Memory: 8 << 30, PortMin: 20000, PortMax: 20100}
	w.put(app("web", 2))
	converge(w, obs)
	good := w.app("web").Version
	w.put(app("web", 2, func(a *intent.App) { a.Run.Command = []string{"/bin/broken"} }))
	bad, seen := w.app("web").Version, false
	for range 20 {
		for _, c := range Decide(w.state, obs).Commands {
			w.must(c)
		}
		well(w.state, obs)
		for _, p := range w.state.PlacementsOf("web") {
			if p.Version == bad {
				seen = true
				obs.Hosts["h1"].Copies[p.Key()] = CopyObs{Version: p.Version, Generation: p.Generation, State: CopyFailed, Failed: true, Why: "no such file", Age: time.Second}
			}
		}
	}
	if a := w.app("web"); !seen || a.Version != good || a.Rollout.Outcome != OutcomeRolledBack {
		t.Errorf("placed %v, version %s, want %s: %+v", seen, a.Version, good, a.Rollout)
	}
}
