package integration

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// BenchmarkReflexOnExit measures what a rule of a user's costs beside what is built
// in, through a whole agent: each copy is killed twice, and what makes a new one is
// first the restart that every copy has, and then, as the supervisor now waits, a
// reflex on its exit. Both are from the SIGKILL to the replacement executing.
func BenchmarkReflexOnExit(b *testing.B) {
	const copies = 200
	stamp := compileC(b, "stamp")
	println("T0")
	r := rig.New(b, 1)
	h := r.Hosts[0]
	h.StartAgent()
	h.Must("init", "--name", "bench")
	h.Must("apply", h.File("bench.hcl", fmt.Sprintf(`app "bench" {
  count = %d
  run { command = [%q] }
  restart { limit = 1 }
  reflex "again" {
    when = "exit.signal == 'SIGKILL' && exit.count_1m >= 2"
    act  = [restart()]
  }
}
`, copies, stamp)))
	var built, rule []time.Duration
	for b.Loop() {
		for n := range copies {
			path := filepath.Join(h.DataDir(), "output", "bench", strconv.Itoa(n), "stdout.log")
			built = append(built, killAndTime(b, path))
			rule = append(rule, killAndTime(b, path))
		}
	}
	slices.Sort(built)
	slices.Sort(rule)
	us := func(d []time.Duration, q float64) float64 {
		return float64(d[int(q*float64(len(d)-1))].Nanoseconds()) / 1e3
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(len(rule)), "kills")
	b.ReportMetric(us(built, .5), "built-in-p50-µs")
	b.ReportMetric(us(built, .99), "built-in-p99-µs")
	b.ReportMetric(us(rule, .5), "rule-p50-µs")
	b.ReportMetric(us(rule, .99), "rule-p99-µs")
	b.ReportMetric(us(rule, .5)-us(built, .5), "more-p50-µs")
}
