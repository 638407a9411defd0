package topology

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// takenAway is a mesh of h1 and h2 whose app web was placed on h1, deleted, and
// declared anew for h2, before h1 has reported on any of it.
func takenAway(t *testing.T, change ...func(*intent.App)) (*world, Observations) {
	t.Helper()
	w, obs := newWorld(t), Observations{Settled: true, Hosts: map[string]HostObs{}, Timers: DefaultTimers()}
	w.enrol("h1", "h2")
	for _, h := range []string{"h1", "h2"} {
		obs.Hosts[h] = HostObs{
			Alive: true, Reported: true, Slice: w.state.Slice(h).Index, CPU: 4, Memory: 8 << 30, PortMin: 20000, PortMax: 20100,
			Labels: map[string]string{"host": h}, Boot: "boot-" + h,
		}
	}
	w.put(app("web", 1, func(a *intent.App) { a.Place.Require = []string{"host == 'h1'"} }))
	w.must(Decide(w.state, obs).Commands[0])
	if p := w.state.PlacementsOn("h1"); len(p) != 1 {
		t.Fatalf("placed: %+v", w.state.Placements())
	}
	w.must(Command{DeleteApp: &DeleteApp{Name: "web"}})
	w.put(app("web", 1, append(change, func(a *intent.App) { a.Place.Require = []string{"host == 'h2'"} })...))
	return w, obs
}

// says is a report of a host on all that it was told, with the copies it has.
func says(w *world, obs Observations, host string, copies map[CopyKey]CopyObs) {
	o := obs.Hosts[host]
	o.Slice, o.Copies = w.state.Slice(host).Index, copies
	obs.Hosts[host] = o
}

func waits(t *testing.T, w *world, obs Observations, what string) {
	t.Helper()
	if d := Decide(w.state, obs); len(d.Commands) > 0 || len(d.Unplaced) != 1 || !strings.Contains(d.Unplaced[0].Reason, "waiting for h1 to stop") {
		t.Fatalf("%s: %+v", what, d)
	}
}

func begins(t *testing.T, w *world, obs Observations, what string) {
	t.Helper()
	d := Decide(w.state, obs)
	for _, c := range d.Commands {
		w.must(c)
	}
	if p := w.state.PlacementsOn("h2"); len(p) != 1 {
		t.Fatalf("%s: %+v", what, d)
	}
}

// What a host was told to run may run there until it has said that it does not,
// whatever it said before.
func TestWhatWasTakenFromAHostIsWaitedFor(t *testing.T) {
	w, obs := takenAway(t)
	waits(t, w, obs, "nothing is reported yet")
	running := map[CopyKey]CopyObs{{"web", 0}: {Version: "v", Generation: 4, State: CopyStopping}}
	says(w, obs, "h1", running)
	waits(t, w, obs, "it still stops")
	says(w, obs, "h1", nil)
	begins(t, w, obs, "h1 says that it is gone")
	if left := w.state.Remnants(); len(left) != 0 {
		t.Errorf("remembered for ever: %+v", left)
	}
}

func TestWhatWasTakenFromALostHost(t *testing.T) {
	lose := func(obs Observations) {
		o := obs.Hosts["h1"]
		o.Alive, o.DownFor, o.ReportAge = false, time.Minute, time.Minute
		obs.Hosts["h1"] = o
		obs.Hosts["h3"] = obs.Hosts["h2"]
	}
	w, obs := takenAway(t)
	w.enrol("h3")
	lose(obs)
	begins(t, w, obs, "it is replaced, as any copy of a lost host")

	w, obs = takenAway(t, func(a *intent.App) { a.Disconnect.Policy = intent.DisconnectKeep })
	w.enrol("h3")
	lose(obs)
	waits(t, w, obs, "disconnect = keep")
	w.must(Command{RemoveHost: &RemoveHost{Name: "h1", ID: "id-h1"}})
	begins(t, w, obs, "the host was removed")
}

// What becomes a singleton waits for what may run without a lease, and what ran
// under one is remembered by that.
func TestWhatWasTakenFromASingleton(t *testing.T) {
	w, obs := takenAway(t, func(a *intent.App) { a.Count, a.Singleton = nil, true })
	waits(t, w, obs, "nothing is reported yet")
	says(w, obs, "h1", nil)
	begins(t, w, obs, "h1 says that it is gone")
	w.must(Command{DeleteApp: &DeleteApp{Name: "web"}})
	if left := w.state.Remnants(); len(left) != 0 {
		t.Errorf("its lease remembers it, and so does %+v", left)
	}
}

// A host that gets the copy again has one process of it.
func TestTakenAndGivenBack(t *testing.T) {
	w, obs := takenAway(t)
	w.put(app("web", 1))
	begun := Decide(w.state, obs)
	if len(begun.Commands) != 1 || begun.Commands[0].Place == nil || begun.Commands[0].Place.Put[0].Host != "h1" {
		t.Fatalf("only h1 will do: %+v", begun)
	}
	w.must(begun.Commands[0])
	if left := w.state.Remnants(); len(left) != 0 {
		t.Errorf("%+v", left)
	}
}

// A copy that was told to leave is not gone because a report says so that was made
// before its host had heard of it.
func TestAnOldReportProvesNothing(t *testing.T) {
	w, obs := takenAway(t)
	says(w, obs, "h1", nil)
	begins(t, w, obs, "h1 says that it is gone")
	told := w.state.Slice("h2").Index
	w.put(app("web", 1, func(a *intent.App) { // at once, and h2 cannot run it
		a.Place.Require, a.Run.User = []string{"host != 'x'"}, "nobody"
	}))
	o := obs.Hosts["h1"]
	o.CanUser = true
	obs.Hosts["h1"] = o
	for range 3 {
		for _, c := range Decide(w.state, obs).Commands {
			w.must(c)
		}
	}
	p := w.state.PlacementsOf("web")
	if len(p) != 1 || p[0].Host != "h2" || p[0].Leaving == "" {
		t.Fatalf("h2 may begin what it was told at %d: %+v", told, p)
	}
	says(w, obs, "h2", nil)
	for _, c := range Decide(w.state, obs).Commands {
		w.must(c)
	}
	if p := w.state.PlacementsOf("web"); len(p) != 1 || p[0].Host != "h1" {
		t.Errorf("%+v", p)
	}
}

// A drained host has said so of all that it was told.
func TestDrainedIsWhatSaysSo(t *testing.T) {
	w, obs := takenAway(t)
	w.must(Command{SetDrain: &SetDrain{Host: "h1", Drain: DrainDraining}})
	for _, c := range Decide(w.state, obs).Commands {
		if c.SetDrain != nil {
			t.Fatalf("%+v", c.SetDrain)
		}
	}
	says(w, obs, "h1", nil)
	for _, c := range Decide(w.state, obs).Commands {
		w.must(c)
	}
	if h, _ := w.state.Host("h1"); h.Drain != DrainDrained {
		t.Errorf("%+v", h)
	}
}

func TestRemnantsAreBounded(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1")
	txn := newTxn(w.state, 1<<20)
	for i := range MaxRemnants + 7 {
		m := Remnant{App: "a", N: i % intent.MaxCopies, Host: "h" + string(rune('1'+i/intent.MaxCopies)), Index: uint64(i + 1)}
		txn.remnants, _, _ = txn.remnants.Insert(remnantKey(m.Key(), m.Host), &m)
	}
	txn.boundRemnants()
	left := txn.Remnants()
	for _, m := range left {
		if m.Index <= 7 {
			t.Errorf("the oldest is kept: %+v", m)
		}
	}
	if len(left) != MaxRemnants {
		t.Errorf("%d are kept", len(left))
	}
}

// What may still run on a host has its ports and its memory there: neither goes to
// another copy until the host has said that it has ended. To the copy itself both do.
func TestWhatMayStillRunKeepsItsPortsAndMemory(t *testing.T) {
	static := func(a *intent.App) { a.Ports = map[string]intent.Port{"http": {Static: 8080}} }
	big := func(a *intent.App) { a.Resources.Memory = 5 << 30 }
	dynamic := func(a *intent.App) { a.Ports = map[string]intent.Port{"http": {}} }
	for name, tc := range map[string]struct {
		takes func(*intent.App)
		why   string // of what comes while the host has not said; empty: it has other ports
	}{
		"static port":  {static, "with port 8080 until old/0 has ended there"},
		"memory":       {big, "without enough memory (needs 5GiB, 3GiB free)"},
		"dynamic port": {dynamic, ""},
	} {
		t.Run(name, func(t *testing.T) {
			on := func(a *intent.App) { a.Place.Require = []string{"host == 'h1'"} }
			w, obs := takenAway(t)
			w.must(Command{DeleteApp: &DeleteApp{Name: "web"}})
			says(w, obs, "h1", nil)
			w.must(Decide(w.state, obs).Commands[0]) // which sweeps that up
			o := obs.Hosts["h1"]
			o.PortMax = o.PortMin + 1 // two dynamic ports
			obs.Hosts["h1"] = o
			w.put(app("old", 1, tc.takes, on))
			w.must(Decide(w.state, obs).Commands[0])
			had := w.state.PlacementsOn("h1")[0]
			w.must(Command{DeleteApp: &DeleteApp{Name: "old"}})
			w.put(app("new", 1, tc.takes, on))
			d := Decide(w.state, obs)
			switch {
			case tc.why == "" && (len(d.Commands) != 1 || d.Commands[0].Place == nil || d.Commands[0].Place.Put[0].Ports["http"] == had.Ports["http"]):
				t.Fatalf("beside %+v: %+v", had, d)
			case tc.why == "":
				return
			case len(d.Commands) > 0 || len(d.Unplaced) != 1 || !strings.Contains(d.Unplaced[0].Reason, tc.why):
				t.Fatalf("while old/0 may run: %+v", d)
			}
			w.put(app("old", 1, tc.takes, on))
			if d := Decide(w.state, obs); len(d.Commands) != 1 || d.Commands[0].Place.Put[0].App != "old" {
				t.Fatalf("it comes back: %+v", d)
			}
			w.must(Command{DeleteApp: &DeleteApp{Name: "old"}})
			says(w, obs, "h1", nil) // on all of that, and it has neither
			if d := Decide(w.state, obs); len(d.Commands) == 0 || d.Commands[0].Place == nil || d.Commands[0].Place.Put[0].App != "new" {
				t.Fatalf("once it has ended: %+v", d)
			}
		})
	}
}

// takesWhatIsKept says what c gives a copy of the ports that another may still have
// on its host; empty: nothing.
func takesWhatIsKept(s *State, obs Observations, c Command) string {
	if c.Place == nil {
		return ""
	}
	for _, p := range c.Place.Put {
		was, _ := s.Placement(p.Key())
		for _, m := range s.Remnants() {
			o := obs.Hosts[p.Host]
			seen, known := o.Copies[m.Key()]
			gone := o.Reported && o.Slice >= m.Index && (!known || over(seen))
			if m.Host != p.Host || m.Key() == p.Key() || gone {
				continue
			}
			for name, port := range p.Ports { // order does not matter
				if slices.Contains(m.Ports, port) && (was.Host != p.Host || was.Ports[name] != port) {
					return fmt.Sprintf("%+v gets port %d, which %+v may still have", p, port, m)
				}
			}
		}
	}
	return ""
}
