package topology

import (
	"fmt"
	"slices"
)

// awaitRoom bounds how long a version on trial waits for room: like a copy that
// does not become ready, a rollout that finds no host for its next copy within the
// deadline has failed. Since when it waits is in the log, so that every voter can
// count for itself, and a change of leader begins nothing anew.
func (p *planner) awaitRoom(a *appPlan) {
	decided := func(r SetRollout) bool { return r.App == a.Spec.Name }
	if !a.revising() || slices.ContainsFunc(p.rolls, decided) {
		return
	}
	r := a.Rollout
	waited := p.obs.Waited[r.Waits]
	switch {
	case a.lacks == "" || slices.ContainsFunc(a.all(), func(c *copyPlan) bool { return c.touched }):
		if r.Waits != 0 {
			r.Waits = 0
			p.roll(a, SetRollout{Rollout: r})
		}
	case r.Waits == 0:
		p.roll(a, SetRollout{Rollout: r, Wait: true})
	case waited >= a.timeout:
		p.fail(a, fmt.Sprintf("it found no room within %s: %s", a.timeout, a.lacks))
	default:
		p.wake(a.timeout - waited)
	}
}

// lacksRoom notes what the rollout of an app waits for.
func (p *planner) lacksRoom(a *appPlan, key CopyKey, reason string) {
	p.unplaced(key, reason)
	if a.lacks == "" {
		a.lacks = key.String() + ": " + reason
	}
}

// Waits returns since which indexes rollouts wait for room.
func (s *State) Waits() (list []uint64) {
	for e := range values(s.apps) {
		if r := e.Rollout; r.Waits != 0 && r.Outcome == "" {
			list = append(list, r.Waits)
		}
	}
	return list
}
