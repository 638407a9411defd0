package topology

import (
	"fmt"
	"strings"
)

// Decide returns what to change next, as a pure function of the state and of
// what is observed: the placements of every app, the steps of changes of
// version and of restarts, the emptying of hosts. A state and observations that
// leave nothing to do give no commands.
//
// Of what is frozen it begins nothing that nobody has asked for; see Freeze.
//
// It moves as few copies as possible: a copy stays unless its host is lost,
// being emptied, or no longer satisfies what the app requires.
func Decide(s *State, obs Observations) Decision {
	p := newPlanner(s, obs)
	p.gate()
	if !obs.Settled {
		p.out.Held = "waiting until the hosts have reported to the new leader"
		return p.out
	}
	p.tendStages()
	for _, a := range p.apps {
		if a.job() {
			p.tendRun(a)
			continue
		}
		if !a.frozen {
			p.tendReliefs(a)
			p.beginRollout(a)
			p.watchRollout(a)
		}
		p.trim(a)
		if !a.frozen {
			p.trimExtras(a)
		}
		p.replaceLost(a)
		p.finishMoves(a)
	}
	// What runs comes before what is new: a copy that lost its host is not kept
	// out by one that never had any.
	for _, a := range p.apps {
		if a.job() {
			p.nextRun(a)
			continue
		}
		p.fill(a)
		if !a.frozen {
			p.repairPorts(a)
			p.grow(a)
		}
		p.step(a)
		if a.asked() {
			p.advance(a)
			p.awaitRoom(a)
		}
	}
	p.tendAddresses()
	p.endLeases()
	p.balance()
	return p.decision()
}

// decision collects what was decided. Placements beyond the batch are left for
// the next decision; any prefix of the ops is consistent.
func (p *planner) decision() Decision {
	if ops := p.ops[:min(len(p.ops), maxOps)]; len(ops) > 0 {
		place := &Place{Expect: p.state.revision, Unfit: p.unfit, Returned: p.returned}
		for _, o := range ops {
			if o.put != nil {
				place.Put = append(place.Put, *o.put)
				if o.grant != nil {
					place.Grant = append(place.Grant, *o.grant)
				}
			} else {
				place.Remove = append(place.Remove, o.remove)
			}
			if o.move != nil {
				p.out.Moves, place.Moves = append(p.out.Moves, *o.move), append(place.Moves, *o.move)
			}
		}
		p.out.Commands = append(p.out.Commands, Command{Place: place})
	}
	for _, s := range p.stages {
		p.out.Commands = append(p.out.Commands, Command{SetStage: &s})
	}
	for _, e := range p.ends {
		p.out.Commands = append(p.out.Commands, Command{EndLease: &e})
	}
	for _, g := range p.addresses {
		p.out.Commands = append(p.out.Commands, Command{GrantAddress: &g})
	}
	for _, r := range p.rolls {
		p.out.Commands = append(p.out.Commands, Command{SetRollout: &r})
	}
	if len(p.swept) > 0 {
		p.out.Commands = append(p.out.Commands, Command{Sweep: &Sweep{Remnants: p.swept}})
	}
	if len(p.runs) > 0 {
		p.out.Commands = append(p.out.Commands, Command{RecordRuns: &RecordRuns{Runs: p.runs}})
	}
	for _, r := range p.rooms {
		if p.emptied(r) {
			p.out.Commands = append(p.out.Commands, Command{SetDrain: &SetDrain{Host: r.Name, Drain: DrainDrained}})
		}
	}
	return p.out
}

// emptied reports whether a draining host is drained: nothing was placed on it
// when this decision began, and no process is left, as far as can be known.
func (p *planner) emptied(r *room) bool {
	if r.Drain != DrainDraining || r.copies > 0 || len(p.state.PlacementsOn(r.Name)) > 0 {
		return false
	}
	if !r.obs.Alive {
		return true
	}
	for _, a := range p.state.HeldAddresses() {
		if a.Host == r.Name {
			return false // it gives it back
		}
	}
	for _, o := range r.obs.Copies {
		if !over(o) {
			return false
		}
	}
	return r.fresh && r.leftover == 0
}

// gate judges whether so many hosts look unhealthy that the observer is more
// likely to be the sick one. While it is shut, lost hosts keep their copies.
func (p *planner) gate() {
	unhealthy, late := 0, 0
	for _, r := range p.rooms {
		if r.unhealthy() {
			unhealthy++
		} else if r.obs.ReportAge >= reportLate {
			late++
		}
	}
	p.out.GateShut, p.out.Calm = judge(len(p.rooms), unhealthy, p.obs)
	// Hosts that fall together do not all look it in the same instant. Those that
	// are late do not shut the gate, but the first to be lost waits for them.
	if p.wary = !p.out.GateShut && (unhealthy+late)*10 > max(10, len(p.rooms)*3); p.wary {
		p.wake(reportLate)
	}
	if p.out.GateShut && p.out.Calm {
		p.wake(calmBefore - p.obs.CalmFor)
	}
}

func (r *room) unhealthy() bool { return !r.obs.Alive || r.obs.ReportAge >= reportMissed }

// holdGate says that the gate keeps a copy on a lost host.
func (p *planner) holdGate(lost *room) {
	if p.out.Held != "" {
		return
	}
	var down []string
	for _, r := range p.rooms {
		if r.unhealthy() || p.wary && r.obs.ReportAge >= reportLate {
			down = append(down, r.Name)
		}
	}
	if p.out.GateShut && p.out.Calm {
		p.out.Held = fmt.Sprintf("too many of %d hosts looked unhealthy a moment ago: the copies of %s stay until it has been calm for %s", len(p.rooms), lost.Name, calmBefore)
		return
	}
	const most = 10
	list := strings.Join(down[:min(len(down), most)], ", ")
	if len(down) > most {
		list += ", …"
	}
	p.out.Held = fmt.Sprintf("%d of %d hosts look unhealthy (%s): too many to believe it, so lost hosts keep their copies", len(down), len(p.rooms), list)
}
