package topology

import (
	"fmt"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// bigMesh is a converged mesh.
func bigMesh(t testing.TB, hosts, apps, copies int) (*State, Observations) {
	w := newWorld(t)
	obs := Observations{Settled: true, Hosts: map[string]HostObs{}}
	for i := range hosts {
		name := fmt.Sprintf("h%04d", i)
		w.enrol(name)
		obs.Hosts[name] = HostObs{
			Alive: true, Reported: true, Slice: upToDate, CPU: 16, Memory: 64 << 30, PortMin: 20000, PortMax: 29999,
			Labels: map[string]string{"zone": string(rune('a' + i%3)), "rack": fmt.Sprint(i % 40)},
		}
	}
	for i := range apps {
		w.put(app(fmt.Sprintf("app-%03d", i), copies, func(a *intent.App) {
			a.Ports = map[string]intent.Port{"http": {}}
			a.Resources = intent.Resources{CPU: 0.5, Memory: 256 * intent.MiB}
			a.Place.Require = []string{"zone != 'c'"}
			a.Place.Spread = "rack"
		}))
	}
	for range 100 {
		d := Decide(w.state, obs)
		if len(d.Commands) == 0 {
			return w.state, obs
		}
		for _, c := range d.Commands {
			w.must(c)
		}
		well(w.state, obs)
	}
	t.Fatal("the mesh does not converge")
	return nil, obs
}

// well has every host report that its copies are as they should be.
func well(s *State, obs Observations) {
	for name, o := range obs.Hosts {
		o.Copies = map[CopyKey]CopyObs{}
		for _, p := range s.PlacementsOn(name) {
			if p.Stopped {
				o.Copies[p.Key()] = CopyObs{Generation: p.Generation, State: CopyStopped}
				continue
			}
			o.Copies[p.Key()] = CopyObs{
				Version: p.Version, Generation: p.Generation, State: CopyRunning,
				Ready: true, ReadyFor: time.Hour, Age: time.Hour,
			}
		}
		obs.Hosts[name] = o
	}
}

func BenchmarkDecideSteady(b *testing.B) {
	s, obs := bigMesh(b, 1000, 100, 50)
	for b.Loop() {
		if d := Decide(s, obs); len(d.Commands) > 0 {
			b.Fatal("not steady")
		}
	}
}

func BenchmarkDecidePlaceMany(b *testing.B) {
	s, obs := bigMesh(b, 1000, 0, 0)
	for i := range 100 {
		s, _ = s.Apply(s.Revision()+1, Command{PutIntents: &PutIntents{Intents: intent.Intents{Apps: []intent.App{
			app(fmt.Sprintf("app-%03d", i), 50, func(a *intent.App) { a.Ports = map[string]intent.Port{"http": {}} }),
		}}}})
	}
	for b.Loop() {
		if d := Decide(s, obs); len(d.Commands[0].Place.Put) != maxOps {
			b.Fatal("not a full batch")
		}
	}
}

func BenchmarkStatus(b *testing.B) {
	s, obs := bigMesh(b, 1000, 100, 50)
	for b.Loop() {
		Status(s, obs)
	}
}

func BenchmarkApplyPlace(b *testing.B) {
	s, _ := bigMesh(b, 1000, 100, 50)
	p := s.Placements()[0]
	for b.Loop() {
		_, r := s.Apply(s.Revision()+1, Command{Place: &Place{Put: []Placement{p}}})
		if r.Err != nil {
			b.Fatal(r.Err)
		}
	}
}

// The leader decides after every report: on a mesh of 1,000 hosts that must
// stay far from a second even on a slow machine.
func TestDecideIsFastEnough(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a large mesh")
	}
	s, obs := bigMesh(t, 1000, 100, 50)
	if n := len(s.Placements()); n != 5000 {
		t.Fatalf("%d placements", n)
	}
	r := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			Decide(s, obs)
		}
	})
	if per := time.Duration(r.NsPerOp()); per > time.Second {
		t.Errorf("a decision takes %s", per)
	}
}
