package topology

import (
	"maps"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// Preview is what would change, on paper.
type Preview struct {
	Changes  []intent.Change `json:"changes"`
	Moves    []Move          `json:"moves"`
	Unplaced []Unplaced      `json:"unplaced"`
	Held     string          `json:"held,omitempty"` // why nothing would move although hosts are lost
	Err      *Rejected       `json:"-"`              // put, or a host to drain, would be refused
}

// Plan tells what would come of declaring put (nil: nothing), of losing hosts
// and of draining hosts: it applies them to a copy of the state and lets the
// same decisions run until there are none left, as if every copy started at
// once and was well.
func Plan(s *State, obs Observations, put *PutIntents, lose, drain []string) Preview {
	preview := Preview{Changes: []intent.Change{}, Moves: []Move{}, Unplaced: []Unplaced{}}
	sim := newRehearsal(s, obs)
	if put != nil {
		preview.Changes = append(preview.Changes, Changes(s, *put)...)
		sim.apply(Command{PutIntents: put})
	}
	for _, host := range drain {
		sim.apply(Command{SetDrain: &SetDrain{Host: host, Drain: DrainDraining}})
	}
	for _, host := range lose {
		if _, ok := s.Host(host); !ok {
			sim.err = reject(RejectUnknown, "lose host %s: there is no such host", host)
		}
		sim.lose(host)
	}
	if sim.err != nil {
		preview.Err = sim.err
		return preview
	}
	last := sim.run()
	preview.Held = last.Held
	preview.Unplaced = append(preview.Unplaced, last.Unplaced...)
	for _, before := range s.Placements() {
		now, ok := sim.state.Placement(before.Key())
		if ok && now.Host != before.Host {
			preview.Moves = append(preview.Moves, Move{Copy: before.Key(), From: before.Host, To: now.Host, Reason: sim.reasons[before.Key()]})
		}
	}
	return preview
}

// Changes compares what put declares with what the state has of it.
func Changes(s *State, put PutIntents) []intent.Change {
	var old intent.Intents
	named := map[string]bool{}
	for _, a := range put.Intents.Apps {
		named[a.Name] = true
	}
	for _, a := range s.Apps() {
		if named[a.Spec.Name] || put.Prune && put.Set != "" && a.Set == put.Set {
			old.Apps = append(old.Apps, a.Spec)
		}
	}
	return intent.Diff(old, put.Intents)
}

// rehearsal is a mesh on paper in which everything works at once.
type rehearsal struct {
	state   *State
	obs     Observations
	index   uint64
	reasons map[CopyKey]string
	err     *Rejected
}

func newRehearsal(s *State, obs Observations) *rehearsal {
	r := &rehearsal{state: s, obs: obs, index: s.revision, reasons: map[CopyKey]string{}}
	r.obs.Settled = true
	r.obs.Hosts = maps.Clone(obs.Hosts)
	return r
}

func (r *rehearsal) apply(c Command) {
	r.index++
	next, result := r.state.Apply(r.index, c)
	if result.Err != nil && r.err == nil {
		r.err = result.Err
	}
	r.state = next
}

func (r *rehearsal) lose(host string) {
	o := r.obs.Hosts[host]
	o.Alive, o.DownFor, o.ReportAge = false, 24*time.Hour, 24*time.Hour
	if r.obs.Hosts == nil {
		r.obs.Hosts = map[string]HostObs{}
	}
	r.obs.Hosts[host] = o
}

// run decides and applies until nothing is left to do, and returns the last
// decision. It ends in any case: decisions that chase each other would be a
// defect, and a preview must not hang on one.
func (r *rehearsal) run() Decision {
	r.allAtOnce()
	for range 10_000 {
		r.work()
		d := Decide(r.state, r.obs)
		before := r.state
		for _, c := range d.Commands {
			r.apply(c)
			if r.state != before && c.Place != nil {
				break // decide again at the new revision
			}
		}
		for _, m := range d.Moves {
			r.reasons[m.Copy] = m.Reason
		}
		if r.state == before {
			return d
		}
	}
	return Decide(r.state, r.obs)
}

// allAtOnce lifts the pace of updates: it does not matter where copies end.
func (r *rehearsal) allAtOnce() {
	var quick []intent.App
	for _, a := range r.state.Apps() {
		spec := a.Spec
		spec.Update.Parallel = max(spec.Copies(), r.state.hosts.Len(), 1)
		quick = append(quick, spec)
	}
	for _, spec := range quick {
		e, _ := r.state.apps.Get([]byte(spec.Name))
		next := *e
		next.Spec = spec
		state := *r.state
		state.apps = insert(state.apps, spec.Name, &next)
		r.state = &state
	}
}

// work lets every host that is up do at once what its slice says.
func (r *rehearsal) work() {
	for _, h := range r.state.Hosts() {
		o, ok := r.obs.Hosts[h.Name]
		if !ok || !o.Alive {
			continue
		}
		old := o.Copies
		o.Copies = map[CopyKey]CopyObs{}
		for p := range prefixed(r.state.onHost, h.Name) {
			o.Copies[p.Key()] = rehearsed(p, old[p.Key()])
		}
		r.obs.Hosts[h.Name] = o
	}
}

func rehearsed(p *Placement, before CopyObs) CopyObs {
	if p.Stopped {
		return CopyObs{Version: p.Version, Generation: p.Generation, State: CopyStopped}
	}
	if before.Generation == p.Generation && before.Failed {
		return before // what is known to fail would not be mended by a plan
	}
	return CopyObs{Version: p.Version, Generation: p.Generation, State: CopyRunning, Ready: true, ReadyFor: intent.MaxSpan.Std()}
}
