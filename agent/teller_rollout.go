package agent

import (
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
)

// rollout is the event of one step of a rollout.
func (t *teller) rollout(f topology.Fact, state *topology.State) events.Payload {
	r, begun := f.Rollout, "rollout/"+f.Rollout.App
	switch r.What {
	case topology.RolloutBegan:
		t.begun[begun] = f.At
		return events.RolloutStarted{Version: r.Version, Previous: r.Other, Copies: r.Want}
	case topology.RolloutFailed:
		return events.RolloutFailed{Version: r.Version, Reason: r.Why}
	case topology.RolloutHeld:
		return events.RolloutHeld{Version: r.Version, Reason: r.Why + "; apply a version that works or this one again, or go back: ganglion rollback " + r.App}
	case topology.RolloutBack:
		delete(t.begun, begun)
		return events.RolloutRolledback{Version: r.Version, To: r.Other, Reason: r.Why}
	case topology.RolloutFinished:
		return events.RolloutDone{Version: r.Version, TookMS: t.took(begun, f.At)}
	}
	return events.RolloutProgressed{Version: r.Version, Phase: string(r.Phase), Updated: r.Updated, Ready: t.ready(*r, state), Want: r.Want}
}

// ready is how many copies are ready at the version that is rolled out, as far as
// is known when that is told.
func (t *teller) ready(r topology.RolloutFact, state *topology.State) (n int) {
	for _, p := range state.PlacementsOf(r.App) {
		c := t.obs.Hosts[p.Host].Copies[p.Key()]
		if p.Version == r.Version && c.Ready && c.Generation == p.Generation {
			n++
		}
	}
	return min(n, r.Updated)
}

// took returns the milliseconds from what began until at, 0 if this leader has not
// told that it began.
func (t *teller) took(what string, at int64) int64 {
	began, ok := t.begun[what]
	delete(t.begun, what)
	if !ok {
		return 0
	}
	return max(0, at-began)
}
