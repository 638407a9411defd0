//go:build linux

package systemd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
)

// roleVar makes the test binary play a copy.
const roleVar = "GO_TEST_ROLE"

// stamp is a copy that says when it began to execute, and stays.
func stamp() int {
	fmt.Printf("%d %d\n", monotonic(), os.Getpid())
	for {
		_ = unix.Pause() // not select {}: with nothing else to run, Go calls that a deadlock
	}
}

func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

const (
	benchUnits = 25
	benchKills = restartBurst - 1 // what PID 1 heals in a row
)

// BenchmarkRestart measures from a kill to the replacement's first instruction
// of its own, in turns, so that all suffer from the same neighbours: a unit as
// one would write it by hand; the same with a private user, as this driver's
// copies have; such a copy; a copy of a user of the host (run.user), who needs no
// mount namespace, which is what the difference goes to; and a singleton's, which
// its keeper restarts inside of it. What a namespace costs rises with the mounts of
// the host: they are told.
func BenchmarkRestart(b *testing.B) {
	needSystemd(b)
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	d := fresh(b, dataDir(b))
	private := []string{"-p", "DynamicUser=yes", "-p", "StateDirectory=gt-bench"}
	copyOf := func(app string, i int, change func(*workload.Spec)) (output string) {
		s := specOf(app, i, []string{self})
		s.Env = map[string]string{roleVar: "stamp"}
		change(&s)
		start(b, d, s, 1)
		path, _ := d.out.Paths(s.ID)
		return path
	}
	variants := []struct {
		name  string
		kills int // in a row that are healed at once
		start func(i int) (output string)
	}{
		{"plain", benchKills, func(i int) string { return plainUnit(b, self, fmt.Sprintf("gt-plain-%d", i), nil) }},
		{"plain-private", benchKills, func(i int) string { return plainUnit(b, self, fmt.Sprintf("gt-private-%d", i), private) }},
		{"driver", benchKills, func(i int) string {
			return copyOf("bench", i, func(s *workload.Spec) { s.SelfHeal = true })
		}},
		{"driver-named", benchKills, func(i int) string {
			return copyOf("named", i, func(s *workload.Spec) { s.SelfHeal, s.User = true, "nobody" })
		}},
		{"driver-keeper", 1, func(i int) string {
			return copyOf("kept", i, func(s *workload.Spec) { s.Lease = leasedSpec(nil, time.Hour).Lease })
		}},
	}
	for range b.N {
		took := map[string][]time.Duration{}
		for i := range benchUnits {
			for _, v := range variants {
				took[v.name] = append(took[v.name], kills(b, v.start(i), v.kills)...)
			}
		}
		for name, all := range took {
			slices.Sort(all)
			ms := func(q int) float64 { return float64(all[(len(all)-1)*q/100]) / 1e6 }
			b.ReportMetric(ms(50), name+"-p50-ms")
			b.ReportMetric(ms(99), name+"-p99-ms")
		}
	}
	mounts, err := os.ReadFile("/proc/1/mountinfo")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(strings.Count(string(mounts), "\n")), "mounts")
	b.ReportMetric(0, "ns/op")
}

// plainUnit starts a unit with RestartSec=0 and returns where its output goes.
func plainUnit(b *testing.B, self, unit string, props []string) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "out")
	args := append([]string{"--quiet", "--unit=" + unit, "-p", "Type=exec", "-p", "Restart=always", "-p", "RestartSec=0",
		"-p", "StandardOutput=append:" + path, "-p", "Environment=" + roleVar + "=stamp"}, props...)
	if out, err := exec.Command("systemd-run", append(args, self)...).CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	b.Cleanup(func() { _ = exec.Command("systemctl", "stop", unit).Run() })
	return path
}

// kills kills what a unit runs, n times.
func kills(b *testing.B, output string, n int) (took []time.Duration) {
	b.Helper()
	for k := range n {
		_, pid := lastStamp(b, output, k+1)
		at := monotonic()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			b.Fatal(err)
		}
		began, _ := lastStamp(b, output, k+2)
		took = append(took, time.Duration(began-at))
	}
	return took
}

// lastStamp waits for the n-th line of an output and returns what it says.
func lastStamp(b *testing.B, path string, n int) (at int64, pid int) {
	b.Helper()
	var out string
	eventually(b, "a stamp", func() bool {
		raw, _ := os.ReadFile(path)
		out = string(raw)
		return strings.Count(out, "\n") >= n
	})
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if _, err := fmt.Sscan(lines[n-1], &at, &pid); err != nil {
		b.Fatal(err)
	}
	return at, pid
}

// BenchmarkStart measures a whole start by the agent, which is what a restart
// beyond PID 1's limit, a placement and an upgrade cost.
func BenchmarkStart(b *testing.B) {
	needSystemd(b)
	d := fresh(b, dataDir(b))
	const rounds = 50
	var took []time.Duration
	for range b.N {
		s := specOf("bench", 1, []string{"sleep", "1000"})
		for n := range rounds {
			begun := time.Now()
			h := start(b, d, s, n+1)
			took = append(took, time.Since(begun))
			if err := h.Stop(ctxFor(b), syscall.SIGTERM, patience); err != nil {
				b.Fatal(err)
			}
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2])/1e6, "p50-ms")
	b.ReportMetric(0, "ns/op")
}
