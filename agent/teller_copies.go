package agent

import (
	"fmt"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
)

// copyEvent is the event of a copy that got a host, lost it, or has another.
func copyEvent(c topology.CopyFact) events.Payload {
	switch {
	case c.From == "":
		return events.AppPlaced{Host: c.To, Version: c.Version, Ports: c.Ports, Reason: placedFor(c)}
	case c.To == "":
		return events.AppUnplaced{Host: c.From, Reason: unplacedFor(c)}
	}
	told := events.AppMoved{From: c.From, To: c.To, Reason: c.Why}
	if c.As != nil {
		told.As = c.As.String()
	}
	return told
}

func placedFor(c topology.CopyFact) string {
	switch {
	case c.Relief != nil:
		return fmt.Sprintf("takes over from %s/%d on %s once it is well: %s", c.App, c.Relief.N, c.Relief.From, c.Relief.Why)
	case c.Surge:
		return "a rollout begins it beside the others"
	case !c.Run:
		return "it was wanted and had no host"
	case c.Due == 0:
		return "a run was asked for"
	}
	return "a run is due since " + time.Unix(c.Due, 0).UTC().Format(time.RFC3339)
}

func unplacedFor(c topology.CopyFact) string {
	switch {
	case c.Gone == topology.GoneApp:
		return "its app was removed"
	case c.Gone == topology.GoneHost:
		return "its host was removed from the mesh"
	case c.Why != "":
		return c.Why
	case c.Relief != nil:
		return fmt.Sprintf("it did not take over from %s/%d", c.App, c.Relief.N)
	case c.Surge:
		return "the rollout needs it no more"
	}
	return "it is not wanted any more"
}

// runEvent is the event of how a run of a job ended, or of due times that have
// none. That a run was skipped because the one before it still runs is told once
// for each that stands in the way; else it is nil.
func (t *teller) runEvent(r topology.RunFact) events.Payload {
	switch {
	case r.Outcome == topology.RunDone:
		return events.AppStopped{Reason: "its run is done: " + r.Why}
	case r.Outcome == topology.RunFailed && r.Again: // else its host has told it
		return events.AppNeedsHuman{Reason: "its run has failed: " + r.Why}
	case r.Outcome == topology.RunFailed:
		return events.AppStopped{Reason: "its run has failed: " + r.Why}
	case r.Overlap && t.skipped[r.App] == r.Of:
		return nil
	case r.Overlap:
		t.skipped[r.App] = r.Of
	}
	return events.AppUnplaced{Reason: r.Passed}
}
