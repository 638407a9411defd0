package topology

import (
	"slices"
	"strings"

	"github.com/ganglion-mesh/ganglion/intent"
)

// startsFirst reports whether the copies of an app leave a host that is emptied
// only once another has taken over: of a singleton and of a job there are never two,
// a per-host copy has no elsewhere, disconnect = keep binds what a copy is to its
// host, and who uses its number means to keep it. While the app changes in any other
// way, copies move by the pace of that.
func (a *appPlan) startsFirst() bool {
	return a.calm() && a.replace && len(a.unfit()) < maxTried && !usesNumber(a.Versions[a.Version])
}

// usesNumber reports whether an app says its copies' numbers to them.
func usesNumber(spec intent.App) bool {
	const number = "${" + intent.PlaceholderCopy + "}"
	says := func(s string) bool { return strings.Contains(s, number) }
	for _, value := range spec.Run.Env { // order does not matter
		if says(value) {
			return true
		}
	}
	return slices.ContainsFunc(spec.Run.Command, says) || slices.ContainsFunc(spec.Checks, func(c intent.Check) bool {
		return says(c.Path) || slices.ContainsFunc(c.Command, says)
	})
}

// ending counts the copies of an app that are placed no more and have yet to stop,
// on hosts that can be seen.
func (p *planner) ending(a *appPlan) (n int) {
	for key, rooms := range p.strays { // order does not matter
		if key.App != a.Spec.Name {
			continue
		}
		for _, r := range rooms {
			if r.fresh {
				n++
			}
		}
	}
	return n
}

// relieveDrained has a copy that is well, on a host that is emptied or has evicted
// it, taken over from.
// It reports whether that is seen to: else the copy stops here before it begins
// elsewhere.
func (p *planner) relieveDrained(a *appPlan, c *copyPlan, reason string, t *tally) bool {
	if !c.leavesHere() || !c.ready || !a.startsFirst() {
		return false
	}
	if slices.ContainsFunc(a.reliefs, func(r *copyPlan) bool { return r.Relief.N == c.N }) || len(a.reliefs)+t.leaving+p.ending(a) >= a.parallel {
		return true
	}
	n, ok := p.reliefNeed(a)
	if !ok {
		return false
	}
	to := p.choose(n)
	if to == nil {
		return false
	}
	p.relieve(a, n, to, Relief{N: c.N, From: c.Host, Why: clip(reason)})
	return true
}
