//go:build linux

package copies

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/process"
)

// await waits until the report of a copy satisfies ok.
func (r *rig) await(id workload.CopyID, what string, ok func(CopyReport) bool) CopyReport {
	r.t.Helper()
	late := time.After(20 * time.Second)
	for {
		changed := r.m.Changed()
		var last CopyReport
		for _, rep := range r.m.Reports() {
			if rep.ID == id {
				if last = rep; ok(rep) {
					return rep
				}
			}
		}
		select {
		case <-changed:
		case <-late:
			r.t.Fatalf("%s: not %s: %+v", id, what, last)
		}
	}
}

// realRig is a rig whose driver runs processes.
func realRig(t *testing.T) (r *rig, driver func() *process.Driver) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o755); err != nil { // a root agent's copies are other users
		t.Fatal(err)
	}
	r = newRig(t)
	return r, func() *process.Driver {
		d, err := process.New(process.Config{Dir: dir, Host: "h1", NoCgroups: true})
		if err != nil {
			t.Fatal(err)
		}
		r.cfg.Driver = d
		return d
	}
}

func ready(rep CopyReport) bool { return rep.Ready && rep.State == topology.CopyRunning }

func TestRealProcesses(t *testing.T) {
	r, open := realRig(t)
	d := open()
	r.boot()
	web, bad := copyOf("web", 0), copyOf("bad", 0)
	slice := topology.Slice{Assignments: []topology.Assignment{
		assign("web", 0, 1, command("/bin/sh", "-c", `echo ok >"$STATE_DIR/up"; exec sleep 1000`),
			check(intent.Check{Type: intent.CheckExec, Command: []string{"/bin/sh", "-c", `test -e "$STATE_DIR/up"`}})),
		assign("bad", 0, 2, command("/no/such/program")),
	}}
	r.m.Set(slice)
	first := r.await(web, "ready", ready)
	r.await(bad, "failed", func(rep CopyReport) bool { return rep.State == topology.CopyFailed && rep.Failed && rep.Why != "" })

	if err := syscall.Kill(first.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := r.await(web, "restarted and ready", func(rep CopyReport) bool { return rep.Pid != first.Pid && ready(rep) })
	if second.Restarts != 1 {
		t.Errorf("%+v", second)
	}
	for _, e := range r.eventsOf(web) {
		if x, ok := e.Data.(Restarted); ok {
			t.Logf("restarted %d µs after the exit was seen", x.AfterUS)
			if x.Pid != second.Pid || e.Cause == "" || x.AfterUS <= 0 || x.AfterUS > 1e6 {
				t.Errorf("%+v", e)
			}
		}
	}

	r.kill()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(second.Pid, 0); err != nil {
		t.Fatalf("the copy did not outlive the agent: %v", err)
	}
	d = open()
	r.boot()
	r.m.Set(slice)
	if rep := r.await(web, "adopted", ready); rep.Pid != second.Pid || rep.Restarts != 1 {
		t.Errorf("adopted as %+v, was %+v", rep, second)
	}
	r.m.Set(topology.Slice{})
	for late := time.After(20 * time.Second); len(r.m.Reports()) > 0; {
		select {
		case <-r.m.Changed():
		case <-late:
			t.Fatalf("not stopped: %+v", r.m.Reports())
		case <-time.After(10 * time.Millisecond): // the change may lie before Changed
		}
	}
	if err := syscall.Kill(second.Pid, 0); err == nil {
		t.Error("the copy runs on")
	}
	r.kill()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
