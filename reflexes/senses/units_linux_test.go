package senses

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// needSystemd skips where PID 1 is not systemd; integration/nspawn runs these
// tests on a host where it is.
func needSystemd(t testing.TB) {
	t.Helper()
	needRoot(t)
	if b, _ := os.ReadFile("/proc/1/comm"); strings.TrimSpace(string(b)) != "systemd" {
		skip(t, "systemd as PID 1")
	}
}

func systemd(t testing.TB, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
}

// unit starts a unit that does what a shell script says until the test ends.
func unit(t testing.TB, name, text string, options ...string) {
	t.Helper()
	argv := append([]string{"systemd-run", "--quiet", "--unit=" + name}, options...)
	systemd(t, append(argv, "/bin/sh", "-c", text)...)
	t.Cleanup(func() {
		_ = exec.Command("systemctl", "stop", name).Run()
		_ = exec.Command("systemctl", "reset-failed", name).Run()
	})
}

func newUnits(t testing.TB) *Units {
	t.Helper()
	return must[*Units](t)(NewUnits(UnitsConfig{Now: bootNow, Relist: time.Second}))
}

// TestUnits goes through the life of a unit of the real systemd.
func TestUnits(t *testing.T) {
	needSystemd(t)
	const name = "senses-life.service"
	sense := newUnits(t)
	e := listen(t, sense)
	e.waitFor(reflexes.UnitState, "-.mount", is(reflexes.Text("active")))
	unit(t, name, "exec sleep 1000")
	e.waitFor(reflexes.UnitState, name, is(reflexes.Text("active")))
	e.waitFor(reflexes.UnitSub, name, is(reflexes.Text("running")))
	e.waitFor(reflexes.UnitFailures, name, is(reflexes.Int(0)))
	systemd(t, "systemctl", "kill", "-s", "KILL", name)
	e.waitFor(reflexes.UnitFailures, name, is(reflexes.Int(1)))
	e.waitFor(reflexes.UnitState, name, is(reflexes.Text("failed")))
	systemd(t, "systemctl", "daemon-reload")
	systemd(t, "systemctl", "reset-failed", name)
	e.waitFor(reflexes.UnitState, name, unknown)
	e.stop()

	// While nobody listens another one fails that was known.
	e = listen(t, sense)
	const second = "senses-second.service"
	unit(t, second, "exec sleep 1000")
	e.waitFor(reflexes.UnitState, second, is(reflexes.Text("active")))
	e.stop()
	systemd(t, "systemctl", "kill", "-s", "KILL", second)
	eventually(t, "its failure", func() bool { return exec.Command("systemctl", "is-failed", "-q", second).Run() == nil })
	e = listen(t, sense)
	e.waitFor(reflexes.UnitFailures, second, is(reflexes.Int(1)))
}

// TestUnitsStorm has many units fail at once: each failure is told.
func TestUnitsStorm(t *testing.T) {
	needSystemd(t)
	e := listen(t, newUnits(t))
	e.waitFor(reflexes.UnitState, "-.mount", known)
	const n = 15
	name := func(i int) string { return fmt.Sprintf("senses-storm-%d.service", i) }
	for i := range n {
		unit(t, name(i), "exit 3", "--no-block")
	}
	for i := range n {
		e.waitFor(reflexes.UnitFailures, name(i), is(reflexes.Int(1)))
	}
}

// TestUnitsAfterSystemdItself is executed anew, and drops all connections: the
// sense fails, is run again and knows what happened.
func TestUnitsAfterSystemdItself(t *testing.T) {
	needSystemd(t)
	const name = "senses-reexec.service"
	s := must[*Set](t)(New(Config{Senses: []Sense{newUnits(t)}, Now: bootNow}))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	s.NeedFor(nil, []reflexes.VarID{reflexes.UnitState})
	target := reflexes.Target{Scope: reflexes.ScopeUnit, Name: name}
	knows := func(id reflexes.VarID, v reflexes.Value) func() bool {
		return func() bool {
			for _, f := range s.Known() {
				if f.Var == id && f.Target == target {
					return f.Value == v
				}
			}
			return false
		}
	}
	unit(t, name, "exec sleep 1000")
	eventually(t, "the unit is known", knows(reflexes.UnitState, reflexes.Text("active")))
	systemd(t, "systemctl", "daemon-reexec")
	systemd(t, "systemctl", "kill", "-s", "KILL", name)
	eventually(t, "its failure is known", knows(reflexes.UnitFailures, reflexes.Int(1)))
	eventually(t, "its state is known", knows(reflexes.UnitState, reflexes.Text("failed")))
}

func TestUnitsWithoutSystemd(t *testing.T) {
	u := must[*Units](t)(NewUnits(UnitsConfig{Now: bootNow, Socket: t.TempDir() + "/private"}))
	err := u.Run(t.Context(), func([]reflexes.Fact) { t.Error("told something") })
	if err == nil || !strings.Contains(err.Error(), "PID 1 is not systemd") {
		t.Error(err)
	}
}
