package agent

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
)

// ear notes what a teller tells.
type ear struct {
	told []string
	ids  []string
	deaf error // it takes nothing
}

func (e *ear) emit(d events.Draft) error {
	if e.deaf == nil {
		e.told, e.ids = append(e.told, d.Type), append(e.ids, d.ID)
	}
	return e.deaf
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
	index := uint64(8)
	hear := func(runs ...topology.RunFact) {
		var list []topology.Fact
		index++
		for i, r := range runs {
			list = append(list, topology.Fact{Index: index, Nth: i, Run: &r})
		}
		tell.facts(list, topology.New())
	}
	hear(topology.RunFact{App: "a", Of: 3, Outcome: topology.RunDone},
		topology.RunFact{App: "b", Of: 3, Outcome: topology.RunFailed, Again: true},
		topology.RunFact{App: "c", Of: 3, Outcome: topology.RunFailed})
	e.take(t, "app.stopped", "app.needs_human", "app.stopped")
	for _, of := range []uint64{3, 3, 3, 7, 7} {
		hear(topology.RunFact{App: "a", Of: of, Passed: "the one before it still runs", Overlap: true})
	}
	e.take(t, "app.unplaced", "app.unplaced")
	hear(topology.RunFact{App: "a", Of: 7, Passed: "missed"})
	e.take(t, "app.unplaced")
}

// What was decided is told once by each leader that finds it untold, by one id
// whoever tells it; and what could not be recorded is told later, in order.
func TestFactsAreTold(t *testing.T) {
	var e ear
	tell, state := newTeller("h1", e.emit), topology.New()
	facts := []topology.Fact{
		{Index: 4, Setting: &topology.SettingChange{Setting: topology.SettingRebalance, From: "off", To: "10/10m"}},
		{Index: 6, Removed: &topology.Revocation{Name: "h2", ID: "id", Unproved: []string{provedFiles}}},
		{Index: 6, Nth: 1, Copy: &topology.CopyFact{App: "web", From: "h2", Gone: topology.GoneHost}},
		{Index: 7, Removed: &topology.Revocation{Name: "h3", ID: "id", Left: true}},
	}
	hear := func(list []topology.Fact, upTo uint64, want ...string) {
		t.Helper()
		if got := tell.facts(list, state); got != upTo {
			t.Errorf("told up to %d, want %d", got, upTo)
		}
		e.take(t, want...)
	}
	hear(facts[:1], 4, "mesh.changed")
	e.deaf = errors.New("no space left on device")
	hear(facts, 4)
	e.deaf = nil
	hear(facts, 7, "host.removed", "app.unplaced", "host.left")
	hear(facts, 7) // that it was told could not be recorded
	first := e.ids
	e.ids = nil
	tell.elected(2, 9)
	hear(facts[1:], 7, "leader.elected", "host.removed", "app.unplaced", "host.left")
	if !slices.Equal(e.ids[1:], first[1:]) || e.ids[1] == e.ids[2] {
		t.Errorf("told again by the ids %q, before %q", e.ids, first)
	}
	tell.elected(3, 9)
	e.take(t, "leader.elected")
	missed := append([]topology.Fact{{Index: 5, Missed: 9}}, facts[1:]...)
	hear(missed, 7, "mesh.missed", "host.removed", "app.unplaced", "host.left")
}

// What acts of reflexes led to is told with their rules.
func TestFactsOfReflexesAreTold(t *testing.T) {
	var told []events.Draft
	tell := newTeller("h1", func(d events.Draft) error { told = append(told, d); return nil })
	tell.facts([]topology.Fact{
		{Index: 4, Copy: &topology.CopyFact{App: "web", From: "h2", To: "h3", Why: "evicted by reflex flee"}, Chain: "hot,web/flee"},
		{Index: 5, Host: &topology.HostFact{Name: "h2", What: topology.HostDraining}},
	}, topology.New())
	if len(told) != 2 || told[0].Chain != "hot,web/flee" || told[1].Chain != "" {
		t.Errorf("told %+v", told)
	}
}

// An event that no recorder ever takes does not hold up those that follow.
func TestAFactThatIsNoEventIsPassedOver(t *testing.T) {
	e := ear{deaf: fmt.Errorf("record: %w", events.ErrInvalid)}
	tell := newTeller("h1", e.emit)
	if told := tell.facts([]topology.Fact{{Index: 4, Host: &topology.HostFact{Name: "NO NAME", What: topology.HostJoined}}}, topology.New()); told != 4 {
		t.Errorf("told up to %d", told)
	}
}
