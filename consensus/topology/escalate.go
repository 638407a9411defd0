package topology

import (
	"slices"
	"time"
)

const (
	maxTried    = 2                // hosts that a copy is moved off because it keeps failing there
	stableAgain = 10 * time.Minute // so long a copy must have worked for that to be forgotten
)

// despairs returns why a copy that was proved should be tried on another host,
// or "": it keeps failing where it is, restarts do not help, and nothing says
// that it would fail everywhere.
func (a *appPlan) despairs(c *copyPlan) string {
	ended := a.Rollout.Outcome == OutcomeDone || a.Rollout.Outcome == OutcomeRolledBack
	if !ended && !a.returning() || !a.bad(c) {
		return ""
	}
	if len(a.hopeless(c)) >= maxTried || a.Spec.Singleton && !a.holds(c.room) { // without its lease it need not run
		return ""
	}
	for _, other := range a.copies {
		if other.room != c.room && a.fails(other) {
			return "" // a common cause: to move copies about would not help
		}
	}
	return failsOn(c.Host)
}

func failsOn(host string) string { return "it keeps failing on host " + host }

// hopeless are the hosts on which a copy kept failing lately.
func (a *appPlan) hopeless(c *copyPlan) []string {
	if c.seen && c.obs.Age-c.unready() >= stableAgain {
		return nil
	}
	return c.Tried
}

// givenUp reports whether a copy was taken off its host because it kept failing.
func (c *copyPlan) givenUp() bool { return c.Leaving != "" && slices.Contains(c.Tried, c.Host) }
