package topology

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// meetStage bounds how long the first host of a stage is not chosen because hosts
	// have not said yet what of the reflex they have.
	meetStage = 5 * time.Second
	// blameFor is how long after an act of a staged reflex its host's failure is taken
	// to be of its making: as long as gossip may take to see it, and some more.
	blameFor = time.Minute
	// shareOf is one how manieth of the hosts get a reflex next, where zones do not
	// tell.
	shareOf = 10
	// labelZone is the label whose value makes the second stage.
	labelZone = "zone"
)

// StageObs is what a host says of a staged reflex.
type StageObs struct {
	Rule    string `json:"rule"`
	Begun   uint64 `json:"begun"`
	Has     bool   `json:"has,omitempty"`     // something that it is about is on the host
	Trouble string `json:"trouble,omitempty"` // what has gone wrong with it there
}

// tendStages takes staged reflexes on, or back.
func (p *planner) tendStages() {
	for st := range values(p.state.stages) {
		if st.Reach == ReachTaken {
			continue
		}
		next, why := p.nextStage(st)
		if next != nil {
			next.Rule, next.Expect = st.Rule, st.Step
			p.stages = append(p.stages, *next)
		}
		if why != "" {
			p.out.Stages = append(p.out.Stages, StageWait{st.Rule, why})
		}
	}
}

// StageWait is what a staged reflex waits for.
type StageWait struct {
	Rule string
	Why  string
}

// nextStage is the step that a staged reflex takes now, or what it waits for.
func (p *planner) nextStage(st *Stage) (*SetStage, string) {
	if why := p.stageTrouble(st); why != "" {
		return &SetStage{Reach: ReachTaken, First: st.First, Why: why}, ""
	}
	bake := p.state.reflexStage.Bake()
	if bake == 0 {
		return &SetStage{Reach: ReachDone}, ""
	}
	if next := p.withoutLost(st); next != nil {
		return next, ""
	}
	switch {
	case p.out.GateShut:
		return nil, "waits until it is known which hosts are well"
	case p.stageFrozen(st):
		return nil, "waits until what is frozen is thawed"
	}
	if st.Reach == ReachNone {
		return p.firstStage(st)
	}
	if left := bake - p.obs.Staged[st.Step]; left > 0 {
		p.wake(left)
		return nil, fmt.Sprintf("goes on after %s of calm", bake)
	}
	switch st.Reach {
	case ReachHost:
		if next := p.partStage(st); next != nil {
			return next, ""
		}
		return &SetStage{Reach: ReachAll, First: st.First}, ""
	case ReachPart:
		return &SetStage{Reach: ReachAll, First: st.First}, ""
	}
	return &SetStage{Reach: ReachDone}, ""
}

// stageFrozen reports whether the reflex could do nothing now: calm would prove
// nothing.
func (p *planner) stageFrozen(st *Stage) bool {
	app, _, of := strings.Cut(st.Rule, "/")
	return p.obs.Freeze.All || of && p.obs.Freeze.holds(app)
}

// stageTrouble says why a version is not to act anywhere any more, or "".
func (p *planner) stageTrouble(st *Stage) string {
	for _, r := range p.rooms {
		if !st.InForce(r.Name) {
			continue
		}
		for _, o := range r.obs.Stages {
			if o.Rule == st.Rule && o.Begun == st.Begun && o.Trouble != "" {
				return clip("host " + r.Name + ": " + o.Trouble)
			}
		}
	}
	for _, a := range st.Acts {
		r, ok := p.byName[a.Host]
		if ok && r.unhealthy() && !r.obs.Left && p.obs.Staged[a.Index] < blameFor+reportMissed {
			return "host " + a.Host + " is not well any more, right after the reflex acted there"
		}
	}
	return ""
}

// firstStage chooses the host on which the reflex is in force first: one that has
// something it is about, is not emptied and does not lead, as far as there is one.
func (p *planner) firstStage(st *Stage) (*SetStage, string) {
	list := p.stageHosts(st)
	if len(list) == 0 {
		return nil, "waits for a host that is well"
	}
	if age := p.obs.Staged[st.Step]; age < meetStage && slices.ContainsFunc(list, func(r *room) bool { _, looked := r.said(st); return !looked }) {
		p.wake(meetStage - age)
		return nil, "waits until the hosts have taken it up"
	}
	first := list[0].Name
	return &SetStage{Reach: ReachHost, Hosts: []string{first}, First: first}, ""
}

// stageHosts are the hosts that are well, the one first that is to have the reflex
// first.
func (p *planner) stageHosts(st *Stage) (list []*room) {
	for _, r := range p.rooms {
		if r.fresh && !r.obs.Suspect {
			list = append(list, r)
		}
	}
	slices.SortStableFunc(list, func(a, b *room) int {
		return cmp.Or(
			cmp.Compare(btoi(!a.hasOf(st)), btoi(!b.hasOf(st))),
			cmp.Compare(btoi(a.Drain != DrainNone), btoi(b.Drain != DrainNone)),
			cmp.Compare(btoi(a.Name == p.obs.Leader), btoi(b.Name == p.obs.Leader)),
		)
	})
	return list
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// said is what a host has said of a staged reflex; false: nothing yet.
func (r *room) said(st *Stage) (StageObs, bool) {
	i := slices.IndexFunc(r.obs.Stages, func(o StageObs) bool { return o.Rule == st.Rule && o.Begun == st.Begun })
	if i < 0 {
		return StageObs{}, false
	}
	return r.obs.Stages[i], true
}

// hasOf reports whether a host has said that it has something a staged reflex is
// about.
func (r *room) hasOf(st *Stage) bool {
	o, _ := r.said(st)
	return o.Has
}

// withoutLost begins the stage anew without the hosts that are lost, or not in the
// mesh any more: what was seen of them proves nothing. nil: none is.
func (p *planner) withoutLost(st *Stage) *SetStage {
	left := slices.DeleteFunc(slices.Clone(st.Hosts), func(host string) bool {
		r, ok := p.byName[host]
		return !ok || !r.fresh
	})
	switch {
	case len(left) == len(st.Hosts):
		return nil
	case len(left) == 0:
		return &SetStage{Reach: ReachNone}
	}
	return &SetStage{Reach: st.Reach, Hosts: left, First: st.First, Zone: st.Zone}
}

// partStage is the second stage: the hosts of the first one's zone, or where that
// says nothing a tenth of all. nil: it would be no more than that host, or all.
func (p *planner) partStage(st *Stage) *SetStage {
	first, ok := p.byName[st.First]
	if !ok {
		return nil
	}
	list := p.stageHosts(st)
	next := &SetStage{Reach: ReachPart, First: st.First}
	if zone := first.obs.Labels[labelZone]; zone != "" {
		for _, r := range list {
			if r.obs.Labels[labelZone] == zone {
				next.Hosts = append(next.Hosts, r.Name)
			}
		}
		next.Zone = zone
	}
	if n := len(next.Hosts); n <= 1 || n >= len(list) {
		next.Hosts, next.Zone = []string{st.First}, ""
		for _, r := range list {
			if len(next.Hosts) < len(p.rooms)/shareOf && r.Name != st.First {
				next.Hosts = append(next.Hosts, r.Name)
			}
		}
	}
	if len(next.Hosts) <= 1 {
		return nil
	}
	slices.Sort(next.Hosts)
	return next
}
