package copies

import (
	"context"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/workload"
)

// smokeTries is how often a smoke check is tried that says nothing, because the
// host itself was starved.
const smokeTries = 3

// smoke is the run of a copy's smoke checks that was asked for last.
type smoke struct {
	id  uint64 // of the asking; 0: none was
	end topology.SmokeState
	why string
}

// beginSmoke runs the order's smoke checks beside the runner if they were not
// asked for before.
func (r *runner) beginSmoke(ctx context.Context) {
	o := r.order
	if o.smoke == 0 || o.smoke == r.smoke.id {
		return
	}
	r.smoke = smoke{id: o.smoke}
	checks := make([]probe, 0, len(o.smokes))
	for _, c := range o.smokes {
		timeout := c.Timeout.Std()
		c.Type = intent.CheckExec
		checks = append(checks, probe{look: r.probeOf(o, c), timeout: timeout})
	}
	r.probers.Go(func() {
		ended := r.m.runSmoke(ctx, o.smoke, checks)
		select {
		case r.smoked <- ended:
		case <-ctx.Done():
		}
	})
}

// runSmoke carries out the checks in their order, up to the first that fails.
func (m *Manager) runSmoke(ctx context.Context, id uint64, checks []probe) smoke {
	for _, c := range checks {
		result := m.carryOut(ctx, c)
		for tries := 1; result.Outcome == workload.Unknown && tries < smokeTries; tries++ {
			result = m.carryOut(ctx, c)
		}
		if result.Outcome != workload.Passed {
			return smoke{id: id, end: topology.SmokeFailed, why: result.Why}
		}
	}
	return smoke{id: id, end: topology.SmokePassed}
}
