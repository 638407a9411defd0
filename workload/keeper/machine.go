package keeper

import (
	"fmt"
	"syscall"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// phase is where a keeper stands.
type phase string

const (
	phaseIdle     phase = "idle"     // nothing was started yet
	phaseStarting phase = "starting" // an exec is under way
	phaseRunning  phase = "running"  // something of the copy runs
	phaseEnding   phase = "ending"   // what runs is being killed
	phaseWaiting  phase = "waiting"  // nothing runs, until the back-off is over
	phaseOver     phase = "over"     // nothing runs, and nothing will
)

// act is one thing that the machine asks for.
type act int

const (
	actNone   act = iota
	actStart      // start the copy; answer with started
	actSignal     // send machine.signal to the copy
	actKill       // kill all that runs of the copy, once; answer with cleared if nothing is left
	actLook       // answer with cleared if nothing is left
)

const (
	stable       = time.Minute // who has run that long is restarted at once again
	longestWait  = time.Minute // between two restarts
	firstPause   = time.Millisecond
	longestPause = 20 * time.Millisecond // between two looks at what has to end
)

// machine decides what a keeper does: it is pure. Whatever happens is told to it
// by a method, with the time on CLOCK_BOOTTIME; then next says what to do until
// it says that there is nothing, and when to ask again.
type machine struct {
	phase phase
	lease workload.Lease
	start int // number of the last start

	began    time.Duration // of the last start
	alive    bool          // its first process has not ended
	exit     Ended         // of the start before, or of this one when it has ended
	fenced   bool          // this start was signalled or killed because of the lease
	told     bool          // the signal of the present deadline was sent
	askedAt  time.Duration // when the last signal because of the lease was sent; 0: none
	stopping bool          // somebody has asked for the end
	killAt   time.Duration // stopping, or left by its first process: when the grace ends
	killed   bool          // a kill came at the deadline or after
	signal   syscall.Signal
	pending  bool // signal is to be sent

	failures int           // ends in a row without a stable time between them
	retry    time.Duration // waiting: when to start
	delayed  bool          // waiting: not at once, so the agent may take it over
	held     bool          // nothing is restarted until somebody says so
	look     time.Duration // when to look again at what has to end
	pause    time.Duration
}

// begin starts the copy for the first time. An n above 1 is a restart that the
// agent has waited with, so that the first end of it is none of the quick ones.
func (m *machine) begin(now time.Duration, lease workload.Lease, n int) error {
	if m.phase != phaseIdle {
		return fmt.Errorf("start: the keeper has a copy already, in phase %s", m.phase)
	}
	if err := mayStart(now, lease); err != nil {
		return err
	}
	m.lease, m.start, m.phase, m.retry = lease, n-1, phaseWaiting, now
	if n > 1 {
		m.failures = 1
	}
	return nil
}

func mayStart(now time.Duration, lease workload.Lease) error {
	if !lease.Live(now) {
		return fmt.Errorf("the lease with token %d ends in %s, its copy would be asked to end %s before that; it needs to be renewed first",
			lease.Token, (lease.Deadline - now).Round(time.Millisecond), lease.Fence)
	}
	return nil
}

// extend moves the deadline. Past the old one there is nothing to extend.
func (m *machine) extend(now time.Duration, token uint64, deadline time.Duration) error {
	switch {
	case m.phase == phaseIdle || m.phase == phaseOver:
		return fmt.Errorf("extend: the keeper has no copy, in phase %s", m.phase)
	case token != m.lease.Token:
		return fmt.Errorf("extend: token %d is not the lease's, %d", token, m.lease.Token)
	case now >= m.lease.Deadline:
		return fmt.Errorf("extend: the lease with token %d has ended %s ago", token, now-m.lease.Deadline)
	case deadline < m.lease.Deadline:
		return fmt.Errorf("extend: the deadline %s is older than the lease's, %s", deadline, m.lease.Deadline)
	}
	m.lease.Deadline = deadline
	if m.alive && m.told && now < deadline-m.lease.Fence {
		m.told, m.fenced = false, false // it may be about to heed the signal, and is then started again
	}
	return nil
}

// stop ends the copy by its stop rule, for good. A second one may be in more of
// a hurry, never in less.
func (m *machine) stop(now time.Duration, sig syscall.Signal, grace time.Duration) {
	killAt := now + max(0, grace)
	if m.stopping {
		killAt = min(killAt, m.killAt)
	} else if sig > 0 && grace > 0 && m.phase == phaseRunning {
		m.signal, m.pending = sig, true
	}
	m.stopping, m.killAt = true, killAt
}

// started takes in how an exec went.
func (m *machine) started(now time.Duration, ok bool) {
	if !ok {
		m.backOff(now, 0)
		return
	}
	m.phase, m.began, m.alive = phaseRunning, now, true
	m.fenced, m.told, m.killed, m.pending, m.askedAt = false, false, false, false, 0
}

// ended takes in the end of the first process. What it leaves has the grace that
// it was given itself; without one it goes at once.
func (m *machine) ended(now time.Duration, e Ended) {
	e.Start, e.Ran, e.Fenced = m.start, now-m.began, m.fenced || m.heeds(now)
	m.exit, m.alive = e, false
	m.look, m.pause = now, firstPause
	switch {
	case m.phase != phaseRunning || m.stopping:
	case m.told:
		m.killAt = m.lease.Deadline
	default:
		m.phase = phaseEnding
	}
}

// heeds tells whether an end at now is taken for the answer to a signal that a
// later deadline has overtaken.
func (m *machine) heeds(now time.Duration) bool {
	return m.askedAt > 0 && now-m.askedAt <= m.lease.Fence
}

// cleared takes in that nothing of the copy runs any more.
func (m *machine) cleared(now time.Duration) {
	if m.alive || (m.phase != phaseRunning && m.phase != phaseEnding) {
		return
	}
	if m.stopping {
		m.phase = phaseOver
		return
	}
	if m.exit.Fenced { // that says nothing of the copy
		m.await(now, 0)
		return
	}
	m.backOff(now, now-m.began)
}

func (m *machine) backOff(now, ran time.Duration) {
	if ran >= stable {
		m.failures = 0
	}
	var wait time.Duration
	if m.failures > 0 {
		wait = min(time.Second<<min(m.failures-1, 10), longestWait)
	}
	m.failures++
	m.await(now, wait)
}

// await begins the wait for the next start.
func (m *machine) await(now, wait time.Duration) {
	m.phase, m.retry, m.delayed = phaseWaiting, now+wait, wait > 0 || m.held
}

// hold keeps the copy from being restarted, or lets it be again. An agent that is
// there takes over a wait so that it can do that by its own rules; without one it
// ends with the lease.
func (m *machine) hold(held bool) {
	m.held = held
	m.delayed = m.delayed || held && m.phase == phaseWaiting
}

// handOver gives the restart after the end of a start to the agent, which has
// rules of its own for when. What comes at once is not worth it.
func (m *machine) handOver(start int) {
	if m.phase == phaseWaiting && m.delayed && m.start == start {
		m.phase = phaseOver
	}
}

// next says what to do now, or with actNone until when there is nothing to do;
// a wake of 0 is never.
func (m *machine) next(now time.Duration) (do act, wake time.Duration) {
	switch m.phase {
	case phaseIdle:
		if m.stopping {
			m.phase = phaseOver
		}
	case phaseWaiting:
		return m.nextStart(now)
	case phaseRunning:
		return m.nextRunning(now)
	case phaseEnding:
		return m.nextLook(now, actKill)
	}
	return actNone, 0
}

func (m *machine) nextStart(now time.Duration) (act, time.Duration) {
	switch {
	case m.stopping, !m.lease.Live(now):
		m.phase = phaseOver
		return actNone, 0
	case m.held:
		return actNone, m.lease.Deadline - m.lease.Fence
	case now < m.retry:
		return actNone, min(m.retry, m.lease.Deadline-m.lease.Fence)
	}
	m.phase = phaseStarting
	m.start++
	return actStart, 0
}

func (m *machine) nextRunning(now time.Duration) (act, time.Duration) {
	late := now >= m.lease.Deadline
	if late || (m.stopping || !m.alive) && now >= m.killAt {
		if late {
			m.fence()
		}
		m.phase, m.look, m.pause = phaseEnding, now, firstPause
		return m.nextLook(now, actKill)
	}
	if m.pending {
		m.pending = false
		return actSignal, 0
	}
	wake := m.lease.Deadline
	if m.stopping || !m.alive {
		wake = min(wake, m.killAt)
	} else if at := m.lease.Deadline - m.lease.Fence; !m.told {
		if now >= at {
			m.told, m.signal, m.askedAt = true, m.lease.Signal, now
			m.fence()
			return actSignal, 0
		}
		wake = at
	}
	if m.alive {
		return actNone, wake
	}
	do, again := m.nextLook(now, actLook)
	return do, min(again, wake)
}

// fence notes that it is the lease that ends this start.
func (m *machine) fence() {
	m.fenced = true
	if !m.alive {
		m.exit.Fenced = true
	}
}

// nextLook repeats do with growing pauses.
func (m *machine) nextLook(now time.Duration, do act) (act, time.Duration) {
	if m.phase == phaseEnding && now >= m.lease.Deadline && !m.killed {
		m.look = now // once more at the deadline, without a pause
	}
	if now < m.look {
		wake := m.look
		if m.phase == phaseEnding && !m.killed {
			wake = min(wake, m.lease.Deadline)
		}
		return actNone, wake
	}
	m.look = now + m.pause
	m.pause = min(2*m.pause, longestPause)
	if do == actKill && now >= m.lease.Deadline {
		m.killed = true
	}
	return do, m.look
}

// deadman is when the kernel is to kill the keeper, and by that its copy, because
// the keeper has not: it is stopped, starved or stuck. 0 is never.
func (m *machine) deadman() time.Duration {
	switch m.phase {
	case phaseStarting, phaseRunning, phaseEnding:
		if !m.killed {
			return m.lease.Deadline + Allowance
		}
	}
	return 0
}
