package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// actsOf is how many disturbing acts one host does in ten minutes.
const actsOf = 20

// BenchmarkReflexOnOOM measures from the kernel's count of a kill for want of memory,
// in the group of a copy, to the handler of the signal that a reflex on it sends,
// through whole agents: one copy that is killed and one that is told for each act.
func BenchmarkReflexOnOOM(b *testing.B) {
	const hosts = 5
	stamp := compileC(b, "stamp")
	r := rig.New(b, hosts)
	bare := startBare(b, stamp)
	var took []time.Duration
	for _, h := range r.Hosts {
		h.StartAgent()
		h.Must("init", "--name", "bench")
		hog := "trap 'tail /dev/zero' USR1; while :; do sleep 1000 & wait; done"
		intents := fmt.Sprintf("app \"hand\" {\n  count = %d\n  run { command = [%q] }\n}\n", actsOf, stamp) +
			fmt.Sprintf("app \"hog\" {\n  count = %d\n  run { command = [\"/bin/sh\", \"-c\", %q] }\n  resources { memory = \"16MiB\" }\n}\n", actsOf, hog)
		for n := range actsOf {
			intents += fmt.Sprintf("reflex \"oom%d\" {\n  scope = \"copy:hog/%d\"\n  when = \"oom.count > 0\"\n  act = [signal(\"hand/%d\", \"SIGUSR1\")]\n  cooldown = \"10m\"\n  limit = \"1/10m\"\n}\n", n, n, n)
		}
		h.Must("apply", h.File("bench.hcl", intents))
	}
	for b.Loop() {
		for _, h := range r.Hosts {
			st, err := status(h, "hog")
			if err != nil {
				b.Fatal(err)
			}
			rig.Await(b, 20*time.Second, func() error { return known(h, "oom.count", actsOf) })
			for n := range actsOf {
				pid := pids(st, h.Name)[fmt.Sprintf("hog/%d", n)]
				counter := openOOMCount(b, pid)
				atOnce(b, h, n)
				path := filepath.Join(h.DataDir(), "output", "hand", strconv.Itoa(n), "stdout.log")
				_, _, size := lastStamp(b, path, 0)
				if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
					b.Fatal(err)
				}
				killed := counter.await(b, bare)
				_, at, _ := lastStamp(b, path, size)
				took = append(took, max(0, time.Duration(at-killed)))
			}
		}
	}
	reportActs(b, took, bare.took)
}

// hurry has the kernel run this goroutine before others until calm is called, so that
// it sees when a fault is there. Nothing may be started meanwhile.
func hurry(b *testing.B) (calm func()) {
	b.Helper()
	runtime.LockOSThread()
	tid := unix.Gettid()
	if err := unix.Setpriority(unix.PRIO_PROCESS, tid, -20); err != nil {
		b.Fatal(err)
	}
	return func() {
		_ = unix.Setpriority(unix.PRIO_PROCESS, tid, 0)
		runtime.UnlockOSThread()
	}
}

// atOnce has the kernel run a copy of hand as soon as there is something for it, so
// that what else the machine does is not measured.
func atOnce(b *testing.B, h *rig.Host, n int) {
	b.Helper()
	st, err := status(h, "hand")
	if err == nil {
		err = syscall.Setpriority(syscall.PRIO_PROCESS, pids(st, h.Name)[fmt.Sprintf("hand/%d", n)], -20)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// reportActs prints how long acts took, beside bare signals to a process like those
// that were told, sent when each fault was seen.
func reportActs(b *testing.B, took, bare []time.Duration) {
	b.Helper()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(len(took)), "acts")
	for who, d := range map[string][]time.Duration{"": took, "bare-": bare} {
		slices.Sort(d)
		b.ReportMetric(micros(d, .5), who+"p50-µs")
		b.ReportMetric(micros(d, .99), who+"p99-µs")
		b.ReportMetric(micros(d, 1), who+"max-µs")
	}
}

// bare is a process that nobody keeps and that is told of each fault by whoever saw it:
// what the machine itself takes for an act at that moment.
type bare struct {
	pid  int
	path string
	took []time.Duration
}

func startBare(b *testing.B, stamp string) *bare {
	b.Helper()
	path := filepath.Join(b.TempDir(), "stamps")
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(stamp)
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, cmd.Process.Pid, -20); err != nil {
		b.Fatal(err)
	}
	lastStamp(b, path, 0)
	return &bare{pid: cmd.Process.Pid, path: path}
}

// tell tells it of a fault that was seen at a time.
func (x *bare) tell(b *testing.B, seen int64) {
	b.Helper()
	_, _, size := lastStamp(b, x.path, 0)
	if err := syscall.Kill(x.pid, syscall.SIGUSR1); err != nil {
		b.Fatal(err)
	}
	_, at, _ := lastStamp(b, x.path, size)
	x.took = append(x.took, time.Duration(at-seen))
}

// known tells whether a host knows a variable of so many targets.
func known(h *rig.Host, name string, want int) error {
	out, _, _ := h.CLI("reflex", "vars", name, "-o", "json")
	if n := strings.Count(out, `"value":0`) + strings.Count(out, `"value": 0`); n < want {
		return fmt.Errorf("%s of %d targets is known on %s, want %d: %.600s", name, n, h.Name, want, out)
	}
	return nil
}

// oomCount is the kernel's count of kills in a group.
type oomCount struct {
	f   *os.File
	was string
}

// openOOMCount opens that of a process's group, or skips where it has none of its own.
func openOOMCount(b *testing.B, pid int) *oomCount {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || f[2] == "/" {
			continue
		}
		for _, path := range []string{"/sys/fs/cgroup/memory" + f[2] + "/memory.oom_control", "/sys/fs/cgroup" + f[2] + "/memory.events"} {
			v1 := strings.HasSuffix(path, "oom_control")
			if v1 != slices.Contains(strings.Split(f[1], ","), "memory") {
				continue
			}
			if file, err := os.Open(path); err == nil {
				b.Cleanup(func() { file.Close() })
				c := &oomCount{f: file}
				c.was = c.read(b)
				return c
			}
		}
	}
	b.Skipf("needs memory groups for copies: %s", text)
	return nil
}

func (c *oomCount) read(b *testing.B) string {
	var buf [512]byte
	n, err := c.f.ReadAt(buf[:], 0)
	if n == 0 {
		b.Fatal(err)
	}
	_, count, _ := strings.Cut(string(buf[:n]), "oom_kill ")
	count, _, _ = strings.Cut(count, "\n")
	return count
}

// await waits until another is killed, and returns when that was, to a tenth of a
// millisecond.
func (c *oomCount) await(b *testing.B, x *bare) (at int64) {
	b.Helper()
	defer hurry(b)()
	for late := time.Now().Add(20 * time.Second); time.Now().Before(late); {
		if c.read(b) != c.was {
			at = monotonic()
			x.tell(b, at)
			return at
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 100_000}, nil) // a timer of the runtime's is not so exact
	}
	b.Fatal(errors.New("nothing is killed"))
	return 0
}
