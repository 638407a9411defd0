package topology

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// sim is a mesh in virtual time: hosts that obey their slices, slowly; a leader
// that decides once a second from what they report; faults in between.
type sim struct {
	*world
	rnd      *rand.Rand
	now      int // seconds
	hosts    map[string]*simHost
	names    []string // of all hosts ever, in order
	office   int      // when the present leader took office
	gate     bool
	calm     int // since when; only counts while gate
	freeze   Freeze
	excused  map[string]bool // a user took copies on trial out of it by stopping them
	balance  balanceWatch
	quiet    bool           // do not tell the time
	hasty    bool           // users do not wait, and reports are late
	decided  Observations   // what the leader decided on last
	waits    map[uint64]int // when each wait for room was first seen, by whoever led
	mistakes []string
	log      []string
}

// simHost is a machine with an agent. Dead: both gone. Deaf: the machine works,
// nothing of it gets through. Mute: gossip gets through, reports do not.
type simHost struct {
	name       string
	dead, deaf bool
	mute       bool
	slow       int                 // until when no later report than the last one gets through
	told       map[CopyKey]CopyObs // the last one, while it is slow
	toldSlice  uint64
	since      int // of dead or deaf
	seen       Slice
	last       int // when the leader last heard from it
	labels     map[string]string
	cpu        float64 // 0: 4
	user       bool
	taken      []int
	procs      map[CopyKey]*proc
}

// proc is a copy on a host.
type proc struct {
	p        Placement
	spec     intent.App
	began    int  // this generation
	readyAt  int  // -1: never
	stopping int  // when it will be gone; 0: runs
	gone     bool // stopped
	tainted  bool // the host was cut off since it began: it may be one too many
	unlucky  bool // it cannot run on this host
	smoke    uint64
	smokeAt  int // when the smoke checks were begun
}

func (s *sim) say(format string, args ...any) {
	at := fmt.Sprintf("%4d ", s.now)
	if s.quiet {
		at = "     "
	}
	s.log = append(s.log, at+fmt.Sprintf(format, args...))
}

func (s *sim) mistake(format string, args ...any) {
	s.say("MISTAKE "+format, args...)
	s.mistakes = append(s.mistakes, fmt.Sprintf(format, args...))
}

func (s *sim) addHost(name, zone string) {
	s.enrol(name)
	s.hosts[name] = &simHost{name: name, last: s.now, labels: map[string]string{"zone": zone}, procs: map[CopyKey]*proc{}}
	s.names = append(s.names, name)
}

// work is one second of a host's life.
func (s *sim) work(h *simHost) {
	if h.dead {
		return
	}
	if !h.deaf && !h.mute {
		h.seen = s.state.Slice(h.name)
		if s.now > h.slow {
			h.last, h.told = s.now, nil
		}
	}
	wanted := map[CopyKey]Assignment{}
	for _, a := range h.seen.Assignments {
		wanted[a.Placement.Key()] = a
	}
	for key, x := range h.procs {
		a, ok := wanted[key]
		if !x.gone && (!ok || a.Placement.Stopped || a.Placement.Generation != x.p.Generation) && x.stopping == 0 {
			x.stopping = s.now + 1 + int(x.p.Generation%2)
		}
		if x.stopping > 0 && s.now >= x.stopping {
			x.gone = true
		}
		if x.gone && !ok {
			delete(h.procs, key)
		}
	}
	for key, a := range wanted {
		x := h.procs[key]
		if x != nil && a.Smoke != 0 && x.smoke != a.Smoke {
			x.smoke, x.smokeAt = a.Smoke, s.now
		}
		switch {
		case x != nil && !x.gone:
		case a.Placement.Stopped:
			h.procs[key] = &proc{p: a.Placement, spec: a.Spec, gone: true, began: s.now}
		case x == nil || x.p.Generation != a.Placement.Generation || x.p.Stopped:
			h.procs[key] = s.start(a)
			h.procs[key].tainted = h.deaf || h.mute // by an old slice, by itself
		}
	}
}

// start begins a process. What becomes of it is written in its environment.
func (s *sim) start(a Assignment) *proc {
	x := &proc{p: a.Placement, spec: a.Spec, began: s.now, readyAt: s.now + 1}
	switch a.Spec.Run.Env["GOES"] {
	case "slow":
		x.readyAt = s.now + 4
	case "bad", "hang":
		x.readyAt = -1
	}
	if x.unlucky = a.Spec.Run.Env["NOT_ON"] == a.Placement.Host; x.unlucky {
		x.readyAt = -1
	}
	return x
}

func (x *proc) ready(now int) bool {
	if x.gone || x.stopping > 0 || x.readyAt < 0 || now < x.readyAt {
		return false
	}
	switch x.spec.Run.Env["GOES"] {
	case "flap":
		return (now-x.readyAt)%4 < 3
	case "late":
		return now < x.readyAt+lateAfter
	case "dies":
		return (now-x.readyAt)%(lateAfter+1) < lateAfter
	}
	return true
}

// lateAfter is how many seconds a version that dies late, once and for all or
// again and again, is ready: long enough to have proved itself.
const lateAfter = 9

func (x *proc) observe(now int) CopyObs {
	o := CopyObs{
		Version: x.p.Version, Generation: x.p.Generation, State: CopyStarting,
		Age: seconds(now - x.began), Ready: x.ready(now), Smoke: x.smoke,
	}
	if x.smoke != 0 && now > x.smokeAt+1 {
		if o.SmokeEnd = SmokePassed; x.spec.Run.Env["SMOKE"] == "bad" {
			o.SmokeEnd, o.SmokeWhy = SmokeFailed, "no fire"
		}
	}
	goes := x.spec.Run.Env["GOES"]
	switch {
	case x.gone:
		o.State = CopyStopped
	case x.stopping > 0:
		o.State = CopyStopping
	case o.Ready:
		o.State, o.ReadyFor = CopyRunning, seconds(now-x.readyAt)
		switch goes {
		case "flap":
			o.ReadyFor = seconds((now - x.readyAt) % 4)
		case "dies":
			o.ReadyFor = seconds((now - x.readyAt) % (lateAfter + 1))
		}
	default:
		o.UnreadyFor = o.Age
		if (goes == "flap" || goes == "dies") && now > x.readyAt {
			o.UnreadyFor = seconds(1)
		}
		if goes == "bad" && now > x.began || goes == "late" && now >= x.readyAt+lateAfter || x.unlucky && now > x.began {
			o.State, o.Failed, o.Why = CopyFailed, true, "exec format error"
		}
	}
	if o.BestReady = o.ReadyFor; goes == "flap" && now >= x.readyAt {
		o.BestReady = seconds(min(2, now-x.readyAt))
	}
	if (goes == "late" || goes == "dies") && x.readyAt >= 0 && now >= x.readyAt+lateAfter {
		o.BestReady, o.LapsedAfter, o.LapsedWhy = seconds(lateAfter), seconds(lateAfter), "exited with code 1"
	}
	return o
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// observe is what the leader knows.
func (s *sim) observe() Observations {
	obs := Observations{
		Hosts: map[string]HostObs{}, Settled: s.now-s.office >= 3, GateShut: s.gate, Freeze: s.freeze, CalmFor: seconds(s.now - s.calm),
	}
	for _, name := range s.names {
		h := s.hosts[name]
		cut := h.dead || h.deaf
		o := HostObs{
			Alive: !cut || s.now-h.since < 3, Reported: h.last >= s.office, ReportAge: seconds(s.now - max(h.last, s.office)),
			CPU: 4, Memory: 8 << 30, PortMin: 20000, PortMax: 20020, Ports: h.taken, CanUser: h.user, Labels: h.labels, Slice: h.seen.Index, Copies: map[CopyKey]CopyObs{},
		}
		if h.cpu > 0 {
			o.CPU = h.cpu
		}
		if h.told != nil {
			o.Copies, o.Slice = h.told, h.toldSlice
		} else if o.Reported {
			for key, x := range h.procs { // of a cut host: as it was, or worse
				o.Copies[key] = x.observe(h.last)
			}
		}
		o.WellFor = s.balance.wellFor(s, name, o)
		obs.Hosts[name] = o
	}
	obs.Moved = s.balance.ages(s)
	obs.Waited = map[uint64]time.Duration{}
	for _, index := range s.state.Waits() {
		if _, ok := s.waits[index]; !ok {
			if s.waits == nil {
				s.waits = map[uint64]int{}
			}
			s.waits[index] = s.now
		}
		obs.Waited[index] = seconds(s.now - s.waits[index])
	}
	return obs
}

// lead is one second of the leader's life.
func (s *sim) lead() {
	obs := s.observe()
	s.decided = obs
	d := Decide(s.state, obs)
	s.checkDecision(d, obs)
	s.gate = d.GateShut
	if !d.Calm {
		s.calm = s.now
	}
	for _, c := range d.Commands {
		if c.Sweep == nil {
			s.say("%s", describe(c))
		}
		if r := s.apply(c); r.Err != nil {
			s.mistake("the leader's own command was rejected: %v", r.Err)
		}
	}
}

func describe(c Command) string {
	switch {
	case c.Place != nil:
		out := "place"
		for _, k := range c.Place.Remove {
			out += " -" + k.String()
		}
		for _, p := range c.Place.Put {
			out += fmt.Sprintf(" %s@%s:%.4s", p.Key(), p.Host, p.Version)
			if p.Surge {
				out += "+"
			}
			if p.Leaving != "" {
				out += "(" + p.Leaving + ")"
			}
		}
		return out
	case c.SetRollout != nil:
		return describeRollout(*c.SetRollout)
	case c.SetDrain != nil:
		return fmt.Sprintf("drain %s %s", c.SetDrain.Host, c.SetDrain.Drain)
	default:
		kind, _, _ := c.change()
		return kind
	}
}

func describeRollout(c SetRollout) string {
	out := fmt.Sprintf("rollout %s %.4s %s", c.App, c.Rollout.Version, orText(string(c.Rollout.Outcome), string(c.Rollout.Phase)))
	switch {
	case c.Flip:
		out += ", the sets are exchanged"
	case c.Revert:
		out += ", given up"
	case c.Rollout.Phase == PhaseSmoke && c.Rollout.Outcome == "" && c.Rollout.SmokeID > 0:
		out += fmt.Sprintf(" beside %s/%d", c.App, c.Rollout.SmokeN)
	case c.Rollout.InPlace:
		out += ", in place"
	case c.Wait:
		out += ", waits for room"
	}
	return strings.TrimRight(out+": "+c.Rollout.Reason, " :")
}

func (s *sim) tick() {
	s.now++
	s.lead()
	for _, name := range s.names {
		s.work(s.hosts[name])
	}
	s.checkMesh()
}

// trouble is one random event.
func (s *sim) trouble() {
	h := s.hosts[s.names[s.rnd.IntN(len(s.names))]]
	kinds := 16
	if s.hasty {
		kinds = 18
	}
	switch s.rnd.IntN(kinds) {
	case 0, 1:
		if !h.dead && !h.deaf {
			h.dead, h.since = true, s.now
			h.procs = map[CopyKey]*proc{}
			s.say("%s dies", h.name)
		}
	case 2:
		if !h.dead && !h.deaf {
			h.deaf, h.since = true, s.now
			for _, x := range h.procs {
				x.tainted = true
			}
			s.say("%s is cut off", h.name)
		}
	case 3, 4:
		s.revive(h)
	case 5:
		h.mute = !h.mute
		for _, x := range h.procs {
			x.tainted = true
		}
		s.say("%s mute: %v", h.name, h.mute)
	case 6:
		drain := []Drain{DrainDraining, DrainNone}[s.rnd.IntN(2)]
		s.say("user: drain %s %s", h.name, drain)
		s.apply(Command{SetDrain: &SetDrain{Host: h.name, Drain: drain}})
	case 7, 8, 9:
		s.declare()
	case 10:
		s.say("new leader")
		s.office, s.gate, s.calm = s.now, false, s.now
	case 11:
		name := s.anyApp()
		s.say("user: restart %s", name)
		s.apply(Command{RestartApp: &RestartApp{App: name}})
	case 12:
		n := s.rnd.IntN(3)
		c := SetRunning{App: s.anyApp(), N: &n, Stopped: s.rnd.IntN(2) == 0}
		if s.rnd.IntN(2) == 0 {
			c.N = nil
		}
		s.say("user: stopped=%v %s %v", c.Stopped, c.App, c.N != nil)
		s.apply(Command{SetRunning: &c})
		s.excused[c.App] = true
	case 14:
		name := s.anyApp()
		s.say("user: rollback %s", name)
		s.apply(Command{Rollback: &Rollback{App: name}})
	case 15:
		s.scale()
	case 16:
		s.slow(h)
	case 17:
		s.anew()
	case 13:
		h.labels = map[string]string{"zone": []string{"a", "b", "c"}[s.rnd.IntN(3)]}
		s.say("%s is now in zone %s", h.name, h.labels["zone"])
	}
}

func (s *sim) revive(h *simHost) {
	if h.dead || h.deaf {
		s.say("%s is back", h.name)
	}
	h.dead, h.deaf = false, false
}

// scale changes how many copies an app has, and nothing else.
func (s *sim) scale() {
	a, ok := s.state.App(s.anyApp())
	if !ok || a.Spec.PerHost {
		return
	}
	count := s.rnd.IntN(5)
	a.Spec.Count = &count
	s.say("user: scale %s to %d", a.Spec.Name, count)
	s.put(a.Spec)
}

// slow holds up the next reports of a host for so little time that none is missed.
func (s *sim) slow(h *simHost) {
	if o := s.observe().Hosts[h.name]; o.Reported && o.ReportAge <= seconds(1) {
		h.told, h.toldSlice, h.slow = o.Copies, o.Slice, s.now+1+s.rnd.IntN(3)
		s.say("%s reports nothing more until %d", h.name, h.slow)
	}
}

// anew deletes an app, and declares it again twice, the second time when hosts have
// been told of the first and few have reported on it.
func (s *sim) anew() {
	name := s.anyApp()
	forget := func() {
		s.say("user: delete %s", name)
		s.apply(Command{DeleteApp: &DeleteApp{Name: name}})
	}
	forget()
	for range s.rnd.IntN(5) {
		s.tick()
	}
	s.declareAs(name)
	for _, h := range s.names {
		if s.rnd.IntN(3) > 0 {
			s.slow(s.hosts[h])
		}
	}
	s.tick()
	if s.rnd.IntN(3) > 0 {
		forget()
	}
	s.declareAs(name)
	s.tick()
}

var simApps = []string{"api", "db", "web"}

func (s *sim) anyApp() string { return simApps[s.rnd.IntN(len(simApps))] }

// declare applies an app of random shape. What an app is called decides what
// stays the same: its parallel and whether it is per host.
func (s *sim) declare() { s.declareAs(s.anyApp()) }

func (s *sim) declareAs(name string) {
	goes := []string{"well", "well", "slow", "bad", "hang", "flap", "late", "dies"}[s.rnd.IntN(8)]
	if _, ok := s.state.App(name); !ok {
		goes = "well"
	}
	a := app(name, s.rnd.IntN(5), func(a *intent.App) {
		a.Run.Env = map[string]string{"GOES": goes, "V": fmt.Sprint(s.rnd.IntN(4))}
		a.Ports = map[string]intent.Port{"http": {}}
		a.Update.Deadline = 15 * intent.Second
		a.Update.Canary = []int{0, 0, 1, 2}[s.rnd.IntN(4)]
		a.Update.OnFailure = []string{"rollback", "rollback", "hold", "forward"}[s.rnd.IntN(4)]
		if goes == "dies" && a.Update.OnFailure == intent.OnFailureForward {
			a.Update.OnFailure = intent.OnFailureHold // else it would never come to rest
		}
		if s.rnd.IntN(3) == 0 {
			a.Update.Strategy = intent.StrategyBlueGreen
		}
		if s.rnd.IntN(3) == 0 {
			a.Checks = []intent.Check{{Type: intent.CheckSmoke, Command: []string{"/bin/try"}}}
			a.Run.Env["SMOKE"] = []string{"ok", "ok", "bad"}[s.rnd.IntN(3)]
		}
		a.Resources.CPU = []float64{0, 0.5, 1}[s.rnd.IntN(3)]
		if s.rnd.IntN(3) == 0 {
			a.Place.Require = []string{"zone != 'c'"}
		}
		if name == "db" {
			a.Disconnect.Policy = intent.DisconnectKeep
			a.Ports["sql"] = intent.Port{Static: 5432}
		}
		if name == "web" {
			a.Update.Parallel = 2
			a.Place.Spread = "zone"
		}
		if name == "api" && s.rnd.IntN(4) == 0 {
			a.Count, a.PerHost = nil, true
		}
	})
	s.say("user: apply %s count %d per_host %v %s %.4s %v", name, a.Copies(), a.PerHost, goes, a.Version(), a.Place.Require)
	if old, ok := s.state.App(name); !ok || old.Version != a.Version() {
		s.excused[name] = false
	}
	s.put(a)
}
