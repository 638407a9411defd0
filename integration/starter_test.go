package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// starterRule reads a reflex of the library in examples/reflexes. What a test
// cannot wait for is changed: old and new by turns.
func starterRule(t *testing.T, name string, changes ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "examples", "reflexes", name+".hcl"))
	if err != nil {
		t.Fatal(err)
	}
	rule := string(b)
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(rule, changes[i]) {
			t.Fatalf("%s does not say %q", name, changes[i])
		}
		rule = strings.Replace(rule, changes[i], changes[i+1], 1)
	}
	return rule
}

// Reflexes of the library meet their faults on a real host: an app that hangs, one
// that crashes whenever it is started, and a host that stood still.
func TestStarterLibrary(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 1)
	h, w := r.Hosts[0], newWitness(t)
	h.StartAgent()
	h.Must("init", "--name", "test")
	apps := fmt.Sprintf(`
app "web" {
  run { command = ["/bin/sh", "-c", "test ! -e %[1]s/crash && exec sleep 100000"] }
  check "exec" {
    command  = ["/bin/sh", "-c", "test ! -e %[1]s/hang"]
    every    = "200ms"
    grace    = "1ms"
    failures = 2
    live     = false
  }
}
app "sessions" {
  run { command = ["/bin/sh", "-c", "umask 0; trap 'echo forgotten >>%[1]s/sessions' USR1; while :; do sleep 1 & wait; done"] }
}
`, w.dir)
	h.Must("apply", h.File("all.hcl", apps+
		starterRule(t, "unhealthy-but-running", "uptime_seconds > 60", "uptime_seconds > 2")+
		starterRule(t, "crash-loop")+
		starterRule(t, "clock-gap", "gap_seconds > 30", "gap_seconds > 3")))
	awaitReady(t, h, "web", 1, 20*time.Second)
	fired := func(rule, what string) {
		t.Helper()
		took := rig.Await(t, 90*time.Second, func() error {
			out := h.Must("events", "--since", "10m", "reflex.>")
			for line := range strings.Lines(out) {
				if strings.Contains(line, "reflex."+rule+".h1.fired") && strings.Contains(line, what) && strings.Contains(line, "result=ok") {
					return nil
				}
			}
			return fmt.Errorf("%s has not fired with %s:\n%s", rule, what, out)
		})
		t.Logf("%s acted after %s", rule, took.Round(time.Millisecond))
	}

	h.Signal(syscall.SIGSTOP)
	time.Sleep(4 * time.Second) // the fault: the host stands still for so long
	h.Signal(syscall.SIGCONT)
	fired("clock-gap", "signal")
	rig.Await(t, 10*time.Second, func() error {
		_, err := os.Stat(filepath.Join(w.dir, "sessions"))
		return err
	})

	st, _ := awaitReady(t, h, "web", 1, 20*time.Second)
	hung := pids(st, h.Name)
	touch := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(w.dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	touch("hang")
	fired("unhealthy-but-running", "restart")
	if err := os.Remove(filepath.Join(w.dir, "hang")); err != nil {
		t.Fatal(err)
	}
	st, _ = awaitReady(t, h, "web", 1, 20*time.Second)
	for id, pid := range pids(st, h.Name) {
		if pid == hung[id] {
			t.Errorf("%s hung with pid %d and still has it", id, pid)
		}
		touch("crash")
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	fired("crash-loop", "crash-loop")
}
