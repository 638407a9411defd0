package topology

import (
	"maps"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// longAgo is an age that no rule waits for any longer.
const longAgo = 24 * time.Hour

// rehearsal is a mesh on paper in which everything works at once. It knows
// nothing of how decisions are made.
type rehearsal struct {
	decide func(*State, Observations) Decision // Decide
	state  *State
	obs    Observations
	index  uint64
	slices map[string]uint64 // by host: what it has taken up

	removed   map[string]bool     // hosts that a human took off the roster
	reasons   map[CopyKey]string  // why copies moved
	origin    map[CopyKey]CopyKey // of copies that go on under another name: the one they began with
	last      Decision
	steps     int
	paced     bool // updates keep their pace
	converged bool
}

func newRehearsal(s *State, obs Observations) *rehearsal {
	r := &rehearsal{
		decide: Decide, state: s, obs: obs, index: s.revision,
		slices: map[string]uint64{}, removed: map[string]bool{}, reasons: map[CopyKey]string{}, origin: map[CopyKey]CopyKey{},
	}
	r.state = s.onPaper()                        // what a plan names may not be pushed yet, nor signed
	r.obs.Settled, r.obs.Now = true, time.Time{} // on paper no time passes, and no run is due
	r.obs.CalmFor = longAgo                      // a gate that only waits for its time opens
	r.obs.Hosts = maps.Clone(obs.Hosts)
	if r.obs.Hosts == nil {
		r.obs.Hosts = map[string]HostObs{}
	}
	for name, o := range r.obs.Hosts {
		if listens(o) { // that it is a little late now means nothing
			o.ReportAge, o.Suspect, o.WellFor = 0, false, longAgo
			r.obs.Hosts[name] = o
		}
	}
	return r
}

// listens reports whether a host does what it is told, and says so.
func listens(o HostObs) bool { return o.Alive && o.Reported && o.ReportAge < reportMissed }

// suppose puts what w asks about into the mesh on paper.
func (r *rehearsal) suppose(w WhatIf) *Rejected {
	if w.Put != nil {
		if err := r.apply(Command{PutIntents: w.Put}); err != nil {
			return err
		}
	}
	for _, host := range w.Drain {
		if err := r.apply(Command{SetDrain: &SetDrain{Host: host, Drain: DrainDraining}}); err != nil {
			return err
		}
	}
	for _, host := range w.Lose {
		if _, ok := r.state.Host(host); !ok {
			return reject(RejectUnknown, "lose host %s: there is no such host", host)
		}
		o := r.obs.Hosts[host]
		o.Alive, o.Suspect, o.DownFor, o.ReportAge = false, false, longAgo, longAgo
		r.obs.Hosts[host] = o
	}
	return nil
}

// remove takes hosts off the roster, as a human would.
func (r *rehearsal) remove(hosts []string) *Rejected {
	for _, name := range hosts {
		h, ok := r.state.Host(name)
		if !ok {
			continue // named twice
		}
		if err := r.apply(Command{RemoveHost: &RemoveHost{Name: name, ID: h.ID}}); err != nil {
			return err
		}
		r.removed[name] = true
	}
	return nil
}

func (r *rehearsal) apply(c Command) *Rejected {
	r.index++
	next, result := r.state.Apply(r.index, c)
	r.state = next
	return result.Err
}

// rehearsed puts w into a mesh on paper and lets it come to rest. How fast users
// let apps change decides not only when but also where copies end, because what
// has not left its room yet keeps others out. Where that pace makes a large mesh
// take more decisions than somebody would wait for, it is lifted.
func rehearsed(s *State, obs Observations, w WhatIf, removed []string) (*rehearsal, *Rejected) {
	var r *rehearsal
	for _, paced := range []bool{true, false} {
		r = newRehearsal(s, obs)
		if err := r.suppose(w); err != nil {
			return r, err
		}
		if err := r.remove(removed); err != nil {
			return r, err
		}
		if r.paced = paced; !paced {
			r.allAtOnce()
		}
		if r.run(); r.converged {
			break
		}
	}
	return r, nil
}

// run decides and applies until nothing is left to do. It ends in any case:
// decisions that chase each other would be a defect, and a plan must tell of it
// rather than hang on it.
func (r *rehearsal) run() {
	for most := r.patience(); r.steps < most; {
		r.steps++
		r.work()
		r.obs.Leases = leasesOnPaper(r.state, r.obs)
		d := r.decide(r.state, r.obs)
		before := r.state
		for _, c := range d.Commands {
			if r.apply(c) == nil && c.Place != nil {
				r.moved(d.Moves)
			}
		}
		r.last, r.obs.GateShut = d, d.GateShut
		if r.state == before {
			r.converged = true
			return
		}
	}
}

func (r *rehearsal) moved(moves []Move) {
	for _, m := range moves {
		first, ok := r.origin[m.Copy]
		if !ok {
			first = m.Copy
		}
		r.reasons[first] = m.Reason
		if m.As != nil {
			delete(r.origin, m.Copy)
			r.origin[*m.As] = first
		}
	}
}

// renamed are the copies that have another name now, by the one they began with.
func (r *rehearsal) renamed() map[CopyKey]Placement {
	out := map[CopyKey]Placement{}
	for now, first := range r.origin { // order does not matter
		if p, ok := r.state.Placement(now); ok {
			out[first] = p
		}
	}
	return out
}

// patience is how many decisions a plan may take. With all at once, a copy goes
// through a handful of steps, and large changes come in batches. With pace, it
// is as many as take about a second.
func (r *rehearsal) patience() int {
	copies := r.state.copies.Len()
	for e := range values(r.state.apps) {
		copies += max(e.Spec.Copies(), 1)
		if e.Spec.PerHost {
			copies += r.state.hosts.Len()
		}
	}
	atOnce := 100 + 8*copies/maxOps
	if r.paced {
		return min(5000, max(60, 1_000_000/(copies+r.state.hosts.Len()+1)))
	}
	return atOnce
}

// allAtOnce lifts the pace of updates.
func (r *rehearsal) allAtOnce() {
	state := *r.state
	for e := range values(r.state.apps) {
		next := *e
		next.Spec.Update.Parallel = max(e.Spec.Copies(), r.state.hosts.Len(), 1)
		state.apps = insert(state.apps, e.Spec.Name, &next)
	}
	r.state = &state
}

// work lets every host that is up do at once what its slice says.
func (r *rehearsal) work() {
	for e := range values(r.state.hosts) {
		o := r.obs.Hosts[e.Name]
		if taken, ok := r.slices[e.Name]; !listens(o) || ok && taken == e.slice {
			continue
		}
		r.slices[e.Name] = e.slice
		o.Slice = e.slice
		old := o.Copies
		o.Copies = map[CopyKey]CopyObs{}
		for p := range prefixed(r.state.onHost, e.Name) {
			told := toldTo(p, old[p.Key()])
			if app, ok := r.state.App(p.App); ok && app.Rollout.smoking(p.N) {
				told.Smoke, told.SmokeEnd = app.Rollout.SmokeID, SmokePassed
			}
			o.Copies[p.Key()] = told
		}
		r.obs.Hosts[e.Name] = o
	}
}

// toldTo is how a copy does that was told what p says.
func toldTo(p *Placement, before CopyObs) CopyObs {
	if p.Stopped {
		return CopyObs{Version: p.Version, Generation: p.Generation, State: CopyStopped}
	}
	if before.Generation == p.Generation && before.Failed {
		return before // what is known to fail would not be mended by a plan
	}
	return CopyObs{Version: p.Version, Generation: p.Generation, State: CopyRunning, Ready: true, ReadyFor: intent.MaxSpan.Std()}
}
