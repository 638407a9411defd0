package copies

import (
	"context"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// holdRetry is when a driver is asked again that could not do it.
const holdRetry = time.Second

// frozenHard tells whether an app's copies are not to be restarted by anybody.
func (m *Manager) frozenHard(app string) bool { return m.cfg.Frozen(app).Hard }

// keepHold has the driver's own manager restart copies or not, as a freeze says,
// until ctx ends: PID 1 asks no agent.
func (m *Manager) keepHold(ctx context.Context, d workload.Holder) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.hold:
		case <-retry.C:
		}
		if err := d.Hold(ctx, m.frozenHard); err != nil && ctx.Err() == nil {
			m.log.Warn("restarts are not held, or released, as a freeze says; trying again", "error", err)
			retry.Reset(holdRetry)
		}
	}
}

// holdKeeper tells the keeper of a copy, where it has one, whether to restart it.
func (r *runner) holdKeeper(ctx context.Context, hard bool) {
	kept, ok := r.handle.(workload.Holdable)
	if !ok || r.keeperKnows && r.keeperHolds == hard {
		return
	}
	if err := kept.Hold(ctx, hard); err != nil {
		r.m.log.Warn("a keeper is not told of a freeze; trying again", "copy", r.id.String(), "error", err)
		return
	}
	r.keeperKnows, r.keeperHolds = true, hard
}
