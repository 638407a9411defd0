package topology

import (
	"fmt"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// missedBound is for how long after its due time a run that nobody could begin,
// because no leader was there, is still begun: once, whatever else was due.
const missedBound = 24 * time.Hour

// tendRun looks after the run of a job that is under way: records how it ended,
// and moves it off lost hosts and off hosts that it has left. It lets go of what
// earlier runs have left on hosts that are being emptied.
func (p *planner) tendRun(a *appPlan) {
	for _, c := range a.all() {
		if c.N != 0 || c.Surge || c.Stopped && (a.Stopped || c.Leaving == "") && c.room.Drain != DrainNone && (c.gone() || !c.room.obs.Alive) {
			p.drop(a, c) // of another kind that the app had, or of use to nobody
		}
	}
	c := a.running()
	if c == nil || a.Stopped {
		return
	}
	if p.conclude(a, c) {
		return
	}
	p.replaceLost(a)
	p.finishRunMove(a, c)
}

// running returns the copy of the run that is under way, if it has a place.
func (a *appPlan) running() *copyPlan {
	for _, c := range a.copies {
		if c.N == 0 && a.Job.active() && a.Job.of(c.Placement) {
			return c
		}
	}
	return nil
}

// conclude records the end of the run if the host of its copy reports it: of
// whatever generation of the run, since it may have ended just when it was told
// to move or to stop.
func (p *planner) conclude(a *appPlan, c *copyPlan) bool {
	r := RunRecord{App: a.Spec.Name, Of: a.Job.Run.Index, At: p.unixNow(), Host: c.Host, Why: clip(c.obs.Why)}
	switch {
	case c.known && c.obs.Done > a.Job.Run.Index:
		r.Outcome = RunDone
	case c.seen && c.obs.Failed && c.obs.State == CopyFailed:
		r.Outcome = RunFailed
	default:
		return false
	}
	p.runs = append(p.runs, r)
	return true
}

// unixNow is the time as it is recorded. It is 0 if it is not known.
func (p *planner) unixNow() int64 {
	if p.obs.Now.IsZero() {
		return 0
	}
	return p.obs.Now.Unix()
}

// finishRunMove places a run's copy that has stopped on the host it had to
// leave, or lets it begin again there if the reason has gone or no host takes
// it.
func (p *planner) finishRunMove(a *appPlan, c *copyPlan) {
	switch {
	case c.Leaving == "" || c.touched || !c.room.fresh || p.full():
	case a.mustLeave(c) == "" && p.refits(a, c, c.Version):
		p.inPlace(a, c, c.Version)
	case c.gone() && !p.arrive(a, c, c.Version):
		p.unplaced(c.Key(), "stays on "+c.Host+", which it should leave ("+c.Leaving+"); "+p.refusal(a.need(c.Key(), c.Version, c.Ports)))
		p.inPlace(a, c, c.Version)
	}
}

// nextRun begins a run that is due or asked for, and gives the one that is under
// way a place and a better one.
func (p *planner) nextRun(a *appPlan) {
	if a.Stopped {
		return
	}
	if ended := slices.ContainsFunc(p.runs, func(r RunRecord) bool { return r.App == a.Spec.Name }); ended || p.begin(a) {
		return // the next decision knows more
	}
	if !a.Job.active() {
		return
	}
	c := a.running()
	if c == nil {
		p.placeRun(a)
		return
	}
	if a.frozen {
		return
	}
	p.repairPorts(a)
	reason := a.mustLeave(c)
	if c.touched || c.Leaving != "" || !c.room.fresh || !c.seen || reason == "" || p.full() {
		return
	}
	if !p.leave(a, c, reason, c.Version) {
		p.unplaced(c.Key(), "stays on "+c.Host+" although "+reason+"; "+p.refusal(a.need(c.Key(), c.Version, c.Ports)))
	}
}

// begin records that a run begins, or why one that is due does not. It reports
// whether there was anything to record.
func (p *planner) begin(a *appPlan) bool {
	r := RunRecord{App: a.Spec.Name, Of: a.Job.Run.Index, At: p.unixNow()}
	switch {
	case a.RestartAt > a.Job.Run.Index:
		p.beginRun(a, r, RunReplaced, "a restart was asked for")
	case a.Spec.Schedule != "":
		return p.schedule(a, r)
	case a.Job.Run.Index == 0 || a.Job.Run.Version != a.Version:
		p.beginRun(a, r, RunReplaced, "version "+a.Version+" takes its place")
	default:
		return false
	}
	return true
}

// beginRun records that a run begins, and how the one before it ended if it has
// not.
func (p *planner) beginRun(a *appPlan, r RunRecord, before RunOutcome, why string) {
	if a.Job.active() {
		r.Outcome, r.Why = before, why
	}
	r.Begin, r.Ver = true, a.Version
	p.runs = append(p.runs, r)
}

// schedule looks whether a run is due. A due time counts once, recorded before
// anything is started: a clock that is set back makes none due again.
func (p *planner) schedule(a *appPlan, r RunRecord) bool {
	if p.obs.Now.IsZero() {
		return false
	}
	sched, now, from := a.compile().schedule, p.obs.Now, unix(a.Job.From)
	r.Schedule = a.Spec.Schedule
	if a.Job.Schedule != a.Spec.Schedule {
		// A schedule counts from when it is first seen, or seen again after a stop.
		r.From = now.Unix()
		if a.Job.Schedule == "" {
			r.From = max(r.From, a.Job.From)
		}
		p.runs = append(p.runs, r)
		return true
	}
	next := sched.Next(from)
	if next.IsZero() {
		return false
	}
	if next.After(now) {
		p.wake(next.Sub(now))
		return false
	}
	if a.frozen {
		return false // it is due still when that ends
	}
	due := sched.Last(latest(from, now.Add(-missedBound)), now)
	if due.IsZero() { // it was due once, but too long ago
		r.From, r.Passed = now.Add(-missedBound).Unix(), fmt.Sprintf("the run due at %s was missed by more than %s: no leader was there", stamp(next), intent.Duration(missedBound))
		p.runs = append(p.runs, r)
		return true
	}
	r.From = due.Unix()
	if why := p.overlaps(a); why != "" {
		r.Passed, r.Overlap = fmt.Sprintf("the run due at %s is skipped: %s", stamp(due), why), true
		p.runs = append(p.runs, r)
		return true
	}
	r.Due = r.From
	p.beginRun(a, r, RunFailed, "it had not succeeded when the next was due; "+p.plight(a))
	return true
}

// overlaps says why the run before may still be at work. One that is known to be
// between two tries, or has no place, makes way.
func (p *planner) overlaps(a *appPlan) string {
	c := a.running()
	switch {
	case c == nil:
		return ""
	case !c.seen || !c.room.fresh:
		return "the one before it may still run on " + c.Host
	case c.obs.State == CopyBackoff || c.obs.State == CopyFailed || c.obs.State == CopyPending:
		return ""
	}
	return "the one before it still runs on " + c.Host
}

// plight says how a run fares that has not succeeded.
func (p *planner) plight(a *appPlan) string {
	if c := a.running(); c != nil {
		return orText(c.obs.Why, "its host does not say why")
	}
	return "no host took it"
}

// placeRun gives the run that is under way a host, once nothing of the run
// before it runs any more.
func (p *planner) placeRun(a *appPlan) {
	key := CopyKey{App: a.Spec.Name}
	var old *copyPlan
	keep := map[string]int(nil)
	for _, c := range a.copies {
		if c.N == 0 {
			old, keep = c, c.Ports
		}
	}
	if old != nil && !p.vacated(a, old) {
		p.unplaced(key, "waiting for "+old.Host+" to stop the run before it")
		return
	}
	if p.full() {
		return
	}
	n := a.need(key, a.Job.Run.Version, keep)
	target, why := p.target(n)
	if target == nil {
		p.unplaced(key, why)
		return
	}
	a.copies = slices.DeleteFunc(a.copies, func(c *copyPlan) bool { return c == old })
	p.add(a, n.placeOn(target, a.Job.Run.Version))
}

// vacated reports whether nothing of an earlier run can still be at work where
// it was: its host says so or has said so, its end is on record, or the host is
// lost and the app goes on without it.
func (p *planner) vacated(a *appPlan, c *copyPlan) bool {
	last := a.Job.Last
	switch {
	case c.room.fresh:
		return c.gone()
	case c.known && (over(c.obs) || c.obs.State == CopyFailed):
		return true
	case last.Outcome == RunDone || last.Outcome == RunFailed:
		if c.Generation > last.Index {
			return true
		}
	}
	return a.replace && a.lost(c.room) && !p.out.GateShut && !p.wary
}

func latest(x, y time.Time) time.Time {
	if x.After(y) {
		return x
	}
	return y
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }
