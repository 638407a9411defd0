package topology

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ganglion-mesh/ganglion/intent"
)

// WhatIf is a question: what would come of declaring Put (nil: nothing), of
// losing hosts and of draining hosts, all at once.
type WhatIf struct {
	Put   *PutIntents
	Lose  []string
	Drain []string
	// Voters are the hosts that vote now; nil: not known, and taken to be enough.
	Voters []string
}

// Preview is what would change, on paper.
type Preview struct {
	Changes []intent.Change `json:"changes"`
	// Refused are the apps in Put whose packages the policy on signatures does not
	// let in. One is enough for apply to change nothing; the rest of the preview
	// tells what would come of it if all were signed.
	Refused []Refusal `json:"refused,omitempty"`
	// Staged are the reflexes, by RuleKey, that would be in force on one host first.
	Staged []string `json:"staged,omitempty"`
	Rest
	Held string `json:"held,omitempty"` // why lost hosts keep their copies; see IfRemoved
	// IfRemoved is what would come of it if a human removed the hosts in Lose
	// from the mesh: set where the mesh itself would not move their copies,
	// because it does not believe so great a loss.
	IfRemoved *Rest `json:"if_removed,omitempty"`
	// Singletons is how long each singleton may be down when its host is lost.
	Singletons []Failover `json:"singletons,omitempty"`
	Err        *Rejected  `json:"-"` // Put, or a host to lose or drain, would be refused
}

// Rest is how a mesh on paper comes to rest, beside how it is now.
type Rest struct {
	Moves    []Move     `json:"moves"`
	Unplaced []Unplaced `json:"unplaced"`
	Placed   []Placed   `json:"placed"`   // copies that have no host now and get one
	Ended    []Placed   `json:"ended"`    // copies that have a host now and would be no more
	Down     []Down     `json:"down"`     // copies that stay where nothing can run
	Capacity []Capacity `json:"capacity"` // every host of the roster, by name
	// Converged is false if the decisions had not come to rest after Steps of
	// them: then the rest is only how far they had come.
	Converged bool `json:"converged"`
	Steps     int  `json:"steps"`
	// Paced is false if the mesh is so large that its updates were not rehearsed
	// at the pace that users set: what competes for the same room may then end
	// otherwise.
	Paced bool `json:"paced"`
}

// Refusal is an app whose package is not let in.
type Refusal struct {
	App     string `json:"app"`
	Package string `json:"package"` // its digest
	Reason  string `json:"reason"`
}

// Placed is a copy with its host.
type Placed struct {
	Copy CopyKey `json:"copy"`
	Host string  `json:"host"`
}

// Down is a copy that stays on a lost host, and why.
type Down struct {
	Copy   CopyKey `json:"copy"`
	Host   string  `json:"host"`
	Reason string  `json:"reason"`
}

// Capacity is what a host has, and what is left of it for more copies. Of a host
// that takes none nothing is left. Ports counts the dynamic ones.
type Capacity struct {
	Host       string  `json:"host"`
	State      string  `json:"state"`  // one of the Capacity… states
	Before     int     `json:"before"` // copies placed on it now
	Copies     int     `json:"copies"` // copies placed on it then
	CPU        float64 `json:"cpu"`    // cores
	CPUFree    float64 `json:"cpu_free"`
	Memory     int64   `json:"memory"` // bytes
	MemoryFree int64   `json:"memory_free"`
	Ports      int     `json:"ports"`
	PortsFree  int     `json:"ports_free"`
}

// The states of a host on paper.
const (
	CapacityUp     = "up"
	CapacityLost   = "lost"   // dead by gossip, or supposed to be
	CapacitySilent = "silent" // alive by gossip, but the leader does not hear from it
	CapacityDrain  = "drain"  // being emptied, or empty
)

// Plan answers w for a mesh in state s that is observed as obs. It puts what w
// supposes into a copy of both and lets Decide work on it until it has nothing
// left to do, as if every host that is up did at once what it is told and every
// new copy were well.
func Plan(s *State, obs Observations, w WhatIf) Preview {
	preview := Preview{Changes: []intent.Change{}}
	if w.Put != nil {
		preview.Changes = append(preview.Changes, Changes(s, *w.Put)...)
		preview.Refused = s.refusals(*w.Put)
		preview.Staged = s.wouldStage(*w.Put)
	}
	if why := leaderless(obs, w); why != "" {
		return preview.without(s, obs, w, why)
	}
	r, err := rehearsed(s, obs, w, nil)
	if err != nil {
		preview.Err = err
		return preview
	}
	preview.Rest, preview.Held = r.outcome(s), r.last.Held
	preview.Singletons = failovers(s, r.state, obs)
	if preview.Held != "" && len(w.Lose) > 0 {
		if r, err := rehearsed(s, obs, w, w.Lose); err == nil {
			removed := r.outcome(s)
			preview.IfRemoved = &removed
		}
	}
	return preview
}

// leaderless says why nobody could lead once the hosts in w are lost; empty if
// enough voters are left.
func leaderless(obs Observations, w WhatIf) string {
	var lost []string
	for _, name := range w.Voters {
		if slices.Contains(w.Lose, name) || !obs.Hosts[name].Alive {
			lost = append(lost, name)
		}
	}
	if len(lost)*2 < len(w.Voters) || len(lost) == 0 {
		return ""
	}
	slices.Sort(lost)
	return fmt.Sprintf("%d of %d voters are lost (%s): nobody leads, and nothing is decided, moved or changed until a majority is back",
		len(lost), len(w.Voters), strings.Join(lost, ", "))
}

// without is a plan for a mesh in which nobody decides any more: all stays as it
// is, but singletons end, because nobody renews their leases.
func (p Preview) without(s *State, obs Observations, w WhatIf, why string) Preview {
	r := newRehearsal(s, obs)
	if p.Err = r.suppose(WhatIf{Lose: w.Lose}); p.Err != nil {
		return p
	}
	r.converged, r.paced, r.last.Held = true, true, why
	p.Rest, p.Held, p.Singletons = r.outcome(s), why, failovers(s, s, obs)
	for _, l := range s.Leases() {
		c, ok := s.Placement(CopyKey{App: l.App})
		if ok && !l.Over && !c.Stopped && c.Host == l.Host && r.obs.Hosts[l.Host].Alive {
			p.Down = append(p.Down, Down{c.Key(), c.Host, "its lease ends, which nobody renews without a leader"})
		}
	}
	return p
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
	clear(named)
	for _, r := range put.Intents.Reflexes {
		named[r.Name] = true
	}
	for _, r := range s.Reflexes() {
		if named[r.Spec.Name] || put.Prune && put.Set != "" && r.Set == put.Set {
			old.Reflexes = append(old.Reflexes, r.Spec)
		}
	}
	clear(named)
	for _, x := range put.Intents.Senses {
		named[x.Name] = true
	}
	for _, x := range s.Senses() {
		if named[x.Spec.Name] || put.Prune && put.Set != "" && x.Set == put.Set {
			old.Senses = append(old.Senses, x.Spec)
		}
	}
	return intent.Diff(old, put.Intents)
}

// outcome compares where the rehearsal came to rest with the state it began in.
func (r *rehearsal) outcome(began *State) Rest {
	out := Rest{
		Moves: []Move{}, Unplaced: append([]Unplaced{}, r.last.Unplaced...), Placed: []Placed{}, Ended: []Placed{}, Down: []Down{},
		Converged: r.converged, Steps: r.steps, Paced: r.paced,
	}
	missed := map[CopyKey]bool{}
	for _, u := range r.last.Unplaced {
		missed[u.Copy] = true
	}
	out.Unplaced = append(out.Unplaced, r.stuck(missed)...)
	renamed := r.renamed()
	for before := range values(began.copies) {
		key := before.Key()
		now, ok := r.state.copies.Get(copyKey(key))
		if app, _ := began.apps.Get([]byte(before.App)); app.spent(*before) {
			continue // only what a run has left: the next one has its own place
		}
		as, goesOn := renamed[key]
		switch {
		case goesOn:
			name := as.Key()
			out.Moves = append(out.Moves, Move{Copy: key, From: before.Host, To: as.Host, Reason: r.reason(key, before.Host), As: &name})
		case ok && now.Host != before.Host:
			out.Moves = append(out.Moves, Move{Copy: key, From: before.Host, To: now.Host, Reason: r.reason(key, before.Host)})
		case !ok && !missed[key]:
			out.Ended = append(out.Ended, Placed{key, before.Host})
		}
	}
	for now := range values(r.state.copies) {
		_, goesOn := r.origin[now.Key()]
		if _, had := began.copies.Get(copyKey(now.Key())); !had && !goesOn {
			out.Placed = append(out.Placed, Placed{now.Key(), now.Host})
		}
	}
	out.Down = append(out.Down, r.down(missed)...)
	out.Capacity = r.capacity(began)
	return out
}

// stuck lists the copies that came to rest on a host that is being emptied
// without having been found no place for: they wait for others.
func (r *rehearsal) stuck(missed map[CopyKey]bool) (list []Unplaced) {
	for _, h := range r.state.Hosts() {
		if h.Drain == DrainNone || !r.obs.Hosts[h.Name].Alive {
			continue
		}
		for p := range prefixed(r.state.onHost, h.Name) {
			if !missed[p.Key()] {
				list = append(list, Unplaced{p.Key(), fmt.Sprintf("stays on %s although host %s is being emptied: too few other copies of %s would be well for it to stop", h.Name, h.Name, p.App)})
			}
		}
	}
	return list
}

func (r *rehearsal) reason(key CopyKey, from string) string {
	if r.removed[from] {
		return "host " + from + " is removed"
	}
	return r.reasons[key]
}

// down lists the copies that came to rest where nothing runs, those aside that
// users have stopped or that were found no place for.
func (r *rehearsal) down(missed map[CopyKey]bool) (list []Down) {
	for _, h := range r.state.Hosts() {
		if r.obs.Hosts[h.Name].Alive {
			continue
		}
		for p := range prefixed(r.state.onHost, h.Name) {
			app, _ := r.state.apps.Get([]byte(p.App))
			if p.Stopped && p.Leaving == "" || missed[p.Key()] {
				continue
			}
			list = append(list, Down{p.Key(), h.Name, r.whyDown(app, h.Name)})
		}
	}
	return list
}

func (r *rehearsal) whyDown(app *appEntry, host string) string {
	switch {
	case app.Spec.PerHost:
		return "it is the copy of host " + host
	case app.Spec.Disconnect.Policy == intent.DisconnectKeep:
		return fmt.Sprintf("%s says disconnect = keep: it waits for host %s", app.Spec.Name, host)
	case r.last.Held != "":
		return "nothing moves by itself"
	default:
		return "it stays on host " + host
	}
}

// capacity counts what is left on every host.
func (r *rehearsal) capacity(began *State) []Capacity {
	p := newPlanner(r.state, r.obs)
	list := make([]Capacity, 0, len(p.rooms))
	for _, room := range p.rooms {
		first, last := max(1, room.obs.PortMin), min(65535, room.obs.PortMax)
		c := Capacity{
			Host: room.Name, State: room.paperState(), Copies: room.copies,
			CPU: room.obs.CPU, Memory: room.obs.Memory, Ports: max(0, last-first+1),
		}
		for p := range prefixed(began.onHost, room.Name) {
			if app, _ := began.apps.Get([]byte(p.App)); !app.spent(*p) {
				c.Before++
			}
		}
		if c.State == CapacityUp {
			c.CPUFree = max(0, room.obs.CPU-room.cpu)
			c.MemoryFree = room.freeMemory()
			c.PortsFree = c.Ports
			for port := range room.ports {
				if port >= first && port <= last {
					c.PortsFree--
				}
			}
			for _, port := range room.obs.Ports {
				if _, ours := room.ports[port]; !ours && port >= first && port <= last {
					c.PortsFree--
				}
			}
		}
		list = append(list, c)
	}
	return list
}

func (r *room) paperState() string {
	switch {
	case !r.obs.Alive:
		return CapacityLost
	case r.Drain != DrainNone:
		return CapacityDrain
	case !r.fresh:
		return CapacitySilent
	default:
		return CapacityUp
	}
}
