//go:build linux

package systemd

import (
	"sync"
	"testing"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/bootclock"
	"github.com/ganglion-mesh/ganglion/workload/program"
	"github.com/ganglion-mesh/ganglion/workload/workloadtest"
)

// TestConformance runs the suite of all drivers.
func TestConformance(t *testing.T) {
	needSystemd(t)
	var mu sync.Mutex
	dirs := map[workload.Driver]string{}
	workloadtest.Run(t, workloadtest.Harness{
		Host: "h1",
		New: func(t *testing.T) workload.Driver {
			dir := dataDir(t)
			d := fresh(t, dir)
			mu.Lock()
			defer mu.Unlock()
			dirs[d] = dir
			return d
		},
		Restart: func(t *testing.T, old workload.Driver) workload.Driver {
			if err := old.(*Driver).Close(); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			defer mu.Unlock()
			d := open(t, dirs[old])
			dirs[d] = dirs[old]
			return d
		},
		Programs: workloadtest.ShellPrograms(),
		Now:      bootclock.Now,
		Runs: func(in workload.Instance) bool {
			st, err := program.ReadStat(in.Pid)
			return err == nil && st.Running() && st.Start == in.StartTime
		},
	})
}
