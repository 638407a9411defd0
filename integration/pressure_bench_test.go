package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// BenchmarkReflexOnPressure measures from the instant at which tasks have waited for
// memory for a twentieth of the last second, by the kernel's own count, read each
// millisecond, to the handler of the signal that a reflex on that sends: through whole
// agents that all see the same pressure, one rule and one copy for each act. Where the
// agents lack CAP_SYS_RESOURCE this is what hosts get that have no right to the
// kernel's triggers.
func BenchmarkReflexOnPressure(b *testing.B) {
	const hosts, crossings = 3, 10
	const mark = 0.05
	stamp := compileC(b, "stamp")
	w := openWaited(b)
	bare := startBare(b, stamp)
	r := rig.New(b, hosts)
	for _, h := range r.Hosts {
		h.StartAgent()
		h.Must("init", "--name", "bench")
		h.Must("apply", h.File("bench.hcl", fmt.Sprintf("app \"hand\" {\n  count = %d\n  run { command = [%q] }\n}\n", crossings, stamp)))
	}
	thrash := startThrashing(b, r.Hosts[0])
	var took []time.Duration
	for b.Loop() {
		for n := range crossings {
			w.calm(b, mark) // or the rules would hold as they come
			sizes := make([]int64, hosts)
			for i, h := range r.Hosts {
				rule := fmt.Sprintf("reflex \"psi%d\" {\n  when = \"host.psi.memory.some_1s >= %g\"\n  act = [signal(\"hand/%d\", \"SIGUSR1\")]\n  cooldown = \"10m\"\n  limit = \"1/10m\"\n}\n", n, mark, n)
				h.Must("apply", h.File("rule.hcl", rule))
				rig.Await(b, 20*time.Second, func() error { return rulesReady(h, n+1) })
				atOnce(b, h, n)
				_, _, sizes[i] = lastStamp(b, stamps(h, n), 0)
			}
			crossed := w.crossing(b, mark, thrash, bare)
			if crossed == 0 && len(took) == 0 {
				b.Skip("no pressure can be made here")
			}
			if crossed == 0 {
				break // what was measured is printed
			}
			for i, h := range r.Hosts {
				_, at, _ := lastStamp(b, stamps(h, n), sizes[i])
				took = append(took, max(0, time.Duration(at-crossed)))
			}
			thrash(false)
		}
	}
	reportActs(b, took, bare.took)
}

// stamps is the file in which a copy of hand says when it was told something.
func stamps(h *rig.Host, n int) string {
	return filepath.Join(h.DataDir(), "output", "hand", strconv.Itoa(n), "stdout.log")
}

// startThrashing starts a copy that reads files of its own again and again, of which its
// memory group has room for most but not all, as the kernel counts waiting for nothing
// but what was in use when it went. It returns what lets the copy go on, or stops it, as
// it is then.
func startThrashing(b *testing.B, h *rig.Host) (thrash func(on bool)) {
	b.Helper()
	script := "cd $STATE_DIR; for f in 1 2 3 4 5 6 7 8; do head -c 3145728 /dev/zero >$f; done; sync; kill -STOP $$; " +
		"for f in 1 2 3 4 5 6 7 8; do while :; do cat $f >/dev/null; done & done; wait"
	h.Must("apply", h.File("thrash.hcl", fmt.Sprintf("app \"thrash\" {\n  run { command = [\"/bin/sh\", \"-c\", %q] }\n  resources { memory = \"16MiB\" }\n}\n", script)))
	st, err := status(h, "thrash")
	if err != nil {
		b.Fatal(err)
	}
	pid := pids(st, h.Name)["thrash/0"]
	rig.Await(b, 20*time.Second, func() error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && !strings.Contains(string(stat), ") T ") {
			err = errors.New("it does not stop")
		}
		return err
	})
	return func(on bool) {
		sig := map[bool]syscall.Signal{true: syscall.SIGCONT, false: syscall.SIGSTOP}[on]
		if err := syscall.Kill(-pid, sig); err != nil {
			b.Fatal(err)
		}
	}
}

// waited is the kernel's count of the time for which tasks have waited for memory, as
// it was in the last second.
type waited struct {
	f        *os.File
	readings []waitedAt // oldest first
}

type waitedAt struct{ at, total int64 } // ns, µs

// openWaited skips where the kernel keeps no such count.
func openWaited(b *testing.B) *waited {
	b.Helper()
	f, err := os.Open("/proc/pressure/memory")
	if err != nil {
		b.Skipf("needs pressure stall information: %v", err)
	}
	b.Cleanup(func() { f.Close() })
	return &waited{f: f}
}

// calm waits until tasks have hardly waited for a second.
func (w *waited) calm(b *testing.B, mark float64) {
	b.Helper()
	w.readings = w.readings[:0]
	if !w.until(b, func(share float64, whole bool) bool { return whole && share < mark/5 }) {
		b.Fatal("other tasks wait for memory all the while")
	}
}

// crossing has it thrash, and returns when tasks had waited for mark of a second; 0 if
// they have not within half a minute, as the kernel counts little of it now and then.
func (w *waited) crossing(b *testing.B, mark float64, thrash func(on bool), x *bare) (at int64) {
	b.Helper()
	defer hurry(b)()
	w.calm(b, mark)
	thrash(true)
	if !w.until(b, func(share float64, _ bool) bool { return share >= mark }) {
		return 0
	}
	at = w.readings[len(w.readings)-1].at
	x.tell(b, at)
	return at
}

// until reads each millisecond until it is as wanted, and tells whether it was so
// within half a minute.
func (w *waited) until(b *testing.B, wanted func(share float64, whole bool) bool) bool {
	b.Helper()
	for late := time.Now().Add(30 * time.Second); time.Now().Before(late); {
		if wanted(w.read(b)) {
			return true
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 1_000_000}, nil) // a timer of the runtime's is not so exact
	}
	return false
}

// read returns for what share of the last second tasks have waited. It is not whole
// until a second after the first reading.
func (w *waited) read(b *testing.B) (share float64, whole bool) {
	var buf [256]byte
	n, err := w.f.ReadAt(buf[:], 0)
	if n == 0 {
		b.Fatal(err)
	}
	var avg [3]float64
	now := waitedAt{at: monotonic()}
	if _, err := fmt.Sscanf(string(buf[:n]), "some avg10=%f avg60=%f avg300=%f total=%d", &avg[0], &avg[1], &avg[2], &now.total); err != nil {
		b.Fatalf("%q: %v", buf[:n], err)
	}
	for len(w.readings) > 1 && now.at-w.readings[1].at >= time.Second.Nanoseconds() {
		w.readings = w.readings[1:]
	}
	w.readings = append(w.readings, now)
	first := w.readings[0]
	return float64(now.total-first.total) * 1e3 / float64(time.Second), now.at-first.at >= time.Second.Nanoseconds()
}
