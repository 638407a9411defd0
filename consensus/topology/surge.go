package topology

import (
	"slices"

	"github.com/ganglion-mesh/ganglion/intent"
)

// Surge copies are copies beside those that an app asks for. In a rolling update
// they begin before a copy is stopped and make up for it; in a blue-green one
// they are the whole second set, which serves nobody until it takes over. They
// never move: one that cannot stay is dropped, and another begun elsewhere.

// trimExtras drops the surge copies that are of no more use.
func (p *planner) trimExtras(a *appPlan) {
	if a.Stopped {
		return
	}
	for _, c := range slices.Clone(a.extras) {
		if p.full() {
			return
		}
		if p.forsaken(a, c) || !a.halted && p.useless(a, c) {
			p.drop(a, c)
		}
	}
}

// forsaken reports whether a surge copy cannot stay on its host. Copies of lost
// hosts go by the rules for all copies, and one that serves goes only when it is
// not needed.
func (p *planner) forsaken(a *appPlan, c *copyPlan) bool {
	switch {
	case !c.room.obs.Alive:
		if !a.lost(c.room) {
			p.wake(a.grace - c.room.obs.ReportAge)
			return false
		}
		if !a.replace {
			return false
		}
		if p.out.GateShut || p.wary {
			p.holdGate(c.room)
			return false
		}
		return true
	case c.room.Drain != DrainNone, c.room.fresh && a.fit(c.room).refused != "":
		return !p.needed(a, c)
	}
	return false
}

// useless reports whether a surge copy has nothing to do any more.
func (p *planner) useless(a *appPlan, c *copyPlan) bool {
	old := c.Version != a.Version
	switch {
	case !a.changing():
		return true
	case a.blueGreen() && (!a.onTrial() || old || a.outdated(c)):
		return true // the set that goes, or one that proves nothing any more
	case a.blueGreen():
		return len(a.extras) > p.secondSet(a) || a.Spec.PerHost && !p.pairs(a, c.room) || c.portTaken(a)
	case a.idle(c) || a.Spec.PerHost || !a.surges():
		return true
	case a.Stable == a.Version && old: // on the way back: it serves until the old ones do
		return c.room.fresh && !c.ready
	case old, a.Rollout.InPlace, a.outdated(c), c.portTaken(a), len(a.extras) > a.surgeLimit(a.want):
		return c.room.fresh && !p.needed(a, c)
	}
	return false
}

// needed reports whether a surge copy makes up for one that is not well.
func (p *planner) needed(a *appPlan, c *copyPlan) bool {
	if !c.ready || a.blueGreen() {
		return false
	}
	t := p.tally(a)
	if c.settled {
		t.helping--
	}
	return t.unsettled > t.helping
}

// portTaken reports whether the host found a port of the copy taken by
// something else.
func (c *copyPlan) portTaken(a *appPlan) bool {
	if c.ready || !c.seen || !c.room.fresh {
		return false
	}
	for name, port := range c.Ports {
		if a.Versions[c.Version].Ports[name].Static == 0 && c.room.reportedTaken(port) {
			return true
		}
	}
	return false
}

// grow begins the surge copies that the rollout calls for.
func (p *planner) grow(a *appPlan) {
	switch {
	case !a.revising() || a.Stopped:
	case a.beside() && a.Spec.PerHost:
		p.growPerHost(a)
	case a.beside():
		p.growTo(a, p.secondSet(a), true)
	case !a.Spec.PerHost && a.surges() && !a.Rollout.InPlace:
		p.growTo(a, p.slots(a), false)
	}
}

// slots is how many surge copies a rolling update calls for: the canaries, then
// as many as it may change at a time, as long as there are well ones to change.
func (p *planner) slots(a *appPlan) int {
	if a.Rollout.Phase == PhaseCanary {
		others := 0
		for _, c := range a.copies {
			if c.Version == a.Version {
				others++
			}
		}
		return a.canaries() - others
	}
	ready := 0
	for _, c := range a.copies {
		if c.ready && a.outdated(c) {
			ready++
		}
	}
	return min(a.parallel, ready)
}

// growTo begins surge copies up to a number, as far as the version may reach
// more copies. Where no host takes one more, and it must be, users are told.
func (p *planner) growTo(a *appPlan, most int, must bool) {
	for len(a.extras) < most && !p.full() {
		if !must && p.tally(a).exposed >= a.limit() {
			return
		}
		n, ok := p.surgeNumber(a)
		if !ok {
			a.noRoom = true
			return
		}
		need := a.need(CopyKey{a.Spec.Name, n}, a.Version, nil)
		r := p.choose(need)
		if r == nil {
			a.noRoom = true
			if must {
				p.lacksRoom(a, need.key, "the second set waits for it; "+p.refusal(need))
			}
			return
		}
		p.addSurge(a, need, r)
	}
}

func (p *planner) addSurge(a *appPlan, n *need, r *room) {
	next := n.placeOn(r, a.Version)
	next.Surge = true
	p.add(a, next)
}

// surgeNumber is a free number for a surge copy: above those of the copies that
// are asked for, and for a second set the lowest. No host still has it.
func (p *planner) surgeNumber(a *appPlan) (int, bool) {
	n := 0
	if k := len(a.copies); k > 0 && !a.blueGreen() {
		n = a.copies[k-1].N + 1
	}
	if !a.blueGreen() {
		n = max(n, a.want)
	}
	for ; n < intent.MaxCopies; n++ {
		if !a.has(n) && len(p.strays[CopyKey{a.Spec.Name, n}]) == 0 {
			return n, true
		}
	}
	return 0, false
}

// secondSet is how many copies a second set must have.
func (p *planner) secondSet(a *appPlan) int {
	if !a.Spec.PerHost {
		return a.want
	}
	n := 0
	for _, c := range a.copies {
		if c.room.obs.Alive && p.pairs(a, c.room) {
			n++
		}
	}
	return n
}

// pairs reports whether a host should have a copy of a per-host app's second
// set: it has one of the first and may keep it.
func (p *planner) pairs(a *appPlan, r *room) bool {
	return r.Drain == DrainNone && slices.ContainsFunc(a.copies, func(c *copyPlan) bool { return c.room == r })
}

// growPerHost begins a per-host app's second set.
func (p *planner) growPerHost(a *appPlan) {
	has := map[*room]bool{}
	for _, c := range a.extras {
		has[c.room] = true
	}
	for _, r := range p.rooms {
		if has[r] || !r.fresh || !p.pairs(a, r) {
			continue
		}
		n, ok := p.surgeNumber(a)
		if !ok || p.full() {
			return
		}
		need := a.need(CopyKey{a.Spec.Name, n}, a.Version, nil)
		if why := r.refuses(need); why != "" {
			p.lacksRoom(a, need.key, "the second set waits for it; on "+r.Name+": "+why)
			continue
		}
		p.addSurge(a, need, r)
	}
}

// promote makes a surge copy that is well one of those that are asked for,
// because no host has room for another. It reports whether there was one.
func (p *planner) promote(a *appPlan) bool {
	i := slices.IndexFunc(a.extras, func(c *copyPlan) bool { return c.ready && c.room.Drain == DrainNone })
	if i < 0 || a.halted || a.blueGreen() {
		return false
	}
	c := a.extras[i]
	a.extras = slices.Delete(a.extras, i, i+1)
	at, _ := findCopy(a.copies, c.N)
	a.copies = slices.Insert(a.copies, at, c)
	c.Surge, c.touched = false, true
	next := c.Placement
	p.ops = append(p.ops, op{put: &next})
	return true
}

// makeWay gives up the surge copies if one of them takes the room on a host that
// a copy there needs for its change. It reports whether it did.
func (p *planner) makeWay(a *appPlan, r *room) bool {
	here := slices.ContainsFunc(a.extras, func(c *copyPlan) bool { return c.room == r })
	if !here || a.Rollout.InPlace || a.blueGreen() {
		return false
	}
	next := a.Rollout
	next.InPlace = true
	p.roll(a, SetRollout{Rollout: next})
	return true
}
