package topology

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
)

// evict lends a host a token and has it evict an app with it.
func (w *world) evict(host, app string, n *int) Result {
	w.t.Helper()
	loan := w.borrow(host, 1)
	if loan.Err != nil {
		w.t.Fatal(loan.Err)
	}
	return w.apply(Command{Evict: &Evict{App: app, N: n, Host: host, Why: "evicted by reflex flee", Loan: loan.Loan}})
}

// TestEvictStartsFirst: copies that a reflex wants away go to other hosts, one of
// them ready at any time that one was, and do not come back at once.
func TestEvictStartsFirst(t *testing.T) {
	evicted, relieved := 0, 0
	for seed := range 60 {
		s := &sim{world: newWorld(t), rnd: rand.New(rand.NewPCG(uint64(seed), 21)), hosts: map[string]*simHost{}, excused: map[string]bool{}}
		for i := range 3 + s.rnd.IntN(3) {
			s.addHost(fmt.Sprintf("h%d", i+1), []string{"a", "b"}[i%2])
		}
		count, parallel, single := 1+s.rnd.IntN(4), 1+s.rnd.IntN(2), s.rnd.IntN(4) == 0
		s.put(app("web", count, func(a *intent.App) {
			a.Update.Parallel = parallel
			if single {
				a.Run.Command = []string{"/bin/web", "-shard=${copy.n}"} // numbered: it stops first
			}
		}))
		s.settle(t, 60)
		for range 2 {
			at := s.state.PlacementsOf("web")[0]
			copies := s.state.Evictable("web", nil, at.Host)
			s.say("reflex on %s: evict web", at.Host)
			if r := s.evict(at.Host, "web", nil); r.Err != nil {
				t.Fatalf("seed %d: %v", seed, r.Err)
			}
			evicted += len(copies)
			for range 60 {
				s.tick()
				if ready, running := s.serving("web"); !single && ready < count || running > count+parallel {
					s.mistake("%d of %d copies are ready, %d run", ready, count, running)
				}
			}
			for _, p := range s.state.PlacementsOf("web") {
				if p.Host == at.Host || p.Evicted != "" {
					s.mistake("not elsewhere: %+v", p)
				}
			}
			s.state = returned(s.state)
		}
		relieved += s.balance.drained
		if len(s.mistakes) > 0 {
			t.Fatalf("seed %d:\n%s\n\n%s", seed, strings.Join(s.log, "\n"), strings.Join(s.mistakes, "\n"))
		}
	}
	t.Logf("%d copies were evicted, %d taken over from", evicted, relieved)
	if evicted < 120 {
		t.Error("too few: nothing is proved")
	}
}

// returned is a state whose whole budget is free again.
func returned(s *State) *State {
	next := *s
	next.loans = nil
	return &next
}

// TestTokenPaysOnce: what a reflex wants of the mesh names the loan that pays for
// it, and no token pays twice, for another host, or after its holder said that it is
// over.
func TestTokenPaysOnce(t *testing.T) {
	w := newWorld(t)
	w.enrol("h1", "h2")
	first := w.borrow("h1", 1).Loan
	drain := func(host string, loan uint64) *Rejected {
		return w.apply(Command{SetDrain: &SetDrain{Host: host, Drain: DrainDraining, Loan: loan}}).Err
	}
	if r := drain("h2", first); r == nil {
		t.Error("one host's token paid for another")
	}
	if r := drain("h1", first+1); r == nil {
		t.Error("a loan that is none paid")
	}
	if r := drain("h1", first); r != nil {
		t.Fatal(r)
	}
	if l := w.state.Loans(); len(l) != 1 || l[0].Used != 1 || l[0].Settled == 0 {
		t.Errorf("spent: %+v", l)
	}
	w.must(Command{SetDrain: &SetDrain{Host: "h1", Drain: DrainNone}})
	if r := drain("h1", first); r == nil {
		t.Error("one token paid twice")
	}
	w.must(Command{SettleLoan: &SettleLoan{ID: first, Host: "h1", Spent: 0}}) // not true, and too late
	if l := w.state.Loans(); len(l) != 1 || l[0].Tokens != 1 {
		t.Errorf("its holder took back what was spent: %+v", l)
	}
	second := w.borrow("h2", 1, first).Loan
	w.must(Command{SettleLoan: &SettleLoan{ID: second, Host: "h2", Spent: 1}})
	if r := drain("h2", second); r == nil {
		t.Error("a token paid after its holder had given it back")
	}
	var b bytes.Buffer
	if err := w.state.Write(&b); err != nil {
		t.Fatal(err)
	}
	if s, err := Read(&b); err != nil || !reflect.DeepEqual(s.Loans(), w.state.Loans()) {
		t.Errorf("read back: %+v, %v", s.Loans(), err)
	}
}

// TestEvictRefused: nothing is spent on what makes no sense.
func TestEvictRefused(t *testing.T) {
	w := newWorld(t)
	obs := Observations{Settled: true, Hosts: map[string]HostObs{}}
	for _, name := range []string{"h1", "h2"} {
		w.enrol(name)
		obs.Hosts[name] = HostObs{Alive: true, Reported: true, CPU: 4, Memory: 8 << 30, PortMin: 20000, PortMax: 20100}
	}
	w.put(app("web", 1), app("all", 0, func(a *intent.App) { a.Count, a.PerHost = nil, true }))
	converge(w, obs)
	here := w.state.PlacementsOf("web")[0]
	loan := w.borrow(here.Host, 1).Loan
	other, nine := "h1", 9
	if here.Host == other {
		other = "h2"
	}
	for _, c := range []Evict{
		{App: "none", Host: here.Host, Why: "x", Loan: loan},
		{App: "all", Host: here.Host, Why: "x", Loan: loan},
		{App: "web", Host: here.Host, Loan: loan},
		{App: "web", N: &nine, Host: here.Host, Why: "x", Loan: loan},
		{App: "web", Host: other, Why: "x", Loan: loan},
		{App: "web", Host: here.Host, Why: "x"},
	} {
		if r := w.apply(Command{Evict: &c}); r.Err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
	if l := w.state.Loans(); l[0].Used != 0 {
		t.Errorf("spent: %+v", l)
	}
	if why := Elsewhere(w.state, obs, here.Key()); why != "" {
		t.Errorf("no elsewhere: %s", why)
	}
	w.must(Command{SetDrain: &SetDrain{Host: other, Drain: DrainDraining}})
	if why := Elsewhere(w.state, obs, here.Key()); !strings.Contains(why, "emptied") && !strings.Contains(why, "drain") {
		t.Errorf("the other host is drained: %q", why)
	}
	w.must(Command{Evict: &Evict{App: "web", Host: here.Host, Why: "x", Loan: loan}})
	if r := w.apply(Command{Evict: &Evict{App: "web", Host: here.Host, Why: "x", Loan: loan}}); r.Err == nil {
		t.Error("evicted twice")
	}
	if as := w.state.Slice(here.Host).Assignments; len(as) != 2 || as[0].Placement.Evicted+as[1].Placement.Evicted != "" {
		t.Errorf("its host is told of what is the leader's: %+v", as)
	}
}

// TestChainOfRulesIsTold: what a leader does for acts of reflexes says which rules
// led to it, whatever it takes; what it does after that does not.
func TestChainOfRulesIsTold(t *testing.T) {
	for _, numbered := range []bool{false, true} {
		s := &sim{world: newWorld(t), rnd: rand.New(rand.NewPCG(1, 21)), hosts: map[string]*simHost{}, excused: map[string]bool{}}
		for i := range 3 {
			s.addHost(fmt.Sprintf("h%d", i+1), "a")
		}
		s.put(app("web", 2, func(a *intent.App) {
			if numbered {
				a.Run.Command = []string{"/bin/web", "-shard=${copy.n}"} // it stops before it begins elsewhere
			}
		}))
		s.settle(t, 60)
		told := func(chain string, do func()) {
			t.Helper()
			from, kinds := s.state.Revision()+1, map[string]int{}
			do()
			s.settle(t, 120)
			for _, f := range s.state.Untold(from) {
				if f.Copy == nil && f.Host == nil || f.Index < from {
					continue
				}
				kinds[fmt.Sprint(f.Copy != nil)]++
				if f.Chain != chain {
					t.Errorf("numbered %t: %+v %+v is told with the chain %q, want %q", numbered, f.Copy, f.Host, f.Chain, chain)
				}
			}
			if kinds["true"] == 0 {
				t.Errorf("numbered %t: no copy went elsewhere for %q", numbered, chain)
			}
		}
		host := s.state.PlacementsOf("web")[0].Host
		told("hot,flee", func() {
			loan := s.borrow(host, 1)
			r := s.apply(Command{Evict: &Evict{App: "web", Host: host, Why: "evicted by reflex flee", Loan: loan.Loan, Chain: "hot,flee"}})
			if r.Err != nil || loan.Err != nil {
				t.Fatal(r.Err, loan.Err)
			}
		})
		s.state = returned(s.state)
		host = s.state.PlacementsOf("web")[0].Host
		told("leave", func() { s.apply(Command{SetDrain: &SetDrain{Host: host, Drain: DrainDraining, Chain: "leave"}}) })
		s.apply(Command{SetDrain: &SetDrain{Host: host, Drain: DrainNone}})
		s.settle(t, 60)
		host = s.state.PlacementsOf("web")[0].Host
		told("", func() { s.apply(Command{SetDrain: &SetDrain{Host: host, Drain: DrainDraining}}) })
	}
	w := newWorld(t)
	long := strings.Repeat("a", maxReason+1)
	w.apply(Command{EnrolHost: &EnrolHost{Name: "h1", ID: "1"}})
	w.put(app("web", 1))
	for _, c := range []Command{{SetDrain: &SetDrain{Host: "h1", Drain: DrainDraining, Chain: long}}, {Evict: &Evict{App: "web", Host: "h1", Why: "x", Chain: long}}} {
		if r := w.apply(c); r.Err == nil || !strings.Contains(r.Err.Error(), "chain of rules") {
			t.Errorf("%+v: %v", c, r.Err)
		}
	}
}
