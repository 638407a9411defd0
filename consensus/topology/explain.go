package topology

// Verdict is what the scheduler thinks of one host for one copy.
type Verdict struct {
	Host  string `json:"host"`
	Fits  bool   `json:"fits"`
	Why   string `json:"why,omitempty"`   // why not
	Chose bool   `json:"chose,omitempty"` // the host that would be chosen now
}

// Explain judges every host, by name, for one copy of an app, as if the copy
// had to be placed now. It is nil for an app that does not exist.
func Explain(s *State, obs Observations, key CopyKey) []Verdict {
	p := newPlanner(s, obs)
	for _, a := range p.apps {
		if a.Spec.Name == key.App {
			return p.explain(a, key)
		}
	}
	return nil
}

func (p *planner) explain(a *appPlan, key CopyKey) []Verdict {
	version, keep := a.Version, map[string]int(nil)
	for _, c := range a.all() {
		if c.N == key.N {
			version, keep = c.Version, c.Ports
			c.room.free(a, c.Placement)
		}
	}
	n := a.need(key, version, keep)
	best := p.choose(n)
	list := make([]Verdict, 0, len(p.rooms))
	for _, r := range p.rooms {
		why := r.refuses(n)
		list = append(list, Verdict{Host: r.Name, Fits: why == "", Why: why, Chose: r == best})
	}
	return list
}
