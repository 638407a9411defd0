//go:build linux

package process

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
)

// kills is how often each target is killed in one run of the benchmark.
const kills = 220

// held is how many descriptors more an agent of some three hundred copies holds.
const held = 2000

// BenchmarkRestart measures from right before the SIGKILL of a copy to the first
// instruction of main of its replacement, beside a C program that can do nothing
// but wait, vfork and exec, of the same copy, killed in turn in the same run.
// What counts is the ratio, not the times. "realtime" has everyone, the floor and
// the copies too, at SCHED_FIFO, so that what else runs on the machine does not
// count; "ordinary" has not. "held" is with many descriptors open. "shared" is a
// driver whose launchers share the descriptors, as where the kernel is too old.
func BenchmarkRestart(b *testing.B) {
	prog, floor := compile(b, "stamp"), compile(b, "floor")
	run := func(b *testing.B) {
		b.Run("few", func(b *testing.B) { benchRestart(b, floor, prog) })
		b.Run("held", func(b *testing.B) {
			hold(b, held)
			benchRestart(b, floor, prog)
		})
	}
	b.Run("realtime", func(b *testing.B) {
		if err := setClass(unix.SCHED_FIFO, 20); err != nil {
			b.Skipf("needs the right to SCHED_FIFO: %v", err)
		}
		defer setClass(unix.SCHED_NORMAL, 0)
		run(b)
	})
	b.Run("ordinary", run)
}

// setClass sets the scheduling class of all threads of this process. Threads
// and processes that come later inherit it.
func setClass(policy, priority uint32) error {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, e := range entries {
		tid, _ := strconv.Atoi(e.Name())
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Priority: priority}
		if err := unix.SchedSetAttr(tid, &attr, 0); err != nil {
			return err
		}
	}
	return nil
}

func benchRestart(b *testing.B, floorProg, prog string) {
	for b.Loop() {
		targets := map[string]*target{
			"floor": startFloor(b, floorProg, prog), "driver": startDriven(b, prog, false), "shared": startDriven(b, prog, true),
		}
		times := map[string][]time.Duration{}
		for range kills {
			for name, target := range targets {
				settle()
				times[name] = append(times[name], target.kill(b))
			}
		}
		for _, target := range targets {
			target.end()
		}
		report(b, times)
	}
}

func report(b *testing.B, times map[string][]time.Duration) {
	at := func(name string, q float64) float64 {
		slices.Sort(times[name])
		return float64(times[name][int(q*float64(len(times[name])-1))].Nanoseconds()) / 1e3
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(at("floor", .5), "floor-p50-µs")
	b.ReportMetric(at("floor", .99), "floor-p99-µs")
	b.ReportMetric(at("driver", .5), "p50-µs")
	b.ReportMetric(at("driver", .99), "p99-µs")
	b.ReportMetric(at("driver", .5)/at("floor", .5), "p50/floor")
	b.ReportMetric(at("shared", .5)/at("floor", .5), "shared-p50/floor")
	b.ReportMetric(kills, "kills")
}

// settle waits a random few milliseconds, so that kills hit every phase.
func settle() {
	<-time.After(3*time.Millisecond + time.Duration(rand.IntN(4000))*time.Microsecond)
}

// compile builds a C program of testdata where everybody may execute it.
func compile(b *testing.B, name string) string {
	b.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		b.Skip("needs a C compiler")
	}
	bin := filepath.Join(dataDir(b), name)
	out, err := exec.Command(cc, "-O2", "-static", "-o", bin, filepath.Join("testdata", name+".c")).CombinedOutput()
	if err != nil {
		out, err = exec.Command(cc, "-O2", "-o", bin, filepath.Join("testdata", name+".c")).CombinedOutput()
	}
	if err != nil {
		b.Fatalf("compile %s: %v\n%s", name, err, out)
	}
	return bin
}

// target is something that keeps a copy running. The copies print stamps.
type target struct {
	stamps *os.File
	pid    int // of the copy
	end    func()
}

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// kill ends the copy and returns when the next one was executing.
func (t *target) kill(b *testing.B) time.Duration {
	begun := monotonic()
	if err := syscall.Kill(t.pid, syscall.SIGKILL); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.next(b) - begun)
}

// next waits for the next stamp.
func (t *target) next(b *testing.B) int64 {
	var rec [16]byte
	until(b, "a copy to start", func() bool {
		n, _ := t.stamps.Read(rec[:])
		if n != 0 && n != len(rec) {
			b.Fatal(fmt.Errorf("a stamp of %d bytes", n))
		}
		return n != 0
	})
	t.pid = int(binary.NativeEndian.Uint64(rec[:8]))
	return int64(binary.NativeEndian.Uint64(rec[8:]))
}

func startFloor(b *testing.B, floor, prog string) *target {
	path := filepath.Join(b.TempDir(), "stamps")
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(floor, prog)
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	return follow(b, path, func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func follow(b *testing.B, path string, end func()) *target {
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	t := &target{stamps: f, end: end}
	t.next(b)
	return t
}

// startDriven keeps a copy running as supervision does: the exit comes by the
// channel, the next start is of the same Spec.
func startDriven(b *testing.B, prog string, shared bool) *target {
	d := fresh(b, Config{})
	d.keepClass, d.shareTable = true, shared
	s := workload.Spec{ID: workload.CopyID{App: "bench", N: 1}, Version: "v", Command: []string{prog}}
	var h workload.Handle = start(b, d, s, 1)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 2; ; n++ {
			select {
			case <-h.Exited():
			case <-quit:
				stop(b, h, 0)
				return
			}
			var err error
			if h, err = d.Start(b.Context(), s, n); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	path, _ := d.out.Paths(s.ID)
	return follow(b, path, func() {
		close(quit)
		<-done
	})
}
