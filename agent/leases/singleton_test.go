package leases

import (
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// brief are the timers of tests; tight ones are the least that Check allows.
var (
	brief = topology.Timers{Hold: time.Second, Kill: 300 * time.Millisecond, Grace: 2 * time.Second}
	tight = topology.Timers{Hold: time.Second, Kill: 300 * time.Millisecond, Grace: 1553 * time.Millisecond}
)

// torment puts one mesh through a random history and then demands that the
// singleton runs again. It returns what went wrong.
func torment(seed uint64, bug mutant, timers topology.Timers) *sim {
	s := newSim(seed, bug, timers)
	if _, ok := s.pass(10*time.Second, func() bool { return s.running() != nil }); !ok {
		s.mistake("it is not placed within 10 s")
		return s
	}
	for range 12 {
		s.trouble()
		pause := time.Duration(100+s.rnd.IntN(3500)) * time.Millisecond
		s.pass(pause, func() bool { return len(s.mistakes) > 0 })
		if len(s.mistakes) > 0 {
			return s
		}
	}
	s.heal()
	// The longest of what may be under way: a stop, a start that hangs, a new
	// leader, a lease that has to lapse.
	if _, ok := s.pass(30*time.Second, func() bool { return s.running() != nil || len(s.mistakes) > 0 }); !ok {
		s.mistake("it does not run 30 s after all was healed")
	}
	return s
}

const seeds = 2000

// At most one copy runs at any instant, and tokens rise (S4), whatever happens
// to agents, leaders, hosts and the network, with clocks a tenth off either way.
func TestOneCopyAtAnyInstant(t *testing.T) {
	t.Parallel()
	var sum figures
	for seed := range uint64(seeds) {
		timers := brief
		if seed%2 == 0 {
			timers = tight
		}
		s := torment(seed, sound, timers)
		if len(s.mistakes) > 0 {
			t.Fatalf("seed %d: %v\n%s", seed, s.mistakes, strings.Join(s.log, "\n"))
		}
		f := s.figures
		sum.elections += f.elections
		sum.fenced += f.fenced
		sum.starts += f.starts
		sum.grants += f.grants
		sum.paused += f.paused
	}
	t.Logf("%d histories: %+v", seeds, sum)
	// Histories in which nothing happens prove nothing.
	if sum.elections < 2*seeds || sum.fenced < seeds/2 || sum.grants < 2*seeds || sum.paused < seeds/2 {
		t.Errorf("the faults did not bite: %+v", sum)
	}
}

// What the mechanism is made of is needed: without any part of it the same
// checks fail.
func TestMutantsAreCaught(t *testing.T) {
	t.Parallel()
	for _, bug := range []mutant{noKeeper, noWait, fromReceipt} {
		t.Run(string(bug), func(t *testing.T) {
			for seed := range uint64(seeds) {
				if s := torment(seed, bug, tight); len(s.mistakes) > 0 {
					if !strings.Contains(s.mistakes[0], "at once") {
						t.Errorf("seed %d: %v, want two at once", seed, s.mistakes)
					}
					t.Logf("caught by seed %d: %s", seed, s.mistakes[0])
					return
				}
			}
			t.Errorf("not caught by %d seeds", seeds)
		})
	}
}

// A singleton whose host is lost runs elsewhere within the window that plan
// prints; if the leader is lost with it, within that and what an election takes.
func TestFailoverIsWithinItsWindow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		timers topology.Timers
		leader bool
	}{
		{"brief", brief, false}, {"brief, with the leader", brief, true},
		{"default", topology.DefaultTimers(), false}, {"default, with the leader", topology.DefaultTimers(), true},
	} {
		var worst time.Duration
		for seed := range uint64(100) {
			s := newSim(seed, sound, c.timers)
			s.calm = true
			for _, h := range s.hosts {
				h.rate = 0.99 + 0.02*s.rnd.Float64() // the window is by true clocks
			}
			s.pass(10*time.Second, func() bool { return s.running() != nil && s.now > 5*time.Second })
			s.pass(time.Duration(s.rnd.IntN(1000))*time.Millisecond, func() bool { return false })
			lost := s.running()
			if lost == nil {
				t.Fatalf("%s: seed %d: does not run\n%s", c.name, seed, strings.Join(s.log, "\n"))
			}
			if c.leader != (s.leader == lost) {
				continue
			}
			lost.cut = true
			within := c.timers.Window()
			if c.leader {
				within += topology.LeaderWindow
			}
			took, ok := s.pass(within, func() bool { r := s.running(); return r != nil && r != lost })
			if !ok || len(s.mistakes) > 0 {
				t.Errorf("%s: seed %d: not within %s: %v\n%s", c.name, seed, within, s.mistakes, strings.Join(s.log, "\n"))
				break
			}
			worst = max(worst, took)
		}
		t.Logf("%s: at most %s", c.name, worst)
	}
}
