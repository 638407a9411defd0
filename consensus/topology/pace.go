package topology

import (
	"cmp"
	"slices"
)

// tally counts what the update policy bounds.
type tally struct {
	unsettled int // copies that should be well and are not: at most parallel by our own doing
	trying    int // copies that were changed and have not proved it yet
	exposed   int // those, and all others that have, or get, the current version and are not well
	outdated  int // copies still to be changed, but for those that a user stopped
	leaving   int
	helping   int // surge copies that are well and serve
}

func (p *planner) tally(a *appPlan) (t tally) {
	if !a.Spec.PerHost { // a per-host copy that no host takes is missed by nobody
		t.unsettled = max(0, a.want-len(a.copies))
	}
	for _, c := range a.copies {
		outdated := a.outdated(c)
		if outdated && !a.idle(c) {
			t.outdated++
		}
		if c.Leaving != "" {
			t.leaving++
		}
		if c.settled || a.idle(c) {
			continue
		}
		if !a.absent(c) {
			t.unsettled++
			if !outdated {
				t.trying++
			}
		}
		if c.Version == a.Version || c.Leaving != "" { // where it goes, it gets the current version
			t.exposed++
		}
	}
	for _, c := range a.extras {
		switch {
		case c.settled && !a.blueGreen():
			t.helping++
		case !c.settled && c.Version == a.Version && !a.absent(c):
			t.exposed++
		}
	}
	if a.Rollout.Phase == PhaseCanary { // proved or not: there are to be no more; one that a user stopped proves nothing
		t.exposed = 0
		for _, c := range a.all() {
			if !a.idle(c) && (c.Version == a.Version || c.Leaving != "" && !c.settled) {
				t.exposed++
			}
		}
	}
	return t
}

// limit is how many copies the version may reach before it has proved itself in
// them.
func (a *appPlan) limit() int {
	if a.Rollout.Phase == PhaseCanary {
		return a.canaries()
	}
	return a.parallel
}

// mayTake reports whether a copy that is ready may be stopped by our own doing.
// Surge copies make up for copies that are not well; while they can, none that
// is asked for is missing on our account.
func (p *planner) mayTake(a *appPlan, t *tally) bool {
	return t.unsettled-t.helping < p.allowance(a)
}

// allowance is how many copies may be missing that surge copies do not make up
// for.
func (p *planner) allowance(a *appPlan) int {
	switch {
	case a.Spec.PerHost || a.blueGreen() || !a.surges() || a.Rollout.InPlace:
		return a.parallel
	case a.returning() && slices.ContainsFunc(a.extras, func(c *copyPlan) bool { return c.settled }):
		return 0
	case !a.revising() || p.slots(a) <= 0:
		return a.parallel
	case a.noRoom:
		return max(0, a.parallel-len(a.extras))
	default:
		return 0
	}
}

// absent reports whether a copy counts neither for nor against the update
// policy: a user stopped it, or it is the per-host copy of a dead host, which
// must not keep the living from being updated. But a host that died with a
// version still on trial counts as exposed to it: it may have died of it.
func (a *appPlan) absent(c *copyPlan) bool {
	return a.idle(c) || a.Spec.PerHost && !c.room.obs.Alive
}

// mayExpose reports whether a copy may get the current version. A copy that is
// leaving its host has been counted; one without a host is nil.
func (p *planner) mayExpose(a *appPlan, c *copyPlan) bool {
	if a.Stable == "" || a.Stable == a.Version {
		return true
	}
	allowed := a.limit()
	if c != nil {
		allowed++
	}
	return !a.halted && !a.beside() && p.tally(a).exposed < allowed
}

// fillVersion is the version for a copy that has none: the current one, unless
// it is being tried out and as many copies as may have it do.
func (p *planner) fillVersion(a *appPlan) string {
	if p.mayExpose(a, nil) {
		return a.Version
	}
	return a.Stable
}

// step moves copies off hosts they cannot stay on, and changes the next copies
// to the current version, as many as the update policy allows.
func (p *planner) step(a *appPlan) {
	t := p.tally(a)
	if !a.frozen {
		p.startMoves(a, &t)
	}
	if !a.asked() || a.halted || a.Stopped || a.beside() {
		return
	}
	// Copies that are not ready come first: to change them costs nothing.
	for _, ready := range []bool{false, true} {
		for _, c := range a.inOrder() {
			if c.ready == ready && a.canChange(c) && !a.idle(c) {
				p.change(a, c, &t)
			}
		}
	}
	// Copies that a user has stopped follow once the version is proved.
	if t.exposed == 0 && t.unsettled == 0 && t.outdated == 0 {
		for _, c := range a.copies {
			if !a.idle(c) || !a.canChange(c) || p.full() {
				continue
			}
			if p.refits(a, c, a.Version) {
				p.inPlace(a, c, a.Version)
			} else {
				p.moveIdle(a, c, a.Version, cannotTake(a, c))
			}
		}
	}
}

// inOrder is the copies in the order in which they are changed: those of a
// per-host app by host.
func (a *appPlan) inOrder() []*copyPlan {
	if !a.Spec.PerHost {
		return a.copies
	}
	return slices.SortedStableFunc(slices.Values(a.copies), func(x, y *copyPlan) int { return cmp.Compare(x.Host, y.Host) })
}

func (a *appPlan) canChange(c *copyPlan) bool {
	return !c.touched && c.Leaving == "" && c.room.fresh && a.outdated(c)
}

// change is one step of a rolling update, in place where the host can take it.
func (p *planner) change(a *appPlan, c *copyPlan, t *tally) {
	newly := c.Version != a.Version
	if t.trying >= a.parallel || newly && t.exposed >= a.limit() || c.ready && !p.mayTake(a, t) || p.full() {
		return
	}
	settled := c.settled
	if p.refits(a, c, a.Version) {
		p.inPlace(a, c, a.Version)
	} else if p.makeWay(a, c.room) {
		return
	} else if a.Spec.PerHost || !p.leave(a, c, cannotTake(a, c), a.Version) {
		p.lacksRoom(a, c.Key(), "cannot be changed to version "+a.Version+" on "+c.Host+"; "+p.refusal(a.need(c.Key(), a.Version, c.Ports)))
		return
	} else {
		t.leaving++
	}
	t.trying++
	if newly || settled {
		t.exposed++
	}
	if settled {
		t.unsettled++
	}
}

// startMoves makes copies leave hosts they cannot stay on, within the update
// policy, and only if another host would take them.
func (p *planner) startMoves(a *appPlan, t *tally) {
	if a.Spec.PerHost {
		return
	}
	for _, c := range a.copies {
		if c.touched || c.Leaving != "" || !c.room.fresh || p.full() {
			continue
		}
		reason := a.mustLeave(c)
		tried := []string(nil)
		if c.Evicted != "" {
			tried = a.afterEviction(c)
		}
		if reason == "" && !a.idle(c) {
			if reason = a.despairs(c); reason != "" {
				tried = append(slices.Clone(a.hopeless(c)), c.Host)
			}
		}
		if reason == "" {
			continue
		}
		if a.idle(c) {
			p.moveIdle(a, c, c.Version, reason)
			continue
		}
		if p.relieveDrained(a, c, reason, t) {
			continue
		}
		if !c.seen || t.leaving+len(a.reliefs) >= a.parallel || c.ready && !p.mayTake(a, t) {
			continue
		}
		settled := c.settled
		if !p.leave(a, c, reason, c.Version, tried...) {
			p.unplaced(c.Key(), "stays on "+c.Host+" although "+reason+"; "+p.refusal(a.need(c.Key(), c.Version, c.Ports)))
			continue
		}
		t.leaving++
		if settled {
			t.unsettled++
		}
	}
}

// leave has a copy stopped where it is, so that it can be placed elsewhere once
// it is gone, but on none of those where it was tried in vain. It reports
// whether there is an elsewhere.
func (p *planner) leave(a *appPlan, c *copyPlan, reason, version string, tried ...string) bool {
	n := a.need(c.Key(), version, c.Ports)
	n.moving, n.tried = true, tried
	if p.choose(n) == nil {
		return false
	}
	next := c.Placement
	next.Leaving, next.Tried = clip(reason), tried
	p.put(a, c, next, "")
	return true
}

// moveIdle moves a copy that a user has stopped.
func (p *planner) moveIdle(a *appPlan, c *copyPlan, version, reason string) {
	if a.Spec.PerHost || !c.gone() {
		return
	}
	n := a.need(c.Key(), version, c.Ports)
	if target := p.choose(n); target != nil {
		p.put(a, c, n.placeOn(target, version), reason)
	} else {
		p.unplaced(c.Key(), "stays on "+c.Host+" although "+reason+"; "+p.refusal(n))
	}
}

func cannotTake(a *appPlan, c *copyPlan) string {
	return "host " + c.Host + " cannot take version " + a.Version
}
