package topology

import "time"

const (
	// hungGrace is how long a host keeps its copies whose kernel answers and whose
	// agent does not: they run, but nobody looks after them.
	hungGrace = time.Minute
	// askingTime is when to look again whether the kernel has answered.
	askingTime = 200 * time.Millisecond
)

// lost reports whether a host is lost to an app: gossip calls it dead, the
// leader itself has heard nothing from it either, and it has been so for the
// app's grace. Gossip alone moves nothing.
func (a *appPlan) lost(r *room) bool { return !r.obs.Alive && a.lostIn(r) <= 0 }

// lostIn is how long a dead host that stays silent is not lost to the app yet. A
// new leader has a short silence of its own to go by, but since when gossip has
// called the host dead it knows from before: so a change of leader begins no
// grace anew, only the time in which a host that lives would have reported.
func (a *appPlan) lostIn(r *room) time.Duration {
	silence := r.obs.ReportAge
	left := max(min(a.grace, reportMissed)-silence, a.grace-max(silence, r.obs.DownFor))
	switch {
	case r.obs.Hung:
		return max(left, hungGrace-max(silence, r.obs.DownFor))
	case r.obs.Asking:
		return max(left, askingTime)
	}
	return left
}

// awayWhy says what becomes of a copy whose host does not answer.
func (a *appPlan) awayWhy(r *room) string {
	why := "host " + r.Name + " does not answer"
	switch {
	case a.Spec.PerHost || a.Stopped:
		return why
	case !a.replace:
		return why + "; its app says disconnect = keep, so it waits for the host"
	case r.obs.Hung && !a.lost(r):
		return why + ", but its kernel does: its agent hangs; what it runs is replaced once that has lasted " + max(a.grace, hungGrace).String()
	case !a.lost(r):
		return why + "; it is replaced once that has lasted " + a.grace.String()
	}
	return why
}

// Gate judges the population as Decide does, and decides nothing: for those who
// do not lead but may have to, so that whoever takes over knows for how long it
// has been calm. They get no reports, so of obs only Alive says anything, and
// GateShut and CalmFor.
func Gate(s *State, obs Observations) (shut, calm bool) {
	hosts, unhealthy := 0, 0
	for e := range values(s.hosts) {
		hosts++
		if !obs.Hosts[e.Name].Alive {
			unhealthy++
		}
	}
	return judge(hosts, unhealthy, obs)
}

// judge tells whether so many hosts look unhealthy that nothing is to be
// believed, and whether so few that it may be believed again in time (S9).
func judge(hosts, unhealthy int, obs Observations) (shut, calm bool) {
	calm = unhealthy*10 <= max(10, hosts*2)
	opens := calm && obs.CalmFor >= calmBefore
	return unhealthy*10 > max(10, hosts*3) || obs.GateShut && !opens, calm
}

// Crowd judges a population of hosts as Gate does, for a host that knows the roster
// by number alone.
func Crowd(hosts, unhealthy int, shutBefore bool, calmFor time.Duration) (shut, calm bool) {
	return judge(hosts, unhealthy, Observations{GateShut: shutBefore, CalmFor: calmFor})
}
