package topology

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// jobSim is a mesh in virtual time that runs jobs: hosts that obey their slices
// and go on without a leader, leaders that come and go with clocks of their own,
// and a ledger of what was begun and what ran.
type jobSim struct {
	*world
	rnd    *rand.Rand
	now    int // seconds of true time
	skew   int // of the leader's clock
	office int // when the present leader took office
	away   int // there is no leader before it
	hosts  []*jobHost

	due      map[string]int64 // the last due time that was begun, by app, since its schedule changed
	asked    map[string]int   // runs of one-shots that were asked for, at most
	begun    map[string]int
	mistakes []string
	log      []string
}

type jobHost struct {
	name  string
	dead  bool // switched off
	cut   bool // runs, and nothing gets through
	since int
	last  int // when the leader last heard from it
	seen  map[CopyKey]Assignment
	slice uint64
	procs map[CopyKey]*jobProc
	done  map[CopyKey]uint64 // on its disk
}

// jobProc is what a host knows of a copy: a process, or how it ended.
type jobProc struct {
	p       Placement
	spec    intent.App
	ends    int
	runs    bool
	retryAt int
	tries   int
	failed  bool
	alone   bool // it ran, or was started, while its host was cut off
}

func (s *jobSim) say(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf("%4d ", s.now)+fmt.Sprintf(format, args...))
}

func (s *jobSim) mistake(format string, args ...any) {
	s.say("MISTAKE "+format, args...)
	s.mistakes = append(s.mistakes, fmt.Sprintf(format, args...))
}

func (h *jobHost) reachable() bool { return !h.dead && !h.cut }

// work is one second of a host's life.
func (s *jobSim) work(h *jobHost) {
	if h.dead {
		return
	}
	if h.reachable() {
		sl := s.state.Slice(h.name)
		h.seen, h.slice, h.last = map[CopyKey]Assignment{}, sl.Index, s.now
		for _, a := range sl.Assignments {
			h.seen[a.Placement.Key()] = a
		}
	}
	for key, x := range h.procs {
		a, ok := h.seen[key]
		if !ok || a.Placement.Stopped || a.Placement.Generation != x.p.Generation {
			if x.runs && x.ends > s.now+1 {
				x.ends = s.now + 1 + s.rnd.IntN(2) // a stop takes a moment, and a process may end well meanwhile
				x.spec.Run.Env = map[string]string{"FAILS": "stopped"}
			}
			if !x.runs {
				x.tries, x.failed = 0, false // what is not to run waits for nothing
			}
			if !x.runs && !ok {
				delete(h.procs, key)
			}
		}
		s.end(h, key, x)
	}
	for key, a := range h.seen {
		x := h.procs[key]
		if x != nil && (x.runs || x.p.Generation == a.Placement.Generation && (x.failed || s.now < x.retryAt)) {
			continue
		}
		if a.Placement.Stopped || h.done[key] == a.Placement.Generation {
			continue
		}
		s.start(h, a, x)
	}
}

func (s *jobSim) start(h *jobHost, a Assignment, before *jobProc) {
	x := &jobProc{p: a.Placement, spec: a.Spec, runs: true, alone: !h.reachable()}
	if before != nil && before.p.Generation == x.p.Generation {
		x.tries = before.tries
	}
	x.ends = s.now + len(a.Spec.Run.Env["TAKES"])
	h.procs[a.Placement.Key()] = x
	s.say("%s starts %s of generation %d, alone %v", h.name, a.Placement.Key(), x.p.Generation, x.alone)
	if app, ok := s.state.App(a.Spec.Name); h.reachable() && (!ok || app.spent(x.p)) {
		s.mistake("%s starts %s, whose run is over", h.name, a.Placement.Key())
	}
}

// end ends a process whose time has come.
func (s *jobSim) end(h *jobHost, key CopyKey, x *jobProc) {
	if !x.runs || s.now < x.ends {
		return
	}
	x.runs = false
	switch x.spec.Run.Env["FAILS"] {
	case "":
		h.done[key] = x.p.Generation
		s.say("%s has done %s of generation %d", h.name, key, x.p.Generation)
		return
	case "first":
		if x.tries > 0 {
			h.done[key] = x.p.Generation
			return
		}
	case "stopped":
		x.tries = 0
		return
	}
	x.tries++
	x.retryAt, x.failed = s.now+x.tries, x.tries > x.spec.Restart.Limit
}

func (s *jobSim) clock() time.Time { return noon.Add(time.Duration(s.now+s.skew) * time.Second) }

func (s *jobSim) observe() Observations {
	obs := Observations{Hosts: map[string]HostObs{}, Settled: s.now-s.office >= 3, Now: s.clock()}
	for _, h := range s.hosts {
		o := HostObs{
			Alive: h.reachable() || s.now-h.since < 3, Reported: h.last >= s.office, ReportAge: seconds(s.now - max(h.last, s.office)),
			CPU: 4, Memory: 8 << 30, PortMin: 20000, PortMax: 20020, Slice: h.slice, Copies: map[CopyKey]CopyObs{},
		}
		if !h.reachable() {
			o.DownFor = max(0, seconds(s.now-h.since-3))
		}
		if o.Reported {
			for key, a := range h.seen {
				o.Copies[key] = CopyObs{Version: a.Placement.Version, Generation: a.Placement.Generation, State: CopyStopped, Done: h.done[key]}
			}
			for key, x := range h.procs {
				o.Copies[key] = x.observe(h.done[key])
			}
		}
		obs.Hosts[h.name] = o
	}
	return obs
}

func (x *jobProc) observe(done uint64) CopyObs {
	o := CopyObs{Version: x.p.Version, Generation: x.p.Generation, State: CopyStopped, Done: done}
	switch {
	case x.runs:
		o.State, o.Ready = CopyRunning, true
	case x.failed:
		o.State, o.Failed, o.Why = CopyFailed, true, "exited with code 1"
	case x.tries > 0 && done != x.p.Generation:
		o.State = CopyBackoff
	}
	return o
}

func (s *jobSim) lead() {
	if s.now < s.away {
		return
	}
	obs := s.observe()
	d := Decide(s.state, obs)
	if again := Decide(s.state, obs); !reflect.DeepEqual(d, again) {
		s.mistake("two decisions differ")
	}
	if !obs.Settled && len(d.Commands) > 0 {
		s.mistake("an unsettled leader decided")
	}
	for _, c := range d.Commands {
		if c.RecordRuns != nil {
			s.checkRuns(*c.RecordRuns)
		}
		s.say("%s", describe(c))
		if r := s.apply(c); r.Err != nil {
			s.mistake("the leader's own command was rejected: %v", r.Err)
		}
	}
}

// checkRuns: no due time twice, nothing begun that nobody asked for.
func (s *jobSim) checkRuns(c RecordRuns) {
	for _, r := range c.Runs {
		a := s.app(r.App)
		s.say("run of %s: %+v", r.App, r)
		if r.Outcome == RunDone && (a.Job.Run.Outcome != "" || a.Job.Run.Index == 0) {
			s.mistake("%s ended a run twice", r.App)
		}
		if a.Job.Schedule != "" && r.Schedule != "" && r.Schedule != a.Job.Schedule {
			s.due[r.App] = 0 // another schedule counts from now
		}
		if !r.Begin {
			continue
		}
		s.begun[r.App]++
		if a.Stopped {
			s.mistake("%s is stopped and a run began", r.App)
		}
		if r.Due == 0 {
			if s.begun[r.App] > s.asked[r.App] && a.Spec.Once {
				s.mistake("%s began %d runs, %d were asked for", r.App, s.begun[r.App], s.asked[r.App])
			}
			continue
		}
		if r.Due <= s.due[r.App] {
			s.mistake("%s begins a run for %s after one for %s", r.App, unix(r.Due), unix(s.due[r.App]))
		}
		if late := s.clock().Unix() - r.Due; late < 0 || late > int64(missedBound/time.Second) {
			s.mistake("%s begins %ds late", r.App, late)
		}
		s.due[r.App] = r.Due
	}
}

// checkMesh: of every job, one process, but for hosts that were cut off.
func (s *jobSim) checkMesh() {
	running := map[CopyKey]string{}
	for _, h := range s.hosts {
		for key, x := range h.procs {
			x.alone = x.alone || !h.reachable()
			if !x.runs || x.alone {
				continue
			}
			if other, ok := running[key]; ok {
				s.mistake("%s runs on %s and %s", key, other, h.name)
			}
			running[key] = h.name
		}
	}
}

func (s *jobSim) tick() {
	s.now++
	s.lead()
	for _, h := range s.hosts {
		s.work(h)
	}
	s.checkMesh()
}

func (s *jobSim) declare() {
	name := []string{"one", "two", "tick", "tock"}[s.rnd.IntN(4)]
	change := func(a *intent.App) {
		a.Run.Env = map[string]string{
			"TAKES": strings.Repeat("s", 1+s.rnd.IntN(12)), "FAILS": []string{"", "", "first", "always"}[s.rnd.IntN(4)], "V": fmt.Sprint(s.rnd.IntN(3)),
		}
		a.Restart.Limit = 2
		a.Ports = map[string]intent.Port{"http": {}}
		a.Resources.CPU = 1
		if s.rnd.IntN(4) == 0 {
			a.Disconnect.Policy = intent.DisconnectKeep
		}
	}
	a := once(name, change)
	if strings.HasPrefix(name, "t") && name != "two" {
		a = scheduled(name, []string{"@every 7s", "@every 20s", "* * * * *", "CRON_TZ=Europe/Berlin */2 * * * *"}[s.rnd.IntN(4)], change)
	}
	s.asked[name]++
	s.say("user: apply %s %s %v", name, a.Schedule, a.Run.Env)
	s.put(a)
}

func (s *jobSim) trouble() {
	h := s.hosts[s.rnd.IntN(len(s.hosts))]
	name := []string{"one", "two", "tick", "tock"}[s.rnd.IntN(4)]
	switch s.rnd.IntN(12) {
	case 0, 1:
		if h.reachable() {
			s.say("%s is switched off", h.name)
			h.dead, h.since, h.procs, h.seen = true, s.now, map[CopyKey]*jobProc{}, nil
		}
	case 2:
		if h.reachable() {
			s.say("%s is cut off", h.name)
			h.cut, h.since = true, s.now
		}
	case 3, 4:
		s.say("%s is well", h.name)
		h.dead, h.cut = false, false
	case 5:
		drain := []Drain{DrainDraining, DrainNone}[s.rnd.IntN(2)]
		s.say("user: drain %s %s", h.name, drain)
		s.apply(Command{SetDrain: &SetDrain{Host: h.name, Drain: drain}})
	case 6, 7:
		s.declare()
	case 8:
		s.office, s.skew = s.now, s.rnd.IntN(120)-60
		s.away = s.now + s.rnd.IntN(40)
		s.office = max(s.office, s.away)
		s.say("new leader from %d on, its clock %ds off", s.away, s.skew)
	case 9:
		s.skew = s.rnd.IntN(7200) - 3600
		s.say("the leader's clock is set %ds off", s.skew)
	case 10:
		s.say("user: restart %s", name)
		s.asked[name]++
		s.apply(Command{RestartApp: &RestartApp{App: name}})
	case 11:
		stopped := s.rnd.IntN(2) == 0
		s.say("user: stopped=%v %s", stopped, name)
		s.apply(Command{SetRunning: &SetRunning{App: name, Stopped: stopped}})
	}
}

// heal ends all trouble and demands that every one-shot comes to its end and
// every schedule goes on.
func (s *jobSim) heal() {
	s.say("HEAL")
	s.away, s.skew = 0, 4000 // ahead of any clock before it
	for _, h := range s.hosts {
		h.dead, h.cut = false, false
		s.apply(Command{SetDrain: &SetDrain{Host: h.name, Drain: DrainNone}})
	}
	for _, a := range s.state.Apps() {
		s.apply(Command{SetRunning: &SetRunning{App: a.Spec.Name}})
	}
	began := map[string]int{}
	for i := range 420 {
		if i == 200 { // past the gate
			for name, n := range s.begun {
				began[name] = n
			}
		}
		s.tick()
	}
	for _, st := range Status(s.state, s.observe()) {
		a := s.app(st.App)
		bad := a.Spec.Run.Env["FAILS"] == "always"
		switch {
		case a.Spec.Once && (bad && st.State != AppDegraded || !bad && st.State != AppSteady || st.Want != 0):
			s.mistake("%s is %s: %s", st.App, st.State, st.Why)
		case !a.Spec.Once && (s.begun[st.App] == began[st.App] || a.Spec.Run.Env["FAILS"] != "first" && bad != (st.State == AppDegraded)):
			s.mistake("%s is %s: %s; %d runs, %d before", st.App, st.State, st.Why, s.begun[st.App], began[st.App])
		case !a.Spec.Once && a.Spec.Schedule == "* * * * *" && s.begun[st.App]-began[st.App] > 4:
			s.mistake("%s begins %d runs in four minutes", st.App, s.begun[st.App]-began[st.App])
		}
	}
}

// TestRandomJobs runs whole meshes of jobs through random faults.
func TestRandomJobs(t *testing.T) {
	for seed := *first; seed < *first+*seeds/3; seed++ { // they are long
		s := &jobSim{
			world: newWorld(t), rnd: rand.New(rand.NewPCG(uint64(seed), 2)),
			due: map[string]int64{}, asked: map[string]int{}, begun: map[string]int{},
		}
		for i := range 3 + s.rnd.IntN(3) {
			name := fmt.Sprintf("h%d", i+1)
			s.enrol(name)
			s.hosts = append(s.hosts, &jobHost{name: name, procs: map[CopyKey]*jobProc{}, done: map[CopyKey]uint64{}})
		}
		for range 5 {
			s.declare()
		}
		for range 200 {
			if s.rnd.IntN(6) == 0 {
				s.trouble()
			}
			s.tick()
		}
		s.heal()
		if len(s.mistakes) > 0 {
			t.Fatalf("seed %d:\n%s\n\n%s", seed, strings.Join(s.log, "\n"), strings.Join(s.mistakes, "\n"))
		}
	}
}
