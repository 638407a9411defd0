package integration

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// BenchmarkApply100 measures from the start of apply to 100 copies on five hosts
// running, ready and reported so, beside the bare fork and exec of 100. Half a
// second of it is what a copy without a check must run before it counts as ready.
func BenchmarkApply100(b *testing.B) {
	r := rig.New(b, 5)
	r.Start()
	awaitAllVoters(b, r)
	intents := r.Hosts[0].File("web.hcl", sleepers("web", 100))
	var applied, bare time.Duration
	rounds := 0
	for b.Loop() {
		rounds++
		begun := time.Now()
		r.Hosts[0].Must("apply", "--detach", intents)
		rig.Await(b, time.Minute, func() error {
			st, err := status(r.Hosts[0], "web")
			if err == nil && st.Ready != 100 {
				err = fmt.Errorf("%d ready", st.Ready)
			}
			return err
		})
		applied += time.Since(begun)
		r.Hosts[0].Must("delete", "web", "--yes")
		bare += forkExec(b, 100)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(applied.Milliseconds())/float64(rounds), "ready-ms")
	b.ReportMetric(float64(bare.Milliseconds())/float64(rounds), "forkexec-ms")
	b.ReportMetric(float64(applied)/float64(bare), "ready/forkexec")
}

func awaitAllVoters(b *testing.B, r *rig.Rig) {
	rig.Await(b, 40*time.Second, func() error {
		var m api.Mesh
		if err := r.Hosts[0].Get("/v1/mesh", &m); err != nil {
			return err
		}
		if len(m.Voters) != 3 {
			return fmt.Errorf("voters %v", m.Voters)
		}
		return nil
	})
}

func forkExec(b *testing.B, n int) time.Duration {
	begun := time.Now()
	var all []*exec.Cmd
	for range n {
		cmd := exec.Command("/bin/sleep", "100000")
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		all = append(all, cmd)
	}
	took := time.Since(begun)
	for _, cmd := range all {
		cmd.Process.Kill()
		cmd.Wait()
	}
	return took
}

// BenchmarkIdle prints what an idle agent of a five-host mesh costs: resident
// memory and share of a core, of voters with embedded NATS and of plain agents.
func BenchmarkIdle(b *testing.B) {
	r := rig.New(b, 5)
	r.Start()
	awaitAllVoters(b, r)
	var peers []api.Peer
	if err := r.Hosts[0].Get("/v1/peers", &peers); err != nil {
		b.Fatal(err)
	}
	kind := func(h *rig.Host) string {
		for _, p := range peers {
			if p.Name == h.Name && p.Leader {
				return "leader"
			} else if p.Name == h.Name {
				return "voter"
			}
		}
		return "agent"
	}
	const settle, window = 20 * time.Second, 30 * time.Second
	for b.Loop() {
		time.Sleep(settle) // joins and elections die down
		before := map[string]time.Duration{}
		for _, h := range r.Hosts {
			before[h.Name] = cpuTime(b, h.Pid())
		}
		time.Sleep(window)
		worst := map[string]float64{}
		for _, h := range r.Hosts {
			k := kind(h)
			cpu := 100 * float64(cpuTime(b, h.Pid())-before[h.Name]) / float64(window)
			worst[k+"-cpu-%"] = max(worst[k+"-cpu-%"], cpu)
			worst[k+"-rss-MB"] = max(worst[k+"-rss-MB"], rss(b, h.Pid()))
		}
		for name, v := range worst {
			b.ReportMetric(v, name)
		}
	}
	b.ReportMetric(0, "ns/op")
}

// cpuTime is the CPU time of a process, from the scheduler's own account.
func cpuTime(b *testing.B, pid int) time.Duration {
	var total time.Duration
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		b.Fatalf("process %d has no schedstat", pid)
	}
	for _, t := range tasks {
		raw, _ := os.ReadFile(t)
		if f := strings.Fields(string(raw)); len(f) > 0 {
			ns, _ := strconv.ParseInt(f[0], 10, 64)
			total += time.Duration(ns)
		}
	}
	return total
}

func rss(b *testing.B, pid int) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return kb / 1024
		}
	}
	b.Fatalf("process %d has no VmRSS", pid)
	return 0
}

// BenchmarkRestartByAgent measures what a user gets: from the SIGKILL of a copy
// to its replacement executing, through a whole agent with its supervision,
// events and checks, beside the C floor in the same run.
func BenchmarkRestartByAgent(b *testing.B) {
	const copies, rounds = 110, 2
	stamp, floor := compileC(b, "stamp"), compileC(b, "floor")
	r := rig.New(b, 1)
	h := r.Hosts[0]
	h.StartAgent()
	h.Must("init", "--name", "bench")
	h.Must("apply", h.File("bench.hcl", fmt.Sprintf("app \"bench\" {\n count = %d\n run { command = [%q] }\n restart { limit = 1000 }\n}\n", copies, stamp)))
	base := startFloor(b, floor, stamp)
	var agent, bare []time.Duration
	for b.Loop() {
		for range rounds {
			time.Sleep(12 * time.Second) // so long well, a copy counts as stable again
			for n := range copies {
				path := filepath.Join(h.DataDir(), "output", "bench", strconv.Itoa(n), "stdout.log")
				agent = append(agent, killAndTime(b, path))
				bare = append(bare, killAndTime(b, base))
			}
		}
	}
	slices.Sort(agent)
	slices.Sort(bare)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(len(agent)), "kills")
	b.ReportMetric(micros(agent, .5), "p50-µs")
	b.ReportMetric(micros(agent, .99), "p99-µs")
	b.ReportMetric(micros(bare, .5), "floor-p50-µs")
	b.ReportMetric(micros(bare, .99), "floor-p99-µs")
	b.ReportMetric(micros(agent, .5)/micros(bare, .5), "p50/floor")
}

// micros is a quantile of what took d, which is sorted, in microseconds.
func micros(d []time.Duration, q float64) float64 {
	return float64(d[int(q*float64(len(d)-1))].Nanoseconds()) / 1e3
}

// compileC builds one of the C programs of the driver's own benchmark.
func compileC(b *testing.B, name string, flags ...string) string {
	b.Helper()
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	bin := filepath.Join(dir, name)
	src := filepath.Join("..", "workload", "process", "testdata", name+".c")
	if out, err := exec.Command("cc", append(flags, "-O2", "-static", "-o", bin, src)...).CombinedOutput(); err != nil {
		b.Skipf("needs a C compiler: %v\n%s", err, out)
	}
	return bin
}

// startFloor runs the C floor and returns where its copies stamp.
func startFloor(b *testing.B, floor, stamp string) string {
	path := filepath.Join(b.TempDir(), "stamps")
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(floor, stamp)
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return path
}

// killAndTime kills the copy that stamped path last and returns how long it took
// until the next one was executing.
func killAndTime(b *testing.B, path string) time.Duration {
	time.Sleep(time.Duration(2000+rand.IntN(4000)) * time.Microsecond) // any phase
	pid, _, size := lastStamp(b, path, 0)
	begun := monotonic()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		b.Fatal(err)
	}
	_, at, _ := lastStamp(b, path, size)
	return time.Duration(at - begun)
}

// lastStamp waits until path is larger than size and reads its last stamp.
func lastStamp(b *testing.B, path string, size int64) (pid int, at, newSize int64) {
	const stampSize = 16
	rig.Await(b, 20*time.Second, func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil || st.Size() <= size || st.Size()%stampSize != 0 {
			return fmt.Errorf("no new stamp in %s", path)
		}
		var rec [stampSize]byte
		if _, err := f.ReadAt(rec[:], st.Size()-stampSize); err != nil {
			return err
		}
		pid, at, newSize = int(binary.NativeEndian.Uint64(rec[:8])), int64(binary.NativeEndian.Uint64(rec[8:])), st.Size()
		return nil
	})
	return pid, at, newSize
}
