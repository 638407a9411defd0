package topology

import (
	"fmt"
	"time"
)

// changing reports whether a change asked for by a user has not ended yet. Every
// apply and every restart of an app ends in a Rollout that is done or halted.
func (a *appPlan) changing() bool {
	return !a.Rollout.Halted && !(a.Rollout.Done && a.Rollout.Version == a.Version)
}

// bad reports whether a copy has failed at the current version.
func (a *appPlan) bad(c *copyPlan) bool {
	if c.Version != a.Version || !c.seen || !c.room.fresh || c.Stopped {
		return false
	}
	return c.obs.Failed || !c.ready && c.unready() >= a.timeout
}

func (c *copyPlan) unready() time.Duration {
	if c.obs.UnreadyFor > 0 {
		return c.obs.UnreadyFor
	}
	return c.obs.Age
}

// outdated reports whether a copy is still to be changed: it has another
// version, is due for a restart, or had failed before the user applied again.
func (a *appPlan) outdated(c *copyPlan) bool {
	return c.Version != a.Version || c.Generation < a.RestartAt && !c.touched ||
		a.changing() && c.Generation < a.Modified && a.bad(c)
}

// watchRollout halts a change at its first failure. From then on no copy gets
// the version until someone applies again.
func (p *planner) watchRollout(a *appPlan) {
	if !a.changing() || a.Stopped {
		return
	}
	for _, c := range a.copies {
		switch {
		case a.outdated(c) || c.Stopped:
		case a.bad(c):
			p.halt(a, c)
			return
		case c.seen && c.room.fresh && !c.ready:
			p.wake(a.timeout - c.unready())
		case c.ready && !c.settled:
			p.wake(a.healthy - c.obs.ReadyFor)
		}
	}
}

func (p *planner) halt(a *appPlan, c *copyPlan) {
	why := c.obs.Why
	if !c.obs.Failed {
		why = fmt.Sprintf("it was not ready within %s", a.Spec.Update.Deadline)
		if c.obs.Why != "" {
			why += ": " + c.obs.Why
		}
	}
	reason := clip(fmt.Sprintf("%s failed on %s: %s", c.Key(), c.Host, orText(why, "its host does not say why")))
	p.rolls = append(p.rolls, SetRollout{App: a.Spec.Name, Rollout: Rollout{Version: a.Version, Halted: true, Reason: reason}})
	a.halted = true
}

// tally counts what the update policy bounds.
type tally struct {
	unsettled int // copies that should be well and are not: at most parallel by our own doing
	trying    int // copies that were changed and have not proved it yet
	exposed   int // those, and all others that have, or get, the current version and are not well
	outdated  int // copies still to be changed, but for those that a user stopped
	leaving   int
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
	return t
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
	allowed := a.parallel
	if c != nil {
		allowed++
	}
	return !a.halted && p.tally(a).exposed < allowed
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
	p.startMoves(a, &t)
	if a.halted || a.Stopped {
		return
	}
	// Copies that are not ready come first: to change them costs nothing.
	for _, ready := range []bool{false, true} {
		for _, c := range a.copies {
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

func (a *appPlan) canChange(c *copyPlan) bool {
	return !c.touched && c.Leaving == "" && c.room.fresh && a.outdated(c)
}

// change is one step of a rolling update, in place where the host can take it.
func (p *planner) change(a *appPlan, c *copyPlan, t *tally) {
	newly := c.Version != a.Version
	if t.trying >= a.parallel || newly && t.exposed >= a.parallel || c.ready && t.unsettled >= a.parallel || p.full() {
		return
	}
	settled := c.settled
	if p.refits(a, c, a.Version) {
		p.inPlace(a, c, a.Version)
	} else if a.Spec.PerHost || !p.leave(a, c, cannotTake(a, c), a.Version) {
		p.unplaced(c.Key(), "cannot be changed to version "+a.Version+" on "+c.Host+"; "+p.refusal(a.need(c.Key(), a.Version, c.Ports)))
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
		if reason == "" {
			continue
		}
		if a.idle(c) {
			p.moveIdle(a, c, c.Version, reason)
			continue
		}
		if !c.seen || t.leaving >= a.parallel || c.ready && t.unsettled >= a.parallel {
			continue
		}
		settled := c.settled
		if !p.leave(a, c, reason, c.Version) {
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
// it is gone. It reports whether there is an elsewhere.
func (p *planner) leave(a *appPlan, c *copyPlan, reason, version string) bool {
	n := a.need(c.Key(), version, c.Ports)
	n.moving = true
	if p.choose(n) == nil {
		return false
	}
	next := c.Placement
	next.Leaving = clip(reason)
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

// concludeRollout records that every copy has the current version and is well.
// Dead hosts do not hold up a per-host app, but somewhere it must have worked.
func (p *planner) concludeRollout(a *appPlan) {
	if a.halted || a.Stopped || !a.changing() {
		return
	}
	if t := p.tally(a); t.unsettled > 0 || t.leaving > 0 || t.exposed > 0 {
		return
	}
	proved, idle := 0, 0
	for _, c := range a.copies {
		if c.touched || a.outdated(c) && !a.absent(c) {
			return
		}
		if a.idle(c) {
			idle++
		} else if c.settled && c.Version == a.Version {
			proved++
		}
	}
	if proved > 0 || idle == len(a.copies) {
		p.rolls = append(p.rolls, SetRollout{App: a.Spec.Name, Rollout: Rollout{Version: a.Version, Done: true}})
	}
}

// clip bounds a text that is stored or shown.
func clip(s string) string {
	const most = 500
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

func orText(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
