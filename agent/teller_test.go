package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
)

// ear notes what a teller tells.
type ear struct{ told []string }

func (e *ear) emit(d events.Draft) string {
	e.told = append(e.told, d.Type)
	return ""
}

func (e *ear) take(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(e.told, want) {
		t.Errorf("told %q, want %q", e.told, want)
	}
	e.told = nil
}

// A host that gossip calls alive and that does not report is told once, and so
// is that it is back; what gossip calls dead is told as such.
func TestSuspectsAreTold(t *testing.T) {
	var e ear
	tell := newTeller("h1", e.emit)
	see := func(alive bool, age time.Duration) {
		tell.doubts(topology.Observations{Hosts: map[string]topology.HostObs{"h2": {Alive: alive, Reported: true, ReportAge: age}}}, 1)
	}
	see(true, time.Second)
	e.take(t)
	see(true, missedReport)
	see(true, missedReport+time.Second)
	e.take(t, "host.suspect")
	see(true, 0)
	see(true, 0)
	e.take(t, "host.recovered")
	see(true, missedReport)
	see(false, 2*missedReport)
	see(true, 0)
	e.take(t, "host.suspect") // that it failed and recovered is gossip's to say
}

func TestRunsAreTold(t *testing.T) {
	var e ear
	tell := newTeller("h1", e.emit)
	tell.runs(topology.RecordRuns{Runs: []topology.RunRecord{
		{App: "a", Of: 3, Outcome: topology.RunDone},
		{App: "b", Of: 3, Outcome: topology.RunFailed, Begin: true},
		{App: "c", Of: 3, Outcome: topology.RunFailed},
		{App: "d", Of: 3, Outcome: topology.RunReplaced, Begin: true},
	}}, 9)
	e.take(t, "app.stopped", "app.needs_human", "app.stopped")
	for _, of := range []uint64{3, 3, 3, 7, 7} {
		tell.runs(topology.RecordRuns{Runs: []topology.RunRecord{{App: "a", Of: of, Passed: "the one before it still runs", Overlap: true}}}, 9)
	}
	e.take(t, "app.unplaced", "app.unplaced")
	tell.runs(topology.RecordRuns{Runs: []topology.RunRecord{{App: "a", Of: 7, Passed: "missed"}}}, 9)
	e.take(t, "app.unplaced")
}

// What was decided is told once by each leader that finds it untold.
func TestFactsAreTold(t *testing.T) {
	var e ear
	tell := newTeller("h1", e.emit)
	facts := []topology.Fact{
		{Index: 4, Setting: &topology.SettingChange{Setting: topology.SettingRebalance, From: "off", To: "10/10m"}},
		{Index: 6, Removed: &topology.Revocation{Name: "h2", ID: "id", Unproved: []string{provedFiles}}},
		{Index: 7, Removed: &topology.Revocation{Name: "h3", ID: "id", Left: true}},
	}
	if upTo := tell.facts(facts[:1]); upTo != 4 {
		t.Errorf("told up to %d", upTo)
	}
	e.take(t, "mesh.changed")
	if upTo := tell.facts(facts); upTo != 7 {
		t.Errorf("told up to %d", upTo)
	}
	e.take(t, "host.removed", "host.left")
	tell.facts(facts) // that it was told could not be recorded
	e.take(t)
	tell.elected(2, 9)
	tell.facts(facts[1:])
	e.take(t, "leader.elected", "host.removed", "host.left")
}
