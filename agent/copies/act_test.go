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
