package topology

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// lopsidedMesh is one host with two copies of an app and one that has just
// joined, found well for long enough, with rebalance set.
func lopsidedMesh(t *testing.T, set Rebalance, change ...func(*intent.App)) (*world, Observations) {
	w := newWorld(t)
	obs := Observations{Settled: true, Hosts: map[string]HostObs{}}
	for _, name := range []string{"h1", "h2"} {
		w.enrol(name)
		obs.Hosts[name] = HostObs{Alive: true, Reported: true, Slice: upToDate, CPU: 4, Memory: 8 << 30, PortMin: 20000, PortMax: 29999, WellFor: steadyFor}
		if name == "h1" {
			w.put(app("web", 2, change...))
			converge(w, obs)
		}
	}
	w.must(Command{Rebalance: &SetRebalance{Rebalance: set}})
	return w, obs
}

// begin makes the one decision that begins a move.
func begin(t *testing.T, w *world, obs Observations) Placement {
	t.Helper()
	d := Decide(w.state, obs)
	if len(d.Commands) != 1 || d.Commands[0].Place == nil || len(d.Commands[0].Place.Put) != 1 || len(d.Moves) != 0 {
		t.Fatalf("no move begins: %+v", d)
	}
	w.must(d.Commands[0])
	p, ok := w.state.Placement(d.Commands[0].Place.Put[0].Key())
	if !ok || p.Relief == nil || !p.Surge {
		t.Fatalf("%+v", p)
	}
	return p
}

var tenIn10m = Rebalance{Moves: 10, Window: 10 * intent.Minute}

func TestReliefTakesOver(t *testing.T) {
	w, obs := lopsidedMesh(t, tenIn10m)
	p := begin(t, w, obs)
	if p.Host != "h2" || p.Relief.N != 0 && p.Relief.N != 1 || p.Relief.From != "h1" || p.Relief.Why != "moved to balance: host h1 has 2 copies of web, h2 has 0" {
		t.Fatalf("%+v, %+v", p, p.Relief)
	}
	well(w.state, obs)
	young := obs.Hosts["h2"].Copies[p.Key()]
	young.ReadyFor, young.Age = time.Second, time.Second // healthy_for is 5 s
	obs.Hosts["h2"].Copies[p.Key()] = young
	if d := Decide(w.state, obs); len(d.Commands) != 0 || d.Wake != 4*time.Second || !strings.Contains(d.Balance, "take over") {
		t.Fatalf("before it is proved: %+v", d)
	}
	if st := Status(w.state, obs)[0]; st.State != AppSteady || st.Ready != 3 || st.Copies[2].Role != RoleSurge || !strings.Contains(st.Copies[2].Why, "moved to balance") {
		t.Errorf("status: %+v", st)
	}
	well(w.state, obs)
	slice := w.state.Slice("h2").Index
	d := Decide(w.state, obs)
	w.must(d.Commands[0])
	now, _ := w.state.Placement(p.Key())
	if now.Surge || now.Relief != nil || now.Generation != p.Generation || w.state.Slice("h2").Index != slice {
		t.Errorf("it begins anew: %+v", now)
	}
	if len(d.Moves) != 1 || d.Moves[0].From != "h1" || d.Moves[0].To != "h2" || *d.Moves[0].As != p.Key() || len(w.state.PlacementsOf("web")) != 2 {
		t.Errorf("%+v", d.Moves)
	}
	well(w.state, obs)
	if d := Decide(w.state, obs); len(acts(d)) > 0 || d.Balance != "" {
		t.Errorf("it does not come to rest: %+v", d)
	}
}

// A relief is given up when it has become needless or when something else begins,
// and the copy it was to take over from is as it was.
func TestReliefIsGivenUp(t *testing.T) {
	stop := 0
	for name, f := range map[string]func(w *world, obs Observations, p Placement){
		"the setting is off": func(w *world, _ Observations, _ Placement) { w.must(Command{Rebalance: &SetRebalance{}}) },
		"a version comes": func(w *world, _ Observations, _ Placement) {
			w.put(app("web", 2, func(a *intent.App) { a.Run.Env = map[string]string{"V": "2"} }))
		},
		"a restart": func(w *world, _ Observations, _ Placement) { w.must(Command{RestartApp: &RestartApp{App: "web"}}) },
		"the app is stopped": func(w *world, _ Observations, _ Placement) {
			w.must(Command{SetRunning: &SetRunning{App: "web", Stopped: true}})
		},
		"the copy is stopped": func(w *world, _ Observations, p Placement) {
			stop = p.Relief.N
			w.must(Command{SetRunning: &SetRunning{App: "web", N: &stop, Stopped: true}})
		},
		"its host is drained": func(w *world, _ Observations, p Placement) {
			w.must(Command{SetDrain: &SetDrain{Host: p.Host, Drain: DrainDraining}})
		},
		"its host is lost": func(_ *world, obs Observations, p Placement) { lose(obs, time.Minute, p.Host) },
	} {
		w, obs := lopsidedMesh(t, tenIn10m)
		p := begin(t, w, obs)
		well(w.state, obs)
		f(w, obs, p)
		for range 3 { // first things first
			for _, c := range Decide(w.state, obs).Commands {
				w.apply(c)
			}
		}
		if now, ok := w.state.Placement(p.Key()); ok && now.Relief != nil {
			t.Errorf("%s: it is still to take over: %+v", name, now)
		}
		if old, ok := w.state.Placement(CopyKey{"web", p.Relief.N}); !ok || old.Host != "h1" {
			t.Errorf("%s: the other is at %+v", name, old)
		}
	}
}

// While another copy is not well none that is ready is stopped for a relief; one
// that is not ready itself is.
func TestReliefWaitsForTheOthers(t *testing.T) {
	w, obs := lopsidedMesh(t, tenIn10m)
	p := begin(t, w, obs)
	well(w.state, obs)
	hurt := func(n int) {
		o := obs.Hosts["h1"].Copies[CopyKey{"web", n}]
		o.Ready, o.ReadyFor = false, 0
		obs.Hosts["h1"].Copies[CopyKey{"web", n}] = o
	}
	hurt(1 - p.Relief.N)
	if d := Decide(w.state, obs); len(d.Moves) > 0 {
		t.Errorf("a ready copy is stopped while another is not well: %+v", d.Moves)
	}
	hurt(p.Relief.N)
	if d := Decide(w.state, obs); len(d.Moves) != 1 {
		t.Errorf("a copy that is not ready is not replaced by one that is: %+v", d)
	}
}

// A host on which the copy does not become well is not tried again, and after two
// of them none is, until a user changes the app.
func TestReliefsThatFailAreNotTriedForEver(t *testing.T) {
	w, obs := lopsidedMesh(t, tenIn10m)
	w.enrol("h3", "h4")
	for _, name := range []string{"h3", "h4"} {
		obs.Hosts[name] = obs.Hosts["h2"]
	}
	tried := map[string]bool{}
	for range 20 {
		d := Decide(w.state, obs)
		for _, c := range d.Commands {
			w.must(c)
		}
		well(w.state, obs)
		for _, p := range w.state.PlacementsOf("web") {
			if p.Relief != nil {
				tried[p.Host] = true
				obs.Hosts[p.Host].Copies[p.Key()] = CopyObs{Version: p.Version, Generation: p.Generation, State: CopyFailed, Failed: true, Why: "no"}
			}
		}
	}
	if len(tried) != maxTried || len(w.state.Rebalanced()) != maxTried || len(w.state.PlacementsOf("web")) != 2 || len(w.app("web").Unfit) != maxTried {
		t.Errorf("tried on %v, spent %v, %+v", tried, w.state.Rebalanced(), w.app("web").Unfit)
	}
	again := app("web", 2, func(a *intent.App) { a.Update.Parallel = 2 })
	w.put(again)
	converge(w, obs)
	if n := w.app("web").unfit(); len(n) != 0 || len(w.state.PlacementsOn("h1")) != 1 {
		t.Errorf("after an apply: %+v, %d copies left", n, len(w.state.PlacementsOn("h1")))
	}
}

// Apply keeps the budget, whoever decided and whatever the setting was meanwhile.
func TestBudgetIsKeptByApply(t *testing.T) {
	w, obs := lopsidedMesh(t, Rebalance{Moves: 1, Window: intent.Minute})
	p := begin(t, w, obs)
	another := p
	another.N, another.Relief = p.N+5, &Relief{N: 1 - p.Relief.N, From: "h1", Why: "x", Balance: true}
	w.must(Command{Place: &Place{Remove: []CopyKey{p.Key()}}})
	w.must(Command{Rebalance: &SetRebalance{}})
	w.must(Command{Rebalance: &SetRebalance{Rebalance: Rebalance{Moves: 1, Window: intent.Minute}}})
	w.refuse(RejectConflict, Command{Place: &Place{Put: []Placement{another}}})
	if len(w.state.Rebalanced()) != 1 {
		t.Errorf("spent: %v", w.state.Rebalanced())
	}
	back, err := Read(bytes.NewReader(snapshot(t, w.state)))
	if err != nil || back.Rebalance() != w.state.Rebalance() || len(back.Rebalanced()) != 1 {
		t.Errorf("a snapshot has %s, %v (%v)", back.Rebalance(), back.Rebalanced(), err)
	}
	w.must(Command{Place: &Place{Put: []Placement{another}, Returned: w.state.Rebalanced()}})
	w.refuse(RejectInvalid, Command{Rebalance: &SetRebalance{Rebalance: Rebalance{Moves: -1, Window: intent.Minute}}})
	w.refuse(RejectInvalid, Command{Rebalance: &SetRebalance{Rebalance: Rebalance{Moves: 5}}})
	own := another
	own.Relief = &Relief{N: own.N}
	w.refuse(RejectInvalid, Command{Place: &Place{Put: []Placement{own}}})
}

// A plan tells what would be moved, by the names that copies have now.
func TestPlanTellsWhatIsMovedToBalance(t *testing.T) {
	w, obs := lopsidedMesh(t, tenIn10m)
	p := Plan(w.state, obs, WhatIf{})
	if len(p.Moves) != 1 || len(p.Placed)+len(p.Ended)+len(p.Unplaced) != 0 || !p.Converged {
		t.Fatalf("%+v", p)
	}
	if m := p.Moves[0]; m.From != "h1" || m.To != "h2" || m.As == nil || !strings.HasPrefix(m.Reason, "moved to balance: ") {
		t.Errorf("%+v", m)
	}
}

func TestParseRebalance(t *testing.T) {
	for text, want := range map[string]Rebalance{
		"off": {}, "on": DefaultRebalance(), "10/10m": tenIn10m, "1/1h30m": {1, 90 * intent.Minute}, "1000/24h": {1000, 24 * intent.Hour},
	} {
		got, err := ParseRebalance(text)
		if back, err2 := ParseRebalance(got.String()); err != nil || err2 != nil || got != want || back != want {
			t.Errorf("%s: %v %v, %v %v", text, got, err, back, err2)
		}
	}
	for _, text := range []string{"", "yes", "10", "0/10m", "-1/10m", "1001/10m", "1/0s", "1/25h", "1/x", "x/1m", "1/1m/1", "99999999999999999999/1m"} {
		if r, err := ParseRebalance(text); err == nil || !strings.Contains(err.Error(), "10/10m") {
			t.Errorf("%q: %v, %v", text, r, err)
		}
	}
}
