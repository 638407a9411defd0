package topology

import (
	"bytes"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

const vip = "10.0.0.10"

// claiming is a mesh whose hosts may take an address over.
func claiming(t *testing.T, hosts ...string) *leased {
	l := newLeased(t, hosts...)
	l.must(Command{PutIntents: &PutIntents{Intents: intent.Intents{Reflexes: []intent.Reflex{{
		Name: "vip", When: "host.cpu.count > 1", Act: []intent.Action{{Op: "claim", Target: vip + "/24"}}, Cooldown: intent.Second, Limit: "5/10m",
	}}}}})
	return l
}

// want says which addresses a host would have.
func (l *leased) want(host string, addresses ...string) {
	o := l.obs.Hosts[host]
	o.Wants = addresses
	l.obs.Hosts[host] = o
}

func (l *leased) decide() {
	l.t.Helper()
	for _, c := range Decide(l.state, l.obs).Commands {
		l.must(c)
	}
}

// has is who has the address, and under which token.
func (l *leased) has() (string, uint64) {
	lease, ok := l.state.Lease(vip)
	if !ok || lease.Over {
		return "", 0
	}
	return lease.Host, lease.Token
}

func TestAddressGoesToOneHostThatWantsIt(t *testing.T) {
	l := claiming(t, "h1", "h2", "h3")
	l.decide()
	if h, _ := l.has(); h != "" {
		t.Fatalf("%s has what nobody wants", h)
	}
	l.want("h2", vip, "10.9.9.9") // the other is in no rule
	l.want("h3", vip)
	l.decide()
	host, first := l.has()
	if host != "h2" || len(l.state.HeldAddresses()) != 1 {
		t.Fatalf("%s has it, all: %+v", host, l.state.HeldAddresses())
	}
	if got := l.state.Slice("h2").Leases; len(got) == 0 || got[0].App != vip || got[0].Token != first {
		t.Errorf("slice of h2: %+v", got)
	}
	for range 3 {
		l.decide()
	}
	if h, token := l.has(); h != "h2" || token != first {
		t.Fatalf("granted again: %s under %d after %d", h, token, first)
	}
}

// know says what the leader knows of the lease of the address.
func (l *leased) know(age time.Duration, ended bool) {
	lease, _ := l.state.Lease(vip)
	l.obs.Leases[vip] = LeaseObs{Token: lease.Token, Renewed: lease.Renewed, Age: age, Ended: ended}
}

func TestAddressMovesOnlyWhenItsLeaseIsOver(t *testing.T) {
	l := claiming(t, "h1", "h2", "h3")
	l.want("h1", vip)
	l.want("h2", vip)
	l.decide()
	_, first := l.has()
	grace := DefaultTimers().Grace
	l.know(grace-1, false)
	l.decide()
	if h, token := l.has(); h != "h1" || token != first {
		t.Fatalf("%s has it under %d before the lease is over", h, token)
	}
	l.must(Command{RenewLeases: &RenewLeases{Leases: []LeaseRef{{vip, first}}}})
	l.obs.Leases[vip] = LeaseObs{Token: first, Renewed: first, Age: grace} // of the time before it was renewed
	l.decide()
	if _, token := l.has(); token != first {
		t.Fatal("a renewal that the leader has not looked at does not count")
	}

	gone := l.obs.Hosts["h1"]
	gone.Alive, gone.Wants = false, nil
	l.obs.Hosts["h1"] = gone
	l.know(grace, false)
	shut := l.obs
	shut.GateShut, shut.CalmFor = true, 0
	for what, obs := range map[string]Observations{"shut gate": shut, "freeze": frozen(l.obs)} {
		for _, c := range Decide(l.state, obs).Commands {
			if c.GrantAddress != nil {
				t.Errorf("%s: granted to %s", what, c.GrantAddress.Host)
			}
		}
	}
	l.decide()
	second, token := l.has()
	if second != "h2" || token <= first {
		t.Fatalf("%s has it under %d after %d", second, token, first)
	}
	if len(l.state.Slice("h1").Leases) > 0 && l.state.Slice("h1").Leases[0].App == vip {
		t.Error("h1 is still told that it has it")
	}

	l.want("h2")
	l.want("h3", vip)
	l.know(0, true) // given back
	l.decide()
	if h, _ := l.has(); h != "h3" {
		t.Errorf("%s has what h2 has given back", h)
	}
	l.want("h3")
	l.know(0, true)
	l.decide()
	if _, ok := l.state.Lease(vip); ok {
		t.Error("a lease that is over is remembered")
	}
}

func frozen(obs Observations) Observations {
	obs.Freeze.All = true
	return obs
}

func TestAddressLeavesAHostThatIsEmptied(t *testing.T) {
	l := claiming(t, "h1", "h2")
	from, to := "h1", "h2"
	if l.host() == from { // which db need not leave for it
		from, to = to, from
	}
	l.want(from, vip)
	l.decide()
	l.must(Command{SetDrain: &SetDrain{Host: from, Drain: DrainDraining}})
	l.want(to, vip)
	l.settleAll()
	if h, _ := l.state.Host(from); h.Drain != DrainDraining {
		t.Fatalf("%s is %s while it has an address", from, h.Drain)
	}
	l.know(0, true)
	l.settleAll()
	if h, _ := l.has(); h != to {
		t.Errorf("%s has it", h)
	}
	if h, _ := l.state.Host(from); h.Drain != DrainDrained {
		t.Errorf("%s is %s without it", from, h.Drain)
	}
	if p := Plan(l.state, l.obs, WhatIf{Lose: []string{to}}); p.Err != nil {
		t.Errorf("a plan with an address: %v", p.Err)
	}
}

// settleAll decides until nothing is left to do; no lease is given back by that.
func (l *leased) settleAll() {
	l.t.Helper()
	for range 20 {
		d := Decide(l.state, l.obs)
		if len(d.Commands) == 0 {
			return
		}
		for _, c := range d.Commands {
			l.must(c)
		}
	}
	l.t.Fatal("does not settle")
}

// The last guard: whoever decided, a grant that another has come before is refused.
func TestGrantsOfAddressesAreCompared(t *testing.T) {
	l := claiming(t, "h1", "h2")
	good := Grant{App: vip, Host: "h1", Boot: "boot-h1", Timers: DefaultTimers()}
	change := func(f func(*Grant)) Command {
		g := good
		f(&g)
		return Command{GrantAddress: &g}
	}
	for what, c := range map[string]Command{
		"an app":          change(func(g *Grant) { g.App = "db" }),
		"not as printed":  change(func(g *Grant) { g.App = "2001:DB8::1" }),
		"a network":       change(func(g *Grant) { g.App = "10.0.0.0/24" }),
		"no host":         change(func(g *Grant) { g.Host = "h9" }),
		"no boot":         change(func(g *Grant) { g.Boot = "" }),
		"hasty timers":    change(func(g *Grant) { g.Timers.Grace = g.Timers.Hold }),
		"another's token": change(func(g *Grant) { g.Prev = 1 }),
	} {
		if _, r := l.state.Apply(l.index+1, c); r.Err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	l.must(Command{GrantAddress: &good})
	if _, r := l.state.Apply(l.index+1, change(func(g *Grant) { g.Host, g.Boot = "h2", "boot-h2" })); r.Err == nil || r.Err.Kind != RejectConflict {
		t.Errorf("a second grant: %v", r.Err)
	}
	back, err := Read(bytes.NewReader(snapshot(t, l.state)))
	if err != nil || len(back.HeldAddresses()) != 1 || back.HeldAddresses()[0] != l.state.HeldAddresses()[0] {
		t.Errorf("after a snapshot: %v, %v", back.HeldAddresses(), err)
	}
}
