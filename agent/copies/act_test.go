package copies

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/workload"
)

// Nothing stands between what a reflex wants and the start of the copy: what there
// is to remember is written after it, as with restarts that nobody has to want.
func TestNoWriteStandsBeforeAWish(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		web := copyOf("web", 0)
		memory := func() string {
			b, err := os.ReadFile(filepath.Join(r.cfg.Dir, memoryDir, "web.0.json"))
			if err != nil {
				t.Errorf("%v", err)
			}
			return string(b)
		}
		r.set(assign("web", 0, 1, func(a *topology.Assignment) { a.Spec.Restart = intent.Restart{Limit: 1} }))
		r.host.Kill(web, syscall.SIGKILL)
		pass(saveDelay)
		before, atStart := memory(), ""
		r.host.Watch(func(_ workload.Instance, exit *workload.Exit) {
			if exit == nil {
				atStart = memory()
			}
		})
		r.host.Kill(web, syscall.SIGKILL)
		err := r.m.Restart(t.Context(), web, "because", true, func() error { return nil })
		if rep := r.report(web); err != nil || rep.Restarts != 2 {
			t.Fatalf("%+v, %v", rep, err)
		}
		if atStart != before {
			t.Errorf("before the start was written: %s", atStart)
		}
		pass(saveDelay)
		if memory() == before {
			t.Error("what it came to is not remembered")
		}
	})
}

// Before a copy runs again its end is recorded, but nobody is woken for it, and nothing
// is reported: others would compete with the copy for the processor.
func TestNobodyIsWokenBeforeARestart(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		web := copyOf("web", 0)
		r.set(assign("web", 0, 1, func(a *topology.Assignment) { a.Spec.Restart = intent.Restart{Limit: 1} }))
		var told []string
		var spread int64
		var reported CopyReport
		r.host.Watch(func(_ workload.Instance, exit *workload.Exit) {
			if exit == nil {
				told, spread, reported = r.told(web), r.spread.Load(), r.report(web)
			}
		})
		r.host.Kill(web, syscall.SIGKILL)
		pass(0)
		wantStrings(t, "recorded when the copy runs again", told, "started", "exited")
		wantStrings(t, "recorded in the end", r.told(web), "started", "exited", "restarted")
		if in, end := spread, r.spread.Load(); in != 1 || end != 3 {
			t.Errorf("%d events were spread before the restart, and %d in the end", in, end)
		}

		before := r.report(web)
		r.host.Kill(web, syscall.SIGKILL) // which is to wait
		pass(0)
		if err := r.m.Restart(t.Context(), web, "because", true, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		if reported.Pid != before.Pid {
			t.Errorf("a reflex found %+v reported, want %+v still", reported, before)
		}
		pass(saveDelay)
		if now := r.report(web); now.Pid == before.Pid || now.Restarts != 2 {
			t.Errorf("in the end %+v is reported", now)
		}
		r.host.Kill(web, syscall.SIGKILL)
		pass(saveDelay)
		if now := r.report(web); now.State != topology.CopyBackoff {
			t.Errorf("what waits is reported as %+v", now)
		}
	})
}
