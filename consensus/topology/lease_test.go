package topology

import (
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

func singleton(name string, change ...func(*intent.App)) intent.App {
	a := intent.App{Name: name, Singleton: true, Run: intent.Run{Command: []string{"/bin/" + name}}}
	for _, f := range change {
		f(&a)
	}
	return a.WithDefaults()
}

// leased is a mesh of so many hosts in which the singleton db runs.
type leased struct {
	*world
	obs Observations
}

func newLeased(t *testing.T, hosts ...string) *leased {
	l := &leased{newWorld(t), Observations{Settled: true, Hosts: map[string]HostObs{}, Leases: map[string]LeaseObs{}}}
	l.enrol(hosts...)
	for _, h := range hosts {
		l.obs.Hosts[h] = HostObs{
			Alive: true, Reported: true, CPU: 4, Memory: 8 << 30, PortMin: 20000, PortMax: 29999, Boot: "boot-" + h, Slice: upToDate,
		}
	}
	l.put(singleton("db"))
	l.settle()
	return l
}

// settle decides until nothing is left to do; hosts do at once what they are
// told.
func (l *leased) settle() {
	l.t.Helper()
	for range 50 {
		d := Decide(l.state, l.obs)
		if len(d.Commands) == 0 {
			return
		}
		for _, c := range d.Commands {
			l.must(c)
		}
		well(l.state, l.obs)
		l.giveBack()
	}
	l.t.Fatal("does not settle")
}

// giveBack makes hosts that are alive give back the leases that they need no
// more.
func (l *leased) giveBack() {
	for _, lease := range l.state.Leases() {
		o := l.obs.Hosts[lease.Host]
		p, ok := l.state.Placement(CopyKey{lease.App, 0})
		ended := o.Alive && (!ok || p.Stopped || p.Host != lease.Host)
		l.obs.Leases[lease.App] = LeaseObs{Token: lease.Token, Renewed: lease.Renewed, Ended: ended}
	}
}

// age lets time pass without a renewal.
func (l *leased) age(d time.Duration) {
	lease := l.lease()
	l.obs.Leases["db"] = LeaseObs{Token: lease.Token, Renewed: lease.Renewed, Age: d}
}

func (l *leased) lease() Lease {
	l.t.Helper()
	lease, ok := l.state.Lease("db")
	if !ok {
		l.t.Fatal("db has no lease")
	}
	return lease
}

func (l *leased) host() string {
	l.t.Helper()
	p, ok := l.state.Placement(CopyKey{"db", 0})
	if !ok {
		l.t.Fatal("db is not placed")
	}
	return p.Host
}

func TestTimersKeepTheirRelations(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	for _, c := range []struct {
		t    Timers
		want string // of the error; empty: none
	}{
		{DefaultTimers(), ""},
		{Timers{s, 300 * ms, 2 * s}, ""},
		{Timers{10 * s, 5 * s, 17700 * ms}, "grace 17.7s is too short"}, // 17.723 s are needed
		{Timers{10 * s, 5 * s, 17723 * ms}, ""},
		{Timers{10 * s, 5 * s, 10 * s}, "two copies could run at once; want at least 17.7"},
		{Timers{499 * ms, s, 60 * s}, "want hold of at least"},
		{Timers{10 * s, 0, 60 * s}, "kill above 0"},
		{Timers{}, "want hold"},
		{Timers{10 * s, 5 * s, 2 * time.Hour}, "at most 1h"},
	} {
		err := c.t.Check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.t, err, c.want)
		}
		if f := c.t.Fence(); err == nil && (f <= 0 || f+2*c.t.Renew() >= c.t.Hold || f > 3*s) {
			t.Errorf("%+v: a fence of %s and one lost renewal do not fit into hold", c.t, f)
		}
	}
	if f := DefaultTimers().Fence(); f != 3*s {
		t.Errorf("fence is %s by default, want 3 s", f)
	}
}

func TestSingletonIsPlacedWithItsLease(t *testing.T) {
	l := newLeased(t, "a", "b", "c")
	lease, p := l.lease(), l.state.PlacementsOf("db")
	if len(p) != 1 || p[0].Host != lease.Host || lease.Token != p[0].Generation || lease.Renewed != lease.Token {
		t.Fatalf("placed %+v with the lease %+v", p, lease)
	}
	held := l.state.Slice(lease.Host).Leases
	if len(held) != 1 || held[0] != (HeldLease{"db", lease.Token, "boot-" + lease.Host, 10 * time.Second, 3 * time.Second}) {
		t.Errorf("its host is told %+v", held)
	}
	for _, h := range l.state.Hosts() {
		if h.Name != lease.Host && len(l.state.Slice(h.Name).Leases) > 0 {
			t.Errorf("host %s is told of the lease of %s", h.Name, lease.Host)
		}
	}
	st := Status(l.state, l.obs)[0]
	if st.Kind != "singleton" || st.Want != 1 || st.State != AppSteady || len(st.Copies) != 1 || st.Copies[0].Token != lease.Token {
		t.Errorf("status %+v", st)
	}
}

// The last guard of S4 is in Apply, whoever decided.
func TestPlaceRefusesASingletonWithoutItsLease(t *testing.T) {
	l := newLeased(t, "a", "b")
	lease := l.lease()
	other := map[string]string{"a": "b", "b": "a"}[lease.Host]
	version := l.app("db").Version
	there := Placement{App: "db", Host: other, Version: version}
	grant := Grant{App: "db", Host: other, Boot: "boot", Prev: lease.Token, Renewed: lease.Renewed, Timers: DefaultTimers()}
	bad := func(change func(*Grant)) Grant {
		g := grant
		change(&g)
		return g
	}
	for what, c := range map[string]struct {
		kind RejectKind
		p    Place
	}{
		"elsewhere":         {RejectConflict, Place{Put: []Placement{there}}},
		"a second copy":     {RejectConflict, Place{Put: []Placement{{App: "db", N: 1, Host: lease.Host, Version: version}}}},
		"unknown token":     {RejectConflict, Place{Put: []Placement{there}, Grant: []Grant{bad(func(g *Grant) { g.Prev = 0 })}}},
		"renewed since":     {RejectConflict, Place{Put: []Placement{there}, Grant: []Grant{bad(func(g *Grant) { g.Renewed-- })}}},
		"no copy with it":   {RejectInvalid, Place{Grant: []Grant{grant}}},
		"unknown host":      {RejectUnknown, Place{Put: []Placement{there}, Grant: []Grant{bad(func(g *Grant) { g.Host = "z" })}}},
		"no boot":           {RejectInvalid, Place{Put: []Placement{there}, Grant: []Grant{bad(func(g *Grant) { g.Boot = "" })}}},
		"too short a grace": {RejectInvalid, Place{Put: []Placement{there}, Grant: []Grant{bad(func(g *Grant) { g.Timers.Grace = g.Timers.Hold })}}},
	} {
		if r := l.apply(Command{Place: &c.p}); r.Err == nil || r.Err.Kind != c.kind {
			t.Errorf("%s: %v, want a rejection of kind %s", what, r.Err, c.kind)
		}
	}
	if l.lease() != lease || l.host() != lease.Host {
		t.Error("a rejected grant changed something")
	}
	l.must(Command{Place: &Place{Put: []Placement{there}, Grant: []Grant{grant}}})
	if now := l.lease(); now.Token <= lease.Token || now.Host != other {
		t.Errorf("after the grant: %+v", now)
	}
	l.must(Command{RenewLeases: &RenewLeases{Leases: []LeaseRef{{"db", lease.Token}}}})
	if now := l.lease(); now.Renewed != now.Token {
		t.Error("the old token was renewed")
	}
}

func TestRenewalsMoveNothingElse(t *testing.T) {
	l := newLeased(t, "a", "b")
	before, slice := l.state.Revision(), l.state.Slice(l.host())
	l.must(Command{RenewLeases: &RenewLeases{Leases: []LeaseRef{{"db", l.lease().Token}, {"nosuch", 7}}}})
	if lease := l.lease(); lease.Renewed != l.index {
		t.Errorf("renewed at %d, want %d", lease.Renewed, l.index)
	}
	if now := l.state.Slice(l.host()); l.state.Revision() != before || now.Index != slice.Index {
		t.Errorf("revision %d → %d, slice %d → %d", before, l.state.Revision(), slice.Index, now.Index)
	}
	back, err := Read(strings.NewReader(string(snapshot(t, l.state))))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := back.Lease("db"); got != l.lease() {
		t.Errorf("the snapshot has %+v, want %+v", got, l.lease())
	}
	// A lease that was seen to lapse and was renewed meanwhile is not granted.
	l.age(time.Hour)
	l.apply(Command{RenewLeases: &RenewLeases{Leases: []LeaseRef{{"db", l.lease().Token}}}})
	d := Decide(l.state, l.obs)
	if len(d.Commands) > 0 {
		t.Errorf("decided on an old age: %+v", d.Commands)
	}
}

func TestLostSingletonWaitsForItsLease(t *testing.T) {
	l := newLeased(t, "a", "b", "c", "d")
	first := l.lease()
	lose(l.obs, time.Minute, first.Host)
	l.age(7 * time.Second)
	d := Decide(l.state, l.obs)
	if len(d.Commands) > 0 || d.Wake != 13*time.Second || len(d.Unplaced) != 1 {
		t.Fatalf("before the lease is over: %+v", d)
	}
	want := "host " + first.Host + " is lost; waiting for the lease of " + first.Host + " to end"
	if d.Unplaced[0].Reason != want {
		t.Errorf("it says %q", d.Unplaced[0].Reason)
	}
	if c := Status(l.state, l.obs)[0].Copies[0]; c.Why != want+" (in 13 s at most)" || c.State != CopyLost {
		t.Errorf("status: %+v", c)
	}
	l.age(20*time.Second - 1)
	if d := Decide(l.state, l.obs); len(d.Commands) > 0 {
		t.Errorf("a nanosecond early: %+v", d)
	}
	l.age(20 * time.Second)
	l.settle()
	if now := l.lease(); now.Host == first.Host || now.Token <= first.Token || l.host() != now.Host {
		t.Errorf("after it: %+v, was %+v", now, first)
	}
}

// The gate holds singletons as it does all else (S9).
func TestGateHoldsSingletons(t *testing.T) {
	l := newLeased(t, "a", "b", "c", "d")
	lose(l.obs, time.Minute, "a", "b", "c", "d")
	l.age(time.Hour)
	if d := Decide(l.state, l.obs); len(d.Commands) > 0 || !d.GateShut || d.Held == "" {
		t.Errorf("with all hosts lost: %+v", d)
	}
}

// A lease that nobody renewed goes elsewhere, even if gossip and reports say
// that its host is well; but it stays where there is no elsewhere.
func TestLapsedLease(t *testing.T) {
	l := newLeased(t, "a", "b")
	first := l.lease()
	l.age(20 * time.Second)
	l.settle()
	if now := l.lease(); now.Host == first.Host {
		t.Errorf("it went back to who let it lapse")
	}
	one := newLeased(t, "a")
	one.age(20 * time.Second)
	one.settle()
	if now := one.lease(); now.Host != "a" || now.Token == 0 || now.Token == now.Renewed-1 {
		t.Errorf("one host: %+v", now)
	}
}

func TestSingletonIsStoppedBeforeItMoves(t *testing.T) {
	l := newLeased(t, "a", "b", "c")
	first := l.lease()
	l.must(Command{SetDrain: &SetDrain{Host: first.Host, Drain: DrainDraining}})
	d := Decide(l.state, l.obs)
	if len(d.Commands) != 1 || d.Commands[0].Place == nil || d.Commands[0].Place.Put[0].Leaving == "" || len(d.Commands[0].Place.Grant) > 0 {
		t.Fatalf("drain begins with %+v", d)
	}
	l.must(d.Commands[0])
	l.giveBack()
	delete(l.obs.Leases, "db") // its host has not said yet that the copy has ended
	if d := Decide(l.state, l.obs); len(d.Commands) > 0 {
		t.Fatalf("while it stops: %+v", d)
	}
	l.giveBack()
	l.settle()
	if now := l.lease(); now.Host == first.Host || now.Token <= first.Token || now.Host != l.host() {
		t.Errorf("after it: %+v", now)
	}
	if h, _ := l.state.Host(first.Host); h.Drain != DrainDrained {
		t.Errorf("host %s is %s", first.Host, h.Drain)
	}
}

func TestChangeOfVersionKeepsTheLease(t *testing.T) {
	l := newLeased(t, "a", "b", "c")
	first := l.lease()
	l.put(singleton("db", func(a *intent.App) { a.Run.Command = []string{"/bin/db2"} }))
	l.settle()
	p := l.state.PlacementsOf("db")[0]
	if l.lease() != first || p.Host != first.Host || p.Version != l.app("db").Version || p.Generation <= first.Token {
		t.Errorf("placed %+v under %+v, first %+v", p, l.lease(), first)
	}
	l.must(Command{RestartApp: &RestartApp{App: "db"}})
	l.settle()
	if l.lease() != first {
		t.Errorf("a restart changed the lease: %+v", l.lease())
	}
}

func TestStoppedSingletonGivesItsLeaseBack(t *testing.T) {
	l := newLeased(t, "a", "b", "c")
	first := l.lease()
	l.must(Command{SetRunning: &SetRunning{App: "db", Stopped: true}})
	l.giveBack()
	l.settle()
	if now := l.lease(); !now.Over {
		t.Fatalf("stopped: %+v", now)
	}
	if held := l.state.Slice(first.Host).Leases; len(held) > 0 {
		t.Errorf("its host is told %+v", held)
	}
	l.must(Command{SetRunning: &SetRunning{App: "db"}})
	l.settle()
	if now := l.lease(); now.Over || now.Token <= first.Token || now.Host != l.host() {
		t.Errorf("started again: %+v", now)
	}
}

// Also after delete and a new declaration no second copy may run.
func TestDeletedSingletonKeepsItsLeaseUntilItHasEnded(t *testing.T) {
	l := newLeased(t, "a", "b", "c")
	first := l.lease()
	lose(l.obs, time.Minute, first.Host)
	l.must(Command{DeleteApp: &DeleteApp{Name: "db"}})
	l.put(singleton("db"))
	l.age(5 * time.Second)
	d := Decide(l.state, l.obs)
	if len(d.Commands) > 0 || len(d.Unplaced) != 1 || d.Unplaced[0].Reason != "waiting for the lease of "+first.Host+" to end" {
		t.Fatalf("declared anew: %+v", d)
	}
	st := Status(l.state, l.obs)[0]
	if len(st.Copies) != 1 || !strings.HasSuffix(st.Copies[0].Why, "(in 15 s at most)") {
		t.Errorf("status: %+v", st)
	}
	l.age(20 * time.Second)
	l.settle()
	if now := l.lease(); now.Token <= first.Token || now.Host == first.Host {
		t.Errorf("after it: %+v", now)
	}
	l.must(Command{DeleteApp: &DeleteApp{Name: "db"}})
	l.giveBack()
	l.settle()
	if left := l.state.Leases(); len(left) > 0 {
		t.Errorf("leases of deleted apps stay: %+v", left)
	}
}

// A host that was rebooted has nothing of what it ran, and says so.
func TestRebootedHolderGetsANewLease(t *testing.T) {
	l := newLeased(t, "a", "b", "c")
	first := l.lease()
	o := l.obs.Hosts[first.Host]
	o.Boot = "another"
	l.obs.Hosts[first.Host] = o
	if d := Decide(l.state, l.obs); len(d.Commands) > 0 || len(d.Unplaced) != 1 {
		t.Fatalf("before it says so: %+v", d)
	}
	l.obs.Leases["db"] = LeaseObs{Token: first.Token, Ended: true}
	d := Decide(l.state, l.obs)
	for _, c := range d.Commands {
		l.apply(c)
	}
	if now := l.lease(); now.Host != first.Host || now.Boot != "another" || now.Token <= first.Token {
		t.Errorf("after it: %+v", now)
	}
}

// What ran before the app was a singleton runs under no lease: it has to end
// first, on every host, by reports made in knowledge of the change.
func TestReplicatedAppBecomesASingleton(t *testing.T) {
	l := newLeased(t, "a", "b", "c")
	l.put(app("web", 3))
	l.settle()
	web := func() []Placement { return l.state.PlacementsOf("web") }
	l.put(singleton("web", func(a *intent.App) { a.Run.Command = []string{"/bin/web"} }))
	for range 5 { // hosts run on what they ran
		d := Decide(l.state, l.obs)
		for _, c := range d.Commands {
			if c.Place != nil && len(c.Place.Grant) > 0 {
				t.Fatalf("granted while copies run without a lease: %+v", c.Place)
			}
			l.must(c)
		}
	}
	if len(web()) != 1 {
		t.Fatalf("placements left: %+v", web())
	}
	for name, o := range l.obs.Hosts { // all have stopped, but one report is old
		for key, c := range o.Copies {
			if key.App == "web" {
				c.State, c.Ready = CopyStopped, false
				o.Copies[key] = c
			}
		}
		if name == web()[0].Host {
			o.Slice = 1
		}
		l.obs.Hosts[name] = o
	}
	if d := Decide(l.state, l.obs); len(acts(d)) > 0 {
		t.Fatalf("granted by an old report: %+v", d.Commands)
	}
	o := l.obs.Hosts[web()[0].Host]
	o.Slice = upToDate
	l.obs.Hosts[web()[0].Host] = o
	l.settle()
	if lease, _ := l.state.Lease("web"); lease.Token == 0 || lease.Host != web()[0].Host {
		t.Errorf("lease %+v, placed %+v", lease, web())
	}
}

func TestPlanTellsTheWindowOfSingletons(t *testing.T) {
	l := newLeased(t, "a", "b", "c", "d")
	put := &PutIntents{Intents: intent.Intents{Apps: []intent.App{singleton("one", func(a *intent.App) { a.Stop.Grace = intent.Duration(time.Second) })}}}
	l.obs.Timers = Timers{20 * time.Second, 5 * time.Second, 40 * time.Second}
	pre := Plan(l.state, l.obs, WhatIf{Put: put, Lose: []string{l.host()}})
	if pre.Err != nil || len(pre.Moves) != 1 || len(pre.Unplaced) > 0 {
		t.Errorf("losing the host: %+v", pre)
	}
	want := []Failover{{"db", 22000, 5000, 10000, 3000}, {"one", 42000, 5000, 20000, 1000}}
	if len(pre.Singletons) != 2 || pre.Singletons[0] != want[0] || pre.Singletons[1] != want[1] {
		t.Errorf("windows %+v, want %+v", pre.Singletons, want)
	}
}
