package leases

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/workload"
)

// mutant is a defect that is put into the simulated mesh, to see it caught.
type mutant string

const (
	sound       mutant = ""
	noKeeper    mutant = "no keeper"                // the agent itself ends its copies
	noWait      mutant = "new leader does not wait" // it takes leases it has not seen renewed for lapsed
	fromReceipt mutant = "deadline from receipt"
)

// sim is a mesh in virtual time: hosts whose clocks go at different rates, each
// with an agent that may stand still or be dead and a keeper that never does; a
// network that loses and delays; a log that commits for the leader that a
// majority follows. What decides is the real topology, Book and Holder.
type sim struct {
	rnd    *rand.Rand
	bug    mutant
	timers topology.Timers

	now   time.Duration // true time
	state *topology.State
	index uint64
	hosts []*host
	msgs  []message

	drawn  uint64           // the highest token that a copy ran under
	owners map[uint64]*host // who ran under each token

	leader    *host // whom a majority follows; nil: an election is on
	office    time.Duration
	book      Book
	elected   time.Duration // when the next leader takes office
	batch     []waiting
	inherited uint64 // index of the renewal that the leader found when it took office
	calm      bool   // the network delays nothing for long
	mistakes  []string
	figures   figures
	log       []string
}

type figures struct{ elections, fenced, starts, grants, paused int }

type host struct {
	name           string
	rate           float64
	offset         time.Duration
	boot           int
	dead, cut      bool // the agent; the network
	paused         time.Duration
	holder         *Holder
	next           time.Duration // tick, true time
	slice          topology.Slice
	gave           uint64        // the highest token given back: on disk
	until          time.Duration // deadline of the lease of the slice, boot clock
	token          uint64        // of until
	run            *run
	starting       *run
	report         *report       // last that the leader has
	reported, seen time.Duration // by the leader, true time
	told           time.Duration // of the last report sent
}

// run is a copy under a keeper.
type run struct {
	token, generation uint64
	until             time.Duration // as the keeper holds it
	slack             time.Duration // of the kill: the keeper's worst, up to K
	at                time.Duration // of a start: when it happens, true time
	stopAt            time.Duration // asked to stop: when it has; 0: not
}

type report struct {
	boot  string
	slice uint64
	runs  *run
	ended uint64
}

type message struct {
	at time.Duration
	to *host // nil: to whoever leads then
	do func()
}

// waiting is a renewal that waits for its commit.
type waiting struct {
	ref topology.LeaseRef
	ack func()
}

func newSim(seed uint64, bug mutant, timers topology.Timers) *sim {
	s := &sim{rnd: rand.New(rand.NewPCG(seed, 4)), bug: bug, timers: timers, state: topology.New(), owners: map[uint64]*host{}}
	s.commit(topology.Command{Found: &topology.Found{MeshID: "m", Name: "main"}})
	for i := range 5 {
		h := &host{name: fmt.Sprintf("h%d", i+1), offset: time.Duration(s.rnd.IntN(1000)) * time.Second, rate: 0.9 + 0.2*s.rnd.Float64(), holder: &Holder{}}
		if s.rnd.IntN(2) == 0 { // at the edge
			h.rate = []float64{0.9, 1.1}[s.rnd.IntN(2)]
		}
		s.hosts = append(s.hosts, h)
		s.commit(topology.Command{EnrolHost: &topology.EnrolHost{Name: h.name, ID: "id-" + h.name}})
	}
	s.declare("1")
	s.elected = 500 * time.Millisecond
	return s
}

func (s *sim) declare(version string) {
	a := intent.App{Name: "db", Singleton: true, Run: intent.Run{Command: []string{"/bin/db", version}}}.WithDefaults()
	s.commit(topology.Command{PutIntents: &topology.PutIntents{Intents: intent.Intents{Apps: []intent.App{a}}}})
}

func (s *sim) commit(c topology.Command) *topology.Rejected {
	s.index++
	next, res := s.state.Apply(s.index, c)
	s.state = next
	return res.Err
}

func (s *sim) say(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf("%8.3f ", s.now.Seconds())+fmt.Sprintf(format, args...))
}

func (s *sim) mistake(format string, args ...any) {
	s.say("MISTAKE "+format, args...)
	s.mistakes = append(s.mistakes, fmt.Sprintf(format, args...))
}

func (s *sim) clock(h *host) time.Duration {
	return h.offset + time.Duration(float64(s.now)*h.rate)
}

func (s *sim) awake(h *host) bool { return !h.dead && s.now >= h.paused }

// serves reports whether a host takes part in the majority.
func (s *sim) serves(h *host) bool { return s.awake(h) && !h.cut }

func (s *sim) majority() bool {
	n := 0
	for _, h := range s.hosts {
		if s.serves(h) {
			n++
		}
	}
	return 2*n > len(s.hosts)
}

// delay is how long a message takes: mostly nothing, sometimes seconds.
func (s *sim) delay() time.Duration {
	d := time.Duration(s.rnd.IntN(30)) * time.Millisecond
	switch n := s.rnd.IntN(20); {
	case s.calm:
	case n == 0:
		d += time.Duration(s.rnd.IntN(3000)) * time.Millisecond
	case n == 1:
		d += time.Duration(s.rnd.IntN(400)) * time.Millisecond
	}
	return d
}

const step = 20 * time.Millisecond

func (s *sim) tick() {
	s.now += step
	s.deliver()
	s.elect()
	if s.leader != nil && s.now%(100*time.Millisecond) == 0 {
		s.renew()
	}
	if s.leader != nil && s.now%(200*time.Millisecond) == 0 {
		s.decide()
	}
	for _, h := range s.hosts {
		s.keep(h)
		if s.awake(h) && s.now >= h.next {
			s.work(h)
		}
	}
	s.check()
}

func (s *sim) deliver() {
	var later []message
	for _, m := range s.msgs {
		to := m.to
		if to == nil {
			to = s.leader
		}
		switch {
		case m.at > s.now:
			later = append(later, m)
		case to == nil || to.dead || to.cut: // lost
		case !s.awake(to): // waits in a buffer of the kernel
			later = append(later, m)
		default:
			m.do()
		}
	}
	s.msgs = later
}

// elect keeps a leader whom a majority follows.
func (s *sim) elect() {
	if s.leader != nil && s.serves(s.leader) && s.majority() {
		s.elected = s.now + time.Second + time.Duration(s.rnd.IntN(1000))*time.Millisecond
		return
	}
	if s.leader != nil && s.now < s.elected || !s.majority() || s.now < s.elected {
		return
	}
	if s.rnd.IntN(2) == 0 { // what the old leader had sent to a majority is committed yet, and nobody hears of it
		s.commit(topology.Command{RenewLeases: &topology.RenewLeases{Leases: refs(s.batch)}})
	}
	for { // any that serves
		if h := s.hosts[s.rnd.IntN(len(s.hosts))]; s.serves(h) {
			s.leader = h
			break
		}
	}
	s.batch, s.office, s.book = nil, s.now, Book{}
	s.book.TakeOffice()
	if l, ok := s.state.Lease("db"); ok {
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

// renew commits the renewals that have come in, and acknowledges them.
func (s *sim) renew() {
	if len(s.batch) == 0 || !s.majority() || !s.serves(s.leader) {
		return
	}
	s.commit(topology.Command{RenewLeases: &topology.RenewLeases{Leases: refs(s.batch)}})
	for _, r := range s.batch {
		if l, ok := s.state.Lease(r.ref.App); ok && l.Token == r.ref.Token && !l.Over {
			r.ack()
		}
	}
	s.batch = nil
}

// decide is one step of the leader's loop. What it decides is committed if a
// majority still follows.
func (s *sim) decide() {
	if !s.serves(s.leader) {
		return
	}
	obs := s.observe()
	d := topology.Decide(s.state, obs)
	if !s.majority() {
		return
	}
	for _, c := range d.Commands {
		if r := s.commit(c); r == nil && c.Place != nil && len(c.Place.Grant) > 0 {
			s.figures.grants++
			l, _ := s.state.Lease("db")
			s.say("granted to %s, token %d", l.Host, l.Token)
		}
	}
}

func (s *sim) observe() topology.Observations {
	obs := topology.Observations{Settled: s.now-s.office > time.Second || s.bug == noWait, Hosts: map[string]topology.HostObs{}, Timers: s.timers}
	obs.Leases = s.book.Look(s.state.Leases(), s.clock(s.leader))
	if o, ok := obs.Leases["db"]; ok && s.bug == noWait && o.Renewed == s.inherited {
		o.Age = s.timers.Grace
		obs.Leases["db"] = o
	}
	for _, h := range s.hosts {
		o := topology.HostObs{
			Alive: s.now-h.seen < 1500*time.Millisecond, Reported: h.report != nil, ReportAge: s.now - h.reported,
			CPU: 4, Memory: 1 << 30, PortMin: 1, PortMax: 9, Copies: map[topology.CopyKey]topology.CopyObs{},
		}
		if r := h.report; r != nil {
			o.Boot, o.Slice = r.boot, r.slice
			if c := r.runs; c != nil {
				o.Copies[topology.CopyKey{App: "db"}] = topology.CopyObs{
					Version: s.version(), Generation: c.generation, State: topology.CopyRunning, Ready: true, ReadyFor: time.Minute,
				}
			}
			if l := obs.Leases["db"]; r.ended != 0 && r.ended >= l.Token {
				l.Ended = l.Token != 0
				obs.Leases["db"] = l
			}
		}
		obs.Hosts[h.name] = o
	}
	return obs
}

func (s *sim) version() string {
	a, _ := s.state.App("db")
	return a.Version
}

func (h *host) bootID() string { return fmt.Sprintf("%s-%d", h.name, h.boot) }

// keep is the keeper's work: it needs no agent.
func (s *sim) keep(h *host) {
	if s.bug == noKeeper && !s.awake(h) {
		return
	}
	if c := h.starting; c != nil && s.now >= c.at {
		h.starting = nil
		// It never starts a copy without a live deadline.
		if s.bug == noKeeper || (workload.Lease{Deadline: c.until, Fence: s.timers.Fence()}).Live(s.clock(h)) {
			h.run = c
			s.started(h)
		}
	}
	if c := h.run; c != nil && (c.stopAt != 0 && s.now >= c.stopAt || s.clock(h) >= c.until+c.slack) {
		if c.stopAt == 0 {
			s.figures.fenced++
		}
		s.say("%s ends it, token %d", h.name, c.token)
		h.run = nil
	}
}

// started notes that a copy runs.
func (s *sim) started(h *host) {
	s.figures.starts++
	s.say("%s runs it, token %d", h.name, h.run.token)
	if h.run.token < s.drawn {
		s.mistake("%s starts it under token %d after one under %d", h.name, h.run.token, s.drawn)
	}
	if by := s.owners[h.run.token]; by != nil && by != h {
		s.mistake("token %d is that of %s and of %s", h.run.token, by.name, h.name)
	}
	s.drawn, s.owners[h.run.token] = max(s.drawn, h.run.token), h
}

// check holds S4 at this instant.
func (s *sim) check() {
	var on []string
	for _, h := range s.hosts {
		if h.run != nil {
			on = append(on, fmt.Sprintf("%s under %d", h.name, h.run.token))
		}
	}
	if len(on) > 1 {
		s.mistake("it runs on %v at once", on)
	}
}

// lease is the one that the host's slice gives it, if it is of this boot and was
// not given back.
func (h *host) lease() (topology.HeldLease, bool) {
	for _, l := range h.slice.Leases {
		if l.Boot == h.bootID() && l.Token > h.gave {
			return l, true
		}
	}
	return topology.HeldLease{}, false
}

// wants is the copy that the host is to run under its lease.
func (h *host) wants() (topology.Placement, bool) {
	for _, a := range h.slice.Assignments {
		if _, ok := h.lease(); ok && !a.Placement.Stopped {
			return a.Placement, true
		}
	}
	return topology.Placement{}, false
}

// work is one tick of an agent: it renews, brings its copy to what its slice
// says, gives back what it needs no more, and reports.
func (s *sim) work(h *host) {
	var held []topology.HeldLease
	if l, ok := h.lease(); ok {
		if _, wanted := h.wants(); wanted || h.run != nil || h.starting != nil {
			held = append(held, l)
		}
	}
	tick := h.holder.Tick(s.clock(h), held)
	if tick.Paused { // kill first, ask later
		s.figures.paused++
		h.run, h.starting, h.until, h.next = nil, nil, 0, s.now
		return
	}
	h.next = s.now + 200*time.Millisecond
	if len(held) > 0 {
		h.next = s.now + min(tick.Next, 200*time.Millisecond)
	}
	for _, ref := range tick.Ask {
		s.askFor(h, held[0], ref, tick.Sent)
	}
	s.reconcile(h)
	s.fetch(h)
	if s.now-h.told >= 500*time.Millisecond {
		h.told = s.now
		s.tell(h)
	}
}

func (s *sim) askFor(h *host, l topology.HeldLease, ref topology.LeaseRef, sent Sent) {
	if h.cut {
		return
	}
	life, boot := h.holder, h.bootID()
	s.msgs = append(s.msgs, message{at: s.now + s.delay(), do: func() {
		now, ok := s.state.Lease(ref.App)
		if !ok || now.Token != ref.Token || now.Host != h.name || now.Boot != boot {
			return
		}
		s.batch = append(s.batch, waiting{ref: ref, ack: func() {
			s.msgs = append(s.msgs, message{at: s.now + s.delay(), to: h, do: func() { s.acked(h, life, l, sent) }})
		}})
	}})
}

// acked takes an acknowledgement, if it is for this life of the agent.
func (s *sim) acked(h *host, life *Holder, l topology.HeldLease, sent Sent) {
	until, ok := h.holder.Deadline(sent, l.Hold)
	if s.bug == fromReceipt {
		until = s.clock(h) + l.Hold
	}
	if now, mine := h.lease(); h.holder != life || !ok || !mine || now.Token != l.Token {
		return
	}
	if h.token != l.Token {
		h.token, h.until = l.Token, 0
	}
	h.until = max(h.until, until)
	if h.run != nil && h.run.token == l.Token && s.clock(h) < h.run.until {
		h.run.until = max(h.run.until, until)
	}
}

func (s *sim) reconcile(h *host) {
	p, wanted := h.wants()
	l, leased := h.lease()
	if c := h.run; c != nil && c.stopAt == 0 && (!wanted || c.generation != p.Generation) {
		c.stopAt = s.now + time.Duration(100+s.rnd.IntN(1500))*time.Millisecond
	}
	live := workload.Lease{Deadline: h.until, Fence: s.timers.Fence()}.Live(s.clock(h))
	if h.run == nil && h.starting == nil && wanted && h.token == l.Token && live {
		slow := time.Duration(s.rnd.IntN(60)) * time.Millisecond
		if s.rnd.IntN(20) == 0 && !s.calm {
			slow = time.Duration(s.rnd.IntN(4000)) * time.Millisecond // stopped between the look and the start
		}
		slack := s.timers.Kill - step
		if s.rnd.IntN(2) == 0 {
			slack = time.Duration(s.rnd.Int64N(int64(slack)))
		}
		h.starting = &run{token: l.Token, generation: p.Generation, until: h.until, slack: slack, at: s.now + slow}
	}
	if leased && !wanted && h.run == nil && h.starting == nil {
		h.gave = l.Token
	}
}

// fetch reads the slice, from any voter.
func (s *sim) fetch(h *host) {
	if h.cut || s.leader == nil || h.slice.Index == s.state.Slice(h.name).Index {
		return
	}
	slice := s.state.Slice(h.name)
	s.msgs = append(s.msgs, message{at: s.now + s.delay(), to: h, do: func() {
		if slice.Index > h.slice.Index {
			h.slice = slice // on disk before it is acted on
		}
	}})
}

// tell reports to the leader.
func (s *sim) tell(h *host) {
	if h.cut {
		return
	}
	r := &report{boot: h.bootID(), slice: h.slice.Index}
	if h.run != nil {
		c := *h.run
		r.runs = &c
	}
	for _, l := range h.slice.Leases {
		if l.Boot != h.bootID() || l.Token <= h.gave {
			r.ended = l.Token
		}
	}
	s.msgs = append(s.msgs, message{at: s.now + s.delay(), do: func() { h.report, h.reported, h.seen = r, s.now, s.now }})
}

// trouble is one random event.
func (s *sim) trouble() {
	h := s.hosts[s.rnd.IntN(len(s.hosts))]
	if l, ok := s.state.Lease("db"); ok && s.rnd.IntN(2) == 0 { // the holder more often than others
		for _, x := range s.hosts {
			if x.name == l.Host {
				h = x
			}
		}
	}
	what := s.rnd.IntN(16)
	switch what {
	case 0, 1:
		h.cut = true
	case 2, 3, 4:
		h.cut = false
		s.revive(h)
	case 5, 6, 7:
		h.paused = s.now + time.Duration(300+s.rnd.IntN(6000))*time.Millisecond
	case 8:
		h.dead = true
	case 9:
		s.reboot(h)
	case 10:
		s.leader, s.elected = nil, s.now+time.Duration(s.rnd.IntN(1500))*time.Millisecond
	case 11:
		h.run = nil // it crashes
	default:
		s.user(what, h)
	}
	s.say("trouble %d at %s", what, h.name)
}

func (s *sim) user(what int, h *host) {
	if !s.majority() {
		return
	}
	switch what {
	case 12:
		drain := []topology.Drain{topology.DrainDraining, topology.DrainNone}[s.rnd.IntN(2)]
		s.commit(topology.Command{SetDrain: &topology.SetDrain{Host: h.name, Drain: drain}})
	case 13:
		s.commit(topology.Command{SetRunning: &topology.SetRunning{App: "db", Stopped: s.rnd.IntN(2) == 0}})
	case 14:
		s.commit(topology.Command{RestartApp: &topology.RestartApp{App: "db"}})
	case 15:
		if s.rnd.IntN(2) == 0 {
			s.commit(topology.Command{DeleteApp: &topology.DeleteApp{Name: "db"}})
		}
		s.declare(fmt.Sprint(s.rnd.IntN(3)))
	}
}

// revive starts a dead agent. It finds its copy as the keeper has it, and knows
// no deadline of its own.
func (s *sim) revive(h *host) {
	if h.dead {
		h.dead, h.holder, h.until, h.paused = false, &Holder{}, 0, 0
	}
}

// reboot ends all that runs on a host, and its clock begins anew.
func (s *sim) reboot(h *host) {
	h.run, h.starting, h.dead = nil, nil, true
	h.boot++
	h.offset = -time.Duration(float64(s.now) * h.rate)
	s.revive(h)
}

// heal ends all trouble.
func (s *sim) heal() {
	for _, h := range s.hosts {
		h.cut, h.paused = false, 0
		s.revive(h)
		s.commit(topology.Command{SetDrain: &topology.SetDrain{Host: h.name, Drain: topology.DrainNone}})
	}
	s.commit(topology.Command{SetRunning: &topology.SetRunning{App: "db"}})
}

func (s *sim) running() *host {
	for _, h := range s.hosts {
		if h.run != nil && h.run.stopAt == 0 {
			return h
		}
	}
	return nil
}

// until lets time pass until cond, and tells how long that took; false after
// most.
func (s *sim) pass(most time.Duration, cond func() bool) (time.Duration, bool) {
	for begun := s.now; ; s.tick() {
		if cond() {
			return s.now - begun, true
		}
		if s.now-begun >= most {
			return most, false
		}
	}
}
