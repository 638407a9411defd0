package senses

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses/procfs"
)

// delays are how long after what happened the fact of it was told.
type delays []time.Duration

func (d delays) report(b *testing.B) {
	b.Helper()
	if len(d) == 0 {
		b.Skip("nothing was measured")
	}
	slices.Sort(d)
	at := func(q float64) float64 { return float64(d[min(len(d)-1, int(q*float64(len(d))))]) / 1e6 }
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
	b.ReportMetric(float64(d[len(d)-1])/1e6, "max-ms")
	b.ReportMetric(0, "ns/op")
}

// heardAt is when the first fact from the from-th on that is as wanted was told.
func (e *ear) heardAt(what string, from int, want func(reflexes.Fact) bool) time.Time {
	e.t.Helper()
	_, i := e.wait(what, from, want)
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.when[i]
}

// BenchmarkLinkDown: from the call that takes a link down to the fact.
func BenchmarkLinkDown(b *testing.B) {
	ns := newNetns(b)
	link, _ := ns.cable(b, "d0", "far0")
	e := listen(b, inNetns{newLinks(b), ns})
	e.waitFor(reflexes.LinkUp, "d0", is(reflexes.Bool(true)))
	var d delays
	for n := range 200 {
		from, before := e.heard(), time.Now()
		ns.down(b, link)
		d = append(d, e.heardAt("down", from, func(f reflexes.Fact) bool { return f.Var == reflexes.LinkDowns && f.Value == reflexes.Int(int64(n+1)) }).Sub(before))
		from = e.heard()
		ns.up(b, link)
		e.wait("up", from-1, func(f reflexes.Fact) bool { return f.Var == reflexes.LinkUp && f.Value == reflexes.Bool(true) })
	}
	d.report(b)
}

// BenchmarkOOM: from the kernel's count of a kill to the fact. The count is read
// without a pause, so that a core is busy with that alone.
func BenchmarkOOM(b *testing.B) {
	dir, path := memoryGroup(b)
	cmd, eat := hog(b, true, dir)
	e := listen(b, newOOM(b, copiesOf(Copy{ID: "web/1", PID: cmd.Process.Pid})))
	e.waitFor(reflexes.OOMCount, "web/1", is(reflexes.Int(0)))
	counter := must[*procfs.File](b)(procfs.Open(path, 256))
	defer counter.Close()
	var d delays
	for n := range 20 {
		from := e.heard()
		eat()
		var killed time.Time
		for late := time.Now().Add(patience); killed.IsZero(); {
			text, err := counter.Read()
			if k, _ := procfs.Field(text, "oom_kill"); err != nil || k > uint64(n) {
				killed = time.Now()
			}
			if time.Now().After(late) {
				b.Fatal("nothing is killed")
			}
		}
		told := e.heardAt("a kill", max(0, from-1), func(f reflexes.Fact) bool { return f.Var == reflexes.OOMCount && f.Value == reflexes.Int(int64(n+1)) })
		d = append(d, max(0, told.Sub(killed)))
	}
	d.report(b)
}

// BenchmarkPressure: from the instant at which tasks have waited for memory for a
// twentieth of the last second, by a look each millisecond, to the fact.
func BenchmarkPressure(b *testing.B) {
	needPressure(b)
	stop := thrash(b)
	p := must[*Pressure](b)(NewPressure(PressureConfig{Now: bootNow}))
	e := listen(b, p)
	e.waitFor(reflexes.HostPSIMemorySome1s, "", known)
	const mark = 0.05
	var d delays
	for range 5 {
		from := e.heard()
		e.wait("calm", from, func(f reflexes.Fact) bool { return f.Var == reflexes.HostPSIMemorySome1s && f.Value.AsFloat() < mark/5 })
		from = e.heard()
		stop(false)
		crossed := crossing(b, mark)
		told := e.heardAt("the crossing", from, func(f reflexes.Fact) bool { return f.Var == reflexes.HostPSIMemorySome1s && f.Value.AsFloat() >= mark })
		stop(true)
		d = append(d, max(0, told.Sub(crossed)))
	}
	d.report(b)
}

// crossing waits until tasks have waited for memory for mark of a second.
func crossing(b *testing.B, mark float64) time.Time {
	b.Helper()
	f := must[*procfs.File](b)(procfs.Open("/proc/pressure/memory", 256))
	defer f.Close()
	w := newWindow(time.Second, time.Millisecond)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	first := time.Duration(-1)
	for late := time.Now().Add(patience); time.Now().Before(late); <-tick.C {
		text, err := f.Read()
		if err != nil {
			b.Fatal(err)
		}
		pressure, err := procfs.ParsePressure(text)
		if err != nil {
			b.Fatal(err)
		}
		if first < 0 {
			first = pressure.Some
		}
		ratio, ok := w.ratio(bootNow(), pressure.Some)
		if ok && ratio >= mark || !ok && pressure.Some-first >= time.Duration(mark*float64(time.Second)) {
			return time.Now()
		}
	}
	b.Skip("no pressure can be made here")
	return time.Time{}
}

// thrash starts a program that reads a file again and again for which its group
// has no room, and returns what stops it, or lets it go on.
func thrash(b *testing.B) (stop func(bool)) {
	b.Helper()
	dir, _ := memoryGroup(b)
	file := filepath.Join(b.TempDir(), "file")
	f, err := os.Create(file)
	if err == nil {
		_, err = f.Write(make([]byte, 16<<20))
	}
	if err = errors.Join(err, f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close()); err != nil { // else it is in memory, on our account
		b.Fatal(err)
	}
	cmd := start(b, "/bin/sh", "-c", "while :; do cat "+file+" >/dev/null; done")
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGSTOP)
	join(b, dir, cmd.Process.Pid)
	return func(end bool) {
		_ = syscall.Kill(-cmd.Process.Pid, map[bool]syscall.Signal{true: syscall.SIGSTOP, false: syscall.SIGCONT}[end])
	}
}

// BenchmarkIdle runs all senses of a host with ten copies, and tells what they
// take of a core.
func BenchmarkIdle(b *testing.B) {
	var list []Copy
	for i := range 10 {
		cmd := start(b, "/bin/sleep", "1000")
		list = append(list, Copy{ID: fmt.Sprintf("web/%d", i+1), PID: cmd.Process.Pid, Memory: 1 << 30, CPU: 1})
	}
	senses, err := Standard(StandardConfig{Now: bootNow, Copies: copiesOf(list...)})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("nothing", func(b *testing.B) { // what a process takes that wakes up twice a second and does nothing
		began, used := time.Now(), processCPU()
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for range 8 {
			<-tick.C
		}
		reportCPU(b, began, used)
	})
	for _, c := range []struct {
		name          string
		read, leisure []reflexes.VarID
	}{
		{"all", reflexes.Vars(), nil},
		{"all-at-leisure", nil, reflexes.Vars()},
		{"guards", nil, []reflexes.VarID{reflexes.ClockGaps, reflexes.HostPSICPUSome10s, reflexes.HostPSIMemoryFull10s, reflexes.HostPSIIOFull10s}}, // that the engine has for any rule
	} {
		b.Run(c.name, func(b *testing.B) {
			set := must[*Set](b)(New(Config{Senses: senses, Now: bootNow}))
			set.need([]demand{{vars: closure(c.read)}}, closure(c.leisure))
			ctx, cancel := context.WithCancel(b.Context())
			var wg sync.WaitGroup
			wg.Go(func() { set.Run(ctx) })
			defer wg.Wait()
			defer cancel()
			drain(set, time.Second) // they begin
			began, used := time.Now(), processCPU()
			drain(set, 4*time.Second)
			reportCPU(b, began, used)
		})
	}
}

func reportCPU(b *testing.B, began time.Time, used time.Duration) {
	b.ReportMetric(100*float64(processCPU()-used)/float64(time.Since(began)), "%core")
	b.ReportMetric(0, "ns/op")
}

// drain takes facts for a while, as the engine does.
func drain(set *Set, d time.Duration) {
	end := time.After(d)
	var facts []reflexes.Fact
	for {
		select {
		case <-end:
			return
		case <-set.Ready():
			facts = set.Take(facts[:0])
		}
	}
}

func processCPU() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkUnitsFailed: from the signal that kills a unit's process to the fact.
func BenchmarkUnitsFailed(b *testing.B) {
	needSystemd(b)
	e := listen(b, newUnits(b))
	e.waitFor(reflexes.UnitState, "-.mount", known)
	var d delays
	for n := range 30 {
		name := fmt.Sprintf("senses-bench-%d.service", n)
		unit(b, name, "exec sleep 1000")
		e.waitFor(reflexes.UnitState, name, is(reflexes.Text("active")))
		out, err := exec.Command("systemctl", "show", "-P", "MainPID", name).Output()
		if err != nil {
			b.Fatal(err)
		}
		var pid int
		if _, err := fmt.Sscan(string(out), &pid); err != nil {
			b.Fatal(err)
		}
		from, before := e.heard(), time.Now()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			b.Fatal(err)
		}
		d = append(d, e.heardAt("its failure", from, func(f reflexes.Fact) bool {
			return f.Var == reflexes.UnitFailures && f.Target.Name == name && f.Value == reflexes.Int(1)
		}).Sub(before))
	}
	d.report(b)
}
