package workload

import (
	"slices"
	"time"
)

// Memory is what a Supervisor knows of a copy that no driver can tell its
// successor: with it, neither the pacing of a crash loop nor the success of a
// copy that runs once is lost with the agent.
type Memory struct {
	Generation uint64
	Up         bool        // an instance of it runs
	Token      uint64      // of the lease that it runs under; 0: none
	Starts     int         // of the generation
	Tries      int         // that failed, of a copy that runs once
	GaveUp     bool        // on a copy that runs once
	Failed     bool        // the generation cannot work as it is
	Streak     int         // restarts since the last stable period
	Restarts   []time.Time // the last ones, for the window; not to be changed
	RetryAt    time.Time   // zero: nothing is waited for
	Why        string      // it does not run, if it does not
	Held       bool        // it has ended, and a hard freeze keeps it from being restarted
	Completed  uint64      // the last generation that ran to completion; 0: none
}

// Memory returns what is to be remembered.
func (s *Supervisor) Memory() Memory {
	m := Memory{
		Generation: s.generation, Up: s.inst != nil && s.inst.Spec.Generation == s.generation,
		Starts: s.starts, Tries: s.tries, GaveUp: s.gaveUp, Failed: s.failure.bad,
		Streak: s.backoff.streak, Restarts: s.backoff.history, Completed: s.completed,
	}
	if s.inst == nil {
		m.RetryAt, m.Why, m.Held = s.retryAt, s.why, s.held
	} else if l := s.inst.Spec.Lease; l != nil {
		m.Token = l.Token
	}
	return m
}

// Equal tells whether two memories say the same.
func (m Memory) Equal(o Memory) bool {
	same := slices.EqualFunc(m.Restarts, o.Restarts, time.Time.Equal) && m.RetryAt.Equal(o.RetryAt)
	m.Restarts, o.Restarts, m.RetryAt, o.RetryAt = nil, nil, time.Time{}, time.Time{}
	return same && m.same(o)
}

func (m Memory) same(o Memory) bool {
	return m.Generation == o.Generation && m.Up == o.Up && m.Token == o.Token && m.Starts == o.Starts && m.Tries == o.Tries && m.GaveUp == o.GaveUp &&
		m.Failed == o.Failed && m.Streak == o.Streak && m.Why == o.Why && m.Held == o.Held && m.Completed == o.Completed
}

// recall goes on where an earlier life left off. An instance that ran then and
// was not found again has ended meanwhile, nobody knows how; but where a keeper
// had it, that keeps it for as long as the lease lasts.
func (s *Supervisor) recall(now time.Time, out *Output) {
	m := s.recalled
	s.recalled = Memory{}
	if m.Generation != s.generation {
		return
	}
	s.backoff = backoff{streak: m.Streak, history: slices.Clone(m.Restarts)}
	s.tries, s.gaveUp, s.failure.bad = m.Tries, m.GaveUp, m.Failed
	if s.inst != nil {
		return
	}
	s.starts, s.why = m.Starts, m.Why
	switch {
	case s.hasCompleted():
	case s.gaveUp:
		s.failure = failure{state: StateFailed, bad: true}
	case m.Up && m.Token != 0 && s.want.Stopped == "":
		s.tell(out, Note{Kind: NoteFenced, Instance: s.gone(m), Exit: Exit{At: now}})
		s.restart, s.exitAt, s.why, s.failure.state = NoteFenced, now, fencedWhy, StatePending
	case m.Up && s.want.Stopped == "":
		s.tell(out, Note{Kind: NoteExited, Instance: s.gone(m), Exit: Exit{At: now}})
		s.restart, s.exitAt, s.why = NoteExited, now, "ended while no agent watched, how is not known"
		s.countFailure(now, out)
	case m.Held:
		s.failure.state, s.restart = StateBackoff, NoteExited
	case m.RetryAt.After(now):
		s.retryAt, s.failure.state, s.restart = m.RetryAt, StateBackoff, NoteExited
	}
}

// gone is the instance that an earlier life knew of, as far as it is remembered.
func (s *Supervisor) gone(m Memory) Instance {
	spec := Spec{Version: s.want.Version, Generation: m.Generation}
	if m.Token != 0 {
		spec.Lease = &Lease{Token: m.Token}
	}
	return Instance{Spec: spec, Start: m.Starts}
}
