package topology

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

func TestThawOnlyRises(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ epoch, want uint64 }{{3, 3}, {2, 3}, {3, 3}, {7, 7}} {
		if r := w.apply(Command{Thaw: &Thaw{Epoch: c.epoch, By: "h1"}}); r.Err != nil {
			t.Fatal(r.Err)
		}
		if got := w.state.Thawed(); got.Epoch != c.want {
			t.Errorf("after a thaw of epoch %d it is %d, want %d", c.epoch, got.Epoch, c.want)
		}
	}
	if r := w.apply(Command{Thaw: &Thaw{Epoch: 9, By: "No Name"}}); r.Err == nil {
		t.Error("a thaw by nobody was taken")
	}
	var b bytes.Buffer
	if err := w.state.Write(&b); err != nil {
		t.Fatal(err)
	}
	if s, err := Read(&b); err != nil || s.Thawed() != (Thaw{7, "h1"}) {
		t.Errorf("read back: %v, %v", s.Thawed(), err)
	}
}

// checkFrozen holds what was decided of a frozen mesh: nothing that runs is
// touched but on a user's word, or to end a move that was begun before.
func (s *sim) checkFrozen(d Decision) (held int) {
	for _, c := range d.Commands {
		if r := c.SetRollout; r != nil {
			a := s.app(r.App)
			if r.Flip || r.Revert || a.onTrial() || a.Stable != "" && r.Rollout.Phase != a.Rollout.Phase {
				s.mistake("frozen, and a rollout goes on: %s", describe(c))
			}
		}
		if c.Place == nil {
			continue
		}
		for _, p := range c.Place.Put {
			old, ok := s.state.Placement(p.Key())
			switch a := s.app(p.App); {
			case !ok && !p.Surge:
			case ok && (old.Leaving != "" || old.Generation < a.RestartAt && old.Host == p.Host && old.Version == p.Version):
			case ok && old.Stopped && old.Host == p.Host: // nothing runs
			case ok && old.Surge && !p.Surge && old.runsAs(p): // it is one of those that are asked for, by a user's count
			case ok && a.Spec.Kind() != intent.KindReplicated: // numbers of per-host copies come and go with hosts
			default:
				s.mistake("frozen, and %s", describe(c))
			}
		}
		surplus := map[string]int{}
		for _, key := range c.Place.Remove {
			p, _ := s.state.Placement(key)
			a := s.app(key.App)
			surplus[key.App]++
			regular := 0
			for _, o := range s.state.PlacementsOf(key.App) {
				if !o.Surge {
					regular++
				}
			}
			if p.Surge || !a.Spec.PerHost && regular-surplus[key.App] < a.Spec.Copies() {
				s.mistake("frozen, and %s", describe(c))
			}
		}
	}
	if d.Held != "" {
		held++
	}
	return held
}

// Whatever happens while the mesh is frozen, nothing is begun; when it is thawed
// it comes to rest as ever.
func TestFrozenBeginsNothing(t *testing.T) {
	held, frozen := 0, 0
	for seed := range uint64(40) {
		s := &sim{world: newWorld(t), rnd: rand.New(rand.NewPCG(seed, 77)), hosts: map[string]*simHost{}, excused: map[string]bool{}}
		for i, zone := range []string{"a", "b", "c", "a", "b"} {
			s.addHost([]string{"h1", "h2", "h3", "h4", "h5"}[i], zone)
		}
		s.declare()
		for range 250 {
			if s.rnd.IntN(25) == 0 {
				s.freeze.All = !s.freeze.All
			}
			if s.rnd.IntN(8) == 0 {
				s.trouble()
			}
			if s.freeze.All {
				frozen++
				held += s.checkFrozen(Decide(s.state, s.observe()))
			}
			s.tick()
		}
		if len(s.mistakes) > 0 {
			t.Fatalf("seed %d: %v", seed, s.mistakes)
		}
	}
	if frozen < 1000 || held == 0 {
		t.Errorf("frozen for %d s, held back %d times: nothing was tested", frozen, held)
	}
}

// A run that falls due while its app is frozen begins when it is thawed, once.
func TestFrozenScheduleWaits(t *testing.T) {
	w := newJobWorld(t, "h1")
	w.put(scheduled("job", "@hourly"))
	w.settle()
	w.freeze.Apps = []string{"job"}
	w.at("2026-03-01 13:00:10")
	w.at("2026-03-01 15:00:10")
	if r := w.run("job"); r.Index != 0 {
		t.Fatalf("frozen, and a run began: %+v", r)
	}
	w.freeze = Freeze{}
	w.at("2026-03-01 15:10:00")
	if r := w.run("job"); r.Index == 0 || r.Due != noon.Add(3*time.Hour).Unix() {
		t.Fatalf("thawed, and the run is %+v", r)
	}
}
