package topology

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// AppState is the state of an app in one word.
type AppState string

// The states of an app.
const (
	AppPending  AppState = "pending"  // never yet were all its copies well
	AppRolling  AppState = "rolling"  // a change of version or a restart is under way
	AppSteady   AppState = "steady"   // as declared
	AppDegraded AppState = "degraded" // some copies are not well
	AppHeld     AppState = "held"     // a change failed and was halted
	AppStopped  AppState = "stopped"  // by a user
)

// AppStatus is how an app is.
type AppStatus struct {
	App     string       `json:"app"`
	Kind    string       `json:"kind"`
	Version string       `json:"version"` // declared
	State   AppState     `json:"state"`
	Why     string       `json:"why,omitempty"`
	Want    int          `json:"want"`
	Ready   int          `json:"ready"`
	Copies  []CopyStatus `json:"copies"`
	Rollout Rollout      `json:"rollout,omitzero"` // under way, or how the last one ended
	Frozen  bool         `json:"frozen,omitempty"`

	Next time.Time  `json:"next,omitzero"`  // when the next run of a schedule is due
	Last *RunStatus `json:"last,omitempty"` // how the last run of a job ended
}

// CopyStatus is how a copy is. Its agent knows Addr, Pid, Restarts and Since
// best.
type CopyStatus struct {
	ID       string         `json:"id"`
	Host     string         `json:"host"`
	Addr     string         `json:"addr"`
	Version  string         `json:"version"`
	State    CopyState      `json:"state"`
	Ready    bool           `json:"ready"`
	Pid      int            `json:"pid"`
	Restarts int            `json:"restarts"`
	Token    uint64         `json:"token"` // of a singleton
	Since    time.Time      `json:"since,omitzero"`
	Ports    map[string]int `json:"ports"`
	Why      string         `json:"why"`
	Role     CopyRole       `json:"role,omitempty"`
}

// CopyRole is what a copy is for, if it is not one of those that are asked for.
type CopyRole string

// The roles of copies that a rollout has beside those that are asked for.
const (
	RoleSurge   CopyRole = "surge"   // it serves, and makes up for a copy that is being changed
	RoleStandby CopyRole = "standby" // of the second set of a blue-green update: it serves nobody yet, or no longer
)

// Status tells how every app is, by name, and for each copy that is not well,
// why.
func Status(s *State, obs Observations) []AppStatus {
	decision := Decide(s, obs)
	reasons := map[string][]Unplaced{}
	for _, u := range decision.Unplaced {
		reasons[u.Copy.App] = append(reasons[u.Copy.App], u)
	}
	p := newPlanner(s, obs)
	list := make([]AppStatus, 0, len(p.apps))
	for _, a := range p.apps {
		if a.job() {
			list = append(list, p.jobStatus(a, reasons[a.Spec.Name], decision.Held))
			continue
		}
		list = append(list, p.status(a, reasons[a.Spec.Name], decision.Held))
	}
	return list
}

func (p *planner) status(a *appPlan, reasons []Unplaced, held string) AppStatus {
	st := AppStatus{App: a.Spec.Name, Kind: a.Spec.Kind(), Version: a.Version, Want: a.want, Copies: []CopyStatus{}, Rollout: a.Rollout}
	why := map[int]string{}
	for _, u := range reasons {
		why[u.Copy.N] = u.Reason
	}
	for _, c := range a.all() {
		cs := a.copyStatus(c, why[c.N])
		if cs.Why == "" && held != "" && !c.room.obs.Alive {
			cs.Why = held
		}
		if a.showLease(&cs); cs.Ready && cs.Role != RoleStandby {
			st.Ready++
		}
		st.Copies = append(st.Copies, cs)
	}
	if a.Spec.PerHost {
		st.Want = len(a.copies)
	}
	for _, c := range a.copies {
		if a.idle(c) {
			st.Want-- // a user wants it not to run
		}
	}
	for _, key := range p.missing(a, reasons) {
		if a.Spec.PerHost {
			st.Want++
		}
		cs := CopyStatus{
			ID: key.String(), Version: a.Version, State: CopyPending,
			Ports: map[string]int{}, Why: orText(why[key.N], orText(held, "waiting to be placed")),
		}
		a.showLease(&cs)
		st.Copies = append(st.Copies, cs)
	}
	slices.SortStableFunc(st.Copies, func(x, y CopyStatus) int {
		return cmp.Or(cmp.Compare(len(x.ID), len(y.ID)), cmp.Compare(x.ID, y.ID)) // by number
	})
	st.State, st.Why = p.appState(a, st)
	st.freeze(a)
	for _, u := range reasons {
		if st.State == AppRolling && a.beside() && !a.has(u.Copy.N) {
			st.Why += "; " + u.Copy.String() + ": " + u.Reason
			break
		}
	}
	return st
}

// missing names the copies that have no placement.
func (p *planner) missing(a *appPlan, reasons []Unplaced) (keys []CopyKey) {
	if a.Stopped {
		return nil
	}
	if a.Spec.PerHost {
		for _, u := range reasons {
			if !a.has(u.Copy.N) {
				keys = append(keys, u.Copy)
			}
		}
		return keys
	}
	for n := 0; len(keys) < a.want-len(a.copies); n++ {
		if !a.has(n) {
			keys = append(keys, CopyKey{a.Spec.Name, n})
		}
	}
	return keys
}

func (a *appPlan) copyStatus(c *copyPlan, why string) CopyStatus {
	cs := CopyStatus{
		ID: c.Key().String(), Host: c.Host, Version: c.Version, State: CopyPending,
		Ports: c.Ports, Why: why,
	}
	switch {
	case c.Relief != nil:
		cs.Role = RoleSurge
		cs.Why = orText(cs.Why, fmt.Sprintf("takes over from %s/%d on %s once it is well: %s", c.App, c.Relief.N, c.Relief.From, c.Relief.Why))
	case c.Surge && a.blueGreen():
		cs.Role = RoleStandby
	case c.Surge:
		cs.Role = RoleSurge
	}
	if cs.Ports == nil {
		cs.Ports = map[string]int{}
	}
	if c.known {
		o := c.obs
		cs.State, cs.Pid, cs.Restarts, cs.Since = o.State, o.Pid, o.Restarts, o.Since
		if o.Version != "" {
			cs.Version = o.Version // what runs, not what should
		}
		cs.Ready = o.Ready && c.room.fresh
		cs.Why = orText(cs.Why, o.Why)
	}
	switch {
	case !c.room.obs.Alive:
		cs.State = CopyLost
		cs.Why = orText(cs.Why, a.awayWhy(c.room))
	case !c.room.fresh:
		cs.Why = orText(cs.Why, "host "+c.Host+" has not reported lately")
	case c.Leaving != "":
		cs.Why = orText(cs.Why, "moves away: "+c.Leaving)
	case a.idle(c) && !c.known:
		cs.State = CopyStopped
	case !c.known:
		cs.Why = orText(cs.Why, "waiting for host "+c.Host+" to take it up")
	}
	return cs
}

// appState sums up. An app is steady only if every copy that should be is well
// at the declared version, which was proved.
func (p *planner) appState(a *appPlan, st AppStatus) (AppState, string) {
	short := ""
	if st.Ready < st.Want {
		short = fmt.Sprintf("%d of %d copies are ready", st.Ready, st.Want)
	}
	outdated, unready := 0, 0
	for _, c := range a.copies {
		if a.outdated(c) {
			outdated++
		}
		if !c.ready && !a.idle(c) {
			unready++
		}
	}
	switch {
	case a.Stopped:
		return AppStopped, ""
	case a.Rollout.Outcome == OutcomeHeld:
		return AppHeld, a.Rollout.Reason
	case a.changing() && a.Rollout.Reason != "" && !a.returning():
		return AppHeld, a.Rollout.Reason + "; it goes on when that is mended (on_failure forward)"
	case a.Stable == "":
		return AppPending, short
	case a.returning() && slices.ContainsFunc(a.copies, a.bad):
		return AppDegraded, a.rollingWhy(outdated, short) + "; copies of version " + a.Version + " fail too"
	case a.changing() && (outdated > 0 || len(a.extras) > 0 || a.Stable != a.Version):
		return AppRolling, a.rollingWhy(outdated, short)
	case unready > 0 || len(a.copies) < a.want || len(st.Copies) > len(a.all()) || outdated > 0:
		return AppDegraded, short
	case a.changing():
		return AppRolling, short // every copy is ready, but not for healthy_for yet
	case a.Rollout.Outcome == OutcomeRolledBack:
		return AppSteady, "version " + a.Rollout.Failed + " was rolled back: " + a.Rollout.Reason
	default:
		return AppSteady, ""
	}
}

// rollingWhy tells how far a rollout is.
func (a *appPlan) rollingWhy(outdated int, short string) string {
	left := short
	if outdated > 0 {
		left = fmt.Sprintf("%d of %d copies are still to be changed", outdated, len(a.copies))
	}
	if a.returning() && a.Rollout.Failed != "" {
		return fmt.Sprintf("version %s is rolled back: %s; %s", a.Rollout.Failed, a.Rollout.Reason, orText(left, "nearly done"))
	}
	switch a.Rollout.Phase {
	case PhaseCanary:
		return fmt.Sprintf("%s prove the version; %s", copiesText(a.canaries(), "canary", "canaries"), left)
	case PhaseBeside:
		return fmt.Sprintf("a second set of %s proves the version", copiesText(len(a.extras), "copy", "copies"))
	case PhaseSmoke:
		return "the smoke checks run"
	case PhaseRemoving:
		return "the second set has taken over; the first one is stopped"
	}
	return left
}

func copiesText(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
