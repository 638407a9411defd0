package topology

import (
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// Job is what is recorded of an app whose copy runs to completion: of kind once
// or schedule. Times are Unix seconds by the clock of the leader that recorded
// them, the only clock that a schedule can go by.
type Job struct {
	// Schedule is the schedule that From belongs to; empty: there is none yet, or
	// the app has been stopped since.
	Schedule string `json:"schedule,omitempty"`
	From     int64  `json:"from,omitempty"` // due times up to this one need no run any more
	Run      Run    `json:"run,omitzero"`   // the last that began
	Last     Run    `json:"last,omitzero"`  // the last that ended; it may be the same
}

// Run is one run of a job: a copy that is brought to its end, tried again where
// it fails.
type Run struct {
	Index   uint64     `json:"index,omitempty"` // of the command that began it; 0: there was none. Its copy's generations are later
	Version string     `json:"version,omitempty"`
	Due     int64      `json:"due,omitempty"` // the due time it was begun for; 0: somebody asked for it
	Began   int64      `json:"began,omitempty"`
	Outcome RunOutcome `json:"outcome,omitempty"` // empty: under way
	Why     string     `json:"why,omitempty"`     // of the outcome
	Host    string     `json:"host,omitempty"`    // where it ended
	Ended   int64      `json:"ended,omitempty"`
}

// RunOutcome is how a run ended.
type RunOutcome string

// The outcomes of a run.
const (
	RunDone     RunOutcome = "done"     // its process ended with code 0
	RunFailed   RunOutcome = "failed"   // it was tried as often as it may be, or until the next one was due
	RunReplaced RunOutcome = "replaced" // another version, or a restart that was asked for, took its place
	RunStopped  RunOutcome = "stopped"  // a user stopped the app: of a schedule, whose next run is another
)

// RecordRuns records what has become of jobs. It is rejected as a whole if one
// of its records was decided on what is not so any more.
type RecordRuns struct {
	Runs []RunRecord `json:"runs"`
}

// RunRecord is one step in the runs of a job: how run Of ended, that another
// began, or that due times have passed.
type RunRecord struct {
	App string `json:"app"`
	Of  uint64 `json:"of,omitempty"` // index of the last run that began, as it was when this was decided
	At  int64  `json:"at"`           // now, by the leader's clock

	Outcome RunOutcome `json:"outcome,omitempty"` // of run Of, which is under way
	Why     string     `json:"why,omitempty"`
	Host    string     `json:"host,omitempty"`

	// Schedule, if not empty, is the app's schedule, which From goes with.
	Schedule string `json:"schedule,omitempty"`
	From     int64  `json:"from,omitempty"`
	Passed   string `json:"passed,omitempty"`  // why the due times up to From have no run; this and Overlap are not stored
	Overlap  bool   `json:"overlap,omitempty"` // because run Of is still under way

	Begin bool   `json:"begin,omitempty"` // a run of Version begins
	Due   int64  `json:"due,omitempty"`
	Ver   string `json:"version,omitempty"`
}

// maxWhy bounds the reasons that are stored, in bytes.
const maxWhy = 1024

// job reports whether the app's copy runs to completion.
func (a App) job() bool {
	kind := a.Spec.Kind()
	return kind == intent.KindOnce || kind == intent.KindSchedule
}

// active reports whether a run is under way.
func (j Job) active() bool { return j.Run.Index != 0 && j.Run.Outcome == "" }

// of reports whether a placement is of the last run that began, not of an
// earlier one. A generation of 0 is one that is still to be stored.
func (j Job) of(p Placement) bool { return p.Generation == 0 || p.Generation > j.Run.Index }

// spent reports whether a placement is of a run that is over: it is kept to say
// where the output is, takes no room, and is never started again.
func (a App) spent(p Placement) bool {
	return a.job() && a.Job.Run.Index != 0 && (!a.Job.active() || !a.Job.of(p))
}

// Spent reports whether a placement is only what is left of a run that is over.
func (s *State) Spent(p Placement) bool {
	e, ok := s.apps.Get([]byte(p.App))
	return ok && e.spent(p)
}

// TriesAgain reports whether to apply the app once more as it is would try again
// what failed.
func (a App) TriesAgain() bool {
	return a.Rollout.Outcome == OutcomeHeld || a.Spec.Once && a.Job.Run.Outcome == RunFailed
}

// most is how many copies an app may have besides those per host.
func (a App) most() int {
	if a.job() {
		return 1
	}
	return a.Spec.Copies()
}

func (t *txn) recordRuns(c RecordRuns) *Rejected {
	seen := map[string]bool{}
	for _, r := range c.Runs {
		e, ok := t.apps.Get([]byte(r.App))
		switch {
		case !ok:
			return unknownApp("record runs of", r.App)
		case seen[r.App]:
			return reject(RejectInvalid, "record runs: app %s is named twice", r.App)
		}
		seen[r.App] = true
		if why := r.check(e.App); why != nil {
			return why
		}
		t.recordRun(e.App, r)
	}
	return nil
}

func (r RunRecord) check(a App) *Rejected {
	switch job := a.Job; {
	case !a.job():
		return reject(RejectConflict, "record run of app %s: it is of kind %s", r.App, a.Spec.Kind())
	case r.Of != job.Run.Index:
		return reject(RejectConflict, "record run of app %s: its last run began at index %d, not %d", r.App, job.Run.Index, r.Of)
	case r.Schedule != "" && r.Schedule != a.Spec.Schedule:
		return reject(RejectConflict, "record run of app %s: its schedule is %q, not %q", r.App, a.Spec.Schedule, r.Schedule)
	case r.Begin && (r.Ver != a.Version || a.Stopped):
		return reject(RejectConflict, "record run of app %s: its version is %s, not %s, or it is stopped", r.App, a.Version, r.Ver)
	case r.Outcome != "" && !job.active():
		return reject(RejectConflict, "record run of app %s: no run is under way", r.App)
	case r.Begin && r.Outcome == "" && job.active():
		return reject(RejectConflict, "record run of app %s: a run is under way", r.App)
	case r.Outcome != "" && r.Outcome != RunDone && r.Outcome != RunFailed && r.Outcome != RunReplaced:
		return reject(RejectInvalid, "record run of app %s: %q is no outcome", r.App, r.Outcome)
	case len(r.Why) > maxWhy || len(r.Passed) > maxWhy || len(r.Host) > maxID:
		return reject(RejectInvalid, "record run of app %s: a text has more than %d bytes", r.App, maxWhy)
	}
	return nil
}

func (t *txn) recordRun(a App, r RunRecord) {
	if r.Schedule != "" {
		a.Job.Schedule, a.Job.From = r.Schedule, r.From
	}
	if r.Outcome != "" {
		run := &a.Job.Run
		run.Outcome, run.Why, run.Host, run.Ended = r.Outcome, r.Why, r.Host, r.At
		a.Job.Last = *run
		if r.Outcome == RunDone {
			a.Stable = run.Version
			a.History = a.judged(run.Version, OutcomeDone, "")
		}
		if r.Outcome == RunDone && run.Version == a.Version {
			a.Rollout.Outcome = OutcomeDone
		}
	}
	if r.Begin {
		a.Job.Run = Run{Index: t.index, Version: r.Ver, Due: r.Due, Began: r.At}
	}
	t.setApp(a)
	t.restop(a)
}

// restop brings the placements in line with what a says about which of them are
// to be stopped. Those of a run that is over give back their ports, too; they
// remain of their generation, so that their host goes on telling how they ended.
func (t *txn) restop(a App) {
	for _, p := range collect(prefixed(t.copies, a.Spec.Name)) {
		switch {
		case a.spent(p) && (!p.Stopped || len(p.Ports) > 0 || p.Leaving != ""):
			p.Stopped, p.Ports, p.Leaving = true, nil, ""
			t.storePlacement(p)
		case a.stops(p) != p.Stopped:
			t.putPlacement(p)
		}
	}
}

// rebase forgets what is recorded of runs where a change of the app's kind makes
// it meaningless. What was asked of the app as it was is not asked of what it
// has become.
func (a *App) rebase(before App) {
	switch {
	case a.Spec.Kind() == before.Spec.Kind():
		if before.TriesAgain() && a.Spec.Once {
			a.RestartAt = a.Modified
		}
	case a.job() || before.job():
		a.Job, a.RestartAt = Job{}, 0
	}
}

// haltJob takes in that a user has stopped a job. What is due while it is
// stopped is not made up for, and a scheduled run that was stopped does not go
// on later; a one-shot does.
func (a *App) haltJob() {
	if !a.Stopped || !a.job() {
		return
	}
	a.Job.Schedule = ""
	if a.Spec.Kind() == intent.KindSchedule && a.Job.active() {
		a.Job.Run.Outcome, a.Job.Run.Why = RunStopped, "the app was stopped"
		a.Job.Last = a.Job.Run
	}
}

func unix(sec int64) time.Time {
	if sec == 0 {
		return time.Time{}
	}
	return time.Unix(sec, 0).UTC()
}
