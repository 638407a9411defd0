//go:build linux

package systemd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// counting runs script after adding a line with its start number to a file in
// STATE_DIR, by which a test sees every start that there ever was.
func counting(script string) []string {
	return sh(`echo "$GANGLION_START" >>"$STATE_DIR/starts"; ` + script)
}

func starts(t testing.TB, d *Driver, id workload.CopyID) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(d.dirs.copyDir(id), stateDir, "starts"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}

// TestPID1Restarts: kills are healed by PID 1 and told after the fact, each with
// its signal and successor.
func TestPID1Restarts(t *testing.T) {
	needSystemd(t)
	d := fresh(t, dataDir(t))
	s := specOf("web", 1, counting("exec sleep 1000"))
	s.SelfHeal = true
	h := start(t, d, s, 3)
	unit := h.(*handle).unit
	was := h.Instance()
	eventually(t, "the first to count itself", func() bool { return len(starts(t, d, s.ID)) == 1 })
	for i := 1; i <= 3; i++ {
		if err := h.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		e, ok := nextExit(t, h)
		if !ok || !e.Known || e.Signal != syscall.SIGKILL || e.Successor == nil || e.Ran <= 0 {
			t.Fatalf("exit %d: %+v", i, e)
		}
		if e.Successor.Pid == was.Pid || e.Successor.Start != 3+i || !alive(e.Successor.Pid) || e.Successor.StartTime == 0 {
			t.Errorf("successor %d: %+v of %+v", i, *e.Successor, was)
		}
		if now := h.Instance(); now.Pid != e.Successor.Pid || now.Start != e.Successor.Start {
			t.Errorf("the handle says %+v, its exit %+v", now, *e.Successor)
		}
		was = *e.Successor
		n := i
		eventually(t, "the successor to count itself", func() bool { return len(starts(t, d, s.ID)) == n+1 })
	}
	if got := strings.Join(starts(t, d, s.ID), " "); got != "3 4 5 6" {
		t.Errorf("GANGLION_START of the starts: %s, want 3 4 5 6", got)
	}
	if n := property1(t, unit, "NRestarts"); n != "3" {
		t.Errorf("PID 1 counts %s restarts, want 3", n)
	}
	if err := h.Stop(ctxFor(t), syscall.SIGTERM, patience); err != nil {
		t.Fatal(err)
	}
	if e, ok := nextExit(t, h); !ok || e.Successor != nil || e.Signal != syscall.SIGTERM {
		t.Errorf("last exit %+v, %v", e, ok)
	}
	if _, ok := nextExit(t, h); ok {
		t.Error("an exit after the last")
	}
}

// TestHealedWithoutAgent: with no agent PID 1 restarts the copy; the next agent
// adopts the successor and restarts nothing.
func TestHealedWithoutAgent(t *testing.T) {
	needSystemd(t)
	dir := dataDir(t)
	d := fresh(t, dir)
	s := specOf("my-app", 2, counting("exec sleep 1000"))
	s.SelfHeal, s.Env = true, map[string]string{"SECRET": "hunter2"}
	h := start(t, d, s, 1)
	first := h.Instance().Pid
	eventually(t, "the first to count itself", func() bool { return len(starts(t, d, s.ID)) == 1 })
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := nextExit(t, h); ok {
		t.Error("closing the driver told an exit")
	}
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "PID 1 to restart it", func() bool { return len(starts(t, d, s.ID)) == 2 })
	d = open(t, dir)
	hs, err := d.Adopt(ctxFor(t))
	if err != nil || len(hs) != 1 {
		t.Fatalf("adopted %v, %v", hs, err)
	}
	in := hs[0].Instance()
	if in.Pid == first || !alive(in.Pid) || in.Start != 2 || in.Spec.Env["SECRET"] != "hunter2" || !in.Spec.SelfHeal {
		t.Errorf("adopted %+v, the first was process %d", in, first)
	}
	if err := hs[0].Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e, ok := nextExit(t, hs[0]); !ok || e.Successor == nil || e.Successor.Start != 3 {
		t.Errorf("exit of the adopted copy: %+v", e)
	}
}

// TestStartLimit: PID 1 gives up after its burst; then the agent owns what comes.
func TestStartLimit(t *testing.T) {
	needSystemd(t)
	d := fresh(t, dataDir(t))
	s := specOf("web", 1, counting("exit 3"))
	s.SelfHeal = true
	h := start(t, d, s, 1)
	for {
		e, ok := nextExit(t, h)
		if !ok {
			t.Fatal("no last exit")
		}
		if e.Known && e.Code != 3 {
			t.Errorf("exit %+v", e)
		}
		if e.Successor == nil {
			break
		}
	}
	if n := len(starts(t, d, s.ID)); n != restartBurst {
		t.Errorf("PID 1 started it %d times, want %d", n, restartBurst)
	}
	if _, err := d.Start(ctxFor(t), s, 6); err != nil { // a unit of its own: with the limit fresh
		t.Errorf("the agent's own restart: %v", err)
	}
}

// TestStopNeverRacesRestart stops copies in the very moment in which they die,
// by themselves or by a kill. When Stop has returned nothing runs, and nothing
// is started any more.
func TestStopNeverRacesRestart(t *testing.T) {
	needSystemd(t)
	d := fresh(t, dataDir(t))
	const rounds = 12
	var wg sync.WaitGroup
	for i := range rounds {
		s := specOf("web", i, counting(`trap 'exit 0' TERM; sleep 0.0`+strconv.Itoa(i)+` & wait; kill -9 $$`))
		s.SelfHeal = true
		wg.Go(func() {
			h, err := d.Start(ctxFor(t), s, 1)
			if err != nil {
				t.Errorf("start: %v", err)
				return
			}
			grace := time.Duration(i%2) * patience
			if err := h.Stop(ctxFor(t), syscall.SIGTERM, grace); err != nil {
				t.Errorf("stop: %v", err)
			}
			if in := h.Instance(); alive(in.Pid) {
				t.Errorf("%s: process %d outlived Stop", s.ID, in.Pid)
			}
			if _, err := os.Stat("/sys/fs/cgroup/ganglion.slice/" + h.(*handle).unit); err == nil {
				b, _ := os.ReadFile("/sys/fs/cgroup/ganglion.slice/" + h.(*handle).unit + "/cgroup.procs")
				if len(b) > 0 {
					t.Errorf("%s: processes left after Stop: %s", s.ID, b)
				}
			}
		})
	}
	wg.Wait()
	counts := map[int]int{}
	for i := range rounds {
		counts[i] = len(starts(t, d, workload.CopyID{App: "web", N: i}))
	}
	// What PID 1 still had in mind it would do now: let it finish all it has.
	if out, err := exec.Command("systemctl", "daemon-reload").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i := range rounds {
		if n := len(starts(t, d, workload.CopyID{App: "web", N: i})); n != counts[i] {
			t.Errorf("copy %d was started again after Stop", i)
		}
	}
	if units, err := d.list(ctxFor(t), unitPrefix+"web-*"+d.tag+"*"); err != nil || len(units) > 0 {
		t.Errorf("units left: %v, %v", units, err)
	}
}

// TestOtherStopRule: another signal, and a grace beyond the unit's own time, by a
// changed unit; without a restart, and with nothing left behind.
func TestOtherStopRule(t *testing.T) {
	needSystemd(t)
	d := fresh(t, dataDir(t))
	for _, c := range []struct {
		sig   syscall.Signal
		grace time.Duration
		want  string
	}{
		{syscall.SIGINT, patience, "INT"}, {syscall.SIGUSR1, 2 * unitStopTime, "USR1"}, {syscall.SIGTERM, 2 * unitStopTime, "TERM"},
	} {
		s := specOf("web", 1, counting(`for s in INT TERM USR1; do trap "echo $s >>$STATE_DIR/got; exit 0" $s; done; echo >$STATE_DIR/ready; while :; do sleep 0.01; done`))
		s.SelfHeal = true
		h := start(t, d, s, 1)
		state := filepath.Join(d.dirs.copyDir(s.ID), stateDir)
		eventually(t, "its traps", func() bool { _, err := os.Stat(filepath.Join(state, "ready")); return err == nil })
		if err := h.Stop(ctxFor(t), c.sig, c.grace); err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(filepath.Join(state, "got")); strings.TrimSpace(string(b)) != c.want {
			t.Errorf("it got %q, want %s", b, c.want)
		}
		if n := len(starts(t, d, s.ID)); n != 1 {
			t.Errorf("started %d times", n)
		}
		if left, _ := filepath.Glob(runtimeUnits + "/" + unitPrefix + "*"); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		if err := d.Purge(ctxFor(t), s.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDaemonisedAndLeftOver: what a copy forks off belongs to it: stopped whole,
// and never in the way of its restart.
func TestDaemonisedAndLeftOver(t *testing.T) {
	needSystemd(t)
	d := fresh(t, dataDir(t))
	s := specOf("web", 1, counting(`setsid sh -c 'trap "" TERM HUP; echo $$ >>"$STATE_DIR/daemons"; while :; do sleep 1; done' & `+
		`while ! test -s "$STATE_DIR/daemons"; do sleep 0.01; done; trap "" TERM; while :; do sleep 0.1; done`))
	s.SelfHeal = true
	h := start(t, d, s, 1)
	daemons := func() []string {
		b, _ := os.ReadFile(filepath.Join(d.dirs.copyDir(s.ID), stateDir, "daemons"))
		return strings.Fields(string(b))
	}
	eventually(t, "a daemon", func() bool { return len(daemons()) == 1 })
	begun := time.Now()
	if err := h.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e, ok := nextExit(t, h)
	if !ok || e.Successor == nil {
		t.Fatalf("exit %+v", e)
	}
	if took := time.Since(begun); took > unitStopTime/3 {
		t.Errorf("restarted after %v: what was left over stood in the way", took)
	}
	eventually(t, "a second daemon", func() bool { return len(daemons()) == 2 })
	if err := h.Stop(ctxFor(t), syscall.SIGTERM, 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for _, pid := range daemons() {
		n, err := strconv.Atoi(pid)
		if err != nil || alive(n) {
			b, _ := os.ReadFile("/proc/" + pid + "/status")
			t.Errorf("daemon %s of %v is still there (%v)\n%s", pid, daemons(), err, b)
		}
	}
}

// TestPID1ExecutesItselfAnew: PID 1 drops all connections then (an upgrade of
// systemd does this). The driver comes back and misses nothing.
func TestPID1ExecutesItselfAnew(t *testing.T) {
	needSystemd(t)
	d := fresh(t, dataDir(t))
	s := specOf("web", 1, counting("exec sleep 1000"))
	s.SelfHeal = true
	h := start(t, d, s, 1)
	gone := specOf("web", 2, []string{"sleep", "1000"})
	h2 := start(t, d, gone, 1)
	kill := fmt.Sprintf("kill -9 %d %d", h.Instance().Pid, h2.Instance().Pid)
	if out, err := exec.Command("sh", "-c", "systemctl daemon-reexec & "+kill+"; wait").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if e, ok := nextExit(t, h); !ok || e.Successor == nil || !alive(e.Successor.Pid) {
		t.Errorf("exit across the re-exec: %+v", e)
	}
	if e, ok := nextExit(t, h2); !ok || e.Successor != nil {
		t.Errorf("last exit across the re-exec: %+v, %v", e, ok)
	}
	if err := h.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e, ok := nextExit(t, h); !ok || e.Successor == nil {
		t.Errorf("exit after the re-exec: %+v", e)
	}
}
