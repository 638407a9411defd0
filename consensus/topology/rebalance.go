package topology

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

const (
	// steadyFor is how long a leader must have found every host well before it
	// moves a copy for the sake of balance alone.
	steadyFor = 10 * time.Second
	// lopsided is by how much of a host the fullness of two must differ for a copy
	// to move on that account.
	lopsided = 0.2
	// alike is less than any difference of preferences: sums of shares are not exact.
	alike = 1e-9
)

// betterBy says what a move improves, the least first. What ranks higher is
// never made worse for what ranks lower, so that moves come to rest.
type betterBy int

const (
	notBetter  betterBy = iota
	byCount             // copies of all apps on the hosts
	byFullness          // CPU and memory asked for on the hosts
	byHost              // copies of the app on the hosts
	bySpread            // copies of the app under the values of its spread label
)

// shift is a move that could be made for the sake of balance.
type shift struct {
	app   *appPlan
	copy  *copyPlan
	need  *need
	to    *room
	rank  betterBy
	by    float64 // the larger the better, within a rank
	ahead float64 // by how much the host is fuller than the other: decides between equals
}

// balance begins at most one move for the sake of an even spread alone, if that
// is asked for: where nothing else is to be done, every host has been well for a
// while, no other such move is under way, and the budget allows it.
func (p *planner) balance() {
	set := p.state.rebalance
	if set.Moves == 0 || p.obs.Freeze.All || len(p.ops)+len(p.rolls)+len(p.runs)+len(p.ends) > 0 {
		return
	}
	if p.out.Balance = p.balancing(); p.out.Balance != "" {
		return
	}
	s := p.bestShift()
	if s == nil {
		return
	}
	if p.out.Balance = p.unsteady(); p.out.Balance != "" {
		return
	}
	left, next := p.budget(set)
	if left <= 0 {
		p.out.Balance = fmt.Sprintf("%s should move off %s, but the budget of %s is spent", s.copy.Key(), s.copy.Host, set)
		p.wake(next)
		return
	}
	why := s.why()
	p.out.Balance = fmt.Sprintf("%s moves off %s: %s", s.copy.Key(), s.copy.Host, why)
	p.relieve(s.app, s.need, s.to, Relief{N: s.copy.N, From: s.copy.Host, Why: "moved to balance: " + why, Balance: true})
}

// balancing says which move is under way, or "".
func (p *planner) balancing() string {
	for _, a := range p.apps {
		for _, c := range a.reliefs {
			if c.Relief.Balance {
				return fmt.Sprintf("%s is to take over on %s from %s/%d on %s", c.Key(), c.Host, c.App, c.Relief.N, c.Relief.From)
			}
		}
	}
	return ""
}

// unsteady says what to wait for before copies that are well may be moved, or "".
// A host that is dead for good, or empty by a user's wish, is no reason.
func (p *planner) unsteady() string {
	if p.out.GateShut || p.wary || p.out.Held != "" {
		return "waits until it is known which hosts are well"
	}
	for _, r := range p.rooms {
		switch {
		case r.Drain == DrainDraining && r.movers > 0:
			return "waits until host " + r.Name + " is emptied"
		case r.Drain == DrainDrained, !r.obs.Alive && max(r.obs.DownFor, r.obs.ReportAge) >= calmBefore:
		case !r.obs.Alive, r.obs.Suspect, !r.fresh, r.obs.ReportAge >= reportLate:
			return "waits until host " + r.Name + " is well"
		case r.obs.WellFor < steadyFor:
			p.wake(steadyFor - r.obs.WellFor)
			return fmt.Sprintf("waits until host %s has been well for %s", r.Name, steadyFor)
		}
	}
	return ""
}

// budget is how many moves are left now, and after how long there is one more.
// It notes which have come back.
func (p *planner) budget(set Rebalance) (left int, next time.Duration) {
	left, p.returned = set.Moves, nil
	for _, index := range p.state.moved {
		if age := p.obs.Moved[index]; age >= set.Window.Std() {
			p.returned = append(p.returned, index)
		} else if left--; next == 0 || set.Window.Std()-age < next {
			next = set.Window.Std() - age
		}
	}
	return left, next
}

// bestShift is the move that improves most, or nil.
func (p *planner) bestShift() *shift {
	var best *shift
	uneven := p.uneven()
	for _, a := range p.apps {
		if !p.movable(a) || !uneven && !a.uneven() {
			continue
		}
		n, ok := p.reliefNeed(a)
		if !ok {
			continue
		}
		for _, to := range p.rooms {
			if !to.accepts(n) {
				continue
			}
			for _, c := range a.copies {
				if s := a.shift(c, n, to, uneven); s != nil && s.better(best) {
					best = s
				}
			}
		}
	}
	return best
}

// movable reports whether the app's copies may be moved without a need to: all
// are well, nothing changes about them, and they are not bound to their hosts.
func (p *planner) movable(a *appPlan) bool {
	return !a.frozen && a.calm() && a.replace && len(a.unfit()) < maxTried && len(a.reliefs) == 0 &&
		!slices.ContainsFunc(a.copies, func(c *copyPlan) bool { return !c.settled || c.Leaving != "" })
}

func (p *planner) reliefNeed(a *appPlan) (*need, bool) {
	number, ok := p.reliefNumber(a)
	if !ok {
		return nil, false
	}
	n := a.need(CopyKey{a.Spec.Name, number}, a.Version, nil)
	n.tried = a.shunned()
	return n, true
}

// uneven reports whether hosts differ so much in what they have of all apps that
// a move could help. While copies are on their way that says nothing.
func (p *planner) uneven() bool {
	for _, a := range p.apps {
		if len(a.extras) > 0 || slices.ContainsFunc(a.copies, func(c *copyPlan) bool { return c.Leaving != "" }) {
			return false
		}
	}
	up := slices.DeleteFunc(slices.Clone(p.rooms), func(r *room) bool { return !r.fresh || r.Drain != DrainNone })
	if len(up) < 2 {
		return false
	}
	byMovers := func(x, y *room) int { return cmp.Compare(x.movers, y.movers) }
	byFullness := func(x, y *room) int { return cmp.Compare(x.fullness(), y.fullness()) }
	return slices.MaxFunc(up, byMovers).movers-slices.MinFunc(up, byMovers).movers >= 2 ||
		slices.MaxFunc(up, byFullness).fullness()-slices.MinFunc(up, byFullness).fullness() >= lopsided
}

// uneven reports whether a move could help the app's own spread.
func (a *appPlan) uneven() bool {
	if a.Spec.Place.Spread != "" || len(a.Spec.Place.Prefer) > 0 {
		return true
	}
	return slices.ContainsFunc(a.copies, func(c *copyPlan) bool { return c.room.perApp[a.Spec.Name] > 1 })
}

// shift is the move of a copy to a room that accepts it, if that improves
// anything.
func (a *appPlan) shift(c *copyPlan, n *need, to *room, across bool) *shift {
	if c.room == to {
		return nil
	}
	s := &shift{app: a, copy: c, need: n, to: to, ahead: c.room.load() - to.load()}
	s.rank, s.by = a.gain(c.room, to, across)
	if s.rank == notBetter {
		return nil
	}
	return s
}

// better reports whether s improves more than o. Between equals the copy goes that
// has been where it is for longest, so that hardly any is moved twice.
func (s *shift) better(o *shift) bool {
	switch {
	case o == nil || s.rank != o.rank:
		return o == nil || s.rank > o.rank
	case s.by != o.by:
		return s.by > o.by
	case s.ahead != o.ahead:
		return s.ahead > o.ahead
	}
	return s.copy.Generation < o.copy.Generation
}

// gain tells what the move of a copy improves, in the order in which hosts are
// chosen, and by how much. It improves by one copy at least, and takes of what
// ranks higher nothing: so no move is ever taken back.
func (a *appPlan) gain(from, to *room, across bool) (betterBy, float64) {
	if label := a.Spec.Place.Spread; label != "" && from.obs.Labels[label] != to.obs.Labels[label] {
		more := a.spread()[from.obs.Labels[label]] - a.spread()[to.obs.Labels[label]]
		switch {
		case more >= 2:
			return bySpread, float64(more)
		case more < 1:
			return notBetter, 0
		}
	}
	name := a.Spec.Name
	more := float64(from.perApp[name]-1-to.perApp[name]) - a.fit(from).prefer + a.fit(to).prefer
	switch {
	case more >= 1-alike:
		return byHost, more
	case more < -alike || !across:
		return notBetter, 0
	}
	return a.gainAcross(from, to)
}

// gainAcross is gain as far as other apps are concerned.
func (a *appPlan) gainAcross(from, to *room) (betterBy, float64) {
	res := a.Versions[a.Version].Resources
	asks := res.CPU > 0 || res.Memory > 0
	highest := max(from.fullnessWith(-res.CPU, -int64(res.Memory)), to.fullnessWith(res.CPU, int64(res.Memory)))
	lower := highest < from.fullness()-alike
	switch more := from.fullness() - to.fullness(); {
	case asks && lower && more >= lopsided:
		return byFullness, more
	case asks && !lower, more < -alike, from.movers-to.movers < 2:
		return notBetter, 0 // a host with fewer copies may be the fuller one all the same
	}
	return byCount, float64(from.movers - to.movers)
}

// fullness is the share of a host's CPU or memory that copies ask for, of the
// two the larger.
func (r *room) fullness() float64 { return r.fullnessWith(0, 0) }

func (r *room) fullnessWith(cpu float64, memory int64) (full float64) {
	if r.obs.CPU > 0 {
		full = (r.cpu + cpu) / r.obs.CPU
	}
	if r.obs.Memory > 0 {
		full = max(full, float64(r.memory+memory)/float64(r.obs.Memory))
	}
	return full
}

// why tells what the move improves.
func (s *shift) why() string {
	from, to, app := s.copy.room, s.to, s.app.Spec.Name
	label := s.app.Spec.Place.Spread
	switch s.rank {
	case bySpread:
		x, y := from.obs.Labels[label], to.obs.Labels[label]
		return fmt.Sprintf("%s %q has %d copies of %s, %q of host %s has %d", label, x, s.app.spread()[x], app, y, to.Name, s.app.spread()[y])
	case byHost:
		if s.app.fit(to).prefer != s.app.fit(from).prefer {
			return fmt.Sprintf("%s prefers host %s", app, to.Name)
		}
		return fmt.Sprintf("host %s has %d copies of %s, %s has %d", from.Name, from.perApp[app], app, to.Name, to.perApp[app])
	case byFullness:
		return fmt.Sprintf("host %s is %.0f %% full, %s %.0f %%", from.Name, 100*from.fullness(), to.Name, 100*to.fullness())
	default:
		return fmt.Sprintf("host %s has %d copies, %s has %d", from.Name, from.movers, to.Name, to.movers)
	}
}
