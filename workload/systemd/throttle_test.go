//go:build linux

package systemd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ganglion-mesh/ganglion/workload"
)

// TestThrottle: PID 1 holds the unit of a copy back, and after it does what the
// copy's own limit says; nothing is left behind. What PID 1 was told is looked at,
// not whether this host has the controller that does it.
func TestThrottle(t *testing.T) {
	needSystemd(t)
	d := fresh(t, dataDir(t))
	s := specOf("web", 1, sh("exec sleep 1000"))
	s.CPU = 0.5
	if err := d.Throttle(ctxFor(t), s.ID, workload.Throttle{CPU: 0.1}); err == nil {
		t.Error("a copy that does not run was held back")
	}
	h := start(t, d, s, 1).(*handle)
	for _, c := range []struct {
		cpu  float64
		want string
	}{{0.1, "100ms"}, {2, "500ms"}, {0.2, "200ms"}, {0, "500ms"}} {
		if err := d.Throttle(ctxFor(t), s.ID, workload.Throttle{CPU: c.cpu}); err != nil {
			t.Fatal(err)
		}
		if q := property1(t, h.unit, "CPUQuotaPerSecUSec"); q != c.want {
			t.Errorf("throttled to %v: quota %s, want %s", c.cpu, q, c.want)
		}
	}
	if err := d.Throttle(ctxFor(t), s.ID, workload.Throttle{CPU: 0.1}); err != nil {
		t.Fatal(err)
	}
	if err := h.Stop(ctxFor(t), unitStopSignal, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing is left of it", func() bool {
		_, err := os.Stat(filepath.Join(controlUnits, h.unit+".d"))
		return err != nil
	})
}
