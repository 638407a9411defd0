package topology

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
)

func place(w *world, a string, n int, host string) Command {
	return Command{Place: &Place{Put: []Placement{{App: a, N: n, Host: host, Version: w.app(a).Version}}}}
}

func TestFoundOnlyOnce(t *testing.T) {
	w := newWorld(t)
	if w.state.Era() != 1 || w.state.MeshID() != "mesh-id" || w.state.MeshName() != "main" || string(w.state.Trust().CAKey) != "key" {
		t.Fatalf("founded state is %+v", w.state)
	}
	w.refuse(RejectConflict, Command{Found: &Found{MeshID: "other", Name: "main"}})
	if w.state.MeshID() != "mesh-id" {
		t.Fatal("a second Found changed the mesh")
	}
}

func TestRevisionMovesOnlyWithChanges(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1")
	w.put(app("web", 1))
	still := []Command{
		{Heartbeat: &Heartbeat{}},
		{EnrolHost: &EnrolHost{Name: "h1", ID: "id-h1"}},
		{PutIntents: &PutIntents{Intents: intent.Intents{Apps: []intent.App{app("web", 1)}}}},
		{SetRunning: &SetRunning{App: "web"}},
		{SetDrain: &SetDrain{Host: "h1", Drain: DrainNone}},
		{Place: &Place{Remove: []CopyKey{{"web", 7}}}},
	}
	for _, c := range still {
		before := w.state
		if r := w.apply(c); r.Err != nil || r.Changed || w.state.Revision() != before.Revision() {
			t.Errorf("%+v: result %+v, revision %d → %d", c, r, before.Revision(), w.state.Revision())
		}
	}
	moves := []Command{
		place(w, "web", 0, "h1"),
		{SetDrain: &SetDrain{Host: "h1", Drain: DrainDraining}},
		{PutToken: &PutToken{ID: "t", Role: "host", Hash: []byte{1}}},
		{RestartApp: &RestartApp{App: "web"}},
		{SetRunning: &SetRunning{App: "web", Stopped: true}},
	}
	for _, c := range moves {
		if r := w.apply(c); r.Err != nil || !r.Changed || w.state.Revision() != w.index || r.Revision != w.index {
			t.Errorf("%+v: result %+v, revision %d at index %d", c, r, w.state.Revision(), w.index)
		}
	}
}

func TestCompareAndSetNamesAppAndIndexes(t *testing.T) {
	w := newWorld(t)
	w.put(app("web", 1))
	seen := w.app("web").Modified
	w.put(app("web", 2))
	now := w.app("web").Modified
	put := &PutIntents{Intents: intent.Intents{Apps: []intent.App{app("web", 3), app("db", 1)}}, Expect: map[string]uint64{"web": seen}}
	why := w.refuse(RejectConflict, Command{PutIntents: put})
	if !strings.Contains(why, "app web") || !strings.Contains(why, "index 3") || !strings.Contains(why, "index 2") {
		t.Errorf("why: %s", why)
	}
	if _, ok := w.state.App("db"); ok {
		t.Error("a rejected command stored one of its apps")
	}
	put.Expect = map[string]uint64{"web": now, "db": 0}
	w.must(Command{PutIntents: put})
	put.Expect = map[string]uint64{"db": 0}
	w.refuse(RejectConflict, Command{PutIntents: put})
}

func TestPruneTakesOnlyItsSet(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1")
	for _, set := range []string{"a", "b", ""} {
		w.must(Command{PutIntents: &PutIntents{Set: set, Intents: intent.Intents{Apps: []intent.App{app("x"+set, 1), app("y"+set, 1)}}}})
	}
	w.must(place(w, "ya", 0, "h1"))
	w.refuse(RejectInvalid, Command{PutIntents: &PutIntents{Prune: true}})
	w.must(Command{PutIntents: &PutIntents{Set: "a", Prune: true, Intents: intent.Intents{Apps: []intent.App{app("xa", 1)}}}})
	var names []string
	for _, a := range w.state.Apps() {
		names = append(names, a.Spec.Name)
	}
	if got := strings.Join(names, " "); got != "x xa xb y yb" {
		t.Errorf("apps left: %s", got)
	}
	if len(w.state.Placements()) != 0 || len(w.state.Slice("h1").Assignments) != 0 {
		t.Error("a pruned app left its placement behind")
	}
}

func TestRequestIDIsRememberedAndForgotten(t *testing.T) {
	w := newWorld(t)
	c := Command{PutToken: &PutToken{ID: "t", Role: "host"}, RequestID: "req"}
	first := w.apply(c)
	w.must(Command{DropToken: &DropToken{ID: "t"}})
	again := w.apply(c)
	if !again.Repeated || again.Changed || again.Revision != first.Revision {
		t.Errorf("repeated: %+v, first: %+v", again, first)
	}
	if _, ok := w.state.Token("t"); ok {
		t.Error("the repeated request acted again")
	}
	w.refuse(RejectConflict, Command{Heartbeat: &Heartbeat{}, RequestID: "req"})
	w.refuse(RejectInvalid, Command{Heartbeat: &Heartbeat{}, RequestID: strings.Repeat("x", 129)})
	for i := range MaxRequests {
		w.must(Command{Heartbeat: &Heartbeat{}, RequestID: "r" + CopyKey{"x", i}.String()})
	}
	if w.state.requests.Len() != MaxRequests || w.state.replay.Len() != MaxRequests {
		t.Errorf("remembered %d, %d", w.state.requests.Len(), w.state.replay.Len())
	}
	if r := w.apply(c); r.Repeated {
		t.Error("the window does not slide")
	}
	rejected := Command{DropToken: &DropToken{ID: "none"}, RequestID: "rejected"}
	w.refuse(RejectUnknown, rejected)
	w.must(Command{PutToken: &PutToken{ID: "none"}})
	w.must(rejected)
}

func TestRejections(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1", "h2")
	w.put(app("web", 2))
	w.must(place(w, "web", 0, "h1"))
	minus, one, big := -1, 1, 100_000
	version := w.app("web").Version
	put := func(p ...Placement) Command { return Command{Place: &Place{Put: p}} }
	for _, tc := range []struct {
		kind RejectKind
		c    Command
	}{
		{RejectInvalid, Command{EnrolHost: &EnrolHost{Name: "H1", ID: "x"}}},
		{RejectInvalid, Command{EnrolHost: &EnrolHost{Name: "h3"}}},
		{RejectConflict, Command{EnrolHost: &EnrolHost{Name: "h1", ID: "other"}}},
		{RejectConflict, Command{EnrolHost: &EnrolHost{Name: "h3", ID: "id-h1"}}},
		{RejectUnknown, Command{RemoveHost: &RemoveHost{Name: "h9", ID: "x"}}},
		{RejectConflict, Command{RemoveHost: &RemoveHost{Name: "h1", ID: "x"}}},
		{RejectUnknown, Command{SetDrain: &SetDrain{Host: "h9", Drain: DrainDraining}}},
		{RejectInvalid, Command{SetDrain: &SetDrain{Host: "h1", Drain: "dry"}}},
		{RejectConflict, Command{SetDrain: &SetDrain{Host: "h2", Drain: DrainDrained}}},
		{RejectUnknown, Command{DeleteApp: &DeleteApp{Name: "db"}}},
		{RejectUnknown, Command{SetRunning: &SetRunning{App: "db"}}},
		{RejectUnknown, Command{SetRunning: &SetRunning{App: "web", N: &minus, Stopped: true}}},
		{RejectUnknown, Command{SetRunning: &SetRunning{App: "web", N: &one, Stopped: true}}},
		{RejectUnknown, Command{RestartApp: &RestartApp{App: "db"}}},
		{RejectUnknown, Command{RestartApp: &RestartApp{App: "web", N: &big}}},
		{RejectUnknown, Command{SetRollout: &SetRollout{App: "db"}}},
		{RejectConflict, Command{SetRollout: &SetRollout{App: "web", Rollout: Rollout{Version: "old"}}}},
		{RejectInvalid, Command{PutToken: &PutToken{}}},
		{RejectInvalid, Command{PutIntents: &PutIntents{Intents: intent.Intents{Apps: []intent.App{app("a/b", 1)}}}}},
		{RejectInvalid, Command{PutIntents: &PutIntents{Intents: intent.Intents{Apps: []intent.App{app("a", 1), app("a", 1)}}}}},
		{RejectInvalid, Command{PutIntents: &PutIntents{Intents: intent.Intents{Apps: []intent.App{app("a", big)}}}}},
		{RejectInvalid, Command{PutIntents: &PutIntents{Intents: intent.Intents{Reflexes: []intent.Reflex{{Name: "a/b"}}}}}},
		{RejectInvalid, Command{PutIntents: &PutIntents{Intents: intent.Intents{Reflexes: []intent.Reflex{{Name: "r"}, {Name: "r"}}}}}},
		{RejectUnknown, Command{DeleteReflex: &DeleteReflex{Name: "r"}}},
		{RejectUnknown, put(Placement{App: "db", Host: "h1"})},
		{RejectUnknown, put(Placement{App: "web", N: 1, Host: "h9", Version: version})},
		{RejectUnknown, put(Placement{App: "web", N: 1, Host: "h1", Version: "none"})},
		{RejectInvalid, put(Placement{App: "web", N: -1, Host: "h1", Version: version})},
		{RejectInvalid, put(Placement{App: "web", N: 1, Host: "h1", Version: version, Ports: map[string]int{"p": 0}})},
		{RejectInvalid, put(Placement{App: "web", N: 1, Host: "h1", Version: version}, Placement{App: "web", N: 1, Host: "h2", Version: version})},
		{RejectConflict, put(Placement{App: "web", N: 1, Host: "h1", Version: version, Ports: map[string]int{"p": 80, "q": 80}})},
		{RejectConflict, put(Placement{App: "web", N: 1, Host: "h1", Version: version}, Placement{App: "web", N: 2, Host: "h1", Version: version})},
		{RejectConflict, Command{Place: &Place{Expect: 1}}},
	} {
		w.refuse(tc.kind, tc.c)
	}
	for _, c := range []Command{{}, {Heartbeat: &Heartbeat{}, DeleteApp: &DeleteApp{}}} {
		if next, r := w.state.Apply(w.index+1, c); r.Err == nil || next != w.state {
			t.Errorf("%+v: %+v", c, r)
		}
	}
	if _, r := w.state.Apply(w.state.Revision(), Command{DeleteApp: &DeleteApp{Name: "web"}}); r.Err == nil {
		t.Error("an index that is not after the revision was accepted")
	}
}

// A host's index moves exactly when something it would see moves.
func TestSliceIndexMovesOnlyWithTheSlice(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1", "h2", "h3")
	w.put(app("web", 2), app("db", 1))
	w.must(place(w, "web", 0, "h1"))
	w.must(place(w, "web", 1, "h2"))
	w.must(place(w, "db", 0, "h3"))
	zero := 0
	for _, tc := range []struct {
		name  string
		c     Command
		moves string
	}{
		{"count", Command{PutIntents: &PutIntents{Intents: intent.Intents{Apps: []intent.App{app("web", 5)}}}}, ""},
		{"stop rule", Command{PutIntents: &PutIntents{Intents: intent.Intents{Apps: []intent.App{app("web", 5, func(a *intent.App) { a.Stop.Grace = intent.Minute })}}}}, "h1 h2"},
		{"new version, not placed yet", Command{PutIntents: &PutIntents{Intents: intent.Intents{Apps: []intent.App{app("db", 1, func(a *intent.App) { a.Run.Dir = "/x" })}}}}, ""},
		{"stop one copy", Command{SetRunning: &SetRunning{App: "web", N: &zero, Stopped: true}}, "h1"},
		{"stop the app", Command{SetRunning: &SetRunning{App: "web", Stopped: true}}, "h2"},
		{"start the app", Command{SetRunning: &SetRunning{App: "web"}}, "h1 h2"},
		{"restart one copy", Command{RestartApp: &RestartApp{App: "web", N: &zero}}, "h1"},
		{"restart the app", Command{RestartApp: &RestartApp{App: "web"}}, ""},
		{"drain", Command{SetDrain: &SetDrain{Host: "h3", Drain: DrainDraining}}, "h3"},
		{"move", Command{Place: &Place{Put: []Placement{{App: "web", N: 0, Host: "h3", Version: w.app("web").Version}}}}, "h1 h3"},
		{"token", Command{PutToken: &PutToken{ID: "t"}}, ""},
		{"delete", Command{DeleteApp: &DeleteApp{Name: "web"}}, "h2 h3"},
	} {
		before := w.state
		w.must(tc.c)
		var moved []string
		for _, h := range []string{"h1", "h2", "h3"} {
			a, b := before.Slice(h), w.state.Slice(h)
			if a.Index != b.Index {
				moved = append(moved, h)
				if b.Index != w.index {
					t.Errorf("%s: index of %s is %d, want %d", tc.name, h, b.Index, w.index)
				}
			}
			if same := snapshotOf(t, a) == snapshotOf(t, b); same != (a.Index == b.Index) {
				t.Errorf("%s: %s: index %d → %d, equal content: %v", tc.name, h, a.Index, b.Index, same)
			}
		}
		if got := strings.Join(moved, " "); got != tc.moves {
			t.Errorf("%s moved %q, want %q", tc.name, got, tc.moves)
		}
	}
}

func snapshotOf(t *testing.T, s Slice) string {
	t.Helper()
	s.Index = 0
	data, err := commandCodec.enc.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestVersionsAreKeptWhileNamed(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1")
	v := func(dir string) intent.App { return app("web", 2, func(a *intent.App) { a.Run.Dir = dir }) }
	w.put(v("/1"))
	one := w.app("web").Version
	w.must(place(w, "web", 0, "h1"))
	w.must(w.ends("web", OutcomeDone))
	w.put(v("/2"))
	two := w.app("web").Version
	w.must(place(w, "web", 0, "h1"))
	w.put(v("/3"))
	three := w.app("web").Version
	has := func(want ...string) {
		t.Helper()
		versions := w.app("web").Versions
		if len(versions) != len(want) {
			t.Errorf("%d versions, want %d", len(versions), len(want))
		}
		for _, v := range want {
			if _, ok := versions[v]; !ok {
				t.Errorf("version %s is missing", v)
			}
		}
	}
	has(one, two, three) // stable, placed, current
	if dir := w.state.Slice("h1").Assignments[0].Spec.Run.Dir; dir != "/2" {
		t.Errorf("the host is told to run %s", dir)
	}
	w.must(place(w, "web", 0, "h1"))
	has(one, two, three) // two is in the history
	w.must(w.ends("web", OutcomeDone))
	has(one, two, three)
	for i := range MaxHistory {
		w.put(v(fmt.Sprint("/more/", i)))
	}
	if n := len(w.app("web").Versions); n != MaxHistory+1 {
		t.Errorf("%d versions are kept: those of the history, and the one that is placed and stable, should be", n)
	}
}

func TestStoppedCopies(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1", "h2")
	w.put(app("web", 2))
	w.must(place(w, "web", 0, "h1"))
	w.must(place(w, "web", 1, "h1"))
	one := 1
	w.must(Command{SetRunning: &SetRunning{App: "web", N: &one, Stopped: true}})
	stopped := func() (list []bool) {
		for _, p := range w.state.PlacementsOf("web") {
			list = append(list, p.Stopped)
		}
		return list
	}
	if got := stopped(); got[0] || !got[1] {
		t.Errorf("stopped one: %v", got)
	}
	w.must(place(w, "web", 1, "h2"))
	if got := stopped(); !got[1] {
		t.Errorf("a stopped copy was started by a move: %v", got)
	}
	w.must(Command{SetRunning: &SetRunning{App: "web", Stopped: true}})
	w.refuse(RejectConflict, Command{SetRunning: &SetRunning{App: "web", N: &one}})
	w.must(Command{SetRunning: &SetRunning{App: "web"}})
	if got := stopped(); got[0] || got[1] {
		t.Errorf("started: %v", got)
	}
	if g := w.state.PlacementsOf("web")[0].Generation; g != w.index {
		t.Errorf("start is not a new generation: %d at %d", g, w.index)
	}
	w.must(Command{SetRunning: &SetRunning{App: "web", N: &one, Stopped: true}})
	w.must(Command{Place: &Place{Remove: []CopyKey{{"web", 1}}}})
	w.must(place(w, "web", 1, "h2"))
	if got := stopped(); got[1] {
		t.Errorf("a number that was removed and placed anew is stopped: %v", got)
	}
}

func TestRemoveHostUnplaces(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1")
	w.put(app("web", 1))
	w.must(place(w, "web", 0, "h1"))
	w.must(Command{RemoveHost: &RemoveHost{Name: "h1", ID: "id-h1"}})
	if len(w.state.Placements()) != 0 || len(w.state.PlacementsOn("h1")) != 0 || len(w.state.Hosts()) != 0 {
		t.Errorf("left: %+v", w.state.Placements())
	}
	if s := w.state.Slice("h1"); s.Index != 0 || s.MeshID != "mesh-id" || len(s.Assignments) != 0 {
		t.Errorf("slice of a removed host: %+v", s)
	}
}

func TestApplySameAgainRetriesWhatHalted(t *testing.T) {
	w := newWorld(t)
	w.put(app("web", 1))
	v, modified := w.app("web").Version, w.app("web").Modified
	halted := w.ends("web", OutcomeHeld)
	halted.SetRollout.Rollout.Reason = "bad"
	w.must(halted)
	if got := w.app("web"); got.Rollout != halted.SetRollout.Rollout || got.Modified != modified {
		t.Errorf("held: %+v", got)
	}
	if got := w.app("web").History; len(got) != 1 || got[0].Outcome != OutcomeHeld || got[0].Reason != "bad" {
		t.Errorf("its history: %+v", got)
	}
	w.put(app("web", 1))
	if got := w.app("web"); got.Rollout != (Rollout{Version: v, Started: w.index}) || got.Modified != w.index || got.History[0].Outcome != "" {
		t.Errorf("applied again: %+v", got)
	}
}
