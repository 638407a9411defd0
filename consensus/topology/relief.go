package topology

import (
	"slices"

	"github.com/ganglion-mesh/ganglion/intent"
)

// A relief is a surge copy that is to take over from one copy, which leaves its
// host without a need to, or because that is emptied: the other runs on until the relief has proved itself,
// then one command makes the relief one of those that are asked for and removes
// the other. Of the update policy it takes nothing: as many are ready after it as
// before. Reliefs live only while nothing else changes about their app, and are
// no part of its rollouts.

// tendReliefs has the reliefs take over that are well, and gives up those that
// are of no more use or do not become well.
func (p *planner) tendReliefs(a *appPlan) {
	for _, c := range slices.Clone(a.reliefs) {
		if len(p.ops)+2 > maxOps { // to take over is two, which go together
			return
		}
		old := a.relieved(c)
		switch {
		case old == nil && p.missed(a, c):
			p.adopt(a, c)
		case old == nil || c.Stopped || !p.called(c, old):
			p.drop(a, c)
		case c.room.Drain != DrainNone, c.room.fresh && a.fit(c.room).refused != "", c.portTaken(a):
			p.drop(a, c)
		case !c.room.obs.Alive:
			p.loseRelief(a, c)
		case a.fails(c):
			p.unfit = append(p.unfit, UnfitHost{a.Spec.Name, c.Host})
			p.drop(a, c)
		case p.mayTakeOver(a, c, old):
			p.takeOver(a, c, old)
		case c.ready && !c.settled:
			p.wake(a.healthy - c.obs.ReadyFor)
		case c.seen && c.room.fresh && !c.ready:
			p.wake(a.timeout - c.unready())
		}
	}
}

// called reports whether what a relief was begun for still calls for it: the
// setting, the drain of the other's host, or that it was evicted.
func (p *planner) called(c, old *copyPlan) bool {
	if c.Relief.Balance {
		return p.state.rebalance.Moves > 0
	}
	return old.leavesHere()
}

// relieved is the copy that a relief is to take over from; nil if it is where it
// was no more, or the app changes in any way.
func (a *appPlan) relieved(c *copyPlan) *copyPlan {
	i, ok := findCopy(a.copies, c.Relief.N)
	if !ok || !a.calm() || c.Version != a.Version {
		return nil
	}
	old := a.copies[i]
	if old.Host != c.Relief.From || old.Leaving != "" || a.idle(old) {
		return nil
	}
	return old
}

// calm reports whether the app is as users want it, and nothing about it changes.
func (a *appPlan) calm() bool {
	return a.Spec.Kind() == intent.KindReplicated && !a.Stopped && !a.changing() && !a.halted &&
		a.Stable == a.Version && len(a.copies) == a.want && len(a.extras) == 0
}

// loseRelief gives up a relief whose host is lost. Others do without it.
func (p *planner) loseRelief(a *appPlan, c *copyPlan) {
	switch {
	case !a.lost(c.room):
		p.wake(a.lostIn(c.room))
	case p.out.GateShut || p.wary:
		p.holdGate(c.room)
	default:
		p.drop(a, c)
	}
}

// mayTakeOver reports whether a relief is well, and to stop the other takes no
// ready copy from an app that misses one already. A drain goes on while many hosts
// look unhealthy, as that of an app which stops first does: it was asked for, and
// the relief has proved itself.
func (p *planner) mayTakeOver(a *appPlan, c, old *copyPlan) bool {
	held := (p.out.GateShut || p.wary) && old.room.Drain == DrainNone
	if !c.settled || c.room.obs.Suspect || held || !old.room.fresh && !(a.replace && a.lost(old.room)) {
		return false
	}
	return !old.ready || !slices.ContainsFunc(a.copies, func(x *copyPlan) bool {
		return x != old && !x.settled && !a.idle(x)
	})
}

// missed reports whether a relief that has nobody to take over from any more is
// what the app lacks: users want more copies, and it is one.
func (p *planner) missed(a *appPlan, c *copyPlan) bool {
	return c.ready && c.room.Drain == DrainNone && c.Version == a.Version && a.Stable == a.Version &&
		!a.Stopped && !a.halted && a.surges() && !a.Spec.PerHost && len(a.copies) < a.want
}

// adopt makes a relief one of the copies that are asked for.
func (p *planner) adopt(a *appPlan, c *copyPlan) {
	a.reliefs = slices.DeleteFunc(a.reliefs, func(x *copyPlan) bool { return x == c })
	at, _ := findCopy(a.copies, c.N)
	a.copies = slices.Insert(a.copies, at, c)
	c.Surge, c.Relief, c.touched = false, nil, true
	next := c.Placement
	p.ops = append(p.ops, op{put: &next})
}

// takeOver makes a relief one of the copies that are asked for, in the place of
// another.
func (p *planner) takeOver(a *appPlan, c, old *copyPlan) {
	key := c.Key()
	move := &Move{Copy: old.Key(), From: old.Host, To: c.Host, Reason: c.Relief.Why, As: &key}
	p.drop(a, old)
	p.adopt(a, c)
	p.ops[len(p.ops)-1].move = move
}

// relieve begins a relief of a copy on a host that accepts it.
func (p *planner) relieve(a *appPlan, n *need, to *room, r Relief) {
	next := n.placeOn(to, a.Version)
	next.Surge, next.Relief, next.Tried = true, &r, nil
	p.add(a, next)
}

// reliefNumber is the lowest number that is free: numbers would rise with every
// move otherwise. No host still has it.
func (p *planner) reliefNumber(a *appPlan) (int, bool) {
	for n := range intent.MaxCopies {
		if _, stopped := slices.BinarySearch(a.StoppedCopies, n); !stopped && !a.has(n) && len(p.strays[CopyKey{a.Spec.Name, n}]) == 0 {
			return n, true
		}
	}
	return 0, false
}

// shunned are the hosts that a relief is not begun on: copies of the version did
// not become well there, kept failing, or are evicted.
func (a *appPlan) shunned() []string {
	var hosts []string
	for _, u := range a.unfit() {
		hosts = append(hosts, u.Host)
	}
	for _, c := range a.copies {
		hosts = append(hosts, c.Tried...)
		if c.Evicted != "" {
			hosts = append(hosts, c.Host)
		}
	}
	return hosts
}
