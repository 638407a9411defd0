package addresses

import (
	"errors"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/leases"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/workload/vip"
)

// simHost is a host: its kernel and disk, which go on, and its agent, which need not.
type simHost struct {
	*sim
	name         string
	rate, ticks  float64 // of the boot clock, and of the kernel's timers
	offset       time.Duration
	boot         string
	cut, dead    bool          // the network; the agent
	paused       time.Duration // the agent stands still until then, true time
	disk         []byte
	slice        topology.Slice // on disk
	fetching     uint64
	frozen       bool // on disk
	epoch        int
	slow         time.Duration // until when its renewals are answered late, true time
	absent       []string      // rules that are not in force here yet
	on           netip.Prefix
	until        time.Duration // when the kernel ends it, true time
	broken, full time.Duration // until when addresses cannot be removed, and the disk not written, true time

	// of this life of the agent
	life    int
	began   time.Duration
	keeper  *Keeper
	holder  *leases.Holder
	waiting []func() // for the agent to stand still no more
	jobs    []func() // what holds the Keeper's work lock, one after the other
	at_     *stalled
	stall   int // at which of the next steps of a job it is held up; 0: not
	rules   [2]simRule
	ticking int  // counts what is to come of the Holder's ticks
	loops   int  // likewise of the loop's rounds
	asked   bool // a round is in jobs
	looked  time.Duration

	report         *simReport // last that the leader has
	reported, seen time.Duration
	reports        int
}

// simRule is a reflex, as far as its address goes.
type simRule struct {
	matter   bool // it is the world's: it outlives the agent
	claiming bool
	has      bool // an act of it lasts, as the engine remembers
}

type simReport struct {
	boot  string
	slice uint64
	ended []topology.LeaseRef
	wants []string
	life  int // of the agent
	seq   int // in that
}

func newSimHost(s *sim, name string) *simHost {
	edge := func() float64 {
		if s.rnd.IntN(2) == 0 {
			return []float64{0.9, 1.1}[s.rnd.IntN(2)]
		}
		return 0.9 + 0.2*s.rnd.Float64()
	}
	return &simHost{sim: s, name: name, boot: name, offset: time.Duration(s.rnd.IntN(1000)) * time.Second, rate: edge(), ticks: edge()}
}

func (h *simHost) clock() time.Duration {
	return h.offset + time.Duration(float64(h.now)*h.rate)
}

// serves reports whether a host takes part in the majority.
func (h *simHost) serves() bool { return !h.dead && !h.cut && h.now >= h.paused }

// awake has the present life of the agent do something as soon as it does not stand
// still.
func (h *simHost) awake(do func()) {
	switch {
	case h.dead:
	case h.now < h.paused:
		h.waiting = append(h.waiting, do)
	default:
		do()
		if !h.dead {
			h.heed()
		}
	}
}

// pause has the agent stand still for a while.
func (h *simHost) pause(d time.Duration) {
	h.paused = max(h.paused, h.now+d)
	h.at(h.paused-h.now, h.resume)
}

// resume does what has waited, unless it is to wait on.
func (h *simHost) resume() {
	for len(h.waiting) > 0 && h.now >= h.paused {
		do := h.waiting[0]
		h.waiting = h.waiting[1:]
		h.awake(do)
	}
}

// after has the present life of the agent do something later, by its clock.
func (h *simHost) after(d time.Duration, do func()) {
	life := h.life
	h.at(time.Duration(float64(d)/h.rate)+time.Microsecond, func() { // never before it is due by that clock
		if h.life == life {
			h.awake(do)
		}
	})
}

// begin starts a life of the agent.
func (h *simHost) begin() {
	h.life++
	h.dead, h.paused, h.began = false, 0, h.now
	h.jobs, h.at_, h.asked, h.looked, h.reports = nil, nil, false, -time.Hour, 0
	h.holder = &leases.Holder{}
	for i := range h.rules {
		h.rules[i].claiming = false
	}
	life := h.life
	told := func(f func(*simRule)) func(Owner) {
		return func(o Owner) {
			h.at(time.Millisecond, func() {
				if h.life == life {
					h.awake(func() { f(&h.rules[slices.Index(owners, o)]) })
				}
			})
		}
	}
	var err error
	h.keeper, err = New(Config{
		Load: func() ([]byte, error) { return h.disk, nil }, Save: h.save,
		Clock: func() (string, time.Duration) { return h.boot, h.clock() }, Kernel: h,
		Device: func(netip.Addr) (string, error) { return "eth0", nil },
		Leased: told(func(*simRule) { h.engine() }),
		Lost:   told(func(r *simRule) { r.has = false }),
	})
	if err != nil {
		panic(err)
	}
	h.keeper.Set(h.slice)
	h.after(time.Duration(h.rnd.IntN(300))*time.Millisecond, h.reporting)
	h.after(time.Duration(h.rnd.IntN(300))*time.Millisecond, h.evaluating)
	h.awake(func() {})
}

// end ends a life of the agent, wherever it is.
func (h *simHost) end() {
	if w := h.at_; w != nil {
		h.figures.killedAtWork++
		w.stop()
	}
	h.life++
	h.dead, h.at_, h.jobs, h.waiting = true, nil, nil, nil
}

func (h *simHost) reboot() {
	h.end()
	h.boot += "'"
	h.on, h.until = netip.Prefix{}, 0
	h.offset = -time.Duration(float64(h.now) * h.rate)
	for i := range h.rules {
		h.rules[i].has = false
	}
	h.begin()
}

// heed does what the Keeper's bells ask for.
func (h *simHost) heed() {
	select {
	case <-h.keeper.Changed():
		h.tick()
		h.tell()
	default:
	}
	select {
	case <-h.keeper.Bell():
		h.round()
	default:
	}
}

// stalled is a job that is held up.
type stalled struct {
	next func() (time.Duration, bool)
	stop func()
	wait func(time.Duration) bool
	held bool // it waits to go on
}

var errKilled = errors.New("the agent was killed")

// work does something that holds the Keeper's work lock, after what came before.
func (h *simHost) work(job func()) {
	h.jobs = append(h.jobs, job)
	if h.at_ == nil {
		h.awake(h.turn)
	}
}

// turn does the next jobs. One that is to be held up somewhere is a coroutine.
func (h *simHost) turn() {
	for len(h.jobs) > 0 && h.at_ == nil && h.now >= h.paused {
		job := h.jobs[0]
		h.jobs = h.jobs[1:]
		if h.calm || h.rnd.IntN(6) > 0 {
			job()
			continue
		}
		h.stall = 1 + h.rnd.IntN(6)
		w := &stalled{}
		w.next, w.stop = iter.Pull(func(yield func(time.Duration) bool) {
			defer func() {
				if p := recover(); p != nil && p != errKilled {
					panic(p)
				}
			}()
			w.wait = yield
			job()
		})
		h.at_ = w
		h.goOn(w)
	}
}

// goOn has a job that was held up go on.
func (h *simHost) goOn(w *stalled) {
	d, more := w.next()
	if h.at_ != w {
		return
	}
	if !more {
		h.at_, h.stall = nil, 0
		w.stop()
		h.turn()
		return
	}
	w.held = true
	h.at(d, func() { h.release(w) })
}

// release has a job that is held up go on.
func (h *simHost) release(w *stalled) {
	if w == nil || w != h.at_ || !w.held {
		return
	}
	w.held = false
	h.awake(func() { h.goOn(w) })
}

// step is one of the points at which an agent can be held up: for seconds, alone or
// with all of it, but for no longer than most.
func (h *simHost) step(most time.Duration) {
	if h.calm || h.at_ == nil || h.stall == 0 {
		return
	}
	if h.stall--; h.stall > 0 {
		return
	}
	d := min(time.Duration(50+h.rnd.IntN(12000))*time.Millisecond, most)
	h.figures.stalls++
	if h.rnd.IntN(2) == 0 {
		h.pause(d)
	}
	if !h.at_.wait(d) {
		panic(errKilled)
	}
}

const forever = time.Hour

func (h *simHost) save(b []byte) error {
	h.step(forever)
	if h.now < h.full {
		return errors.New("no space left on device")
	}
	h.disk = b
	h.step(forever)
	return nil
}

// List, Put, Remove and Announce are the host's kernel.
func (h *simHost) List() ([]vip.Present, error) {
	list := []vip.Present{{Device: "eth0", Address: netip.MustParsePrefix("10.0.0.1/24")}}
	if h.has() {
		list = append(list, vip.Present{Device: "eth0", Address: h.on})
	}
	h.step(forever)
	return list, nil
}

// Put may come late, for its agent was held up after its look at the clock, but not
// after the lifetime is over: an agent that is stopped for so long at this very point is
// not provided for, and dies here.
func (h *simHost) Put(_ string, a netip.Prefix, life time.Duration) error {
	begun := h.clock()
	h.step(time.Duration(float64(life) / h.rate))
	if h.clock()-begun > life {
		h.at(0, h.end)
		panic(errKilled)
	}
	if !h.has() {
		h.figures.puts++
		h.say("%s has it for %s", h.name, life)
	}
	for _, x := range h.hosts {
		if x != h && x.has() {
			h.mistake("%s has it, and %s for another %s", h.name, x.name, x.until-h.now)
		}
	}
	late := vip.Late
	if h.rnd.IntN(2) == 0 {
		late = time.Duration(h.rnd.Int64N(int64(late)))
	}
	h.on, h.until = a, h.now+time.Duration(float64(life+late)/h.ticks)
	h.step(forever)
	return nil
}

func (h *simHost) Remove(string, netip.Prefix) error {
	h.step(forever)
	if h.now < h.broken {
		return errors.New("device or resource busy")
	}
	if h.has() {
		h.say("%s has it no more", h.name)
	}
	h.on = netip.Prefix{}
	h.step(forever)
	return nil
}

func (h *simHost) Announce(string, netip.Addr) error { return nil }

// has tells whether the kernel has the address.
func (h *simHost) has() bool { return h.on.IsValid() && h.now < h.until }

// tick is a round of the holder of leases.
func (h *simHost) tick() {
	h.ticking++
	n := h.ticking
	held := h.keeper.Leases()
	t := h.holder.Tick(h.clock(), held)
	again := func(d time.Duration) {
		h.after(d, func() {
			if h.ticking == n {
				h.tick()
			}
		})
	}
	if t.Paused {
		h.figures.paused++
		h.work(func() {
			h.keeper.Fence()
			again(0)
		})
		return
	}
	for _, ref := range t.Ask {
		h.askFor(held[slices.IndexFunc(held, func(l topology.HeldLease) bool { return l.Token == ref.Token })], ref, t.Sent)
	}
	if t.Next > 0 {
		again(t.Next)
	}
}

func (h *simHost) askFor(l topology.HeldLease, ref topology.LeaseRef, sent leases.Sent) {
	life, boot := h.life, h.boot
	h.toLeader(h, func() {
		now, ok := h.lease()
		if !ok || now.Token != ref.Token || now.Host != h.name || now.Boot != boot {
			return
		}
		h.batch = append(h.batch, waiting{ref, func() {
			d := h.delay()
			if h.now < h.slow {
				d += time.Duration(1500+h.rnd.IntN(3500)) * time.Millisecond
			}
			h.at(d, func() {
				if h.life == life && !h.cut {
					h.awake(func() { h.acked(l, ref, sent) })
				}
			})
		}})
	})
}

// acked takes the answer to a renewal.
func (h *simHost) acked(l topology.HeldLease, ref topology.LeaseRef, sent leases.Sent) {
	until, ok := h.holder.Deadline(sent, l.Hold)
	if h.bug == fromAnswer {
		until = h.clock() + l.Hold
	}
	if ok {
		h.work(func() { h.keeper.Extend(ref.App, ref.Token, until) })
	}
}

// round is one of the loop that keeps addresses.
func (h *simHost) round() {
	if h.asked {
		return
	}
	h.asked = true
	h.loops++
	n := h.loops
	h.work(func() {
		h.asked = false
		if h.clock()-h.looked >= 5*time.Second {
			h.retain()
			h.looked = h.clock()
		}
		h.after(h.keeper.Step(), func() {
			if h.loops == n {
				h.round()
			}
		})
		h.heed()
	})
}

// look has it looked at once what is wanted no more.
func (h *simHost) look() {
	h.looked = -time.Hour
	h.round()
}

func (h *simHost) retain() {
	for i := range h.rules {
		if r := &h.rules[i]; r.has && len(h.keeper.Of(owners[i])) == 0 {
			r.has = false
		}
	}
	young := h.now-h.began < time.Second // what a rule is about may not have been seen yet
	h.keeper.Retain(func(o Owner) bool {
		r := h.rules[slices.Index(owners, o)]
		return h.declared(o) && (r.matter || young || h.frozen || h.bug == deaf)
	})
}

func (h *simHost) declared(o Owner) bool {
	for _, r := range h.slice.Reflexes {
		if r.Name == o.Rule {
			return true
		}
	}
	return false
}

// set says whether what a rule is about is so.
func (h *simHost) set(rule int, matter bool) {
	if h.rules[rule].matter == matter {
		return
	}
	h.rules[rule].matter = matter
	h.say("%s: matter of %s %v", h.name, owners[rule].Rule, matter)
	if !h.dead {
		h.awake(func() {
			if !matter {
				h.rules[rule].has = false
				h.look()
				return
			}
			h.engine()
		})
	}
}

func (h *simHost) evaluating() {
	h.engine()
	h.after(time.Second, h.evaluating)
}

// engine has those rules act that want to and may.
func (h *simHost) engine() {
	for i := range h.rules {
		r, o := &h.rules[i], owners[i]
		if !r.matter || r.has || r.claiming || !h.declared(o) || h.now-h.began < 200*time.Millisecond || h.frozen || slices.Contains(h.absent, o.Rule) {
			continue
		}
		if leased, _, _ := h.keeper.May(o, shared.Addr()); !leased {
			h.keeper.Want(o, shared)
			continue
		}
		r.claiming = true
		h.work(func() { h.claim(r, o) })
	}
}

// claim is the act.
func (h *simHost) claim(r *simRule, o Owner) {
	r.claiming = false
	if h.frozen && h.bug != frozenEarly || !h.declared(o) || slices.Contains(h.absent, o.Rule) {
		return
	}
	if h.frozen {
		h.mistake("%s claims it though it is frozen", h.name)
	}
	_, err := h.keeper.Claim(o, shared)
	r.has = err == nil && r.matter
	h.look()
}

// fetch reads the slice, from any voter.
func (h *simHost) fetch() {
	if h.leader == nil || h.cut || h.dead {
		return
	}
	slice := h.state.Slice(h.name)
	if slice.Index <= h.fetching {
		return
	}
	h.fetching = slice.Index
	h.at(h.delay(), func() {
		h.fetching = h.slice.Index // if it is lost
		if h.cut || h.dead {
			return
		}
		h.awake(func() {
			if slice.Index > h.slice.Index {
				h.slice, h.fetching = slice, max(h.fetching, slice.Index) // on disk before it is acted on
				h.keeper.Set(slice)
				h.tick()
				h.look()
			}
		})
	})
}

func (h *simHost) reporting() {
	h.fetch()
	h.tell()
	h.after(time.Second, h.reporting)
}

// tell reports to the leader.
func (h *simHost) tell() {
	h.work(func() {
		r := &simReport{life: h.life, boot: h.boot, slice: h.slice.Index, ended: h.keeper.Ended(), wants: h.keeper.Wants()}
		h.figures.given += len(r.ended)
		h.reports++
		r.seq = h.reports
		h.toLeader(h, func() {
			if old := h.report; old != nil && old.life == r.life && old.seq > r.seq {
				return
			}
			if old := h.report; old == nil || !slices.Equal(old.ended, r.ended) || !slices.Equal(old.wants, r.wants) || old.boot != r.boot {
				h.kick()
			}
			h.report, h.reported, h.seen = r, h.now, h.now
		})
	})
}
