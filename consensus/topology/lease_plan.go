package topology

import (
	"slices"
	"time"
)

// lease is what a decision knows of a singleton's lease.
type lease struct {
	Lease
	had    bool          // there is, or was, one
	live   bool          // its holder may run the copy: nobody else may
	lapsed bool          // it is over because nobody renewed it, not by its holder's word
	left   time.Duration // until it lapses, while it is live
}

// lease looks at an app's lease.
func (p *planner) lease(app string) lease {
	stored, ok := p.state.leases.Get([]byte(app))
	if !ok {
		return lease{}
	}
	l := lease{Lease: *stored, had: true}
	o := p.obs.Leases[app]
	switch {
	case l.Over || o.Token == l.Token && o.Ended:
	case o.Token == l.Token && o.Renewed == l.Renewed && o.Age >= l.Timers.Grace:
		l.lapsed = true
	default:
		l.live, l.left = true, l.Timers.Grace
		if o.Token == l.Token && o.Renewed == l.Renewed {
			l.left -= o.Age
		}
	}
	return l
}

// holds reports whether a room has the live lease of a singleton.
func (a *appPlan) holds(r *room) bool {
	return a.lease.live && a.lease.Host == r.Name && a.lease.HostID == r.ID && (r.obs.Boot == "" || a.lease.Boot == r.obs.Boot)
}

// mayHave reports whether a room may have the copy as far as leases go. To plan
// a move the copy's present lease does not count: it is given back first.
func (n *need) mayHave(r *room) bool {
	a := n.app
	if !a.Spec.Singleton {
		return true
	}
	return r.obs.Boot != "" && (n.moving || !a.lease.live || a.holds(r))
}

// leaseRefuses says why mayHave refuses a room.
func (n *need) leaseRefuses(r *room) string {
	if r.obs.Boot == "" {
		return "unable to hold a lease"
	}
	return "waiting for the lease of " + n.app.lease.Host + " to end"
}

// tendLease sees to a singleton's copy that has no lease to run under: its host
// was lost, has given the lease back, or never had one.
func (p *planner) tendLease(a *appPlan) {
	if a.Stopped {
		return
	}
	for _, c := range slices.Clone(a.copies) {
		if c.touched || a.idle(c) || p.full() {
			continue
		}
		switch why := p.awaits(a, c); {
		case why == "":
			p.relet(a, c)
		case why != healthy:
			p.unplaced(c.Key(), why)
		}
	}
}

// healthy is what awaits says of a copy that lacks nothing.
const healthy = "healthy"

// awaits tells what has to happen before a copy can get a new lease; empty if
// nothing, healthy if it needs none.
func (p *planner) awaits(a *appPlan, c *copyPlan) string {
	l := &a.lease
	switch {
	case l.live:
		p.wake(l.left)
		if a.holds(c.room) && c.room.fresh && c.Leaving == "" {
			return healthy
		}
		why := p.waiting(a)
		if !c.room.obs.Alive {
			why = "host " + c.Host + " is lost; " + why
		}
		return why
	case l.lapsed && a.frozen && !c.room.obs.Alive:
		p.holdFrozen(c.room)
		return healthy // the freeze says why
	case l.lapsed && (p.out.GateShut || p.wary):
		p.holdGate(c.room)
		return healthy // the gate says why
	case !l.had && !(c.room.fresh && c.room.current && c.gone()):
		return "waiting for " + c.Host + " to stop what it runs without a lease"
	case !l.had:
		return p.strayOf(a)
	}
	return ""
}

// waiting says whose lease has to end first.
func (p *planner) waiting(a *appPlan) string {
	return "waiting for the lease of " + a.lease.Host + " to end"
}

// strayOf names a host that still runs the app without a lease, as it may if the
// app was not always a singleton.
func (p *planner) strayOf(a *appPlan) string {
	for _, r := range p.rooms {
		for key, o := range r.obs.Copies {
			if _, placed := findPlaced(a, key.N, r); key.App == a.Spec.Name && !placed && !over(o) {
				return "waiting for " + r.Name + " to stop what it runs without a lease"
			}
		}
	}
	for m := range prefixed(p.state.remnants, a.Spec.Name) {
		if p.byName[m.Host].remains(m) {
			return "waiting for " + m.Host + " to stop what it may run without a lease"
		}
	}
	return ""
}

func findPlaced(a *appPlan, n int, r *room) (*copyPlan, bool) {
	i := slices.IndexFunc(a.copies, func(c *copyPlan) bool { return c.N == n && c.room == r })
	if i < 0 {
		return nil, false
	}
	return a.copies[i], true
}

// relet gives a copy whose lease is over a new one, on the host that is best for
// it now.
func (p *planner) relet(a *appPlan, c *copyPlan) {
	n := a.need(c.Key(), c.Version, c.Ports)
	c.room.free(a, c.Placement)
	target := p.choose(n)
	c.room.take(a, c.Placement)
	if target == nil {
		p.unplaced(c.Key(), p.refusal(n))
		return
	}
	p.put(a, c, n.placeOn(target, c.Version), p.whyLeft(a, c))
}

// whyLeft says why a copy goes to another host.
func (p *planner) whyLeft(a *appPlan, c *copyPlan) string {
	switch {
	case c.Leaving != "":
		return c.Leaving
	case a.lease.lapsed:
		return "host " + c.Host + " is lost; its lease is over"
	}
	return "host " + c.Host + " gave its lease back"
}

// awaitsFirst tells what has to happen before a singleton that has no place gets
// one; empty if nothing.
func (p *planner) awaitsFirst(a *appPlan) string {
	switch l := &a.lease; {
	case l.live:
		p.wake(l.left)
		return p.waiting(a)
	case l.lapsed && (p.out.GateShut || p.wary):
		if r := p.byName[l.Host]; r != nil {
			p.holdGate(r)
		}
		return "the lease of " + l.Host + " is over, but too many hosts look unhealthy to move what they ran"
	case !l.had:
		return p.strayOf(a)
	}
	return ""
}

// grantFor returns the grant that has to come with a placement of a singleton;
// nil if its host has the lease, or keeps the copy stopped.
func (p *planner) grantFor(a *appPlan, next Placement) *Grant {
	r := p.byName[next.Host]
	if !a.Spec.Singleton || next.Stopped || a.holds(r) {
		return nil
	}
	l := &a.lease
	g := &Grant{App: next.App, Host: next.Host, Boot: r.obs.Boot, Prev: l.Token, Renewed: l.Renewed, Timers: p.obs.Timers.orDefault()}
	// What this decision goes on to do is done under the new lease.
	*l = lease{Lease: Lease{App: next.App, Host: r.Name, HostID: r.ID, Boot: r.obs.Boot, Timers: g.Timers}, had: true, live: true, left: g.Timers.Grace}
	p.granted[next.App] = true
	return g
}

// endLeases records the leases that their holders have given back, and forgets
// those that nobody will want again.
func (p *planner) endLeases() {
	for stored := range values(p.state.leases) {
		if p.granted[stored.App] {
			continue
		}
		app, ok := p.state.apps.Get([]byte(stored.App))
		wanted := ok && app.Spec.Singleton
		l := p.lease(stored.App)
		switch {
		case l.live:
			if !wanted {
				p.wake(l.left)
			}
		case l.lapsed && wanted, l.Over && wanted:
			// It may yet be renewed, or is what the next grant is compared with.
		case l.lapsed:
			p.ends = append(p.ends, EndLease{App: l.App, Token: l.Token, Renewed: l.Renewed})
		default:
			p.ends = append(p.ends, EndLease{App: l.App, Token: l.Token})
		}
	}
}
