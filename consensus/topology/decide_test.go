package topology

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// ten is a converged mesh of ten hosts with one app of ten copies.
func ten(t *testing.T) (*world, Observations) {
	w := newWorld(t)
	obs := Observations{Settled: true, Hosts: map[string]HostObs{}}
	for i := range 10 {
		name := fmt.Sprintf("h%d", i)
		w.enrol(name)
		obs.Hosts[name] = HostObs{Alive: true, Reported: true, Slice: upToDate, CPU: 4, Memory: 8 << 30, PortMin: 20000, PortMax: 29999}
	}
	w.put(app("web", 10))
	converge(w, obs)
	return w, obs
}

func converge(w *world, obs Observations) {
	w.t.Helper()
	for range 100 {
		d := Decide(w.state, obs)
		if len(d.Commands) == 0 {
			return
		}
		for _, c := range d.Commands {
			w.must(c)
		}
		well(w.state, obs)
	}
	w.t.Fatal("does not converge")
}

func lose(obs Observations, silent time.Duration, names ...string) {
	for _, name := range names {
		o := obs.Hosts[name]
		o.Alive, o.DownFor, o.ReportAge = false, silent, silent
		obs.Hosts[name] = o
	}
}

func find(obs Observations, names ...string) {
	for _, name := range names {
		o := obs.Hosts[name]
		o.Alive, o.DownFor, o.ReportAge = true, 0, 0
		obs.Hosts[name] = o
	}
}

// Both kinds of evidence are needed to give a host up.
func TestLostNeedsTwoWitnesses(t *testing.T) {
	w, obs := ten(t)
	for _, tc := range []struct {
		name   string
		alive  bool
		silent time.Duration
		moves  int
	}{
		{"gossip alone", false, 4900 * time.Millisecond, 0},
		{"silence alone", true, time.Hour, 0},
		{"both", false, 5 * time.Second, 1},
	} {
		lose(obs, tc.silent, "h3")
		o := obs.Hosts["h3"]
		o.Alive = tc.alive
		obs.Hosts["h3"] = o
		d := Decide(w.state, obs)
		if len(d.Moves) != tc.moves {
			t.Errorf("%s: moves %v", tc.name, d.Moves)
		}
		if !tc.alive && tc.moves == 0 && d.Wake != 100*time.Millisecond {
			t.Errorf("%s: looks again after %s", tc.name, d.Wake)
		}
	}
}

func TestGateShutsAndOpensWithHysteresis(t *testing.T) {
	w, obs := ten(t)
	step := func(name string, shut, calm bool, moves int) Decision {
		t.Helper()
		d := Decide(w.state, obs)
		if d.GateShut != shut || d.Calm != calm || len(d.Moves) != moves {
			t.Errorf("%s: shut %v, calm %v, moves %v; want %v, %v, %d", name, d.GateShut, d.Calm, d.Moves, shut, calm, moves)
		}
		if (d.Held != "") != (moves == 0 && shut) {
			t.Errorf("%s: held %q", name, d.Held)
		}
		obs.GateShut = d.GateShut
		return d
	}
	lose(obs, time.Minute, "h0", "h1", "h2")
	step("30 % is believed", false, false, 3)
	lose(obs, time.Minute, "h3")
	if d := step("40 % is not", true, false, 0); !strings.Contains(d.Held, "4 of 10 hosts look unhealthy (h0, h1, h2, h3)") {
		t.Errorf("held: %s", d.Held)
	}
	find(obs, "h3")
	step("back to 30 % does not open it", true, false, 0)
	find(obs, "h2")
	if d := step("nor do 20 % at once", true, true, 0); d.Wake != calmBefore {
		t.Errorf("looks again after %s", d.Wake)
	}
	obs.CalmFor = calmBefore - time.Second
	step("nor after a while", true, true, 0)
	obs.CalmFor = calmBefore
	step("but after two minutes they do", false, true, 2)
	o := obs.Hosts["h5"]
	for _, name := range []string{"h5", "h6"} { // silent, though alive by gossip
		o = obs.Hosts[name]
		o.ReportAge = time.Minute
		obs.Hosts[name] = o
	}
	step("silent hosts count too", true, false, 0)
}

// In a mesh of three, one dead host is believed and two are not.
func TestGateOfSmallMeshes(t *testing.T) {
	for _, tc := range []struct{ hosts, dead, moves int }{{2, 1, 1}, {3, 1, 1}, {3, 2, 0}, {4, 2, 0}, {7, 2, 2}, {7, 3, 0}} {
		w := newWorld(t)
		obs := Observations{Settled: true, Hosts: map[string]HostObs{}}
		for i := range tc.hosts {
			name := fmt.Sprintf("h%d", i)
			w.enrol(name)
			obs.Hosts[name] = HostObs{Alive: true, Reported: true, Slice: upToDate, PortMin: 1, PortMax: 9}
		}
		w.put(app("web", tc.hosts))
		converge(w, obs)
		for i := range tc.dead {
			lose(obs, time.Minute, fmt.Sprintf("h%d", i))
		}
		if d := Decide(w.state, obs); len(d.Moves) != tc.moves {
			t.Errorf("%d of %d dead: moves %v, held %q", tc.dead, tc.hosts, d.Moves, d.Held)
		}
	}
}

func TestUnsettledLeaderWaits(t *testing.T) {
	w, obs := ten(t)
	w.put(app("db", 1))
	lose(obs, time.Hour, "h1")
	obs.Settled = false
	if d := Decide(w.state, obs); len(d.Commands) != 0 || d.Held == "" {
		t.Errorf("%+v", d)
	}
}

// Nothing that could stay moves: a host more, a host less, other labels.
func TestMinimalMoves(t *testing.T) {
	w, obs := ten(t)
	w.enrol("h90", "h91")
	for _, name := range []string{"h90", "h91"} {
		obs.Hosts[name] = HostObs{Alive: true, Reported: true, Slice: upToDate, CPU: 64, Memory: 1 << 40, PortMin: 1, PortMax: 9}
	}
	if d := Decide(w.state, obs); len(d.Commands) != 0 {
		t.Errorf("new hosts attract: %+v", d.Commands)
	}
	before := w.state.Placements()
	lose(obs, time.Minute, "h0")
	converge(w, obs)
	moved := 0
	for _, p := range before {
		now, _ := w.state.Placement(p.Key())
		if now.Host != p.Host {
			moved++
			if p.Host != "h0" || now.Host != "h90" {
				t.Errorf("%s moved %s → %s", p.Key(), p.Host, now.Host)
			}
		} else if now.Generation != p.Generation {
			t.Errorf("%s was restarted for nothing", p.Key())
		}
	}
	if moved != 1 {
		t.Errorf("%d moved", moved)
	}
	find(obs, "h0")
	well(w.state, obs)
	if d := Decide(w.state, obs); len(d.Commands) != 0 {
		t.Errorf("a host that is back attracts: %+v", d.Commands)
	}
	if n := len(w.state.Slice("h0").Assignments); n != 0 {
		t.Errorf("the host that is back is still told to run %d copies", n)
	}
}

// Ports stay with a copy through restarts, versions and moves.
func TestPortsAreStable(t *testing.T) {
	w, obs := ten(t)
	ported := func(v string, names ...string) intent.App {
		return app("api", 3, func(a *intent.App) {
			a.Run.Dir = v
			a.Run.Env = map[string]string{"N": "${copy.n}"} // it keeps its number, and stops first
			a.Ports = map[string]intent.Port{}
			for _, n := range names {
				a.Ports[n] = intent.Port{}
			}
		})
	}
	w.put(ported("/1", "http"))
	converge(w, obs)
	ports := func(name string) (list []int) {
		for _, p := range w.state.PlacementsOf("api") {
			list = append(list, p.Ports[name])
		}
		return list
	}
	first := fmt.Sprint(ports("http"))
	w.put(ported("/2", "http", "admin"))
	converge(w, obs)
	w.must(Command{RestartApp: &RestartApp{App: "api"}})
	converge(w, obs)
	home, _ := w.state.Placement(CopyKey{"api", 0})
	w.must(Command{SetDrain: &SetDrain{Host: home.Host, Drain: DrainDraining}})
	converge(w, obs)
	if now, _ := w.state.Placement(CopyKey{"api", 0}); now.Host == home.Host || now.Version != w.app("api").Version {
		t.Errorf("drained: %+v", now)
	}
	if got := fmt.Sprint(ports("http")); got != first {
		t.Errorf("ports went from %s to %s", first, got)
	}
	for i, port := range ports("admin") {
		if port < 20000 || port > 29999 || port == ports("http")[i] {
			t.Errorf("admin port %d", port)
		}
	}
	if h, _ := w.state.Host(home.Host); h.Drain != DrainDrained {
		t.Errorf("host is %s", h.Drain)
	}
}

// A decision of any size is made in batches, each of which can be committed.
func TestBatches(t *testing.T) {
	w, obs := ten(t)
	w.put(app("many", 1200, func(a *intent.App) { a.Ports = map[string]intent.Port{"p": {}} }))
	d := Decide(w.state, obs)
	if n := len(d.Commands[0].Place.Put); n != maxOps || len(d.Commands) != 1 {
		t.Errorf("first batch has %d, %d commands", n, len(d.Commands))
	}
	converge(w, obs)
	if n := len(w.state.PlacementsOf("many")); n != 1200 {
		t.Errorf("%d placed", n)
	}
	w.put(app("many", 3))
	converge(w, obs)
	if n := len(w.state.PlacementsOf("many")); n != 3 {
		t.Errorf("%d left", n)
	}
}

// A stale decision is refused.
func TestDecisionsCarryTheirRevision(t *testing.T) {
	w, obs := ten(t)
	w.put(app("db", 1))
	d := Decide(w.state, obs)
	w.must(Command{SetDrain: &SetDrain{Host: "h9", Drain: DrainDraining}})
	w.refuse(RejectConflict, d.Commands[0])
}

// What the mesh cannot run yet is not half run.
func TestOtherKindsAreNotPlaced(t *testing.T) {
	w, obs := ten(t)
	w.put(intent.App{Name: "one", Singleton: true, Run: intent.Run{Command: []string{"x"}}})
	d := Decide(w.state, obs)
	if len(d.Unplaced) != 1 || len(d.Commands) != 0 {
		t.Errorf("%+v", d)
	}
}

// A plan changes nothing, and tells what comes to pass.
func TestPlanForetells(t *testing.T) {
	w, obs := ten(t)
	before := string(snapshot(t, w.state))
	p := Plan(w.state, obs, WhatIf{Lose: []string{"h1"}, Drain: []string{"h2"}})
	if len(p.Moves) != 2 || p.Err != nil || len(p.Unplaced) != 0 {
		t.Fatalf("%+v", p)
	}
	if string(snapshot(t, w.state)) != before || !obs.Hosts["h1"].Alive {
		t.Fatal("a plan changed what it was made from")
	}
	lose(obs, time.Hour, "h1")
	w.must(Command{SetDrain: &SetDrain{Host: "h2", Drain: DrainDraining}})
	converge(w, obs)
	for _, m := range p.Moves {
		key := m.Copy
		if m.As != nil {
			key = *m.As
		}
		if now, _ := w.state.Placement(key); now.Host != m.To {
			t.Errorf("%+v was foretold, it went to %s", m, now.Host)
		}
	}
	put := &PutIntents{Intents: intent.Intents{Apps: []intent.App{app("web", 12, func(a *intent.App) { a.Resources.Memory = 100 * intent.GiB })}}}
	p = Plan(w.state, obs, WhatIf{Put: put})
	if len(p.Changes) != 1 || p.Changes[0].Op != "change" || len(p.Unplaced) == 0 {
		t.Errorf("%+v", p)
	}
	w.must(Command{SetDrain: &SetDrain{Host: "h3", Drain: DrainDraining}})
	decisions := 0
	for d := Decide(w.state, obs); len(d.Commands) > 0; d = Decide(w.state, obs) {
		if decisions++; decisions == 1 { // in the middle of a move comes a version that fits nowhere
			w.must(Command{PutIntents: put})
		}
		for _, c := range d.Commands {
			w.apply(c)
		}
		well(w.state, obs)
		if decisions > 50 {
			t.Fatalf("decisions chase each other: %+v", d.Commands)
		}
	}
	put.Expect = map[string]uint64{"web": 1}
	if p = Plan(w.state, obs, WhatIf{Put: put}); p.Err == nil || p.Err.Kind != RejectConflict {
		t.Errorf("%+v", p.Err)
	}
}

// Hosts that fall together show it one after the other: the first to be lost
// waits for those that are late, without shutting the gate on their account.
func TestTheFirstOfAHerdWaits(t *testing.T) {
	w, obs := ten(t)
	lose(obs, 5*time.Second, "h0", "h1", "h2")
	late := obs.Hosts["h3"]
	late.ReportAge = reportLate
	obs.Hosts["h3"] = late
	d := Decide(w.state, obs)
	if len(d.Moves) != 0 || d.GateShut || !strings.Contains(d.Held, "h3") || d.Wake == 0 {
		t.Errorf("with a fourth host late: %+v", d)
	}
	late.ReportAge = time.Second
	obs.Hosts["h3"] = late
	if d := Decide(w.state, obs); len(d.Moves) != 3 {
		t.Errorf("with the fourth host well again: %+v", d)
	}
}
