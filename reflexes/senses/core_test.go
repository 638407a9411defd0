package senses

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// TestWindow holds the window against one that forgets nothing.
func TestWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const span, step = time.Second, 50 * time.Millisecond
		w := newWindow(span, step)
		var all []reading
		var at time.Duration
		var value int64
		for range rapid.IntRange(1, 200).Draw(t, "looks") {
			at += time.Duration(rapid.IntRange(1, 300).Draw(t, "ms")) * time.Millisecond
			value += int64(rapid.IntRange(0, 1000).Draw(t, "growth"))
			grown, over, ok := w.add(at, value)
			old := -1 // the youngest reading that is a span old
			for i, r := range all {
				if at-r.at >= span {
					old = i
				}
			}
			if ok != (old >= 0) {
				t.Fatalf("at %s: known %t, with %d readings", at, ok, len(all))
			}
			if ok {
				r := reading{at - over, value - grown}
				found := false
				for _, a := range all {
					found = found || a == r
				}
				if !found || over < span || at-all[old].at > over || over-(at-all[old].at) >= step {
					t.Fatalf("at %s: grown by %d over %s; the best is %s", at, grown, over, at-all[old].at)
				}
			}
			all = append(all, reading{at, value})
		}
	})
}

func TestRatio(t *testing.T) {
	w := newWindow(time.Second, 50*time.Millisecond)
	var total time.Duration
	for at := time.Duration(0); at < time.Second; at += 50 * time.Millisecond {
		if v, ok := w.ratio(at, total); ok {
			t.Fatalf("%v after %s", v, at)
		}
		total += 25 * time.Millisecond
	}
	if v, ok := w.ratio(time.Second, total); !ok || math.Abs(v-0.5) > 0.001 {
		t.Errorf("half of the time: %v, %t", v, ok)
	}
	if v, ok := w.ratio(11*time.Second, total); !ok || v > 0.06 {
		t.Errorf("after a pause without pressure: %v, %t", v, ok)
	}
	if v, ok := w.ratio(12*time.Second, 0); ok {
		t.Errorf("another counter: %v", v)
	}
	if _, ok := w.ratio(12500*time.Millisecond, 0); ok {
		t.Error("what was before is compared with another counter")
	}
}

func TestDiskFullIn(t *testing.T) {
	const mb = 1 << 20
	d := newDiskFill("/data", "8:1")
	at, free := time.Duration(0), int64(1000*mb)
	for ; at < paceLeast; at += 2 * time.Second {
		if in, ok := d.fullIn(at, free); ok {
			t.Fatalf("%v after %s", in, at)
		}
		free -= 2 * mb
	}
	if in, ok := d.fullIn(at, free); !ok || math.Abs(in-float64(free/mb)) > 1 {
		t.Errorf("1 MB/s and %d MB are left: %v, %t", free/mb, in, ok)
	}
	for range 200 { // longer than the span, at rest
		at += 2 * time.Second
		d.fullIn(at, free)
	}
	if in, ok := d.fullIn(at, free); !ok || in != never {
		t.Errorf("it does not fill: %v, %t", in, ok)
	}
	if in, ok := d.fullIn(at+time.Second, free+mb); !ok || in != never {
		t.Errorf("it empties: %v, %t", in, ok)
	}
	if in, ok := newDiskFill("/", "").fullIn(0, 0); !ok || in != 0 {
		t.Errorf("it is full: %v, %t", in, ok)
	}
}

func TestClockWatch(t *testing.T) {
	c := clockWatch{interval: time.Second}
	boot, wall := time.Hour, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	look := func(passed, drift time.Duration) (gap, step float64) {
		boot += passed
		wall = wall.Add(passed + drift)
		facts := c.look(boot, wall, nil)
		for i, f := range facts {
			switch f.Var {
			case reflexes.ClockGapSeconds:
				gap = f.Value.AsFloat()
			case reflexes.ClockStepSeconds:
				step = f.Value.AsFloat()
			case reflexes.ClockGaps, reflexes.ClockSteps:
				if i == 0 || f.Value.AsInt() > 0 && facts[i-1].Var.Info().With != f.Var {
					t.Errorf("%v does not follow what tells of it: %v", f, facts)
				}
			}
		}
		return gap, step
	}
	for _, c := range []struct {
		passed, drift time.Duration
		gap, step     float64
	}{
		{0, 0, 0, 0},                       // the first look
		{time.Second, 0, 0, 0},             //
		{2900 * time.Millisecond, 0, 0, 0}, // late, no more
		{3 * time.Second, 0, 3, 0},
		{time.Hour, 4 * time.Minute, 3600, 0}, // suspended, with a clock that is slewed
		{time.Second, 3 * time.Second, 0, 3},
		{time.Second, -time.Hour, 0, -3600},
		{5 * time.Second, time.Minute, 5, 60}, // both
	} {
		if gap, step := look(c.passed, c.drift); gap != c.gap || step != c.step {
			t.Errorf("%+v: gap %v, step %v", c, gap, step)
		}
	}
	if c.gaps != 3 || c.steps != 3 {
		t.Errorf("%d gaps, %d steps", c.gaps, c.steps)
	}
}

// last returns the newest value among facts.
func last(facts []reflexes.Fact, id reflexes.VarID, name string) (v reflexes.Value, ok bool) {
	for _, f := range facts {
		if f.Var == id && f.Target.Name == name {
			v, ok = f.Value, true
		}
	}
	return v, ok
}

func TestLinkTable(t *testing.T) {
	table := newLinkTable()
	facts := table.set(2, "eth0", true, 1, nil)
	if len(facts) != 4 {
		t.Fatalf("a new link: %v", facts)
	}
	if facts = table.set(2, "eth0", true, 2, nil); len(facts) != 0 {
		t.Errorf("nothing new: %v", facts)
	}
	facts = table.set(2, "eth0", false, 3, nil)
	if v, _ := last(facts, reflexes.LinkDowns, "eth0"); v != reflexes.Int(1) || len(facts) != 2 {
		t.Errorf("down: %v", facts)
	}
	if facts = table.set(2, "eth0", false, 3, nil); len(facts) != 0 {
		t.Errorf("still down: %v", facts)
	}
	table.set(2, "eth0", true, 4, nil)
	facts = table.addressed(map[int]int{2: 3, 9: 1}, 5, nil)
	facts = table.routed(map[int]bool{2: true}, 5, facts)
	if v, _ := last(facts, reflexes.LinkAddresses, "eth0"); v != reflexes.Int(3) || len(facts) != 2 {
		t.Errorf("addresses and routes: %v", facts)
	}

	// While nobody listened it went down, and another one came.
	table.begin()
	table.compare()
	facts = table.set(2, "eth0", false, 6, nil)
	facts = table.set(3, "wg0", true, 6, facts)
	facts = table.compared(6, facts)
	if v, _ := last(facts, reflexes.LinkDowns, "eth0"); v != reflexes.Int(2) {
		t.Errorf("a lost edge: %v", facts)
	}
	if v, _ := last(facts, reflexes.LinkAddresses, "eth0"); v != reflexes.Int(3) {
		t.Errorf("told anew: %v", facts)
	}

	// It is renamed, and wg0 is gone, which is a way of going down.
	table.compare()
	facts = table.set(2, "lan0", true, 7, nil)
	facts = table.compared(7, facts)
	if v, ok := last(facts, reflexes.LinkUp, "eth0"); !ok || v.Known() {
		t.Errorf("the old name: %v", facts)
	}
	if v, _ := last(facts, reflexes.LinkDowns, "lan0"); v != reflexes.Int(0) {
		t.Errorf("the new name: %v", facts)
	}
	downs := 0
	for _, f := range facts {
		if f.Var == reflexes.LinkDowns && f.Target.Name == "wg0" && f.Value == reflexes.Int(1) {
			downs++
		}
	}
	if v, ok := last(facts, reflexes.LinkDowns, "wg0"); downs != 1 || !ok || v.Known() {
		t.Errorf("a link that is gone: %v", facts)
	}
	if facts = table.remove(3, 8, nil); len(facts) != 0 {
		t.Errorf("gone twice: %v", facts)
	}
}

func TestLinkTableIsBounded(t *testing.T) {
	table := newLinkTable()
	for i := range 2 * maxLinks {
		table.set(i, "x", true, 0, nil)
	}
	if len(table.links) != maxLinks {
		t.Errorf("%d links", len(table.links))
	}
}
