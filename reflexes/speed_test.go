package reflexes

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"
)

// crowded is an engine with a rule on exits and so many others, which read what
// changes all the time.
func crowded(t testing.TB, others int) *Engine {
	t.Helper()
	rules := compile(t, reviveRule)
	one := compile(t, `reflex "shed" {
  when = "host.memory.available_ratio < 0.05 && host.cpu.busy_ratio > 0.9"
  act  = [emit("x")]
}`)[0]
	for i := range others {
		r := *one
		r.Name = fmt.Sprintf("shed-%d", i)
		rules = append(rules, &r)
	}
	e := NewEngine(Config{Boot: "1", Seed: 1})
	e.SetRules(0, rules)
	return e
}

// crash is one exit of a copy, answered by an act; long after the one before, so that
// nothing holds it.
type crash struct {
	e     *Engine
	now   Boot
	count int64
	facts []Fact
	acts  int
}

// answer takes the exit from its fact to the permit, and returns how long that took.
func (c *crash) answer() time.Duration {
	c.now += 10 * time.Minute
	c.count++
	c.facts = Exit{Copy: "web/1", Count: c.count, Signal: "SIGKILL", Code: -1, At: c.now}.Facts(c.facts[:0])
	begun := time.Now()
	firings, _ := c.e.Step(c.now, c.facts)
	var act Act
	var ok bool
	for _, f := range firings {
		act, ok = c.e.Permit(c.now, f, Authority{})
	}
	took := time.Since(begun)
	if ok {
		c.acts++
		c.e.Done(c.now+time.Millisecond, act.ID, true, "")
	}
	c.e.TakeRecords()
	c.e.TakeOutcomes()
	for c.e.Wake() < c.now+9*time.Minute {
		c.e.Step(c.e.Wake(), nil)
		c.e.TakeOutcomes()
	}
	return took
}

// Among a thousand rules nothing is allocated either, from an exit to its permit.
func TestExitAmongAThousandRulesAllocatesNothing(t *testing.T) {
	c := crash{e: crowded(t, 1000), now: time.Second}
	for range 300 { // the history is full by then
		c.answer()
	}
	if n := testing.AllocsPerRun(100, func() { c.answer() }); n != 0 {
		t.Errorf("%.1f allocations an exit", n)
	}
	if c.acts < 350 {
		t.Errorf("%d of 401 exits were answered", c.acts)
	}
}

// BenchmarkExitToPermit measures the engine's part in an act: alone, among a thousand
// rules, and those in a process with 300 MB of pointers that is collected all the while.
func BenchmarkExitToPermit(b *testing.B) {
	for _, c := range []struct {
		name        string
		rules, heap int
	}{{"alone", 0, 0}, {"1000-rules", 1000, 0}, {"1000-rules-300MB", 1000, 300 << 20}} {
		b.Run(c.name, func(b *testing.B) {
			ballast := pointers(c.heap)
			end := collect(c.heap > 0)
			defer end()
			x := crash{e: crowded(b, c.rules), now: time.Second}
			const exits = 5000
			took := make([]time.Duration, 0, exits)
			for b.Loop() {
				took = took[:0]
				for range exits {
					took = append(took, x.answer())
				}
			}
			slices.Sort(took)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(took[exits/2].Nanoseconds())/1e3, "p50-µs")
			b.ReportMetric(float64(took[exits*99/100].Nanoseconds())/1e3, "p99-µs")
			b.ReportMetric(float64(took[exits-1].Nanoseconds())/1e3, "max-µs")
			runtime.KeepAlive(ballast)
		})
	}
}

// node is as small as a thing with pointers is, so that there are many.
type node struct{ next, other *node }

func pointers(bytes int) *node {
	var first *node
	for range bytes / 16 {
		first = &node{next: first, other: first}
	}
	return first
}

// collect has the garbage collector run again and again until end is called.
func collect(on bool) (end func()) {
	if !on {
		return func() {}
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	}()
	return func() { close(stop); <-ended }
}
