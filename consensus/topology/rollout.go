package topology

import (
	"fmt"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// changing reports whether a change asked for by a user has not ended yet. Every
// apply and every restart of an app ends in a Rollout with an outcome.
func (a *appPlan) changing() bool { return a.Rollout.Outcome == "" }

// revising reports whether a version is on trial, and not given up.
func (a *appPlan) revising() bool { return a.changing() && !a.halted && a.onTrial() }

// returning reports whether the app is on its way back to the version that was
// stable before.
func (a *appPlan) returning() bool { return a.changing() && a.Rollout.Back && a.Stable == a.Version }

// blueGreen reports whether the app's versions prove themselves in second sets of
// copies. Of a singleton there are never two.
func (a App) blueGreen() bool {
	return a.Spec.Update.Strategy == intent.StrategyBlueGreen && a.surges()
}

// surges reports whether the app may have surge copies at all.
func (a App) surges() bool { return !a.Spec.Singleton && !a.job() }

// beside reports whether a version proves itself in a second set of copies, so
// that the first set is to stay as it is.
func (a *appPlan) beside() bool { return a.revising() && a.blueGreen() }

// bad reports whether a copy has failed at the current version.
func (a *appPlan) bad(c *copyPlan) bool { return c.Version == a.Version && (a.fails(c) || a.lapsed(c)) }

// lapsed reports whether a copy has disproved the version that is on trial: it
// was well for as long as it must be, and then no more, by its own doing. That it
// may be well again by now is no excuse, but where users said to go forward.
func (a *appPlan) lapsed(c *copyPlan) bool {
	if !c.seen || !c.room.fresh || c.Stopped || !a.onTrial() || !a.changing() {
		return false
	}
	after := c.obs.LapsedAfter
	return after > 0 && after >= a.healthy && (!c.settled || a.Spec.Update.OnFailure != intent.OnFailureForward)
}

// fails reports whether a copy fails where it is: it cannot run, or it was not
// ready in time, or in all that time never for as long as it must be.
func (a *appPlan) fails(c *copyPlan) bool {
	if !c.seen || !c.room.fresh || c.Stopped {
		return false
	}
	return c.obs.Failed || !c.ready && c.unready() >= a.timeout || a.flaps(c)
}

// flaps reports whether a copy had the time to be ready and to stay it, and
// never did. One that was well once, and is not for a moment, is another matter.
func (a *appPlan) flaps(c *copyPlan) bool {
	best := max(c.obs.BestReady, c.obs.ReadyFor)
	return !c.settled && best > 0 && best < a.healthy && c.obs.Age >= a.timeout+a.healthy
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
	return c.Version != a.Version || c.Generation < a.RestartAt && !c.touched && !c.Surge ||
		a.changing() && c.Generation < a.Modified && a.bad(c)
}

// roll decides what the app's rollout becomes; the last word of a decision
// counts.
func (p *planner) roll(a *appPlan, c SetRollout) {
	c.App, c.Rollout.Version, c.Rollout.Started = a.Spec.Name, a.Version, a.Rollout.Started
	entry := *a.appEntry
	entry.Rollout = c.Rollout
	a.appEntry = &entry
	i := slices.IndexFunc(p.rolls, func(r SetRollout) bool { return r.App == c.App })
	if i < 0 {
		p.rolls = append(p.rolls, c)
		return
	}
	p.rolls[i] = c
}

// phase has the rollout go on to its next phase.
func (p *planner) phase(a *appPlan, next Phase) {
	r := a.Rollout
	r.Phase, r.SmokeN, r.SmokeID, r.Waits = next, 0, 0, 0
	p.roll(a, SetRollout{Rollout: r})
}

// beginRollout gives the rollout of a version that is on trial its first phase.
// What has nothing to prove goes without.
func (p *planner) beginRollout(a *appPlan) {
	if !a.revising() || a.Rollout.Phase != "" {
		return
	}
	first := PhaseRolling
	switch {
	case a.blueGreen():
		first = PhaseBeside
	case a.canaries() > 0:
		first = PhaseCanary
	}
	r := a.Rollout
	r.Phase = first
	if r.From == "" {
		r.From = a.Stable
	}
	p.roll(a, SetRollout{Rollout: r})
}

// canaries is how many copies have to prove a version before the others get it.
func (a *appPlan) canaries() int {
	if a.Rollout.Back || !a.surges() {
		return 0
	}
	return min(a.Spec.Update.Canary, max(a.want, len(a.copies)))
}

// watchRollout ends a change at its first failure. From then on no copy gets
// the version until someone applies again.
func (p *planner) watchRollout(a *appPlan) {
	if !a.changing() || a.Stopped || a.returning() {
		return // what was proved before is not given up: it is waited for
	}
	failing := false
	for _, c := range a.all() {
		switch {
		case a.outdated(c) || c.Stopped:
		case a.bad(c):
			if p.fail(a, a.failure(c)); a.halted {
				return
			}
			failing = true
		case c.seen && c.room.fresh && !c.ready:
			p.wake(a.timeout - c.unready())
		case c.ready && !c.settled:
			p.wake(a.healthy - c.obs.ReadyFor)
		}
	}
	if !failing && a.Rollout.Reason != "" && a.Rollout.Phase != PhaseSmoke && a.Rollout.Waits == 0 {
		r := a.Rollout
		r.Reason = ""
		p.roll(a, SetRollout{Rollout: r}) // forward: what failed works by now
	}
}

// failure tells why a copy counts as failed.
func (a *appPlan) failure(c *copyPlan) string {
	why := c.obs.Why
	switch {
	case c.obs.Failed:
	case a.lapsed(c):
		why = fmt.Sprintf("it was ready for %s, and then no more: %s", c.obs.LapsedAfter.Round(time.Second/10), orText(c.obs.LapsedWhy, "its host does not say why"))
	case c.ready || c.unready() < a.timeout:
		why = fmt.Sprintf("within %s it was never ready for %s on end", a.Spec.Update.Deadline, a.Spec.Update.HealthyFor)
	default:
		why = fmt.Sprintf("it was not ready within %s", a.Spec.Update.Deadline)
		if c.obs.Why != "" {
			why += ": " + c.obs.Why
		}
	}
	return fmt.Sprintf("%s failed on %s: %s", c.Key(), c.Host, orText(why, "its host does not say why"))
}

// fail does what the update policy says of a failure: goes back, waits for a
// user, or waits for the copy.
func (p *planner) fail(a *appPlan, reason string) {
	r := a.Rollout
	if r.Reason == "" {
		r.Reason = clip(reason)
	}
	switch on := a.Spec.Update.OnFailure; {
	case on == intent.OnFailureForward:
		if r != a.Rollout {
			p.roll(a, SetRollout{Rollout: r})
		}
		return
	case a.onTrial() && on != intent.OnFailureHold:
		p.roll(a, SetRollout{Rollout: r, Revert: true})
	default:
		r.Outcome, r.Waits = OutcomeHeld, 0
		p.roll(a, SetRollout{Rollout: r})
	}
	a.halted = true
}

// advance takes a rollout to its next phase once the present one has shown what
// it is for, and to its end.
func (p *planner) advance(a *appPlan) {
	if a.halted || a.Stopped || !a.changing() || slices.ContainsFunc(a.all(), func(c *copyPlan) bool { return c.touched }) {
		return
	}
	switch a.Rollout.Phase {
	case PhaseCanary:
		if p.canariesProved(a) {
			p.phase(a, PhaseRolling)
		}
	case PhaseBeside:
		if p.secondSetProved(a) {
			p.proved(a)
		}
	case PhaseSmoke:
		p.smoke(a)
	case PhaseRemoving:
		if len(a.extras) == 0 {
			p.end(a)
		}
	default:
		if p.allProved(a) {
			p.proved(a)
		}
	}
}

// proved goes on from copies that are all well: to the smoke checks of a
// version that is on trial, and then to the end.
func (p *planner) proved(a *appPlan) {
	smoke := slices.ContainsFunc(a.Spec.Checks, func(c intent.Check) bool { return c.Type == intent.CheckSmoke })
	if smoke && a.Rollout.Phase != PhaseSmoke && a.Stable != a.Version {
		p.phase(a, PhaseSmoke)
		return
	}
	if !a.beside() {
		p.end(a)
		return
	}
	r := a.Rollout
	r.Phase, r.SmokeN, r.SmokeID, r.Waits = PhaseRemoving, 0, 0, 0
	p.roll(a, SetRollout{Rollout: r, Flip: true})
	a.halted = true // until the sets are exchanged
}

// end records that the change is done, once there are no surge copies left.
func (p *planner) end(a *appPlan) {
	if len(a.extras) > 0 {
		for _, c := range slices.Clone(a.extras) {
			p.drop(a, c)
		}
		return
	}
	r := a.Rollout
	r.SmokeN, r.SmokeID, r.Waits = 0, 0, 0
	if r.Outcome = OutcomeDone; r.Failed != "" {
		r.Outcome = OutcomeRolledBack
	}
	p.roll(a, SetRollout{Rollout: r})
}

// canariesProved reports whether as many copies as there are to be canaries
// have the version and are well.
func (p *planner) canariesProved(a *appPlan) bool {
	proved := 0
	for _, c := range a.all() {
		switch {
		case c.Version != a.Version || a.absent(c):
		case !c.settled:
			return false
		default:
			proved++
		}
	}
	return proved >= a.canaries() || proved > 0 && p.tally(a).outdated == 0
}

// secondSetProved reports whether there is a whole second set of copies and all
// of them are well.
func (p *planner) secondSetProved(a *appPlan) bool {
	proved := 0
	for _, c := range a.extras {
		switch {
		case c.Version != a.Version:
			return false
		case c.settled:
			proved++
		case !a.absent(c):
			return false
		}
	}
	return proved >= p.secondSet(a) && (proved > 0 || a.want == 0)
}

// allProved reports whether every copy has the current version and is well. Dead
// hosts do not hold up a per-host app, but somewhere it must have worked.
func (p *planner) allProved(a *appPlan) bool {
	if t := p.tally(a); t.unsettled > 0 || t.leaving > 0 || t.exposed > 0 {
		return false
	}
	proved, idle := 0, 0
	for _, c := range a.copies {
		if c.touched || a.outdated(c) && !a.absent(c) {
			return false
		}
		if a.idle(c) {
			idle++
		} else if c.settled && c.Version == a.Version {
			proved++
		}
	}
	return proved > 0 || idle == len(a.copies)
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
