package topology

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
)

// serving counts the copies of an app that are ready, wherever, and those that run.
func (s *sim) serving(app string) (ready, running int) {
	for _, name := range s.names {
		for key, x := range s.hosts[name].procs {
			if key.App != app || x.gone {
				continue
			}
			if running++; x.ready(s.now) {
				ready++
			}
		}
	}
	return ready, running
}

// TestDrainsStartFirst: while hosts are emptied, one after the other, apps whose
// copies may begin elsewhere first never miss one for a moment, and no more than
// parallel of them are too many; the others keep to their update policy; every drain
// ends.
func TestDrainsStartFirst(t *testing.T) {
	relieved, stopped := 0, 0
	for seed := range 150 {
		s := &sim{world: newWorld(t), rnd: rand.New(rand.NewPCG(uint64(seed), 11)), hosts: map[string]*simHost{}, excused: map[string]bool{}}
		for i := range 3 + s.rnd.IntN(4) {
			s.addHost(fmt.Sprintf("h%d", i+1), []string{"a", "b"}[i%2])
		}
		count, parallel, numbered := 1+s.rnd.IntN(5), 1+s.rnd.IntN(3), s.rnd.IntN(4) == 0
		s.put(app("web", count, func(a *intent.App) {
			a.Run.Env = map[string]string{"GOES": []string{"well", "slow"}[s.rnd.IntN(2)]}
			a.Ports = map[string]intent.Port{"http": {}}
			a.Update.Parallel = parallel
			if numbered {
				a.Run.Command = []string{"/bin/web", "-shard=${copy.n}"}
			}
		}))
		s.settle(t, 60)
		least := count
		if numbered {
			least = max(0, count-parallel)
		}
		for range 3 {
			name := s.names[s.rnd.IntN(len(s.names))]
			moves := len(s.state.PlacementsOn(name))
			s.say("user: drain %s", name)
			s.must(Command{SetDrain: &SetDrain{Host: name, Drain: DrainDraining}})
			for range 40 * (moves + 1) {
				if s.rnd.IntN(20) == 0 {
					s.office = s.now // a new leader
				}
				s.tick()
				if ready, running := s.serving("web"); ready < least || running > count+parallel {
					s.mistake("%d of %d copies are ready, %d run, parallel %d", ready, count, running, parallel)
				}
				if h, _ := s.state.Host(name); h.Drain == DrainDrained {
					break
				}
			}
			if h, _ := s.state.Host(name); h.Drain != DrainDrained {
				s.mistake("%s is not drained", name)
			}
			if stopped += moves; !numbered {
				stopped -= moves
			}
			s.must(Command{SetDrain: &SetDrain{Host: name, Drain: DrainNone}})
		}
		if relieved += s.balance.drained; numbered && s.balance.drained > 0 {
			s.mistake("copies changed their numbers")
		}
		if len(s.mistakes) > 0 {
			t.Fatalf("seed %d:\n%s\n\n%s", seed, strings.Join(s.log, "\n"), strings.Join(s.mistakes, "\n"))
		}
	}
	t.Logf("%d copies were taken over from, %d stopped first", relieved, stopped)
	if relieved < 150 || stopped < 20 {
		t.Error("too few: nothing is proved")
	}
}

// A relief on account of a drain is given up with it, and one that does not become
// well leaves the copy to move as it did before.
func TestReliefsOfDrains(t *testing.T) {
	w, obs := lopsidedMesh(t, Rebalance{})
	w.must(Command{SetDrain: &SetDrain{Host: "h1", Drain: DrainDraining}})
	p := begin(t, w, obs)
	if p.Host != "h2" || p.Relief.Balance || !strings.Contains(p.Relief.Why, "is being emptied") {
		t.Fatalf("%+v", p)
	}
	well(w.state, obs)
	w.must(Command{SetDrain: &SetDrain{Host: "h1", Drain: DrainNone}})
	converge(w, obs)
	if list := w.state.PlacementsOf("web"); len(list) != 2 || list[0].Host != "h1" || list[1].Host != "h1" || list[0].Relief != nil {
		t.Errorf("after the drain is taken back: %+v", list)
	}
	w.must(Command{SetDrain: &SetDrain{Host: "h1", Drain: DrainDraining}})
	for range 12 {
		for _, c := range Decide(w.state, obs).Commands {
			w.apply(c)
		}
		well(w.state, obs)
		for _, p := range w.state.PlacementsOf("web") {
			if p.Relief != nil {
				sick := obs.Hosts[p.Host].Copies[p.Key()]
				sick.Ready, sick.ReadyFor, sick.Failed = false, 0, true
				obs.Hosts[p.Host].Copies[p.Key()] = sick
			}
		}
	}
	if h, _ := w.state.Host("h1"); h.Drain != DrainDrained || len(w.state.PlacementsOf("web")) != 2 || len(w.app("web").Unfit) != 1 {
		t.Errorf("%+v, %+v, unfit %+v", h, w.state.PlacementsOf("web"), w.app("web").Unfit)
	}
}

// What users asked for goes on while many hosts look unhealthy: a relief that has
// proved itself takes over where a host is emptied, and not where it would only
// balance.
func TestGateHoldsNoDrain(t *testing.T) {
	for _, drained := range []bool{true, false} {
		set := tenIn10m
		if drained {
			set = Rebalance{}
		}
		w, obs := lopsidedMesh(t, set)
		if drained {
			w.must(Command{SetDrain: &SetDrain{Host: "h1", Drain: DrainDraining}})
		}
		begin(t, w, obs)
		well(w.state, obs)
		obs.GateShut = true // and calm for no time yet
		if d := Decide(w.state, obs); !d.GateShut || (len(d.Moves) == 1) != drained {
			t.Errorf("drained %t: gate shut %t, moves %+v", drained, d.GateShut, d.Moves)
		}
	}
}
