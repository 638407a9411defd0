package workload

import (
	"fmt"
	"syscall"
	"time"
)

// retryStop is when a stop that failed is tried again, and waitTurn when a start
// that waits for something of our own is. A moment after its end nothing about a copy
// has to be looked at again before it is started.
const (
	retryStop = time.Second
	waitTurn  = 250 * time.Millisecond
	moment    = time.Second
)

// Supervisor keeps one copy as its target says. It is a state machine without a
// clock, a goroutine or any effect: Step takes in what happened and returns what
// to do, and whoever runs it answers each Start and Stop with an input. It is
// not safe for concurrent use.
//
// It is level-triggered: after each input it looks at what is wanted and what
// runs and takes the one step that leads from here to there. An action in
// flight is always waited for, so that at most one instance of a copy exists.
type Supervisor struct {
	jitter func() float64

	want    *Target
	decided bool     // a Want has come: until then a running copy is left alone
	rule    StopRule // of the last target

	inst     *Instance
	inFlight State // StateStarting or StateStopping while an action is; else empty
	health   health

	// What follows belongs to the generation being worked on.
	generation uint64
	born       time.Time // when work on it began
	starts     int       // start number of the last instance
	backoff    backoff
	retryAt    time.Time // no start, or second try of a stop, before it
	fast       bool      // the next start follows an end at once
	proved     bool      // it has been stable once
	exitAt     time.Time // of the last end, for how long the next start took
	restart    NoteKind  // what the next start answers; empty: it is a first one
	failure    failure
	tries      int  // that failed, of a copy that runs once
	gaveUp     bool // it was tried often enough
	lapse      Lapse
	why        string

	completed uint64 // the last generation that ran to completion
	recalled  Memory // of an earlier life, for the generation it names
	early     []early

	brake      Brake
	held       bool // a restart that the brake holds
	asked      bool // a restart, not yet begun
	askedWhy   string
	stopWhy    string
	stopCause  NoteKind
	readySince time.Time // zero: not ready
	toldSick   bool
	toldHuman  time.Time
}

// early is an end that came before the first Want: what it is of is only known
// then.
type early struct {
	gone *Instance
	exit Exit
}

type failure struct {
	state State // what the copy shows while nothing runs: backoff, failed or pending
	bad   bool  // the generation cannot work as it is
	port  bool
}

// NewSupervisor returns a supervisor of a copy that does not run. Jitter returns
// a number in [0,1) for each wait that is spread.
func NewSupervisor(jitter func() float64) *Supervisor {
	return &Supervisor{jitter: jitter}
}

// Step takes in one input at the time now, which never goes back.
func (s *Supervisor) Step(now time.Time, in Input) Output {
	var out Output
	switch in := in.(type) {
	case Want:
		s.onWant(now, in.Target, &out)
	case Adopted:
		s.onAdopted(now, in.Instance)
	case Started:
		s.onStarted(now, in.Instance, &out)
	case StartFailed:
		s.onStartFailed(now, in, &out)
	case Exited:
		if s.decided || s.inst == nil {
			s.onExited(now, in.Exit, &out)
			break
		}
		s.early = append(s.early, early{s.inst, in.Exit})
		s.inst = in.Exit.Successor
	case StopEnded:
		s.onStopEnded(now, in, &out)
	case Probed:
		if s.inst != nil {
			s.health.result(now, in)
		}
	case RestartAsked:
		s.asked = s.want != nil && s.want.Stopped == "" && !s.hasCompleted()
		s.askedWhy = in.Why
		s.fast = s.fast || s.asked && s.inst == nil && s.failure.state == StateBackoff && now.Sub(s.exitAt) < moment
	case Recalled:
		s.recalled, s.completed = in.Memory, in.Memory.Completed
	}
	s.advance(now, &out)
	out.Wake = s.wake(now)
	return out
}

func (s *Supervisor) onWant(now time.Time, t *Target, out *Output) {
	s.decided, s.want = true, t
	missed := s.early
	if s.early = nil; len(missed) > 0 {
		s.inst = missed[0].gone
	}
	if t != nil {
		s.rule = t.Policy.Stop
		s.turnTo(now, t, out)
	}
	for _, e := range missed {
		s.onExited(now, e.exit, out)
	}
}

// turnTo begins to work on another generation, if t is one.
func (s *Supervisor) turnTo(now time.Time, t *Target, out *Output) {
	if s.generation == t.Generation && !s.born.IsZero() {
		return
	}
	s.begin(now, t.Generation)
	s.recall(now, out)
	if s.inst != nil && s.inst.Spec.Generation == t.Generation {
		s.starts = s.inst.Start
		s.health = newHealth(now, t.Policy, true)
	}
}

// heldWhy is why a copy that has ended is not restarted.
const heldWhy = "it has ended, and restarts are frozen too: ganglion thaw"

// Brake is what may not be done to a copy unless somebody asks for it.
type Brake struct {
	Frozen bool // it is not restarted for being unhealthy
	Hard   bool // it is not restarted when it has ended either
}

// Hold sets the brake as it is now; it is looked at in each Step that follows.
func (s *Supervisor) Hold(b Brake) { s.brake = b }

// begin forgets what was learnt about another generation.
func (s *Supervisor) begin(now time.Time, generation uint64) {
	s.generation, s.born = generation, now
	s.starts, s.backoff, s.retryAt = 0, backoff{}, time.Time{}
	s.restart, s.failure, s.why = "", failure{}, ""
	s.held, s.asked, s.fast, s.proved, s.toldHuman = false, false, false, false, time.Time{}
	s.tries, s.gaveUp, s.lapse = 0, false, Lapse{}
}

// lapsed notes that a copy that is, or was, ready is no more so, and keeps the
// end of the longest time of being ready.
func (s *Supervisor) lapsed(now, readySince time.Time, why string) {
	if after := now.Sub(readySince); !readySince.IsZero() && after >= s.lapse.After {
		s.lapse = Lapse{after, why}
	}
}

// onAdopted keeps the instance; its health is judged once its policy is known.
func (s *Supervisor) onAdopted(now time.Time, inst Instance) {
	s.inst = &inst
	if s.want != nil && s.want.Generation == inst.Spec.Generation {
		s.starts = inst.Start
		s.health = newHealth(now, s.want.Policy, true)
	}
}

func (s *Supervisor) onStarted(now time.Time, inst Instance, out *Output) {
	s.inFlight, s.inst = "", &inst
	if inst.Spec.Generation == s.generation {
		s.starts = inst.Start
	}
	if s.asked {
		s.tries, s.gaveUp = 0, false
	}
	s.retryAt, s.asked, s.fast = time.Time{}, false, false
	if s.failure.state != StateBackoff {
		s.why = "" // a start refused; one that ended says so until the next is ready
	}
	if s.failure.state == StateFailed {
		s.failure.bad = false // it could not start, and now it did
	}
	s.failure.state, s.failure.port = "", false
	if s.want != nil {
		s.health = newHealth(now, s.want.Policy, false)
	}
	s.toldSick, s.readySince = false, time.Time{}
	note := Note{Kind: NoteStarted, Instance: inst}
	if s.restart != "" {
		note = Note{Kind: NoteRestarted, Cause: s.restart, Instance: inst, After: now.Sub(s.exitAt), By: "agent"}
	}
	s.restart = note.Kind
	s.tell(out, note)
}

func (s *Supervisor) onStartFailed(now time.Time, in StartFailed, out *Output) {
	s.inFlight, s.asked, s.fast = "", false, false
	s.why = in.Why
	s.failure.port = in.Kind == FailedPort
	if s.want == nil {
		return
	}
	p := s.want.Policy
	switch in.Kind {
	case FailedForGood:
		s.gaveUp = p.Once
		s.failure.state, s.failure.bad = StateFailed, true
		s.retryAt = now.Add(slow(p, s.jitter()))
		s.needsHuman(now, out)
	case FailedPort:
		s.failure.state = StatePending
		s.retryAt = now.Add(grown(3, p, s.jitter()))
	case FailedWaiting:
		s.failure.state = StatePending
		s.retryAt = now.Add(waitTurn)
	default:
		s.countFailure(now, out)
	}
}

// onExited handles an end that nobody asked for. Where PID 1 has started a
// successor, that one is supervised and only the count is ours.
func (s *Supervisor) onExited(now time.Time, exit Exit, out *Output) {
	if s.inst == nil {
		return
	}
	gone := *s.inst
	s.exitAt = now
	if !exit.At.IsZero() && exit.At.Before(now) {
		s.exitAt = exit.At // when the driver saw it
	}
	kind := NoteExited
	if exit.Fenced {
		kind = NoteFenced
	}
	s.tell(out, Note{Kind: kind, Cause: s.restart, Instance: gone, Exit: exit})
	wasReady := s.readySince
	s.inst, s.readySince, s.restart = nil, time.Time{}, kind
	if s.want == nil || gone.Spec.Generation != s.want.Generation {
		s.restart = ""
		s.inst = exit.Successor
		return
	}
	s.why = describe(exit)
	if s.want.Policy.Once && exit.succeeded() {
		s.completed, s.failure, s.restart = s.generation, failure{}, ""
		return
	}
	if exit.Fenced && exit.Successor == nil { // that its lease ended says nothing of the copy
		s.why, s.failure.state, s.fast = fencedWhy, StatePending, false
		s.retryAt = now.Add(waitTurn)
		return
	}
	if !exit.Fenced {
		s.lapsed(s.exitAt, wasReady, s.why)
		s.countFailure(now, out)
	}
	if exit.Successor == nil {
		return
	}
	s.inst, s.starts = exit.Successor, exit.Successor.Start
	s.health, s.toldSick = newHealth(now, s.want.Policy, false), false
	s.retryAt, s.failure.state = time.Time{}, ""
	s.restart = NoteRestarted
	by := "pid1"
	if s.inst.Spec.Lease != nil {
		by = "keeper"
	}
	s.tell(out, Note{Kind: NoteRestarted, Cause: kind, Instance: *s.inst, After: now.Sub(exit.At), By: by})
}

// countFailure spends a restart and says when it may take place.
func (s *Supervisor) countFailure(now time.Time, out *Output) {
	p := s.want.Policy
	wait, over := s.backoff.next(now, p, s.jitter())
	s.retryAt = now.Add(wait)
	s.failure.state = StateBackoff
	s.tries++
	switch {
	case p.Once && s.tries > p.Limit:
		s.gaveUp, s.failure = true, failure{state: StateFailed, bad: true}
		s.why = fmt.Sprintf("%s; tried %s", s.why, times(s.tries))
		s.needsHuman(now, out)
	case p.Once:
	case over:
		s.failure.bad = true
		s.why = fmt.Sprintf("%s; restarted %s within %s, now trying every %s", s.why, times(p.Limit), p.Window, p.BackoffMax)
		s.needsHuman(now, out)
	}
	s.fast = wait == 0
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func (s *Supervisor) onStopEnded(now time.Time, in StopEnded, out *Output) {
	s.inFlight = ""
	if s.inst == nil {
		return
	}
	if in.Err != nil {
		s.why = "stop: " + in.Err.Error()
		s.retryAt = now.Add(retryStop)
		return
	}
	s.tell(out, Note{Kind: NoteStopped, Cause: s.stopCause, Instance: *s.inst, Exit: in.Exit, Why: s.stopWhy})
	sick := s.stopCause == NoteUnhealthy && s.want != nil && s.inst.Spec.Generation == s.want.Generation
	s.inst, s.readySince, s.retryAt, s.exitAt = nil, time.Time{}, time.Time{}, now
	s.stopCause = ""
	switch {
	case sick:
		s.restart = NoteStopped
		s.countFailure(now, out)
	case s.asked:
		s.restart = NoteStopped
	default:
		s.restart = ""
	}
}

// hasCompleted tells that the copy has done what this generation of it was for.
func (s *Supervisor) hasCompleted() bool {
	return s.want != nil && s.want.Policy.Once && s.completed == s.generation && s.generation != 0
}

// final tells that the copy is not started any more, but for a restart that is
// asked for.
func (s *Supervisor) final() bool { return s.hasCompleted() || s.gaveUp }

// advance takes the step from what runs to what is wanted.
func (s *Supervisor) advance(now time.Time, out *Output) {
	switch {
	case s.inFlight != "" || !s.decided:
	case s.inst != nil:
		s.tend(now, out)
	case s.want != nil && s.want.Stopped == "" && (s.asked || !s.final() && !now.Before(s.retryAt)):
		if s.held = s.brake.Hard && s.restart != "" && !s.asked; s.held {
			s.why = heldWhy
			return
		}
		s.inFlight = StateStarting
		out.Actions = append(out.Actions, Start{N: s.starts + 1, Fast: s.fast && s.starts > 0})
	}
}

// tend looks after a running copy: ends it if it should not be, else watches its
// health.
func (s *Supervisor) tend(now time.Time, out *Output) {
	if why := s.unwanted(); why != "" {
		s.stop(now, why, "", out)
		return
	}
	if s.readySince.IsZero() && s.health.ready(now) {
		s.readySince, s.toldSick = now, false
		s.why = ""
		s.tell(out, Note{Kind: NoteReady, Cause: s.restart, Instance: *s.inst, After: now.Sub(s.health.began)})
	}
	if ails, bad := s.health.unhealthy(); bad {
		s.sick(now, ails, out)
		if ails.live && !s.brake.Frozen {
			s.stop(now, "unhealthy: "+ails.why, NoteUnhealthy, out)
			return
		}
	}
	if !s.readySince.IsZero() && now.Sub(s.readySince) >= s.want.Policy.Stable {
		s.backoff.stable()
		s.failure.bad, s.proved = false, true
	}
	for _, i := range s.health.due(now) {
		out.Actions = append(out.Actions, Probe{Check: i})
	}
}

// sick takes in that the copy is unhealthy. A generation that was never stable
// is taken for one that cannot work as it is.
func (s *Supervisor) sick(now time.Time, a ailment, out *Output) {
	s.lapsed(now, s.readySince, a.why)
	s.readySince, s.why = time.Time{}, a.why
	if s.toldSick {
		return
	}
	s.toldSick = true
	s.failure.bad = s.failure.bad || !s.proved
	s.tell(out, Note{
		Kind: NoteUnhealthy, Cause: s.restart, Instance: *s.inst, Why: a.why, Check: a.check, Count: a.failures,
	})
}

// unwanted says why the running copy should end; empty if it should not.
func (s *Supervisor) unwanted() string {
	switch spec := s.inst.Spec; {
	case s.want == nil:
		return "no longer placed on this host"
	case s.want.Stopped != "":
		return s.want.Stopped
	case spec.Version != s.want.Version:
		return "replaced by version " + s.want.Version
	case s.asked && s.askedWhy != "":
		return s.askedWhy
	case spec.Generation != s.want.Generation, s.asked:
		return "asked to restart"
	}
	return ""
}

func (s *Supervisor) stop(now time.Time, why string, cause NoteKind, out *Output) {
	if now.Before(s.retryAt) {
		return // a stop has just failed
	}
	rule := s.rule
	if rule == (StopRule{}) { // adopted, and never placed here since
		rule = StopRule{Signal: syscall.SIGTERM, Grace: 10 * time.Second}
	}
	s.inFlight, s.stopWhy, s.stopCause = StateStopping, why, cause
	out.Actions = append(out.Actions, Stop{Rule: rule})
}

// needsHuman tells at most once a window that local restarts do not help.
func (s *Supervisor) needsHuman(now time.Time, out *Output) {
	if !s.toldHuman.IsZero() && now.Sub(s.toldHuman) < s.want.Policy.Window {
		return
	}
	s.toldHuman = now
	s.tell(out, Note{Kind: NoteNeedsHuman, Cause: s.restart, Why: s.why, Count: len(s.backoff.history)})
}

func (s *Supervisor) tell(out *Output, n Note) { out.Actions = append(out.Actions, Tell{Note: n}) }
