package topology

import (
	"fmt"
	"strings"
	"time"
)

// showLease puts what is known of a singleton's lease into the status of its
// copy.
func (a *appPlan) showLease(cs *CopyStatus) {
	if !a.lease.live {
		return
	}
	if cs.Host == a.lease.Host && cs.State != CopyStopped {
		cs.Token = a.lease.Token
	}
	if strings.HasSuffix(cs.Why, "waiting for the lease of "+a.lease.Host+" to end") {
		cs.Why += fmt.Sprintf(" (in %d s at most)", int((a.lease.left+time.Second-1)/time.Second))
	}
}

// Failover is how long a singleton may be down when its host is lost, by the
// settings. Nothing shortens it: until then its host may still run it.
type Failover struct {
	App string `json:"app"`
	// WindowMS is the longest from the loss of the host to the grant elsewhere;
	// LeaderMS is added if the leader is lost at the same time.
	WindowMS int64 `json:"window_ms"`
	LeaderMS int64 `json:"leader_ms"`
	// HoldMS is how long a copy runs on that is cut off from the leader, at most;
	// FenceMS of it is left to the copy between its stop signal and the kill.
	HoldMS  int64 `json:"hold_ms"`
	FenceMS int64 `json:"fence_ms"`
}

// failovers tells for each singleton that there is at the end of a plan, by name,
// what the settings give: those of its present lease, else of the next.
func failovers(now, planned *State, obs Observations) []Failover {
	var list []Failover
	for e := range values(planned.apps) {
		if !e.Spec.Singleton {
			continue
		}
		t := obs.Timers.orDefault()
		if l, ok := now.leases.Get([]byte(e.Spec.Name)); ok && !l.Over {
			t = l.Timers
		}
		list = append(list, Failover{
			App: e.Spec.Name, WindowMS: t.Window().Milliseconds(), LeaderMS: LeaderWindow.Milliseconds(),
			HoldMS: t.Hold.Milliseconds(), FenceMS: min(t.Fence(), or(e.Spec.Stop.Grace.Std(), 10*time.Second)).Milliseconds(),
		})
	}
	return list
}

// leasesOnPaper is what is known of leases in a mesh where everything works at
// once and time passes at will: a lease that its host does not need is given
// back, and that of a lost host has run out.
func leasesOnPaper(s *State, obs Observations) map[string]LeaseObs {
	out := map[string]LeaseObs{}
	for l := range values(s.leases) {
		o := LeaseObs{Token: l.Token, Renewed: l.Renewed}
		host := obs.Hosts[l.Host]
		if IsAddress(l.App) && listens(host) {
			out[l.App] = o // nothing on paper makes its host want it no more
			continue
		}
		runs := false
		for p := range prefixed(s.copies, l.App) {
			runs = runs || p.Host == l.Host && !p.Stopped
		}
		switch {
		case !listens(host):
			o.Age = l.Timers.Grace
		case !runs || host.Boot != "" && host.Boot != l.Boot:
			o.Ended = true
		}
		out[l.App] = o
	}
	return out
}
