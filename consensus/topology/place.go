package topology

import (
	"cmp"
	"slices"

	"github.com/ganglion-mesh/ganglion/intent"
)

// trim removes the copies that are too many.
func (p *planner) trim(a *appPlan) {
	if a.Spec.PerHost {
		p.trimPerHost(a)
		return
	}
	surplus := len(a.copies) - a.want
	if surplus <= 0 {
		return
	}
	order := slices.Clone(a.copies)
	slices.SortFunc(order, func(x, y *copyPlan) int {
		return cmp.Or(cmp.Compare(x.worth(), y.worth()), cmp.Compare(y.N, x.N))
	})
	for _, c := range order[:surplus] {
		p.drop(a, c)
	}
}

// worth ranks a copy by how little is lost with it: on a dead host, on one
// being emptied, not ready, well.
func (c *copyPlan) worth() int {
	switch {
	case !c.room.obs.Alive:
		return 0
	case c.room.Drain != DrainNone:
		return 1
	case !c.ready:
		return 2
	default:
		return 3
	}
}

// trimPerHost keeps one copy on each host that should have one. On a host that
// is being emptied they go last: what they do, others may need.
func (p *planner) trimPerHost(a *appPlan) {
	seen := map[*room]bool{}
	for _, c := range slices.Clone(a.copies) {
		r := c.room
		switch {
		case seen[r], !a.frozen && (r.fresh && a.fit(r).refused != "" || r.Drain != DrainNone && r.movers == 0):
			p.drop(a, c)
		default:
			seen[r] = true
		}
	}
	a.want = len(a.copies)
}

// replaceLost moves the copies of lost hosts elsewhere, as the app's disconnect
// rule says. A per-host copy has no elsewhere.
func (p *planner) replaceLost(a *appPlan) {
	if a.Spec.Singleton {
		p.tendLease(a)
		return
	}
	if a.Spec.PerHost || !a.replace || a.Stopped {
		return
	}
	for _, c := range a.copies {
		if c.room.obs.Alive || a.idle(c) {
			continue
		}
		if !a.lost(c.room) {
			p.wake(a.lostIn(c.room))
			continue
		}
		if a.frozen {
			p.holdFrozen(c.room)
			continue
		}
		if p.out.GateShut || p.wary {
			p.holdGate(c.room)
			continue
		}
		if p.full() {
			return
		}
		version := c.Version
		if a.returning() {
			version = a.Version
		}
		n := a.need(c.Key(), version, c.Ports)
		if target, why := p.target(n); target != nil {
			p.put(a, c, n.placeOn(target, version), "host "+c.Host+" is lost")
		} else {
			p.unplaced(c.Key(), "host "+c.Host+" is lost; "+why)
		}
	}
}

// target chooses a host for a copy that runs nowhere, as far as the state goes.
// If some host still has it, only that one will do: a second process must not
// begin before the first has ended.
func (p *planner) target(n *need) (*room, string) {
	if n.app.Spec.Singleton {
		if why := p.awaitsFirst(n.app); why != "" {
			return nil, why
		}
		if r := p.choose(n); r != nil {
			return r, ""
		}
		return nil, p.refusal(n)
	}
	var holders []*room
	for _, r := range p.strays[n.key] {
		if !n.app.replace || !n.app.lost(r) {
			holders = append(holders, r)
		}
	}
	switch len(holders) {
	case 0:
		if r := p.choose(n); r != nil {
			return r, ""
		}
		return nil, p.refusal(n)
	case 1:
		if holders[0].accepts(n) {
			return holders[0], ""
		}
		fallthrough
	default:
		return nil, "waiting for " + holders[0].Name + " to stop it"
	}
}

// finishMoves places the copies that have stopped on the host they had to
// leave, or lets them stay if the reason has gone or no host takes them.
func (p *planner) finishMoves(a *appPlan) {
	if a.Spec.Singleton {
		return // tendLease does, when the lease is over
	}
	for _, c := range slices.Clone(a.copies) {
		if c.Leaving == "" || c.touched || !c.room.fresh || p.full() {
			continue
		}
		version := c.Version
		if p.mayExpose(a, c) {
			version = a.Version
		}
		if a.mustLeave(c) == "" && p.refits(a, c, version) {
			p.inPlace(a, c, version)
			continue
		}
		if !c.gone() {
			continue
		}
		if !p.arrive(a, c, version) && (version == c.Version || !p.arrive(a, c, c.Version)) {
			p.unplaced(c.Key(), "stays on "+c.Host+", which it should leave ("+c.Leaving+"); "+p.refusal(a.need(c.Key(), version, c.Ports)))
			p.inPlace(a, c, c.Version)
		}
	}
}

// arrive places a copy that has left its host on another.
func (p *planner) arrive(a *appPlan, c *copyPlan, version string) bool {
	n := a.need(c.Key(), version, c.Ports)
	if version == c.Version {
		n.tried = c.Tried
	}
	target := p.choose(n)
	if target != nil {
		p.put(a, c, n.placeOn(target, version), c.Leaving)
	}
	return target != nil
}

// mustLeave returns why a copy cannot stay on its host, or "".
func (a *appPlan) mustLeave(c *copyPlan) string {
	if c.room.Drain != DrainNone {
		return "host " + c.Host + " is being emptied"
	}
	if c.Evicted != "" {
		return c.Evicted
	}
	if c.givenUp() {
		return failsOn(c.Host)
	}
	if c.room.fresh {
		if src := a.fit(c.room).refused; src != "" {
			return "host " + c.Host + " does not satisfy " + src
		}
	}
	return ""
}

// refits reports whether a copy can run a version on the host it is on. Where it
// runs already there is room for it, even if the host has shrunk since.
func (p *planner) refits(a *appPlan, c *copyPlan, version string) bool {
	c.room.free(a, c.Placement)
	n := a.need(c.Key(), version, c.Ports)
	ok := version == c.Version && c.room.canAssign(n) || c.room.holds(n)
	c.room.take(a, c.Placement)
	return ok
}

// inPlace decides that a copy begins anew where it is, with a version that it
// can run there.
func (p *planner) inPlace(a *appPlan, c *copyPlan, version string) {
	c.room.free(a, c.Placement)
	next := a.need(c.Key(), version, c.Ports).placeOn(c.room, version)
	c.room.take(a, c.Placement)
	if version == c.Version {
		next.Tried = c.Tried
		if next.Ports == nil {
			next.Ports = c.Ports // no port is free: what it had is the best guess
		}
	}
	p.put(a, c, next, "")
}

// fill places the copies that have no host.
func (p *planner) fill(a *appPlan) {
	if a.Stopped {
		return
	}
	if a.Spec.PerHost {
		p.fillPerHost(a)
		return
	}
	for n, missing := 0, a.want-len(a.copies); missing > 0 && n < intent.MaxCopies; n++ {
		if a.has(n) {
			continue
		}
		if p.full() {
			return
		}
		missing--
		version := p.fillVersion(a)
		need := a.need(CopyKey{a.Spec.Name, n}, version, nil)
		target, why := p.target(need)
		if target == nil && p.promote(a) {
			continue
		}
		if target == nil {
			p.lacksRoom(a, need.key, why)
			if missing > 0 && p.strays[need.key] == nil {
				p.restUnplaced(a, n+1, missing, why)
				return // no host takes this one, nor then the next
			}
			continue
		}
		p.add(a, need.placeOn(target, version))
	}
}

// restUnplaced says of all remaining copies what was found for one.
func (p *planner) restUnplaced(a *appPlan, n, missing int, why string) {
	for ; missing > 0 && n < intent.MaxCopies; n++ {
		if !a.has(n) {
			p.unplaced(CopyKey{a.Spec.Name, n}, why)
			missing--
		}
	}
}

func (p *planner) fillPerHost(a *appPlan) {
	has := map[*room]bool{}
	for _, c := range a.copies {
		has[c.room] = true
	}
	next := 0
	for _, r := range p.rooms {
		if has[r] || !r.fresh || r.Drain != DrainNone || a.fit(r).refused != "" {
			continue
		}
		for a.has(next) || p.elsewhere(CopyKey{a.Spec.Name, next}, r) {
			next++
		}
		if p.full() || next >= intent.MaxCopies {
			return
		}
		version := p.fillVersion(a)
		need := a.need(CopyKey{a.Spec.Name, next}, version, nil)
		a.want++ // also counted if refused: it should be there
		if why := r.refuses(need); why != "" {
			p.unplaced(need.key, "on "+r.Name+": "+why)
			next++
			continue
		}
		p.add(a, need.placeOn(r, version))
	}
}

// elsewhere reports whether a host other than r still has a copy of that name.
func (p *planner) elsewhere(key CopyKey, r *room) bool {
	return slices.ContainsFunc(p.strays[key], func(s *room) bool { return s != r })
}

// repairPorts gives another port to a copy whose host found one of its dynamic
// ports taken by something else.
func (p *planner) repairPorts(a *appPlan) {
	for _, c := range a.copies {
		if c.ready || c.touched || !c.room.fresh || c.Stopped || !c.seen || len(c.room.obs.Ports) == 0 || p.full() {
			continue
		}
		spec := a.Versions[c.Version]
		for _, name := range sortedKeys(c.Ports) {
			if spec.Ports[name].Static == 0 && c.room.reportedTaken(c.Ports[name]) && p.refits(a, c, c.Version) {
				p.inPlace(a, c, c.Version)
				break
			}
		}
	}
}
