package topology

import (
	"fmt"
	"time"
)

// RunStatus is how a run of a job ended. Its times are those of the leader's
// clock.
type RunStatus struct {
	Outcome RunOutcome `json:"outcome"`
	Version string     `json:"version"`
	Host    string     `json:"host,omitempty"` // where it ended
	Due     time.Time  `json:"due,omitzero"`   // zero: it was asked for
	Began   time.Time  `json:"began,omitzero"`
	Ended   time.Time  `json:"ended,omitzero"`
	Why     string     `json:"why,omitempty"`
}

func (r Run) status() *RunStatus {
	if r.Outcome == "" {
		return nil
	}
	return &RunStatus{
		Outcome: r.Outcome, Version: r.Version, Host: r.Host,
		Due: unix(r.Due), Began: unix(r.Began), Ended: unix(r.Ended), Why: r.Why,
	}
}

// jobStatus tells how a job is: one copy is wanted while a run is under way, and
// none else. The copy of the last run is listed for as long as its host may have
// its output.
func (p *planner) jobStatus(a *appPlan, reasons []Unplaced, held string) AppStatus {
	st := AppStatus{App: a.Spec.Name, Kind: a.Spec.Kind(), Version: a.Version, Copies: []CopyStatus{}, Last: a.Job.Last.status()}
	why := ""
	for _, u := range reasons {
		why = u.Reason
	}
	now := a.running()
	switch {
	case a.Stopped || !a.Job.active():
	case now == nil:
		st.Want = 1
		st.Copies = append(st.Copies, CopyStatus{
			ID: CopyKey{App: a.Spec.Name}.String(), Version: a.Job.Run.Version, State: CopyPending,
			Ports: map[string]int{}, Why: orText(why, orText(held, "waiting to be placed")),
		})
	default:
		st.Want = 1
		cs := a.copyStatus(now, why)
		if cs.Why == "" && held != "" && !now.room.obs.Alive {
			cs.Why = held
		}
		st.Copies = append(st.Copies, cs)
	}
	for _, c := range a.copies {
		if c.N == 0 && len(st.Copies) == 0 {
			st.Copies = append(st.Copies, a.spentStatus(c))
		}
	}
	for _, cs := range st.Copies {
		if cs.Ready {
			st.Ready++
		}
	}
	if sched := a.compile().schedule; a.Job.Schedule == a.Spec.Schedule && !a.Stopped {
		st.Next = sched.Next(latest(unix(a.Job.From), p.obs.Now))
	}
	st.State, st.Why = a.jobState(st, why)
	return st
}

// spentStatus is the status of a copy of a run that is over, or that a user has
// stopped.
func (a *appPlan) spentStatus(c *copyPlan) CopyStatus {
	cs := a.copyStatus(c, "")
	if !a.Job.of(c.Placement) || a.Job.Run.Outcome == "" || c.known && !c.gone() && c.room.fresh {
		return cs
	}
	cs.State, cs.Ready, cs.Why = CopyStopped, false, a.Job.Run.told()
	if a.Job.Run.Outcome == RunFailed && !a.toBegin() {
		cs.State = CopyFailed
	}
	return cs
}

// told says in words how a run ended.
func (r Run) told() string {
	text := string(r.Outcome)
	if r.Ended != 0 {
		text += " at " + stamp(unix(r.Ended))
	}
	if r.Why != "" {
		text += ": " + r.Why
	}
	return text
}

// toBegin reports whether a run is called for that no leader has begun yet, but
// for one that is due.
func (a *appPlan) toBegin() bool {
	return a.RestartAt > a.Job.Run.Index || a.Spec.Once && a.Job.Run.Version != a.Version
}

// jobState sums up. A one-shot is steady once it is done; a schedule is, as long
// as its last run did not fail and the present one has a place. Unplaced is why
// it has none.
func (a *appPlan) jobState(st AppStatus, unplaced string) (AppState, string) {
	run, active := a.Job.Run, a.Job.active()
	failed := !active && run.Outcome == RunFailed && run.Version == a.Version || active && a.Job.Last.Outcome == RunFailed && a.Job.Last.Version == a.Version
	switch {
	case a.Stopped:
		return AppStopped, ""
	case a.Spec.Once && a.toBegin():
		return AppPending, "its run has yet to begin"
	case a.Spec.Once && active && a.running() == nil:
		return AppPending, st.Copies[0].Why
	case a.Spec.Once && active:
		return AppRolling, "it runs"
	case a.Spec.Once && run.Outcome == RunDone:
		return AppSteady, run.told()
	case a.Spec.Once:
		return AppDegraded, run.told()
	case a.Job.Schedule != a.Spec.Schedule:
		return AppPending, "the schedule has yet to be taken up"
	}
	next := "never due"
	if !st.Next.IsZero() {
		next = "next due at " + stamp(st.Next)
	}
	switch {
	case active && a.running() == nil && unplaced != "":
		return AppDegraded, fmt.Sprintf("its run has no place: %s; %s", unplaced, next)
	case failed:
		return AppDegraded, fmt.Sprintf("the last run: %s; %s", a.Job.Last.told(), next)
	case a.Job.Last.Outcome != "":
		return AppSteady, next + "; the last run: " + a.Job.Last.told()
	}
	return AppSteady, next
}
