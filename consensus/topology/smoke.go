package topology

import "slices"

// smoke has one copy's host run the smoke checks, and takes in how they ended.
// If that copy is lost on the way, another is asked.
func (p *planner) smoke(a *appPlan) {
	set := a.copies
	if a.beside() {
		set = a.extras
	}
	r := a.Rollout
	if i, ok := findCopy(set, r.SmokeN); ok && r.SmokeID != 0 && set[i].Version == a.Version && set[i].room.obs.Alive && !set[i].Stopped {
		c := set[i]
		if !c.known || c.obs.Smoke != r.SmokeID {
			return
		}
		switch {
		case c.obs.SmokeEnd == SmokeFailed:
			p.fail(a, "the smoke check failed, run beside "+c.Key().String()+" on "+c.Host+": "+orText(c.obs.SmokeWhy, "its host does not say why"))
		case c.obs.SmokeEnd == SmokePassed && (a.beside() && p.secondSetProved(a) || !a.beside() && p.allProved(a)):
			p.proved(a)
		}
		return
	}
	i := slices.IndexFunc(set, func(c *copyPlan) bool { return c.settled && c.Version == a.Version })
	if i < 0 {
		if !slices.ContainsFunc(set, func(c *copyPlan) bool { return !a.idle(c) }) {
			p.proved(a) // no copy is asked for, so that there is nothing to run them against
		}
		return
	}
	// The revision tells this run from any other: to record it moves it.
	r.SmokeN, r.SmokeID = set[i].N, p.state.revision
	p.roll(a, SetRollout{Rollout: r})
}
