package addresses

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// brief are the timers of tests, with lifetimes that the kernel's whole seconds leave
// room for; tight ones are the least that Check allows.
var (
	brief = topology.Timers{Hold: 6 * s, Kill: 500 * time.Millisecond, Grace: 9 * s}
	tight = topology.Timers{Hold: 6 * s, Kill: 500 * time.Millisecond, Grace: 7884 * time.Millisecond}
)

// trouble is one random event.
func (s *sim) trouble() {
	h := s.hosts[s.rnd.IntN(len(s.hosts))]
	if l, ok := s.lease(); ok && s.rnd.IntN(3) > 0 { // the holder more often than others
		h = s.hosts[slices.IndexFunc(s.hosts, func(h *simHost) bool { return h.name == l.Host })]
	}
	what := s.rnd.IntN(30)
	s.say("trouble %d at %s", what, h.name)
	switch what {
	case 0, 1:
		h.cut = true
	case 2, 3:
		for _, h := range s.hosts {
			h.cut = false
			if h.dead {
				h.begin()
			}
		}
	case 4, 5, 6:
		if !h.dead {
			h.pause(time.Duration(300+s.rnd.IntN(15000)) * time.Millisecond)
		}
	case 7:
		h.end()
	case 8, 9:
		h.end()
		h.begin()
	case 10:
		h.reboot()
	case 11:
		s.leader, s.elected = nil, s.now+time.Duration(s.rnd.IntN(1500))*time.Millisecond
	case 12, 13:
		h.set(s.rnd.IntN(len(h.rules)), s.rnd.IntN(2) == 0)
	case 14:
		h.on = netip.Prefix{} // somebody took it off by hand
	case 15:
		h.broken = s.now + time.Duration(s.rnd.IntN(8000))*time.Millisecond
	case 16:
		h.full = s.now + time.Duration(s.rnd.IntN(8000))*time.Millisecond
	default:
		s.user(what, h)
	}
}

// flap has what a host gives back wanted again just then by another life of its agent,
// of which the disk may know nothing.
func (s *sim) flap(h *simHost) {
	if s.rnd.IntN(2) == 0 {
		h.full = s.now + 2*time.Second
	}
	h.set(0, false)
	h.set(1, false)
	s.at(time.Duration(s.rnd.IntN(1500))*time.Millisecond, func() {
		if !s.calm {
			h.end()
			h.begin()
			h.set(0, true)
		}
	})
}

// user is what people do.
func (s *sim) user(what int, h *simHost) {
	switch what {
	case 28, 29: // its last renewals are answered late
		h.slow = s.now + 10*time.Second
		s.hosts[s.rnd.IntN(len(s.hosts))].set(0, true)
		s.at(time.Duration(3000+s.rnd.IntN(5000))*time.Millisecond, func() { h.cut = !s.calm })
	case 26, 27:
		s.flap(h)
	case 17, 24, 25:
		s.freeze(h, s.rnd.IntN(4) == 0)
	case 22, 23: // just when somebody is about to claim
		h.set(0, true)
		s.at(time.Duration(s.rnd.IntN(3000))*time.Millisecond, func() {
			if !s.calm {
				s.freeze(h, true)
			}
		})
	case 18, 19:
		if s.majority() {
			drain := []topology.Drain{topology.DrainDraining, topology.DrainNone}[s.rnd.IntN(2)]
			s.commit(topology.Command{SetDrain: &topology.SetDrain{Host: h.name, Drain: drain}})
		}
	case 20:
		if s.majority() {
			s.commit(topology.Command{DeleteReflex: &topology.DeleteReflex{Name: owners[s.rnd.IntN(2)].Rule}})
		}
	case 21:
		h.absent = nil
		if s.rnd.IntN(2) == 0 {
			h.absent = []string{owners[s.rnd.IntN(2)].Rule}
		}
		if s.majority() {
			s.declare()
		}
	}
}

// heal ends all trouble.
func (s *sim) heal() {
	s.calm = true
	for _, h := range s.hosts {
		h.cut, h.broken, h.full, h.slow, h.absent = false, 0, 0, 0, nil
		h.paused = min(h.paused, s.now)
		h.resume()
		h.release(h.at_)
		if h.dead {
			h.begin()
		}
	}
	s.pass(3*time.Second, func() bool { return s.leads() })
	for _, h := range s.hosts {
		s.commit(topology.Command{SetDrain: &topology.SetDrain{Host: h.name, Drain: topology.DrainNone}})
	}
	s.declare()
	s.freeze(s.leader, false)
}

// having is the host that has the address, and whose rule knows that it has.
func (s *sim) having() *simHost {
	for _, h := range s.hosts {
		for _, r := range h.rules {
			if h.has() && r.has {
				return h
			}
		}
	}
	return nil
}

// wanting lists the hosts that want it.
func (s *sim) wanting() (list []*simHost) {
	for _, h := range s.hosts {
		if h.rules[0].matter || h.rules[1].matter {
			list = append(list, h)
		}
	}
	return list
}

// nobody tells whether no host has it, and the mesh knows of no lease.
func (s *sim) nobody() bool {
	_, leased := s.state.Lease(shared.Addr().String())
	return !leased && !slices.ContainsFunc(s.hosts, (*simHost).has)
}

// demand waits for something.
func (s *sim) demand(what string, within time.Duration, cond func() bool) bool {
	if len(s.mistakes) > 0 {
		return false
	}
	_, ok := s.pass(within, func() bool { return cond() || len(s.mistakes) > 0 })
	if !ok {
		for _, h := range s.hosts {
			s.say("%s: frozen %v, %+v, wants %v, reported %+v, leases %+v", h.name, h.frozen, h.rules, h.keeper.Wants(), h.report, h.slice.Leases)
		}
		s.mistake("%s, not within %s", what, within)
	}
	return len(s.mistakes) == 0
}

// longestWait is what is longest under way when trouble ends: a new leader, a lease
// that has to lapse on the slowest clock, what the host remembers of it, and rounds of
// each.
const longestWait = 30 * time.Second

// promptly is how long a move may take that waits for nobody's clock.
const promptly = 5 * time.Second

// torment puts a mesh through a random history and then demands what is promised.
func torment(seed uint64, bug mutant, timers topology.Timers) *sim {
	s := newSim(seed, bug, timers)
	s.calm = true
	for _, h := range s.hosts[:1+s.rnd.IntN(4)] {
		h.set(s.rnd.IntN(2), true)
	}
	if !s.demand("somebody has it at first", promptly, func() bool { return s.having() != nil }) {
		return s
	}
	s.calm = false
	for range 12 {
		s.trouble()
		s.wait(time.Duration(100+s.rnd.IntN(4000)) * time.Millisecond)
		if len(s.mistakes) > 0 {
			return s
		}
	}
	s.heal()
	s.hosts[s.rnd.IntN(4)].set(s.rnd.IntN(2), true)
	if s.demand("one that wants it has it after all trouble", longestWait, func() bool { h := s.having(); return h != nil && slices.Contains(s.wanting(), h) }) {
		s.aftermath()
	}
	return s
}

// aftermath holds a mesh without trouble to how the address moves.
func (s *sim) aftermath() {
	first := s.having()
	for _, h := range s.hosts {
		if h != first {
			h.set(0, true)
		}
	}
	s.wait(3 * time.Second)
	if first = s.having(); first == nil {
		s.mistake("it went from who has it though nothing happened")
		return
	}
	how := ""
	switch s.rnd.IntN(3) {
	case 0:
		how = "its host is drained"
		s.commit(topology.Command{SetDrain: &topology.SetDrain{Host: first.name, Drain: topology.DrainDraining}})
	case 1:
		how = "its matter is over"
		first.set(0, false)
		first.set(1, false)
	case 2:
		if how = "a freeze is over that held it"; !s.frost(first) {
			return
		}
	}
	if !s.demand(how+": another has it", promptly, func() bool { h := s.having(); return h != nil && h != first }) {
		return
	}
	if how == "its host is drained" && !s.demand("it is drained", promptly, func() bool { h, _ := s.state.Host(first.name); return h.Drain == topology.DrainDrained }) {
		return
	}
	for _, h := range s.hosts {
		h.set(0, false)
		h.set(1, false)
	}
	s.demand("nobody wants it, and nobody has it", promptly, s.nobody)
}

// frost has the matter of the host that has it end while all is frozen: it keeps it,
// and nobody else claims, for longer than a lease, until the thaw.
func (s *sim) frost(first *simHost) bool {
	s.freeze(s.leader, true)
	s.wait(time.Second)
	first.set(0, false)
	first.set(1, false)
	for range 15 {
		s.wait(time.Second)
		if !first.has() {
			s.mistake("a freeze took it from %s", first.name)
			return false
		}
	}
	s.figures.held++
	s.freeze(s.leader, false)
	return true
}

const seeds = 1000

// At no instant do the kernels of two hosts have the address, and nobody claims it in
// a freeze, whatever happens to agents, leaders, hosts and the network, with clocks a
// tenth off either way; and one that wants it has it when that is over.
func TestOneHostHasTheAddressAtAnyInstant(t *testing.T) {
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
		sum.add(s.figures)
	}
	t.Logf("%d histories: %+v", seeds, sum)
	// Histories in which nothing happens prove nothing.
	if sum.elections < seeds || sum.grants < 2*seeds || sum.puts < 2*seeds || sum.paused < seeds/4 || sum.stalls < seeds || sum.killedAtWork < seeds/20 ||
		sum.given < seeds || sum.held < seeds/5 {
		t.Errorf("the faults did not bite: %+v", sum)
	}
}

func (f *figures) add(g figures) {
	f.elections += g.elections
	f.grants += g.grants
	f.puts += g.puts
	f.paused += g.paused
	f.stalls += g.stalls
	f.killedAtWork += g.killedAtWork
	f.given += g.given
	f.held += g.held
}

// What the mechanism is made of is needed: without any part of it the same checks fail.
func TestMutantsAreCaught(t *testing.T) {
	t.Parallel()
	for _, bug := range []mutant{noWait, fromAnswer, frozenEarly, deaf} {
		t.Run(string(bug), func(t *testing.T) {
			for seed := range uint64(seeds) {
				if s := torment(seed, bug, tight); len(s.mistakes) > 0 {
					t.Logf("caught by seed %d: %s", seed, s.mistakes[0])
					return
				}
			}
			t.Errorf("not caught by %d seeds", seeds)
		})
	}
}
