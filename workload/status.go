package workload

import (
	"fmt"
	"time"
)

// Status is what a Supervisor knows of its copy.
type Status struct {
	State      State
	Instance   *Instance // what runs; nil: nothing. Not to be changed
	Generation uint64    // being worked on
	Born       time.Time // when the work on it began
	Starts     int       // of that generation
	Ready      bool
	ReadySince time.Time // zero if not ready
	Failed     bool      // this generation cannot work as it is
	Completed  uint64    // the last generation that ran to completion; 0: none
	PortTaken  bool      // a dynamic port is held by something else
	Failures   int       // in a row, of the check that fails longest; 0: none does
	Timeouts   int       // of these, how many of the last got no answer in time
	Lapse      Lapse     // the worst of that generation, in this life of the agent; zero: none
	Why        string    // why it does not run, or is not ready; empty if it is
}

// Lapse is how a copy that was ready stopped being so by its own doing: it ended,
// or its checks failed.
type Lapse struct {
	After time.Duration // for how long it had been ready on end
	Why   string
}

// Status returns what is known now.
func (s *Supervisor) Status() Status {
	st := Status{
		State:      s.state(),
		Instance:   s.inst,
		Generation: s.generation,
		Born:       s.born,
		Starts:     s.starts,
		Ready:      !s.readySince.IsZero() && s.inFlight != StateStopping,
		ReadySince: s.readySince,
		Failed:     s.failure.bad,
		Completed:  s.completed,
		PortTaken:  s.failure.port,
		Lapse:      s.lapse,
		Why:        s.why,
	}
	if s.inst != nil {
		st.Failures, st.Timeouts = s.health.failures()
	}
	switch {
	case s.inFlight == StateStopping:
		st.Why = s.stopWhy
	case s.want != nil && s.want.Stopped != "":
		st.Why = s.want.Stopped
	case s.inst != nil && !st.Ready && st.Why == "":
		st.Why = s.health.waiting()
	}
	return st
}

// Done tells that the copy is neither wanted nor running: nothing is left to
// supervise.
func (s *Supervisor) Done() bool {
	return s.decided && s.want == nil && s.inst == nil && s.inFlight == ""
}

func (s *Supervisor) state() State {
	switch {
	case s.inFlight != "":
		return s.inFlight
	case s.inst != nil:
		return StateRunning
	case s.want == nil || s.want.Stopped != "" || s.hasCompleted():
		return StateStopped
	case s.failure.state != "":
		return s.failure.state
	}
	return StatePending
}

// wake is when something is to be done even if nothing happens.
func (s *Supervisor) wake(now time.Time) (at time.Time) {
	switch {
	case s.inFlight != "" || !s.decided:
		return at
	case s.inst == nil:
		if s.want != nil && s.want.Stopped == "" && !s.final() && !s.held {
			at = s.retryAt
		}
		return at
	}
	if s.retryAt.After(now) { // a stop has just failed: nothing else matters
		return s.retryAt
	}
	at = s.health.wake(now)
	if s.want != nil && !s.readySince.IsZero() {
		if stable := s.readySince.Add(s.want.Policy.Stable); stable.After(now) {
			at = earlier(at, stable)
		}
	}
	return at
}

// describe says how a copy ended, for people.
func describe(e Exit) string {
	ran := e.Ran.Round(time.Millisecond)
	if e.Ran > 10*time.Second {
		ran = e.Ran.Round(time.Second)
	}
	switch {
	case !e.Known:
		return fmt.Sprintf("ended after %s, how is not known", ran)
	case e.Signal != 0:
		return fmt.Sprintf("ended by %s after %s", SignalName(e.Signal), ran)
	}
	return fmt.Sprintf("exited with code %d after %s", e.Code, ran)
}
