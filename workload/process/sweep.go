//go:build linux

package process

import (
	"context"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/workload/program"
)

// sweepAfter keeps the search out of the way of restarts.
const sweepAfter = 250 * time.Millisecond

// sweepLater has whoever carries the mark of a start that is over killed, in a
// moment, together with others: one search serves all, however fast copies crash.
// If the driver is closed before, the next life's Adopt finds them.
func (d *Driver) sweepLater(mark string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.over = append(d.over, mark)
	if len(d.over) == 1 {
		d.wg.Go(d.sweep)
	}
}

func (d *Driver) sweep() {
	t := time.NewTimer(sweepAfter)
	defer t.Stop()
	select {
	case <-t.C:
	case <-d.closing:
		return
	}
	d.mu.Lock()
	marks := d.over
	d.over = nil
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), clearFor)
	defer cancel()
	if err := endRemnants(ctx, d.tag, marks); err != nil {
		d.log.Warn("end what copies left", "marks", marks, "error", err)
	}
}

// endRemnants kills whoever carries one of the marks until there is nobody. It is
// for the case that there is no cgroup.
func endRemnants(ctx context.Context, tag string, marks []string) error {
	if len(marks) == 0 {
		return nil
	}
	return poll(ctx, func() (bool, error) {
		found, err := findMarked(tag + "-")
		if err != nil {
			return false, err
		}
		done := true
		for _, m := range found {
			st, err := program.ReadStat(m.pid)
			if err != nil || !st.Running() || !slices.Contains(marks, m.nonce) {
				continue
			}
			done = false
			program.KillExact(m.pid, st.Start)
		}
		return done, nil
	})
}
