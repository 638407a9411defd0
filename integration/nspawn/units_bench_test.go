//go:build linux

package nspawn

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/agent/api"
)

// BenchmarkReflexOnUnit measures from the signal that kills a unit's process, after
// which systemd says that the unit has failed, to the handler of the signal that a reflex
// on that sends, through a whole agent: one unit and one copy for each act.
func BenchmarkReflexOnUnit(b *testing.B) {
	const units = 20 // a host does no more acts in ten minutes
	stamp := filepath.Join(b.TempDir(), "stamp")
	if out, err := exec.Command("cc", "-O2", "-static", "-o", stamp, "../../workload/process/testdata/stamp.c").CombinedOutput(); err != nil {
		b.Skipf("needs a C compiler: %v\n%s", err, out)
	}
	a := startMesh(b)
	a.CopyIn(b, stamp, "/opt/stamp", 0o755)
	text := fmt.Sprintf("app \"hand\" {\n  count = %d\n  run { command = [\"/opt/stamp\"] }\n}\n", units)
	for n := range units {
		a.must("systemd-run", "--quiet", "--unit="+unitName(n), "/bin/sleep", "100000")
		text += fmt.Sprintf("reflex \"unit%d\" {\n  scope = \"unit:%s\"\n  when = \"unit.state == 'failed'\"\n  act = [signal(\"hand/%d\", \"SIGUSR1\")]\n  cooldown = \"10m\"\n  limit = \"1/10m\"\n}\n", n, unitName(n), n)
	}
	a.apply(text)
	a.await("the copies", func() error { // what is about those that a deploy is at work on waits
		st, err := a.status("hand")
		if err == nil && st.Ready != units {
			err = fmt.Errorf("%d of %d are ready", st.Ready, units)
		}
		return err
	})
	a.await("the rules", a.knowsUnits)
	var took []time.Duration
	for b.Loop() {
		for n := range units {
			hand := a.Path(fmt.Sprintf("/var/lib/ganglion/output/hand/%d/stdout.log", n))
			var size int64
			a.await("a copy", func() (err error) {
				_, size, err = lastStamp(hand, 0)
				return err
			})
			pid := a.mainPID(unitName(n))
			begun := monotonic()
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				b.Fatal(err)
			}
			a.await("the act", func() error {
				at, _, err := lastStamp(hand, size)
				if err == nil {
					took = append(took, time.Duration(at-begun))
				}
				return err
			})
		}
	}
	slices.Sort(took)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(len(took)), "acts")
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-µs")
}

// knowsUnits tells whether every rule of the host knows that the one unit that it is
// about is well.
func (a agent) knowsUnits() error {
	var rules []api.LocalReflex
	if err := json.Unmarshal([]byte(a.must("ganglion", "reflex", "list", "--local", "-o", "json")), &rules); err != nil {
		return err
	}
	for _, r := range rules {
		if len(r.Targets) != 1 || r.Targets[0].Truth != "false" {
			return fmt.Errorf("%s: %+v", r.Name, r.Targets)
		}
	}
	return nil
}

func unitName(n int) string { return fmt.Sprintf("bench-%d.service", n) }

// mainPID is the process of a unit, as it is called outside of the host.
func (a agent) mainPID(unit string) int {
	a.t.Helper()
	procs, err := filepath.Glob(filepath.Join(a.group, "*", "*", unit, "cgroup.procs"))
	more, _ := filepath.Glob(filepath.Join(a.group, "*", unit, "cgroup.procs"))
	for _, path := range append(procs, more...) {
		var pid int
		text, _ := os.ReadFile(path)
		if _, err := fmt.Sscan(string(text), &pid); err == nil && pid > 1 {
			return pid
		}
	}
	a.t.Fatalf("%s has no process: %v, %v", unit, procs, err)
	return 0
}

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// lastStamp reads the time that a copy of stamp wrote last, if its output is longer
// than size.
func lastStamp(path string, size int64) (at, newSize int64, err error) {
	const stampSize = 16
	text, err := os.ReadFile(path)
	if err == nil && (int64(len(text)) <= size || len(text)%stampSize != 0) {
		err = fmt.Errorf("no new stamp in %s", path)
	}
	if err != nil {
		return 0, 0, err
	}
	return int64(binary.NativeEndian.Uint64(text[len(text)-8:])), int64(len(text)), nil
}
