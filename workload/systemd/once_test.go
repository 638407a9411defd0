//go:build linux

package systemd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// units lists the units of a directory's copies that PID 1 knows, whatever their
// state.
func units(t testing.TB, dir string) []string {
	t.Helper()
	out, err := exec.Command("systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", unitPrefix+"*-"+tagOf(dir)+"*").Output()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		names = append(names, strings.Fields(line)[0])
	}
	return names
}

// job is a copy that runs once: it counts itself, waits for the file "go" in its
// STATE_DIR, and ends by a script.
func job(n int, script string) workload.Spec {
	s := specOf("job", n, counting(`until [ -e "$STATE_DIR/go" ]; do sleep 0.02; done; `+script))
	s.Once, s.Generation = true, 7
	return s
}

// release lets a job end, and waits until PID 1 has seen it.
func release(t testing.TB, d *Driver, h workload.Handle) {
	t.Helper()
	in := h.Instance()
	if err := os.WriteFile(filepath.Join(d.dirs.copyDir(in.Spec.ID), stateDir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of "+in.Spec.ID.String(), func() bool {
		return property1(t, h.(*handle).unit, "MainPID") == "0"
	})
}

// reopen is another life of the agent, in which nothing of a copy runs.
func reopen(t testing.TB, d *Driver, dir string) (*Driver, []workload.End) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, dir)
	if hs, err := d.Adopt(ctxFor(t)); err != nil || len(hs) != 0 {
		t.Fatalf("adopted %v, %v: nothing runs", hs, err)
	}
	return d, d.Ended()
}

func gone(t testing.TB, d *Driver, dir string) {
	t.Helper()
	eventually(t, "the units to be forgotten", func() bool {
		files, err := os.ReadDir(d.dirs.units)
		return err == nil && len(files) == 0 && len(units(t, dir)) == 0
	})
}

// TestEndWithoutAgent: how a copy that runs once has ended is known to the next
// agent, and to the one after it if that one died; once it is forgotten nothing
// is left.
func TestEndWithoutAgent(t *testing.T) {
	needSystemd(t)
	for i, c := range []struct {
		name, script string
		want         workload.Exit
	}{
		{"success", "sleep 0.2; exit 0", workload.Exit{Known: true}},
		{"failure", "exit 3", workload.Exit{Known: true, Code: 3}},
		{"signal", "kill -USR1 $$", workload.Exit{Known: true, Signal: syscall.SIGUSR1}},
		{"killed", "kill -KILL $$", workload.Exit{Known: true, Signal: syscall.SIGKILL}},
		{"leftovers", "sleep 1000 & exit 0", workload.Exit{Known: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := dataDir(t)
			d := fresh(t, dir)
			s := job(i, c.script)
			h := start(t, d, s, 2)
			was := h.Instance()
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			release(t, d, h)
			if out, err := exec.Command("systemctl", "daemon-reload").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for life := range 2 {
				var ends []workload.End
				d, ends = reopen(t, d, dir)
				if len(ends) != 1 {
					t.Fatalf("life %d: ends %+v, units %v", life, ends, units(t, dir))
				}
				in, e := ends[0].Instance, ends[0].Exit
				if in.Spec.ID != s.ID || in.Spec.Generation != 7 || in.Start != 2 || in.Pid != was.Pid {
					t.Errorf("life %d: it is the end of %+v, want of %+v", life, in, was)
				}
				if e.Known != c.want.Known || e.Code != c.want.Code || e.Signal != c.want.Signal || e.Ran <= 0 || e.Successor != nil {
					t.Errorf("life %d: exit %+v, want %+v", life, e, c.want)
				}
				if ago := time.Since(e.At); ago <= 0 || ago > patience || !e.At.After(was.Since) {
					t.Errorf("life %d: it began at %s and ended at %s", life, was.Since, e.At)
				}
			}
			if again := d.Ended(); len(again) != 0 {
				t.Errorf("told again: %+v", again)
			}
			d.Forget(s.ID)
			gone(t, d, dir)
			if got := len(starts(t, d, s.ID)); got != 1 {
				t.Errorf("it was started %d times", got)
			}
			d, ends := reopen(t, d, dir)
			if len(ends) != 0 {
				t.Errorf("forgotten, and told: %+v", ends)
			}
			if err := d.Purge(ctxFor(t), s.ID); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestEndWithAgent: the unit stays until its end is remembered; a start, a stop
// and a purge need no more of it.
func TestEndWithAgent(t *testing.T) {
	needSystemd(t)
	dir := dataDir(t)
	d := fresh(t, dir)
	s := job(1, "exit 3")
	h := start(t, d, s, 1)
	d.Forget(s.ID) // it runs: nothing is to be forgotten
	release(t, d, h)
	if e, ok := nextExit(t, h); !ok || !e.Known || e.Code != 3 {
		t.Fatalf("exit %+v", e)
	}
	if got := units(t, dir); len(got) != 1 {
		t.Fatalf("before it was remembered: units %v", got)
	}
	s.Command = counting("exit 0")
	h = start(t, d, s, 2)
	if e, ok := nextExit(t, h); !ok || !e.Known || e.Code != 0 || e.Signal != 0 {
		t.Fatalf("exit %+v", e)
	}
	if got := units(t, dir); len(got) != 1 || got[0] != h.(*handle).unit {
		t.Errorf("units %v, want only the last", got)
	}
	if err := h.Stop(ctxFor(t), syscall.SIGTERM, patience); err != nil {
		t.Error(err)
	}
	s.Command = []string{"sleep", "1000"}
	h = start(t, d, s, 3)
	if err := h.Stop(ctxFor(t), syscall.SIGTERM, patience); err != nil {
		t.Error(err)
	}
	d.Forget(s.ID)
	gone(t, d, dir)
	h = start(t, d, s, 4)
	if err := h.Stop(ctxFor(t), syscall.SIGTERM, 0); err != nil {
		t.Error(err)
	}
	if err := d.Purge(ctxFor(t), s.ID); err != nil {
		t.Error(err)
	}
	gone(t, d, dir)
	// What could not be started leaves nothing either.
	s.Command = []string{"/etc/passwd"}
	if _, err := d.Start(ctxFor(t), s, 5); !isStartError(err) {
		t.Errorf("started what is no program: %v", err)
	}
	gone(t, d, dir)
}

// TestLastEndCounts: of several units of a copy, left by agents that died between
// two starts, the last counts, and one that runs before all.
func TestLastEndCounts(t *testing.T) {
	needSystemd(t)
	dir := dataDir(t)
	d := fresh(t, dir)
	s := job(1, "exit $GANGLION_START")
	again := func(n int) workload.Handle {
		d.mu.Lock()
		d.copies[s.ID] = &slot{checked: true} // else it would collect what was before
		d.mu.Unlock()
		return start(t, d, s, n)
	}
	for n := 3; n >= 1; n-- {
		release(t, d, again(n))
	}
	d, ends := reopen(t, d, dir)
	if len(ends) != 1 || ends[0].Exit.Code != 3 || ends[0].Instance.Start != 3 {
		t.Fatalf("ends %+v", ends)
	}
	if got := units(t, dir); len(got) != 1 {
		t.Errorf("units %v, want the last alone", got)
	}
	s.Command = []string{"sleep", "1000"}
	runs := again(4)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, dir)
	hs, err := d.Adopt(ctxFor(t))
	if err != nil || len(hs) != 1 || hs[0].Instance().Pid != runs.Instance().Pid {
		t.Fatalf("adopted %v, %v", hs, err)
	}
	if ends := d.Ended(); len(ends) != 0 {
		t.Errorf("ends %+v of a copy that runs", ends)
	}
	if got := units(t, dir); len(got) != 1 {
		t.Errorf("units %v, want what runs alone", got)
	}
	if err := hs[0].Stop(ctxFor(t), syscall.SIGTERM, 0); err != nil {
		t.Error(err)
	}
	d.Forget(s.ID)
	gone(t, d, dir)
}

// TestLastOfACopyCounts is about the rule alone: PID 1 is not needed.
func TestLastOfACopyCounts(t *testing.T) {
	of := func(generation uint64, n int, over bool) *handle {
		h := (&Driver{}).newHandle("u", workload.Spec{Generation: generation}, n)
		h.finished = over
		return h
	}
	for i, c := range []struct {
		h, o *handle
		want bool
	}{
		{of(7, 2, true), of(7, 1, true), true},
		{of(7, 1, true), of(7, 2, true), false},
		{of(8, 1, true), of(7, 9, true), true},
		{of(8, 1, true), of(7, 1, false), false},
	} {
		if got := c.h.after(c.o); got != c.want {
			t.Errorf("%d: %v", i, got)
		}
	}
}

// TestKilledForMemoryIsNoSuccess: PID 1 ends a unit of which the kernel killed a
// process; that its first process ends well then says nothing.
func TestKilledForMemoryIsNoSuccess(t *testing.T) {
	for _, oom := range []bool{false, true} {
		tr := tracker{first: 1}
		now := time.Now()
		tr.seeService(service{mainPID: 5, lastPID: 5, startUSec: 10}, now)
		tr.begin()
		tr.seeService(service{lastPID: 5, startUSec: 10, exitUSec: 20, code: cldExited, oom: oom}, now)
		state := unitState{active: "active", sub: "exited", changedUSec: 20}
		if oom {
			state = unitState{active: "failed", sub: "failed", changedUSec: 20}
		}
		r := tr.seeUnit(state, now)
		if r == nil || !r.exit.Known || (r.exit.Signal == syscall.SIGKILL) != oom {
			t.Errorf("oom %v: %+v", oom, fmt.Sprint(r))
		}
	}
}
