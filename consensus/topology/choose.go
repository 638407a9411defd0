package topology

import (
	"cmp"
	"hash/fnv"
	"slices"
	"strconv"
)

// score orders the hosts that could have a copy; the lower the better.
type score struct {
	lapsed  int     // 1 if it is the host that let the copy's lease lapse
	spread  int     // copies of the app under the same value of its spread label
	here    float64 // copies of the app on this host; a preferred host counts as having one fewer
	strange int     // 0 if the copy was here before, so that its files are
	load    float64
	name    string
}

func (x score) compare(y score) int {
	return cmp.Or(
		cmp.Compare(x.lapsed, y.lapsed), cmp.Compare(x.spread, y.spread), cmp.Compare(x.here, y.here), cmp.Compare(x.strange, y.strange),
		cmp.Compare(x.load, y.load), cmp.Compare(x.name, y.name),
	)
}

// choose returns the best host for a copy, or nil.
func (p *planner) choose(n *need) *room {
	var best *room
	var least score
	for _, r := range p.rooms {
		if !r.accepts(n) {
			continue
		}
		if s := n.app.score(n, r); best == nil || s.compare(least) < 0 {
			best, least = r, s
		}
	}
	return best
}

func (a *appPlan) score(n *need, r *room) score {
	s := score{
		here: float64(r.perApp[a.Spec.Name]) - a.fit(r).prefer,
		load: r.load(), name: r.Name, strange: 1,
	}
	if a.Spec.Place.Spread != "" {
		s.spread = a.spread()[r.obs.Labels[a.Spec.Place.Spread]]
	}
	if a.lease.lapsed && a.lease.Host == r.Name {
		s.lapsed = 1
	}
	if _, ok := r.obs.Copies[n.key]; ok {
		s.strange = 0
	}
	return s
}

// spread counts the copies under each value of the spread label. put and drop
// make it void.
func (a *appPlan) spread() map[string]int {
	if a.spreads == nil {
		a.spreads = map[string]int{}
		for _, c := range a.all() {
			a.spreads[c.room.obs.Labels[a.Spec.Place.Spread]]++
		}
	}
	return a.spreads
}

// load is how full a host is, by the fullest of what it has; copies count a
// little, so that apps that ask for nothing spread too.
func (r *room) load() float64 {
	full := float64(r.copies) / 1000
	if r.obs.CPU > 0 {
		full = max(full, r.cpu/r.obs.CPU)
	}
	if r.obs.Memory > 0 {
		full = max(full, float64(r.memory)/float64(r.obs.Memory))
	}
	return full + float64(r.copies)/1e6
}

// canAssign reports whether assign would succeed. It counts first, because
// every host is asked.
func (r *room) canAssign(n *need) bool {
	if len(n.ports) == 0 {
		return true
	}
	if n.statics == 0 {
		free := min(65535, r.obs.PortMax) - max(1, r.obs.PortMin) + 1 - len(r.ports) - len(r.obs.Ports)
		for _, m := range r.kept { // order does not matter
			free -= len(m.Ports)
		}
		if free >= len(n.ports) {
			return true
		}
	}
	_, ok := r.assign(n)
	return ok
}

// assign chooses the ports of a copy: static ones as declared, dynamic ones as
// the copy had them if they are free, else from the host's range beginning at a
// place that depends on the copy's name, so that a port just given back is
// rarely given away at once.
func (r *room) assign(n *need) (map[string]int, bool) {
	if len(n.ports) == 0 {
		return nil, true
	}
	ports := make(map[string]int, len(n.ports))
	for _, name := range n.ports {
		static := n.spec.Ports[name].Static
		if static == 0 {
			continue
		}
		if static < 1 || static > 65535 || chosen(ports, static) {
			return nil, false // Apply would refuse it
		}
		ports[name] = static
	}
	for _, name := range n.ports {
		if n.spec.Ports[name].Static != 0 {
			continue
		}
		port := n.keep[name]
		if port == 0 || !r.available(n.key, port, ports) {
			if port = r.freePort(n.key, name, ports); port == 0 {
				return nil, false
			}
		}
		ports[name] = port
	}
	return ports, true
}

func (r *room) freePort(key CopyKey, name string, others map[string]int) int {
	first, last := max(1, r.obs.PortMin), min(65535, r.obs.PortMax)
	if first > last {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(key.App + "/" + strconv.Itoa(key.N) + "/" + name)) // never fails
	width := last - first + 1
	start := int(h.Sum32() % uint32(width))
	for i := range width {
		if port := first + (start+i)%width; r.available(key, port, others) {
			return port
		}
	}
	return 0
}

func (r *room) available(key CopyKey, port int, others map[string]int) bool {
	if port < max(1, r.obs.PortMin) || port > min(65535, r.obs.PortMax) || r.reportedTaken(port) {
		return false
	}
	_, used := r.ports[port]
	_, kept := r.keeps(port, key)
	return !used && !kept && !chosen(others, port)
}

func chosen(ports map[string]int, port int) bool {
	for _, p := range ports {
		if p == port {
			return true
		}
	}
	return false
}

func (r *room) reportedTaken(port int) bool { return slices.Contains(r.obs.Ports, port) }

// placeOn returns the placement of a copy on a room that accepts it.
func (n *need) placeOn(r *room, version string) Placement {
	ports, _ := r.assign(n)
	return Placement{App: n.key.App, N: n.key.N, Host: r.Name, Version: version, Ports: ports, Tried: n.tried}
}
