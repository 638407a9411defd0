//go:build linux

package nspawn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// patience bounds what takes a moment on an idle machine.
const patience = 60 * time.Second

// agent is a mesh of one host whose copies run under its systemd.
type agent struct {
	*Host
	t     testing.TB
	flags []string
}

// startMesh boots a host and makes it a mesh.
func startMesh(t testing.TB, flags ...string) agent {
	return startMeshOn(t, Boot(t, Options{}), flags...)
}

// startMeshOn makes a host a mesh.
func startMeshOn(t testing.TB, h *Host, flags ...string) agent {
	a := agent{h, t, flags}
	touch(t, "../../")
	bin := filepath.Join(t.TempDir(), "ganglion")
	build := exec.Command("go", "build", "-o", bin, "github.com/ganglion-mesh/ganglion/cmd/ganglion")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build ganglion: %v\n%s", err, out)
	}
	a.CopyIn(t, bin, "/usr/bin/ganglion", 0o755)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := a.try("journalctl", "--no-pager", "-n", "60", "-o", "short-precise")
			t.Logf("journal (the end):\n%s", out)
		}
	})
	a.begin()
	return a
}

// begin starts the agent, and returns once its mesh answers.
func (a agent) begin() {
	a.t.Helper()
	a.must(append([]string{"systemd-run", "--quiet", "--collect", "--unit=ganglion.service", "-p", "Type=notify", "-p", "NotifyAccess=main", "-p", "KillMode=process",
		"/usr/bin/ganglion", "agent", "--init", "--advertise", "127.0.0.1"}, a.flags...)...)
	a.await("the mesh", func() error {
		_, err := a.try("ganglion", "mesh")
		return err
	})
}

// kill ends the agent as a crash would.
func (a agent) kill() {
	a.t.Helper()
	a.must("systemctl", "kill", "--signal=KILL", "ganglion.service")
	a.await("the agent's end", func() error {
		if out, _ := a.try("systemctl", "is-active", "ganglion.service"); out == "active" {
			return errors.New(out)
		}
		return nil
	})
}

func (a agent) try(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := a.Run(ctx, argv...)
	return strings.TrimSpace(string(out)), err
}

func (a agent) must(argv ...string) string {
	a.t.Helper()
	out, err := a.try(argv...)
	if err != nil {
		a.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

func (a agent) await(what string, try func() error) {
	a.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for err := try(); err != nil; err = try() {
		if time.Now().After(deadline) {
			a.t.Fatalf("%s: %v", what, err)
		}
		<-tick.C
	}
}

// apply declares apps, and does not wait for them.
func (a agent) apply(text string) {
	a.t.Helper()
	from := filepath.Join(a.t.TempDir(), "apps.hcl")
	if err := os.WriteFile(from, []byte(text), 0o644); err != nil {
		a.t.Fatal(err)
	}
	a.CopyIn(a.t, from, "/tmp/apps.hcl", 0o644)
	a.must("ganglion", "apply", "--detach", "/tmp/apps.hcl")
}

func (a agent) status(app string) (st topology.AppStatus, err error) {
	out, err := a.try("ganglion", "status", app, "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &st)
	}
	return st, err
}

// pid waits until an app's one copy runs, and returns its pid.
func (a agent) pid(app string) (pid int) {
	a.t.Helper()
	a.await("a copy of "+app, func() error {
		st, err := a.status(app)
		if err != nil {
			return err
		}
		if len(st.Copies) != 1 || st.Copies[0].Pid == 0 || st.Copies[0].State != topology.CopyRunning {
			return fmt.Errorf("copies %+v", st.Copies)
		}
		pid = st.Copies[0].Pid
		return nil
	})
	return pid
}

// units lists the units of an app's copies, in whatever state.
func (a agent) units(app string) (names []string) {
	a.t.Helper()
	for line := range strings.Lines(a.must("systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", "ganglion-"+app+"-*")) {
		names = append(names, strings.Fields(line)[0])
	}
	return names
}

// property reads one of a unit's properties.
func (a agent) property(unit, name string) string {
	a.t.Helper()
	return a.must("systemctl", "show", "--property="+name, "--value", unit)
}

// told returns the data of the events of one type that a filter lets through.
func (a agent) told(filter, what string) (data []string) {
	a.t.Helper()
	for line := range strings.Lines(a.must("ganglion", "events", "-o", "json", "--since", "1h", filter)) {
		var e struct {
			Type string          `json:"type"`
			Data json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			a.t.Fatalf("event %q: %v", line, err)
		}
		if strings.HasSuffix(e.Type, "."+what) {
			data = append(data, string(e.Data))
		}
	}
	return data
}

// tries counts what the tries of a job have written.
func (a agent) tries(app string) int {
	a.t.Helper()
	out := a.must("cat", "/var/lib/ganglion/apps/"+app+"/0/state/tries")
	return len(strings.Fields(out))
}

// TestJobsEndWithoutAgent: what jobs came to while the agent was away is told
// once when it is back: what succeeded is not run again, what failed is, as often
// as its restart rule says, and no unit is left of any.
func TestJobsEndWithoutAgent(t *testing.T) {
	t.Parallel() // it waits most of the time
	a := startMesh(t)
	ends := map[string]string{"good": "exit 0", "bad": "exit 3", "shot": "kill -SEGV $$"}
	tells := map[string]string{"good": `"code":0`, "bad": `"code":3`, "shot": `"signal":"SIGSEGV"`}
	tries := map[string]int{"good": 1, "bad": 2, "shot": 2}
	var text strings.Builder
	for app, script := range ends {
		fmt.Fprintf(&text, "app %q {\n  once = true\n  restart {\n    limit = 1\n  }\n  run {\n    command = [\"/bin/sh\", \"-c\", %q]\n  }\n}\n",
			app, fmt.Sprintf("echo begun >>$STATE_DIR/tries; until [ -e /srv/go ]; do sleep 0.05; done; %s", script))
	}
	a.apply(text.String())
	for app := range ends {
		a.pid(app)
	}
	a.kill()
	a.must("touch", "/srv/go")
	for app := range ends {
		a.await("the end of "+app, func() error {
			for _, u := range a.units(app) {
				if pid := a.property(u, "MainPID"); pid != "0" {
					return fmt.Errorf("%s runs as %s", u, pid)
				}
			}
			return nil
		})
	}
	for life := range 2 {
		a.begin()
		for app, want := range map[string]topology.RunOutcome{"good": topology.RunDone, "bad": topology.RunFailed, "shot": topology.RunFailed} {
			a.await("what "+app+" came to", func() error {
				st, err := a.status(app)
				if err == nil && (st.Last == nil || st.Last.Outcome != want) {
					err = fmt.Errorf("%+v, last run %+v", st, st.Last)
				}
				return err
			})
			if got := a.tries(app); got != tries[app] {
				t.Errorf("life %d: %s was tried %d times, want %d", life, app, got, tries[app])
			}
			told := a.told("app."+app+".>", "exited")
			if len(told) != tries[app] || slices.ContainsFunc(told, func(d string) bool { return !strings.Contains(d, tells[app]) }) {
				t.Errorf("life %d: of %s %v was told, want %d times %s", life, app, told, tries[app], tells[app])
			}
			a.await("the units of "+app+" to be forgotten", func() error {
				if left := a.units(app); len(left) > 0 {
					return fmt.Errorf("left: %v", left)
				}
				return nil
			})
		}
		if life == 0 {
			a.kill()
		}
	}
	// One that is deleted while it runs leaves nothing either.
	a.must("rm", "/srv/go")
	a.must("ganglion", "restart", "good", "--detach")
	a.pid("good")
	if got := a.tries("good"); got != 2 {
		t.Errorf("asked to run again, it was tried %d times in all", got)
	}
	a.must("ganglion", "delete", "--yes", "good")
	a.await("its unit to be forgotten", func() error {
		if left := a.units("good"); len(left) > 0 {
			return fmt.Errorf("left: %v", left)
		}
		return nil
	})
}
