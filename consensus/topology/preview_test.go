package topology

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// foretold is a random mesh at rest, and a question about it.
func foretold(t *testing.T, seed uint64) (*sim, WhatIf) {
	s := &sim{world: newWorld(t), rnd: rand.New(rand.NewPCG(seed, 7)), hosts: map[string]*simHost{}, excused: map[string]bool{}}
	hosts := 4 + s.rnd.IntN(5)
	for i := range hosts {
		s.addHost(fmt.Sprintf("h%d", i+1), string(rune('a'+i%3)))
	}
	for _, name := range simApps {
		s.put(foretoldApp(s, name))
	}
	s.settle(t, 60)
	w := WhatIf{}
	victim := s.names[s.rnd.IntN(hosts)]
	switch s.rnd.IntN(3) {
	case 0:
		w.Lose = []string{victim}
	case 1:
		w.Drain = []string{victim}
	case 2:
		w.Lose, w.Drain = []string{victim}, []string{s.names[(slices.Index(s.names, victim)+1)%hosts]}
	}
	if s.rnd.IntN(2) == 0 {
		w.Put = &PutIntents{Intents: intent.Intents{Apps: []intent.App{foretoldApp(s, s.anyApp())}}.Normalize()}
	}
	return s, w
}

func foretoldApp(s *sim, name string) intent.App {
	return app(name, 1+s.rnd.IntN(6), func(a *intent.App) {
		a.Ports = map[string]intent.Port{"http": {}}
		a.Resources = intent.Resources{CPU: []float64{0, 0.5, 1, 1.5}[s.rnd.IntN(4)], Memory: intent.Bytes(s.rnd.IntN(3)) * intent.GiB}
		a.Update.HealthyFor = intent.Second
		if s.rnd.IntN(4) == 0 {
			a.Ports["sql"] = intent.Port{Static: 5432}
		}
		if s.rnd.IntN(3) == 0 {
			a.Place.Require = []string{"zone != 'c'"}
		}
		if name == "web" {
			a.Place.Spread = "zone"
		}
		if name == "db" && s.rnd.IntN(2) == 0 {
			a.Disconnect.Policy = intent.DisconnectKeep
		}
		if name == "api" && s.rnd.IntN(3) == 0 {
			a.Count, a.PerHost = nil, true
		}
	})
}

const longAgoSeconds = 1000

// settle lets time pass until nothing has changed for a while.
func (s *sim) settle(t *testing.T, calm int) {
	t.Helper()
	for quiet, before := 0, s.state; quiet < calm; quiet++ {
		if s.tick(); s.state != before {
			quiet, before = 0, s.state
		}
		if s.now > 4000 {
			t.Fatal("the mesh does not come to rest")
		}
	}
}

// What a plan foretells is what happens: where nothing competes for the same
// room at the same time, to the host; everywhere, for the copies that move, find
// no place or end.
func TestReality(t *testing.T) {
	exact, roughly, bites := 0, 0, 0
	for seed := range uint64(60) {
		s, w := foretold(t, seed)
		began := s.state
		p := Plan(began, s.observe(), w)
		if p.Err != nil || !p.Converged {
			t.Fatalf("seed %d: %+v", seed, p)
		}
		for _, name := range w.Lose {
			h := s.hosts[name]
			h.dead, h.since, h.last, h.procs = true, -longAgoSeconds, -longAgoSeconds, map[CopyKey]*proc{}
		}
		for _, name := range w.Drain {
			s.apply(Command{SetDrain: &SetDrain{Host: name, Drain: DrainDraining}})
		}
		if w.Put != nil {
			s.must(Command{PutIntents: w.Put})
		}
		s.settle(t, 60)
		if len(p.Moves)+len(p.Placed)+len(p.Ended) > 0 {
			bites++
		}
		switch wrong := compare(p.Rest, began, s.state); wrong {
		case "":
			exact++
		case "elsewhere":
			roughly++
		default:
			t.Errorf("seed %d: %s\n%+v\nplan %+v\n%s", seed, wrong, w, p.Rest, strings.Join(s.log, "\n"))
		}
		d := Decide(s.state, s.observe())
		if told := slices.DeleteFunc(slices.Clone(p.Unplaced), func(u Unplaced) bool { return strings.Contains(u.Reason, "too few other copies") }); len(d.Unplaced) != len(told) {
			t.Errorf("seed %d: unplaced %+v, foretold %+v", seed, d.Unplaced, p.Unplaced)
		}
	}
	t.Logf("%d to the host, %d copies to another host, of %d that moved something", exact, roughly, bites)
	if bites < 40 || roughly*10 > exact {
		t.Errorf("%d plans came true to the host, %d otherwise, %d moved something", exact, roughly, bites)
	}
}

// compare holds a plan against where a mesh went.
func compare(p Rest, began, ended *State) string {
	want := map[CopyKey]string{}
	for _, b := range began.Placements() {
		want[b.Key()] = b.Host
	}
	for _, m := range p.Moves {
		if m.As != nil {
			delete(want, m.Copy)
			m.Copy = *m.As
		}
		want[m.Copy] = m.To
	}
	for _, c := range p.Placed {
		want[c.Copy] = c.Host
	}
	for _, c := range p.Ended {
		delete(want, c.Copy)
	}
	for _, u := range p.Unplaced {
		if now, ok := ended.Placement(u.Copy); !ok {
			delete(want, u.Copy)
		} else if now.Host != want[u.Copy] {
			return u.Copy.String() + " was to find no place and did"
		}
	}
	got := map[CopyKey]string{}
	for _, e := range ended.Placements() {
		got[e.Key()] = e.Host
	}
	if reflect.DeepEqual(want, got) {
		return ""
	}
	if len(want) != len(got) {
		return fmt.Sprintf("placed are %v, foretold %v", got, want)
	}
	return "elsewhere"
}

// More lost hosts than the mesh believes: nothing would move by itself, and what
// a human would bring about by removing them is told beside it.
func TestPlanBehindTheGate(t *testing.T) {
	w, obs := ten(t)
	lost := []string{"h0", "h1", "h2", "h3"}
	p := Plan(w.state, obs, WhatIf{Lose: lost})
	if p.Err != nil || len(p.Moves) != 0 || p.Held == "" || len(p.Down) != 4 || p.IfRemoved == nil {
		t.Fatalf("%+v", p)
	}
	if !strings.Contains(p.Down[0].Reason, "by itself") {
		t.Errorf("%+v", p.Down)
	}
	removed := *p.IfRemoved
	if len(removed.Moves) != 4 || len(removed.Capacity) != 6 || len(removed.Down) != 0 || !removed.Converged {
		t.Errorf("%+v", removed)
	}
	for _, m := range removed.Moves {
		if !slices.Contains(lost, m.From) || slices.Contains(lost, m.To) || m.Reason != "host "+m.From+" is removed" {
			t.Errorf("%+v", m)
		}
	}
	if p := Plan(w.state, obs, WhatIf{Lose: lost[:3]}); p.Held != "" || p.IfRemoved != nil || len(p.Moves) != 3 {
		t.Errorf("three of ten are believed: %+v", p)
	}
	// A gate that is shut for hosts that have come back opens by itself in time.
	obs.GateShut = true
	if p := Plan(w.state, obs, WhatIf{Lose: lost[:1]}); len(p.Moves) != 1 {
		t.Errorf("behind a gate that will open: %+v", p)
	}
}

// Without a majority of the voters nobody decides anything, and singletons end
// with their leases.
func TestPlanWithoutVoters(t *testing.T) {
	l := newLeased(t, "h1", "h2", "h3", "h4", "h5")
	l.put(app("web", 5))
	l.settle()
	voters := []string{"h1", "h2", "h3"}
	var lost []string
	for _, v := range voters {
		if v != l.host() && len(lost) < 2 {
			lost = append(lost, v)
		}
	}
	p := Plan(l.state, l.obs, WhatIf{Lose: lost, Voters: voters, Put: &PutIntents{Intents: intent.Intents{Apps: []intent.App{app("more", 1)}}}})
	if p.Err != nil || len(p.Moves)+len(p.Placed) != 0 || !strings.Contains(p.Held, "2 of 3 voters are lost ("+strings.Join(lost, ", ")+")") || p.IfRemoved != nil || len(p.Changes) != 1 || !p.Converged {
		t.Errorf("%+v", p)
	}
	var down []string
	for _, d := range p.Down {
		down = append(down, d.Copy.App+" "+d.Reason)
	}
	if len(down) != 3 || down[2] != "db its lease ends, which nobody renews without a leader" {
		t.Errorf("%q", down)
	}
	if p := Plan(l.state, l.obs, WhatIf{Lose: lost[:1], Voters: voters}); p.Held != "" || len(p.Moves) != 1 {
		t.Errorf("with two of three voters left: %+v", p)
	}
	lose(l.obs, time.Minute, lost[0]) // which makes two
	if p := Plan(l.state, l.obs, WhatIf{Lose: lost[1:], Voters: voters}); p.Held == "" {
		t.Errorf("a voter is lost already: %+v", p)
	}
}

// Copies that wait for their host are down, not gone, and not unplaced.
func TestPlanTellsWhatIsDown(t *testing.T) {
	w, obs := ten(t)
	w.put(app("kept", 10, func(a *intent.App) { a.Disconnect.Policy = intent.DisconnectKeep }))
	w.put(app("each", 0, func(a *intent.App) { a.Count, a.PerHost = nil, true }))
	w.put(app("idle", 10))
	w.must(Command{SetRunning: &SetRunning{App: "idle", Stopped: true}})
	converge(w, obs)
	p := Plan(w.state, obs, WhatIf{Lose: []string{"h4"}})
	var down []string
	for _, d := range p.Down {
		down = append(down, d.Copy.App+" "+d.Host+": "+d.Reason)
	}
	if len(down) != 2 || !strings.Contains(down[0], "each h4: it is the copy of host h4") || !strings.Contains(down[1], "kept says disconnect = keep") {
		t.Errorf("%q", down)
	}
	if len(p.Moves) != 1 || len(p.Unplaced) != 0 {
		t.Errorf("%+v", p)
	}
	if p := Plan(w.state, obs, WhatIf{Lose: []string{"h99"}}); p.Err == nil || p.Err.Kind != RejectUnknown {
		t.Errorf("%+v", p.Err)
	}
}

func TestPlanCountsCapacity(t *testing.T) {
	w, obs := ten(t)
	h := obs.Hosts["h5"]
	h.Ports = []int{20001, 80}
	obs.Hosts["h5"] = h
	silent := obs.Hosts["h6"]
	silent.ReportAge = time.Minute
	obs.Hosts["h6"] = silent
	h.Labels = map[string]string{"zone": "a"}
	obs.Hosts["h5"] = h
	put := &PutIntents{Intents: intent.Intents{Apps: []intent.App{app("web", 8), app("more", 1, func(a *intent.App) {
		a.Ports = map[string]intent.Port{"http": {}, "ssh": {Static: 22}}
		a.Resources = intent.Resources{CPU: 1.5, Memory: intent.GiB}
		a.Place.Require = []string{"zone == 'a'"}
	})}}.Normalize()}
	p := Plan(w.state, obs, WhatIf{Put: put, Drain: []string{"h7"}, Lose: []string{"h8"}})
	at := map[string]Capacity{}
	for _, c := range p.Capacity {
		at[c.Host] = c
	}
	want := Capacity{Host: "h5", State: CapacityUp, Before: 1, Copies: 2, CPU: 4, CPUFree: 2.5, Memory: 8 << 30, MemoryFree: 7 << 30, Ports: 10_000, PortsFree: 9_998}
	if at["h5"] != want {
		t.Errorf("%+v", at["h5"])
	}
	for host, state := range map[string]string{"h6": CapacitySilent, "h7": CapacityDrain, "h8": CapacityLost} {
		if c := at[host]; c.State != state || c.CPUFree != 0 || c.MemoryFree != 0 || c.PortsFree != 0 || c.Ports != 10_000 {
			t.Errorf("%+v", c)
		}
	}
	if len(p.Capacity) != 10 || len(p.Ended) != 2 || len(p.Placed) != 1 {
		t.Errorf("%d hosts, ended %+v", len(p.Capacity), p.Ended)
	}
}

// Decisions that chase each other do not hang a plan, and it says so.
func TestPlanGivesUp(t *testing.T) {
	w, obs := ten(t)
	r := newRehearsal(w.state, obs)
	r.decide = func(s *State, _ Observations) Decision {
		p := s.Placements()[0]
		p.Host = map[string]string{"h0": "h1"}[p.Host]
		if p.Host == "" {
			p.Host = "h0"
		}
		return Decision{Commands: []Command{{Place: &Place{Put: []Placement{p}}}}}
	}
	r.run()
	if out := r.outcome(w.state); out.Converged || out.Steps < 100 || out.Steps > 200 {
		t.Errorf("%+v", out)
	}
}

func TestPlanIsDeterministicAndLeavesNoTrace(t *testing.T) {
	for seed := range uint64(10) {
		s, w := foretold(t, seed)
		obs := s.observe()
		state, again := snapshot(t, s.state), s.observe()
		p := Plan(s.state, obs, w)
		if !reflect.DeepEqual(p, Plan(s.state, obs, w)) {
			t.Fatalf("seed %d: two plans differ", seed)
		}
		if string(snapshot(t, s.state)) != string(state) || !reflect.DeepEqual(obs, again) {
			t.Fatalf("seed %d: a plan changed what it was made from", seed)
		}
	}
}

// drainOfMany is a large mesh of which a tenth is emptied, and a host lost.
func drainOfMany(t testing.TB, apps int) (*State, Observations, WhatIf) {
	s, obs := bigMesh(t, 1000, apps, 50)
	w := WhatIf{Lose: []string{"h0999"}}
	for i := range 100 {
		w.Drain = append(w.Drain, fmt.Sprintf("h%04d", i*7))
	}
	return s, obs, w
}

// 1,000 hosts with 10,000 copies: somebody waits for the answer.
func BenchmarkPlan(b *testing.B) {
	s, obs, w := drainOfMany(b, 200)
	b.Run("lose one", func(b *testing.B) {
		for b.Loop() {
			Plan(s, obs, WhatIf{Lose: []string{"h0000"}})
		}
	})
	b.Run("drain many", func(b *testing.B) {
		for b.Loop() {
			Plan(s, obs, w)
		}
	})
}

// A large plan comes to rest, at pace, within few decisions. What it takes in
// time is BenchmarkPlan's to tell: a test would measure its neighbours.
func TestPlanOfMany(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a large mesh")
	}
	s, obs, w := drainOfMany(t, 20)
	p := Plan(s, obs, w)
	if !p.Converged || !p.Paced || p.Steps > 40 || len(p.Moves) < 80 || len(p.Unplaced) > 0 {
		t.Errorf("converged %v, at pace %v, %d decisions, %d moves, unplaced %+v", p.Converged, p.Paced, p.Steps, len(p.Moves), p.Unplaced)
	}
}
