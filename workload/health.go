package workload

import "time"

// Outcome is the result of one probe.
type Outcome int

// The outcomes. Unknown is a probe that says nothing about the copy, such as a
// timeout on a host with no CPU left: it neither counts nor clears.
const (
	Passed Outcome = iota
	Failed
	Unknown
)

const (
	firstProbe = 100 * time.Millisecond // between the first probes of a start, doubling up to Every
)

// health judges one start of a copy by its checks.
type health struct {
	began  time.Time
	policy Policy
	checks []checkState
}

type checkState struct {
	due      time.Time
	inFlight bool
	tries    int
	passed   bool // at least once in this start
	bad      bool // unhealthy: Failures in a row
	fails    int  // in a row, past the grace
	timeouts int  // in a row, of the last of these
	why      string
}

// newHealth begins to judge a start. An adopted copy without checks has run for
// long enough already.
func newHealth(now time.Time, p Policy, adopted bool) health {
	h := health{began: now, policy: p, checks: make([]checkState, len(p.Checks))}
	for i := range h.checks {
		h.checks[i].due = now
	}
	if adopted {
		h.policy.Settle = 0
	}
	return h
}

// due returns the checks to probe now and marks them as being probed.
func (h *health) due(now time.Time) []int {
	var out []int
	for i := range h.checks {
		if c := &h.checks[i]; !c.inFlight && !now.Before(c.due) {
			c.inFlight = true
			out = append(out, i)
		}
	}
	return out
}

// result takes in what a probe found.
func (h *health) result(now time.Time, in Probed) {
	if in.Check < 0 || in.Check >= len(h.checks) {
		return
	}
	c, p := &h.checks[in.Check], h.policy.Checks[in.Check]
	c.inFlight = false
	c.tries++
	switch in.Outcome {
	case Passed:
		c.passed, c.bad, c.fails, c.timeouts, c.why = true, false, 0, 0, ""
	case Failed:
		c.why = p.Name + ": " + in.Why
		if now.Sub(h.began) >= p.Grace {
			c.fails++
			c.timeouts++
		}
		if !in.Timeout {
			c.timeouts = 0
		}
		c.bad = c.bad || c.fails >= p.Failures
	}
	c.due = now.Add(p.Every)
	// A start is watched closely until the first success, so that a copy which
	// is up in 300 ms is ready in 300 ms and not at the second probe.
	if !c.passed && c.tries < 16 {
		c.due = now.Add(min(p.Every, firstProbe<<(c.tries-1)))
	}
}

// ready tells whether every check holds.
func (h *health) ready(now time.Time) bool {
	for i := range h.checks {
		if !h.checks[i].passed || h.checks[i].bad {
			return false
		}
	}
	return len(h.checks) > 0 || now.Sub(h.began) >= h.policy.Settle
}

// ailment is a check that makes a copy unhealthy.
type ailment struct {
	check    string
	failures int
	why      string
	live     bool // it asks for a restart
}

// unhealthy returns what ails the copy, what asks for a restart first.
func (h *health) unhealthy() (worst ailment, bad bool) {
	for i := range h.checks {
		c, p := &h.checks[i], h.policy.Checks[i]
		if c.bad && (!bad || p.Live && !worst.live) {
			worst, bad = ailment{check: p.Name, failures: c.fails, why: c.why, live: p.Live}, true
		}
	}
	return worst, bad
}

// failures tells of the check that fails longest how often in a row it has, past
// the grace, and how many of the last of these got no answer in time.
func (h *health) failures() (fails, timeouts int) {
	for i := range h.checks {
		if c := &h.checks[i]; c.fails > fails {
			fails, timeouts = c.fails, c.timeouts
		}
	}
	return fails, timeouts
}

// waiting says what keeps the copy from being ready.
func (h *health) waiting() string {
	for i := range h.checks {
		if c := &h.checks[i]; !c.passed && c.why != "" {
			return c.why
		}
	}
	return ""
}

// wake is when there is something to do: a check to probe, or readiness by
// settling.
func (h *health) wake(now time.Time) (at time.Time) {
	for i := range h.checks {
		if !h.checks[i].inFlight {
			at = earlier(at, h.checks[i].due)
		}
	}
	if len(h.checks) == 0 && now.Sub(h.began) < h.policy.Settle {
		at = h.began.Add(h.policy.Settle)
	}
	return at
}

// earlier returns the earlier of two times, of which zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
