//go:build linux

package process

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

// quotaGroup is the group that holds a copy's use of the cores.
func quotaGroup(d *Driver, id workload.CopyID) string {
	if d.cg.v2cpu {
		return filepath.Join(d.cg.v2, copyName(id))
	}
	return filepath.Join(d.cg.v1cpu, copyName(id))
}

// quota is a copy's quota in microseconds of 100 ms, "none", or "" where there
// is no group that could have one.
func quota(d *Driver, id workload.CopyID) string {
	for _, file := range []string{"cpu.max", "cpu.cfs_quota_us"} {
		if b, err := os.ReadFile(filepath.Join(quotaGroup(d, id), file)); err == nil {
			if q := strings.Fields(string(b))[0]; q != "max" && q != "-1" {
				return q
			}
			return "none"
		}
	}
	return ""
}

// needThrottle skips where nothing can be held back.
func needThrottle(t *testing.T, d *Driver) {
	t.Helper()
	if err := d.CanThrottle(workload.Throttle{CPU: 1}); err != nil {
		t.Skipf("needs the cpu controller of cgroups: %v", err)
	}
}

// TestThrottle: all processes of a copy that does nothing but run are held back,
// by the kernel's own count, and let go again.
func TestThrottle(t *testing.T) {
	d := fresh(t, Config{})
	needThrottle(t, d)
	s := shell(1, "while :; do :; done & while :; do :; done")
	if err := d.Throttle(ctxOf(t), s.ID, workload.Throttle{CPU: 0.1}); err == nil {
		t.Error("a copy that does not run was held back")
	}
	h := start(t, d, s, 1)
	throttle := func(th workload.Throttle) {
		t.Helper()
		if err := d.Throttle(ctxOf(t), s.ID, th); err != nil {
			t.Fatal(err)
		}
	}
	throttle(workload.Throttle{CPU: 0.05})
	if q := quota(d, s.ID); q != "5000" {
		t.Errorf("quota %s", q)
	}
	awaitThrottled(t, quotaGroup(d, s.ID))
	children := 0
	in, err := procsOf(quotaGroup(d, s.ID))
	for pid := range in {
		if st, err := program.ReadStat(pid); err == nil && st.Parent == h.inst.Pid {
			children++
		}
	}
	if err != nil || !in[h.inst.Pid] || children != 1 {
		t.Errorf("held back: %v, %v", in, err)
	}
	throttle(workload.Throttle{CPU: 0.2})
	if q := quota(d, s.ID); q != "20000" {
		t.Errorf("quota %s after another", q)
	}
	throttle(workload.Throttle{})
	throttle(workload.Throttle{})
	if q := quota(d, s.ID); q != "" && q != "none" {
		t.Errorf("quota %s after its end", q)
	}
	stop(t, h, 0)
}

// awaitThrottled waits until the kernel has held a group back.
func awaitThrottled(t *testing.T, dir string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		b, _ := os.ReadFile(filepath.Join(dir, "cpu.stat"))
		if s := string(b); strings.Contains(s, "nr_throttled") && !strings.Contains(s, "nr_throttled 0\n") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never held back: %s", b)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// TestThrottleBelowTheLimit: what a copy may use at most by its spec holds
// besides, and comes back.
func TestThrottleBelowTheLimit(t *testing.T) {
	d := fresh(t, Config{})
	needThrottle(t, d)
	s := shell(1, "exec sleep 1000")
	s.CPU = 0.5
	h := start(t, d, s, 1)
	for _, c := range []struct {
		cpu  float64
		want string
	}{{2, "50000"}, {0.1, "10000"}, {0.000001, "1000"}, {0, "50000"}} {
		if err := d.Throttle(ctxOf(t), s.ID, workload.Throttle{CPU: c.cpu}); err != nil {
			t.Fatal(err)
		}
		if q := quota(d, s.ID); q != c.want {
			t.Errorf("throttled to %v: quota %s, want %s", c.cpu, q, c.want)
		}
	}
	if in, err := procsOf(quotaGroup(d, s.ID)); err != nil || !in[h.inst.Pid] {
		t.Errorf("under its own limit: %v, %v", in, err)
	}
	stop(t, h, 0)
}

// TestThrottleV2, on directories that look like groups of version 2.
func TestThrottleV2(t *testing.T) {
	group := t.TempDir()
	for _, file := range []string{"memory.high", "cpu.max"} {
		if err := os.WriteFile(filepath.Join(group, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := &Driver{cg: cgroups{v2: filepath.Dir(group), v2cpu: true, v2memory: true}, copies: map[workload.CopyID]*slot{}}
	id := workload.CopyID{App: "web", N: 1}
	d.copies[id] = &slot{live: &handle{}, prep: &prepared{cg: &program.Cgroup{Path: group}, spec: workload.Spec{ID: id, CPU: 2}}}
	for _, c := range []struct {
		th        workload.Throttle
		cpu, high string
	}{
		{workload.Throttle{CPU: 0.5, Memory: 64 << 20}, "50000 100000", "67108864"},
		{workload.Throttle{CPU: 0.5}, "50000 100000", "max"},
		{workload.Throttle{}, "200000 100000", "max"},
	} {
		if err := d.Throttle(t.Context(), id, c.th); err != nil {
			t.Fatal(err)
		}
		cpu, _ := os.ReadFile(filepath.Join(group, "cpu.max"))
		high, _ := os.ReadFile(filepath.Join(group, "memory.high"))
		if string(cpu) != c.cpu || string(high) != c.high {
			t.Errorf("%+v: cpu.max %q, memory.high %q", c.th, cpu, high)
		}
	}
}

// TestCannotThrottle: a host without the means says which.
func TestCannotThrottle(t *testing.T) {
	d := fresh(t, Config{NoCgroups: true})
	for th, want := range map[workload.Throttle]string{
		{CPU: 1}:    "no cpu controller",
		{Memory: 1}: "cgroup version 2",
	} {
		if err := d.CanThrottle(th); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", th, err)
		}
	}
	s := shell(1, "exec sleep 1000")
	h := start(t, d, s, 1)
	if err := d.Throttle(ctxOf(t), s.ID, workload.Throttle{CPU: 1}); err == nil {
		t.Error("held back without cgroups")
	}
	if err := d.Throttle(ctxOf(t), s.ID, workload.Throttle{}); err != nil {
		t.Errorf("not held back: %v", err)
	}
	stop(t, h, 0)
}
