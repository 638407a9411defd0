//go:build linux

package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ganglion-mesh/ganglion/workload"
)

// only holds one app, or with "" none.
func only(app string) func(string) bool { return func(a string) bool { return a == app } }

func hold(t testing.TB, d *Driver, held func(string) bool) {
	t.Helper()
	if err := d.Hold(ctxFor(t), held); err != nil {
		t.Fatal(err)
	}
}

func reload(t testing.TB) {
	t.Helper()
	if out, err := exec.Command("systemctl", "daemon-reload").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func dropIns(t testing.TB, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(runtimeUnits, unitPrefix+"*-"+tagOf(dir)+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// die kills a copy and tells whether PID 1 has restarted it.
func die(t testing.TB, h workload.Handle) (restarted bool) {
	t.Helper()
	if err := h.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e, ok := nextExit(t, h)
	if !ok || !e.Known || e.Signal != syscall.SIGKILL {
		t.Fatalf("exit %+v, %v", e, ok)
	}
	return e.Successor != nil
}

// TestHoldRestarts: PID 1 restarts no copy of an app that is held, over reloads and
// lives of the agent; what is started meanwhile is held too; let go of, all are
// healed again and no drop-in is left.
func TestHoldRestarts(t *testing.T) {
	needSystemd(t)
	dir := dataDir(t)
	d := fresh(t, dir)
	spec := func(app string, n int) workload.Spec {
		s := specOf(app, n, []string{"sleep", "1000"})
		s.SelfHeal = true
		return s
	}
	first, second, other := start(t, d, spec("web", 1), 1), start(t, d, spec("web", 2), 1), start(t, d, spec("web-2", 1), 1)
	hold(t, d, only("web"))
	if !die(t, other) {
		t.Error("the copy of another app was held")
	}
	reload(t)
	if die(t, first) {
		t.Error("a held copy was restarted by PID 1")
	}
	if _, ok := nextExit(t, first); ok {
		t.Error("an exit after the last")
	}
	late := start(t, d, spec("web", 3), 1) // somebody has asked for it
	if got := property1(t, late.(*handle).unit, "Restart"); got != restartNo {
		t.Errorf("started while held: Restart=%s", got)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	reload(t)
	pid := second.Instance().Pid
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of a copy without an agent", func() bool { return !alive(pid) && len(units(t, dir)) == 2 })

	d = open(t, dir)
	hs, err := d.Adopt(ctxFor(t))
	if err != nil || len(hs) != 2 {
		t.Fatalf("adopted %v, %v: want web/3 and web-2/1", hs, err)
	}
	second = start(t, d, spec("web", 2), 2) // before this life knows of a hold
	hold(t, d, only("web"))
	if got := property1(t, second.(*handle).unit, "Restart"); got != restartNo {
		t.Errorf("held after the start: Restart=%s", got)
	}
	hold(t, d, only(""))
	for _, h := range append(hs, second) {
		if !die(t, h) {
			t.Errorf("let go of, and %s was not restarted", h.Instance().Spec.ID)
		}
	}
	// As if the agent had died between a drop-in and its reload.
	path := filepath.Join(runtimeUnits, second.(*handle).unit+".d", holdFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("[Service]\nRestart=no\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	hold(t, d, only("web"))
	if die(t, second) {
		t.Error("a drop-in that was not read held nothing")
	}
	hold(t, d, only(""))
	for _, h := range hs {
		if err := h.Stop(ctxFor(t), syscall.SIGTERM, 0); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "no drop-in is left", func() bool { return len(dropIns(t, dir)) == 0 })
}
