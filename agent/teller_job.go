package agent

import (
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
)

// runs tells how runs of jobs ended, and which due times have none. That a run
// was skipped because the one before it still runs is told once for each that
// stands in the way.
func (t *teller) runs(c topology.RecordRuns, revision uint64) {
	for _, r := range c.Runs {
		key := topology.CopyKey{App: r.App}
		switch {
		case r.Outcome == topology.RunDone:
			t.copy(key, events.AppStopped{Reason: "its run is done: " + r.Why}, revision)
		case r.Outcome == topology.RunFailed && r.Begin: // else its host has told it
			t.copy(key, events.AppNeedsHuman{Reason: "its run has failed: " + r.Why}, revision)
		case r.Outcome == topology.RunFailed:
			t.copy(key, events.AppStopped{Reason: "its run has failed: " + r.Why}, revision)
		}
		if r.Passed != "" && (!r.Overlap || t.skipped[r.App] != r.Of) {
			t.copy(key, events.AppUnplaced{Reason: r.Passed}, revision)
		}
		if r.Overlap {
			t.skipped[r.App] = r.Of
		}
	}
}

// newRun is why a copy gets a place that had none, or that has the place of a
// run that is over.
func newRun(before *topology.State, app string) string {
	a, _ := before.App(app)
	run := a.Job.Run
	switch {
	case run.Index == 0:
		return "it was wanted and had no host"
	case run.Due == 0:
		return "a run was asked for"
	}
	return "a run is due since " + time.Unix(run.Due, 0).UTC().Format(time.RFC3339)
}
