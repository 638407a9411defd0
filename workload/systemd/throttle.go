//go:build linux

package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ganglion-mesh/ganglion/workload"
)

// controlUnits is where PID 1 keeps what was changed of units of this boot.
const controlUnits = "/run/systemd/system.control"

// CanThrottle implements workload.Throttler.
func (d *Driver) CanThrottle(t workload.Throttle) error { return CanThrottle(t) }

// CanThrottle tells why the control groups of this host cannot do t, or nil.
func CanThrottle(t workload.Throttle) error {
	b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers") // there in version 2 alone
	v2 := strings.Fields(string(b))
	if t.Memory > 0 && !slices.Contains(v2, "memory") {
		return errors.New("this host has no memory controller of cgroup version 2, which alone slows down instead of killing")
	}
	if t.CPU == 0 || slices.Contains(v2, "cpu") {
		return nil
	}
	if err != nil {
		for _, name := range []string{"cpu,cpuacct", "cpu"} {
			if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", name)); err == nil {
				return nil
			}
		}
	}
	return errors.New("this host has no cpu controller of cgroups")
}

// Throttle implements workload.Throttler. PID 1 is told of the unit's limits for
// as long as that runs: its restarts of the copy keep them. The keeper of a
// singleton is in the same unit and must never be late, so that is left alone.
func (d *Driver) Throttle(ctx context.Context, id workload.CopyID, t workload.Throttle) error {
	s, err := d.slot(id)
	if err != nil {
		return err
	}
	h := s.current.Load()
	switch {
	case h == nil || h.over():
		return fmt.Errorf("throttle %s: it does not run", id)
	case h.spec.Lease != nil && t != (workload.Throttle{}):
		return fmt.Errorf("throttle %s: it is a singleton, and its keeper would be held back with it", id)
	}
	most := boundsOf(t)
	if own := uint64(h.spec.CPU * 1e6); own > 0 {
		most[0] = min(most[0], max(own, 1000))
	}
	props := []property{prop(bounds[0].property, most[0]), prop(bounds[1].property, most[1])}
	if err := d.bus.call(ctx, "SetUnitProperties", []any{h.unit, true, props}); err != nil {
		return fmt.Errorf("throttle %s: %w", id, err)
	}
	if t == (workload.Throttle{}) {
		// What PID 1 wrote down to remember says what the unit says itself.
		_ = os.RemoveAll(filepath.Join(controlUnits, h.unit+".d"))
	}
	return nil
}
