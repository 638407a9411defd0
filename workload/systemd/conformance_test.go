//go:build linux

package systemd

import (
	"testing"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/workloadtest"
)

// TestConformance runs the suite of all drivers.
func TestConformance(t *testing.T) {
	needSystemd(t)
	dirs := map[workload.Driver]string{}
	workloadtest.Run(t, workloadtest.Harness{
		Host: "h1",
		New: func(t *testing.T) workload.Driver {
			dir := dataDir(t)
			d := fresh(t, dir)
			dirs[d] = dir
			return d
		},
		Restart: func(t *testing.T, old workload.Driver) workload.Driver {
			if err := old.(*Driver).Close(); err != nil {
				t.Fatal(err)
			}
			d := open(t, dirs[old])
			dirs[d] = dirs[old]
			return d
		},
		Programs: workloadtest.ShellPrograms(),
	})
}
