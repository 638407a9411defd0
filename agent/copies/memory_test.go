package copies

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

func once(a *topology.Assignment) { a.Spec.Once = true }

// A one-shot whose success nobody has recorded yet is not run again by the next
// life of the agent, not even after the host was rebooted.
func TestADoneOneShotIsRemembered(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		job := copyOf("job", 0)
		r.set(assign("job", 0, 7, once))
		r.host.Exit(job, 1)
		pass(2 * time.Second)
		r.host.Exit(job, 0)
		synctest.Wait()
		check := func(when string, starts int) {
			t.Helper()
			rep := r.report(job)
			if rep.Done != 7 || rep.State != topology.CopyStopped || r.startsOf(job) != starts {
				t.Fatalf("%s: %+v, %d starts", when, rep, r.startsOf(job))
			}
		}
		check("done", 2)
		r.kill()
		r.boot()
		r.set(assign("job", 0, 7, once))
		check("after a restart of the agent", 2)
		r.kill()
		r.bootID = "boot-2"
		r.boot()
		r.set(assign("job", 0, 7, once))
		pass(time.Minute)
		check("after a reboot", 2)
		r.set(assign("job", 0, 9, once))
		if rep := r.report(job); rep.State != topology.CopyRunning || rep.Done != 7 {
			t.Fatalf("another run: %+v", rep)
		}
		r.set()
		if left, err := os.ReadDir(filepath.Join(r.cfg.Dir, memoryDir)); err != nil || len(left) > 0 {
			t.Errorf("of a copy that is gone %v is left, %v", left, err)
		}
	})
}

// A crash loop goes on at its pace, whatever becomes of the agent; a reboot
// starts afresh.
func TestBackoffSurvivesTheAgent(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		web := copyOf("web", 0)
		r.set(assign("web", 0, 1))
		for range 4 {
			r.host.Kill(web, syscall.SIGKILL)
			pass(8 * time.Second)
		}
		if n := r.startsOf(web); n != 5 {
			t.Fatalf("%d starts", n)
		}
		r.host.Kill(web, syscall.SIGKILL) // waits 6 s, with the jitter of the rig
		synctest.Wait()
		for i := range 5 {
			r.kill()
			r.boot()
			r.set(assign("web", 0, 1))
			if n := r.startsOf(web); n != 5 {
				t.Fatalf("restart %d of the agent: %d starts", i, n)
			}
			if rep := r.report(web); rep.State != topology.CopyBackoff || !strings.Contains(rep.Why, "SIGKILL") || rep.Restarts != 4 {
				t.Fatalf("%+v", rep)
			}
			pass(time.Second)
		}
		pass(2 * time.Second)
		if n := r.startsOf(web); n != 6 {
			t.Fatalf("%d starts after the wait", n)
		}
		// Over its limit it stays there.
		r.host.Kill(web, syscall.SIGKILL)
		synctest.Wait()
		r.kill()
		r.boot()
		r.set(assign("web", 0, 1))
		pass(30 * time.Second)
		if rep := r.report(web); !rep.Failed || r.startsOf(web) != 6 {
			t.Fatalf("%d starts, %+v", r.startsOf(web), rep)
		}
		r.kill()
		r.bootID = "boot-2"
		r.boot()
		r.set(assign("web", 0, 1))
		if rep := r.report(web); rep.State != topology.CopyRunning || rep.Failed {
			t.Fatalf("after a reboot: %+v", rep)
		}
	})
}

// A copy that ended while no agent was there counts as a failure of it.
func TestWhatEndedUnwatchedCounts(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		web := copyOf("web", 0)
		r.set(assign("web", 0, 1))
		r.kill()
		r.host.Exit(web, 0)
		r.boot()
		r.set(assign("web", 0, 1))
		if rep := r.report(web); rep.State != topology.CopyRunning || rep.Restarts != 1 || r.startsOf(web) != 2 {
			t.Fatalf("%+v, %d starts", rep, r.startsOf(web))
		}
		if got := strings.Join(r.told(web), " "); got != "started ready exited restarted" && got != "started exited restarted" {
			t.Fatalf("told %q", got)
		}
	})
}

func TestADamagedMemoryIsForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		path := filepath.Join(r.cfg.Dir, memoryDir, "web.0.json")
		if err := os.WriteFile(path, []byte(`{"boot": 3`), 0o600); err != nil {
			t.Fatal(err)
		}
		r.set(assign("web", 0, 1))
		if rep := r.report(copyOf("web", 0)); rep.State != topology.CopyRunning {
			t.Fatalf("%+v", rep)
		}
	})
}
