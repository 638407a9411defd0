package topology

import "slices"

// Evict has what a host runs of an app, or one copy of it, go to another host: the
// wish of a reflex there, paid with a token of the host's loan. The copies leave as
// those of a host that is emptied do. Where no other host takes them in the end they
// stay.
type Evict struct {
	App  string `json:"app"`
	N    *int   `json:"n,omitempty"`
	Host string `json:"host"`
	Why  string `json:"why"`
	Loan uint64 `json:"loan"`
	// For is the reflex whose wish it is.
	For RuleRef `json:"for,omitzero"`
	// Chain are the rules whose acts led to it, for the story alone.
	Chain string `json:"chain,omitempty"`
}

func (t *txn) evict(c Evict) *Rejected {
	e, ok := t.apps.Get([]byte(c.App))
	if !ok {
		return unknownApp("evict", c.App)
	}
	if c.Why == "" || len(c.Why) > 1024 {
		return reject(RejectInvalid, "evict app %s: a reason must have 1 to 1024 bytes", c.App)
	}
	if len(c.Chain) > maxReason {
		return reject(RejectInvalid, "evict app %s: the chain of rules that led to it has %d bytes, the limit is %d", c.App, len(c.Chain), maxReason)
	}
	if e.Spec.PerHost || e.App.job() {
		return reject(RejectInvalid, "evict app %s: what it runs on host %s has no elsewhere; restart it instead", c.App, c.Host)
	}
	var leave []Placement
	for p := range prefixed(t.onHost, c.Host) {
		if p.App == c.App && (c.N == nil || p.N == *c.N) && p.evictable() {
			leave = append(leave, *p)
		}
	}
	if len(leave) == 0 {
		return reject(RejectConflict, "evict app %s: nothing of it runs on host %s that is not leaving already", c.App, c.Host)
	}
	if r := t.actBy(c.For, c.Host); r != nil {
		return r
	}
	if r := t.useLoan("evict app "+c.App, c.Loan, c.Host); r != nil {
		return r
	}
	for _, p := range leave {
		p.Evicted, p.EvictedChain = c.Why, c.Chain
		t.relate(p)
	}
	return nil
}

// evictable reports whether a copy can be asked to leave.
func (p Placement) evictable() bool {
	return !p.Surge && !p.Stopped && p.Leaving == "" && p.Evicted == ""
}

// Evictable lists the copies that an Evict would have leave.
func (s *State) Evictable(app string, n *int, host string) (out []CopyKey) {
	for p := range prefixed(s.onHost, host) {
		if p.App == app && (n == nil || p.N == *n) && p.evictable() {
			out = append(out, p.Key())
		}
	}
	return out
}

// relate stores what is the leader's business alone about a placement: nothing
// begins anew by it, and its host need not know.
func (t *txn) relate(p Placement) {
	t.copies, _, _ = t.copies.Insert(copyKey(p.Key()), &p)
	t.onHost, _, _ = t.onHost.Insert(hostKey(p.Host, p.Key()), &p)
	t.dirty[p.App], t.changed = true, true
}

// Elsewhere returns why no other host would take a copy now; empty if one would.
func Elsewhere(s *State, obs Observations, key CopyKey) string {
	p := newPlanner(s, obs)
	for _, a := range p.apps {
		i, ok := findCopy(a.copies, key.N)
		if a.Spec.Name != key.App || !ok {
			continue
		}
		c := a.copies[i]
		n := a.need(key, c.Version, nil)
		n.moving, n.tried = true, a.afterEviction(c)
		if p.choose(n) == nil {
			return p.refusal(n)
		}
		return ""
	}
	return "there is no copy " + key.String()
}

// afterEviction are the hosts on which a copy is not to begin again for a while
// once it has left.
func (a *appPlan) afterEviction(c *copyPlan) []string {
	tried := append(slices.Clone(a.hopeless(c)), c.Host)
	return tried[max(len(tried)-maxTried, 0):]
}

// leavesHere reports whether a copy is to go from a host that takes others, or is
// emptied.
func (c *copyPlan) leavesHere() bool { return c.room.Drain != DrainNone || c.Evicted != "" }
