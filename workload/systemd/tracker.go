//go:build linux

package systemd

import (
	"syscall"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// service is what PID 1 says about a unit's process, all of one moment.
type service struct {
	mainPID   uint32 // 0: none runs
	lastPID   uint32 // of the last process, also when it has ended
	code      int32  // how it ended: CLD_EXITED, CLD_KILLED, CLD_DUMPED
	status    int32  // exit status or signal
	startUSec uint64 // when it was started, on the monotonic clock
	exitUSec  uint64 // when it ended; 0: it has not
	restarts  uint32 // by PID 1, of this unit
	oom       bool   // PID 1 ended the unit because the kernel killed one of its processes for memory
	remains   bool   // PID 1 keeps the unit when it is over; told only when asked
}

const cldExited = 1 // the other codes tell of signals

// setupFailed tells a process that ended before it was the program.
func (s service) setupFailed() bool {
	return s.code == cldExited && s.status >= firstSetupStatus && s.status <= lastSetupStatus
}

// ran tells of a start that PID 1 calls failed that its program did run: it ended
// so soon that PID 1 noticed its end before its beginning. By now PID 1 may have
// started it again, and what could not be set up it does not start again.
func (s service) ran() bool {
	return s.lastPID != 0 && (s.restarts > 0 || s.exitUSec != 0 && !s.setupFailed())
}

// unitState is what PID 1 says about the unit itself.
type unitState struct {
	active, sub string
	changedUSec uint64
	missing     bool // PID 1 knows no such unit; told only when asked
}

// over tells a unit that PID 1 will not start again by itself. One that has
// never changed its state is only about to be started.
func (u unitState) over() bool {
	if u.changedUSec == 0 {
		return false
	}
	switch u.sub {
	case "dead-before-auto-restart", "failed-before-auto-restart":
		return false // systemd 254 and later: on the way to the next start
	}
	return u.active == "inactive" || u.active == "failed"
}

// exited tells a unit that has done what it was for, and is kept for that to be
// known. Processes that the copy left may still be in it.
func (u unitState) exited() bool { return u.active == "active" && u.sub == "exited" }

// ended tells a unit in which the copy runs no more.
func (u unitState) ended() bool { return u.over() || u.exited() }

// proc is one process of a unit.
type proc struct {
	pid       uint32
	startUSec uint64
}

// tracker turns what PID 1 says, moment by moment, into the exits of a copy. It
// is pure. PID 1 sends states, not changes, and may leave out moments: an exit
// that was never seen is reported as unknown, and a successor is reported only
// once it runs.
type tracker struct {
	first    int  // start number of the unit's first process
	heals    bool // PID 1 restarts it
	svc      service
	unit     unitState
	cur      proc
	exit     *workload.Exit // of cur, not reported yet
	finished bool
}

// report is an exit to pass on; with a successor if there is one.
type report struct {
	exit      workload.Exit
	successor proc // pid 0: none, and the unit is over
	start     int  // of the successor
}

// begin notes the process of the unit's first start.
func (t *tracker) begin() {
	t.cur = proc{t.svc.lastPID, t.svc.startUSec}
	t.seeExit(time.Now())
}

// start is the number of the process that runs now.
func (t *tracker) start() int { return t.first + int(t.svc.restarts) }

// seeService takes in what is said about the process. Old news (a reply that a
// signal has overtaken) is dropped.
func (t *tracker) seeService(s service, now time.Time) {
	if s.restarts < t.svc.restarts || s.startUSec < t.svc.startUSec ||
		(s.startUSec == t.svc.startUSec && t.svc.exitUSec != 0 && s.exitUSec == 0 && t.svc.lastPID == s.lastPID) {
		return
	}
	t.svc = s
	t.seeExit(now)
}

// seeExit notes the end of the current process while PID 1 still tells it.
func (t *tracker) seeExit(now time.Time) {
	if t.exit != nil || t.cur.pid == 0 || t.svc.exitUSec == 0 || (proc{t.svc.lastPID, t.svc.startUSec}) != t.cur {
		return
	}
	e := workload.Exit{Known: true, At: now, Ran: time.Duration(t.svc.exitUSec-t.svc.startUSec) * time.Microsecond}
	switch {
	case t.svc.code != cldExited:
		e.Signal = syscall.Signal(t.svc.status)
	case t.svc.status == 0 && t.svc.oom: // it has heeded PID 1's signal: that is no success
		e.Signal = syscall.SIGKILL
	default:
		e.Code = int(t.svc.status)
	}
	t.exit = &e
}

// seeUnit takes in what is said about the unit, which comes after what is said
// about its process, and returns what is to be reported.
func (t *tracker) seeUnit(u unitState, now time.Time) *report {
	if t.finished || u.changedUSec < t.unit.changedUSec {
		return nil
	}
	t.unit = u
	if t.cur.pid == 0 {
		return nil // before the first start has succeeded
	}
	switch {
	case u.ended() && !t.heals:
		return t.end(now)
	case u.active == "active" && t.svc.mainPID != 0 && (proc{t.svc.mainPID, t.svc.startUSec}) != t.cur:
		r := &report{exit: t.takeExit(now), successor: proc{t.svc.mainPID, t.svc.startUSec}, start: t.start()}
		t.cur = r.successor
		return r
	}
	return nil
}

// end takes in that the unit is over for good, and returns the last report, once.
func (t *tracker) end(now time.Time) *report {
	if t.finished {
		return nil
	}
	t.finished = true
	return &report{exit: t.takeExit(now)}
}

// uncertain tells that the unit may be over: on its way to a restart PID 1
// passes through the same state, and tells it.
func (t *tracker) uncertain() bool {
	return t.heals && !t.finished && t.cur.pid != 0 && t.unit.over()
}

func (t *tracker) takeExit(now time.Time) workload.Exit {
	if t.exit == nil {
		return workload.Exit{At: now}
	}
	e := *t.exit
	t.exit = nil
	return e
}

// leftovers tells that the first process has ended by itself and PID 1 waits
// for other processes of the copy before it starts the next.
func (t *tracker) leftovers() bool {
	return t.exit != nil && t.svc.mainPID == 0 && t.unit.active == "deactivating"
}
