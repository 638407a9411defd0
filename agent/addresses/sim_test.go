package addresses

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/leases"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// mutant is a defect of what the simulation itself stands for: the agent around a
// Keeper. Those of the Keeper, and of what decides, are in mutants_test.go.
type mutant string

const (
	sound       mutant = ""
	noWait      mutant = "new leader does not wait"       // it takes leases it has not seen renewed for lapsed
	fromAnswer  mutant = "renewal counts from its answer" // and not from when it was asked for
	frozenEarly mutant = "freeze looked at too early"     // when a claim is ordered, not when it is done
	deaf        mutant = "the end of a matter is not heard"
)

// sim is a mesh in virtual time: hosts whose clocks, and whose kernels' timers, go
// at rates of their own, and whose agents may stand still, or die, between any two
// things that they do to the kernel or the disk; a network that loses and delays; a
// log that commits for the leader that a majority follows. What decides is real: the
// Keeper, the bookkeeping of leases, the topology. The kernels are fakes.
type sim struct {
	rnd    *rand.Rand
	bug    mutant
	timers topology.Timers

	now    time.Duration // true time
	events []event       // by time, latest first
	state  *topology.State
	index  uint64
	hosts  []*simHost

	leader    *simHost // whom a majority follows; nil: an election is on
	office    time.Duration
	elected   time.Duration // when the next leader may take office
	book      leases.Book
	batch     []waiting
	inherited uint64 // index of the renewal that the leader found when it took office
	kicked    bool   // a decision is due
	calm      bool   // nothing is delayed for long
	epoch     int    // of freezes: odd while one stands
	mistakes  []string
	figures   figures
	log       []string
}

type figures struct {
	elections, grants, puts, paused, stalls, killedAtWork, given, held int
}

type event struct {
	at time.Duration
	do func()
}

// waiting is a renewal that waits for its commit.
type waiting struct {
	ref topology.LeaseRef
	ack func()
}

var owners = []Owner{{Rule: "vip", Target: reflexes.Host()}, {Rule: "vip2", Target: reflexes.Host()}}

func newSim(seed uint64, bug mutant, timers topology.Timers) *sim {
	s := &sim{rnd: rand.New(rand.NewPCG(seed, 7)), bug: bug, timers: timers, state: topology.New()}
	s.commit(topology.Command{Found: &topology.Found{MeshID: "m", Name: "main"}})
	for i := range 4 {
		h := newSimHost(s, fmt.Sprintf("h%d", i+1))
		s.hosts = append(s.hosts, h)
		s.commit(topology.Command{EnrolHost: &topology.EnrolHost{Name: h.name, ID: "id-" + h.name}})
	}
	s.declare()
	for _, h := range s.hosts {
		h.begin()
	}
	s.elected = 300 * time.Millisecond
	s.every(250*time.Millisecond, s.elect)
	s.every(500*time.Millisecond, s.kick)
	s.every(300*time.Millisecond, s.renew)
	return s
}

func (s *sim) declare() {
	var put topology.PutIntents
	for _, o := range owners {
		put.Intents.Reflexes = append(put.Intents.Reflexes, intent.Reflex{
			Name: o.Rule, When: "host.cpu.count > 1", Act: []intent.Action{{Op: "claim", Target: shared.String()}}, Cooldown: intent.Second, Limit: "50/10m",
		})
	}
	s.commit(topology.Command{PutIntents: &put})
}

// at has f done after a while.
func (s *sim) at(after time.Duration, f func()) {
	e := event{s.now + after, f}
	i, _ := slices.BinarySearchFunc(s.events, e, func(x, e event) int {
		if x.at > e.at {
			return -1
		}
		return 1 // those of one instant in the order in which they came
	})
	s.events = slices.Insert(s.events, i, e)
}

func (s *sim) every(d time.Duration, f func()) {
	s.at(d, func() {
		f()
		s.every(d, f)
	})
}

// pass lets time pass until cond, and tells whether that came within most, and how
// long it took.
func (s *sim) pass(most time.Duration, cond func() bool) (time.Duration, bool) {
	begun := s.now
	for !cond() {
		last := len(s.events) - 1
		if s.events[last].at-begun > most {
			s.now = begun + most
			return most, false
		}
		e := s.events[last]
		s.events = s.events[:last]
		s.now = max(s.now, e.at)
		e.do()
	}
	return s.now - begun, true
}

func (s *sim) wait(d time.Duration) {
	s.pass(d, func() bool { return len(s.mistakes) > 0 })
}

func (s *sim) say(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf("%8.3f ", s.now.Seconds())+fmt.Sprintf(format, args...))
}

func (s *sim) mistake(format string, args ...any) {
	s.say("MISTAKE "+format, args...)
	s.mistakes = append(s.mistakes, fmt.Sprintf(format, args...))
}

// commit applies a command, has hosts fetch the slices that it changed, and a
// decision made.
func (s *sim) commit(c topology.Command) *topology.Rejected {
	s.index++
	next, res := s.state.Apply(s.index, c)
	s.state = next
	if c.RenewLeases == nil {
		s.kick()
		for _, h := range s.hosts {
			h.fetch()
		}
	}
	return res.Err
}

func (s *sim) lease() (topology.Lease, bool) {
	l, ok := s.state.Lease(shared.Addr().String())
	return l, ok && !l.Over
}

func (s *sim) majority() bool {
	n := 0
	for _, h := range s.hosts {
		if h.serves() {
			n++
		}
	}
	return 2*n > len(s.hosts)
}

// delay is how long a message takes: mostly nothing, sometimes seconds.
func (s *sim) delay() time.Duration {
	d := time.Duration(1+s.rnd.IntN(30)) * time.Millisecond
	switch n := s.rnd.IntN(20); {
	case s.calm:
	case n < 2:
		d += time.Duration(s.rnd.IntN(6000)) * time.Millisecond
	case n == 2:
		d += time.Duration(s.rnd.IntN(400)) * time.Millisecond
	}
	return d
}

// toLeader sends from a host to whoever leads then. It is lost where nobody does, or
// the network is not there.
func (s *sim) toLeader(from *simHost, do func()) {
	if from.cut {
		return
	}
	s.at(s.delay(), func() {
		if s.leader != nil && !s.leader.cut {
			s.leader.awake(do)
		}
	})
}

// elect keeps a leader whom a majority follows.
func (s *sim) elect() {
	if s.leader != nil && s.leader.serves() && s.majority() {
		s.elected = s.now + time.Second + time.Duration(s.rnd.IntN(1000))*time.Millisecond
		return
	}
	if !s.majority() || s.now < s.elected {
		return
	}
	if s.rnd.IntN(2) == 0 { // what the old leader had sent to a majority is committed yet, and nobody hears of it
		s.commit(topology.Command{RenewLeases: &topology.RenewLeases{Leases: refs(s.batch)}})
	}
	for s.leader = nil; s.leader == nil; { // any that serves
		if h := s.hosts[s.rnd.IntN(len(s.hosts))]; h.serves() {
			s.leader = h
		}
	}
	s.batch, s.office = nil, s.now
	s.book.TakeOffice()
	if l, ok := s.lease(); ok {
		s.inherited = l.Renewed
	}
	for _, h := range s.hosts {
		h.report, h.reported = nil, s.now
	}
	s.figures.elections++
	s.say("%s leads", s.leader.name)
}

func refs(batch []waiting) (out []topology.LeaseRef) {
	for _, r := range batch {
		out = append(out, r.ref)
	}
	return out
}

func (s *sim) leads() bool { return s.leader != nil && s.leader.serves() && s.majority() }

// renew commits the renewals that have come in, and acknowledges them.
func (s *sim) renew() {
	if len(s.batch) == 0 || !s.leads() {
		return
	}
	batch := s.batch
	s.batch = nil
	s.commit(topology.Command{RenewLeases: &topology.RenewLeases{Leases: refs(batch)}})
	s.book.Look(s.state.Leases(), s.leader.clock())
	for _, r := range batch {
		if l, ok := s.lease(); ok && l.Token == r.ref.Token {
			r.ack()
		}
	}
}

func (s *sim) kick() {
	if s.kicked {
		return
	}
	s.kicked = true
	s.at(20*time.Millisecond, func() {
		s.kicked = false
		s.decide()
	})
}

// decide is one step of the leader's loop. What it decides is committed if a majority
// still follows.
func (s *sim) decide() {
	if s.leader == nil || !s.leader.serves() {
		return
	}
	frozen := s.leader.frozen
	d := topology.Decide(s.state, s.observe())
	if !s.majority() {
		return
	}
	for _, c := range d.Commands {
		if r := s.commit(c); r == nil && c.GrantAddress != nil {
			s.figures.grants++
			l, _ := s.lease()
			s.say("granted to %s, token %d", l.Host, l.Token)
			if frozen {
				s.mistake("%s grants what is frozen", s.leader.name)
			}
		}
	}
}

func (s *sim) observe() topology.Observations {
	obs := topology.Observations{Settled: s.now-s.office > time.Second || s.bug == noWait, Hosts: map[string]topology.HostObs{}, Timers: s.timers}
	obs.Freeze.All = s.leader.frozen
	obs.Leases = s.book.Look(s.state.Leases(), s.leader.clock())
	l, ok := s.lease()
	if o := obs.Leases[l.App]; ok && s.bug == noWait && o.Renewed == s.inherited {
		o.Age = l.Timers.Grace
		obs.Leases[l.App] = o
	}
	for _, h := range s.hosts {
		o := topology.HostObs{
			Alive: s.now-h.seen < 2500*time.Millisecond, Reported: h.report != nil, ReportAge: s.now - h.reported,
			CPU: 4, Memory: 1 << 30, PortMin: 1, PortMax: 9,
		}
		if r := h.report; r != nil {
			o.Boot, o.Slice, o.Wants = r.boot, r.slice, r.wants
			if ok && l.Host == h.name && slices.Contains(r.ended, topology.LeaseRef{App: l.App, Token: l.Token}) {
				e := obs.Leases[l.App]
				e.Ended = true
				obs.Leases[l.App] = e
			}
		}
		obs.Hosts[h.name] = o
	}
	return obs
}

// freeze begins or ends a freeze at a host; others hear of it.
func (s *sim) freeze(from *simHost, frozen bool) {
	if from.dead || from.cut && !frozen || !frozen && !s.majority() {
		return // a thaw takes a quorum
	}
	s.epoch++
	epoch := s.epoch
	for _, h := range s.hosts {
		d := s.delay()
		if h == from {
			d = 0
		}
		s.hearFreeze(h, d, epoch, frozen)
	}
}

// hearFreeze has a host hear of it, as soon as it can.
func (s *sim) hearFreeze(h *simHost, after time.Duration, epoch int, frozen bool) {
	s.at(after, func() {
		switch {
		case h.epoch >= epoch:
		case h.cut || h.dead:
			s.hearFreeze(h, 300*time.Millisecond, epoch, frozen)
		default:
			h.awake(func() {
				h.epoch, h.frozen = epoch, frozen
				h.look()
			})
		}
	})
}
