//go:build linux

package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/ganglion-mesh/ganglion/pid1"
	"github.com/ganglion-mesh/ganglion/workload"
)

const sigkill = int32(syscall.SIGKILL)

// sureAfter is how long a unit may take from "failed" to its restart before it
// is asked whether it is over.
const sureAfter = 100 * time.Millisecond

// exitBuffer is how many exits wait for a reader. With more, the oldest are
// dropped: what the copy does now matters more than what nobody asked about.
const exitBuffer = 64

// handle is one unit: one process of a copy and those that PID 1 has started
// after it.
type handle struct {
	d       *Driver
	unit    string
	spec    workload.Spec
	exited  chan workload.Exit
	ended   chan struct{} // closed when the unit is over, or by release
	started chan string   // the result of the start job

	mu       sync.Mutex // guards what is below
	track    tracker
	inst     workload.Instance
	stopping bool // a Stop is under way: leave the group its grace
	finished bool
	kept     bool // PID 1 keeps the unit, which is over, until collect
	released bool // finished, with nothing known of an end
}

func (d *Driver) newHandle(unit string, spec workload.Spec, n int) *handle {
	return &handle{
		d: d, unit: unit, spec: spec, track: tracker{first: n, heals: spec.SelfHeal},
		inst:    workload.Instance{Spec: spec, Start: n},
		exited:  make(chan workload.Exit, exitBuffer),
		ended:   make(chan struct{}),
		started: make(chan string, 1),
	}
}

// Instance implements workload.Handle.
func (h *handle) Instance() workload.Instance {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inst
}

// Exited implements workload.Handle.
func (h *handle) Exited() <-chan workload.Exit { return h.exited }

// over tells whether the last exit has been told.
func (h *handle) over() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.finished
}

// begin takes note of the process whose exec has just succeeded. PID 1 tells
// about it before it tells that the job is done; where it does not, it is asked.
func (h *handle) begin(ctx context.Context) error {
	h.mu.Lock()
	known := h.track.svc.lastPID != 0
	h.mu.Unlock()
	if !known {
		props, err := h.d.bus.getAll(ctx, h.unit, pid1.Service)
		if err != nil {
			return err
		}
		h.properties(pid1.Service, props)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.track.begin()
	h.become(h.track.cur, h.track.start())
	// It may be over already.
	h.seeUnit(h.track.unit, time.Now())
	return nil
}

// seeUnit takes in what is said about the unit. The caller holds the lock.
func (h *handle) seeUnit(u unitState, now time.Time) {
	if r := h.track.seeUnit(u, now); r != nil {
		h.report(*r)
	}
	if u.exited() && !h.stopping {
		h.d.spawn(h.killLeftovers)
	}
	if h.track.uncertain() {
		h.d.spawn(h.makeSure)
	}
	if h.track.leftovers() && !h.stopping {
		h.d.spawn(h.killLeftovers)
	}
}

// makeSure asks whether a unit that may be over is, for the case that PID 1 does
// not tell: it forgets a unit that is over, and tells that, unless something
// else holds the unit.
func (h *handle) makeSure() {
	timer := time.NewTimer(sureAfter)
	defer timer.Stop()
	select {
	case <-h.ended:
		return
	case <-h.d.bus.closed:
		return
	case <-timer.C:
	}
	props, err := h.d.bus.getAll(context.Background(), h.unit, pid1.Unit)
	if err != nil {
		return // the connection has ended: the next one begins with a look at every unit
	}
	u := unitStateOf(props)
	h.mu.Lock()
	defer h.mu.Unlock()
	if u.missing || (u.over() && h.track.uncertain() && u.changedUSec == h.track.unit.changedUSec) {
		h.endLocked()
	}
}

// endLocked tells that the unit is over for good. The caller holds the lock.
func (h *handle) endLocked() {
	if r := h.track.end(time.Now()); r != nil {
		h.report(*r)
	}
}

// become sets what runs now. The caller holds the lock.
func (h *handle) become(p proc, start int) {
	h.inst = workload.Instance{Spec: h.spec, Start: start, Pid: int(p.pid), StartTime: startTime(int(p.pid)), Since: sinceUSec(p.startUSec)}
	if !h.spec.SelfHeal {
		return
	}
	// For the start that PID 1 may make by itself, the number it should bear.
	if err := h.d.dirs.writeEnv(h.unit, h.d.environ(h.spec, start+1)); err != nil {
		h.d.log.Warn("environment of the next start", "unit", h.unit, "error", err)
	}
}

// properties implements watcher.
func (h *handle) properties(iface string, props map[string]dbus.Variant) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	switch iface {
	case pid1.Service:
		h.track.seeService(serviceOf(props), now)
	case pid1.Unit:
		h.seeUnit(unitStateOf(props), now)
	}
}

// report passes an exit on. The caller holds the lock.
func (h *handle) report(r report) {
	if r.successor.pid == 0 {
		h.finishLocked(&r.exit)
		return
	}
	h.become(r.successor, r.start)
	next := h.inst
	r.exit.Successor = &next
	workload.DeliverExit(h.exited, r.exit)
}

// release ends the watching without an exit: nothing is known of one.
func (h *handle) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.released = !h.finished
	h.finishLocked(nil)
}

func (h *handle) finishLocked(last *workload.Exit) {
	if h.finished {
		return
	}
	h.finished = true
	if last != nil {
		workload.DeliverExit(h.exited, *last)
		if h.kept = h.spec.Once; !h.kept {
			h.d.dirs.forget(h.unit)
		}
	}
	h.d.bus.unwatch(h.unit)
	close(h.exited)
	close(h.ended)
}

// jobDone implements watcher. Only the first is a start's.
func (h *handle) jobDone(result string) {
	select {
	case h.started <- result:
	default:
	}
}

// removed implements watcher: PID 1 has forgotten the unit. What it told before
// has come before.
func (h *handle) removed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.track.cur.pid == 0 {
		h.jobDone("removed") // a start that left nothing
		return
	}
	h.endLocked()
}

// setupFailure tells whether PID 1 could not set the process up, and why.
func (h *handle) setupFailure() (status int32, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.track.svc
	return s.status, s.setupFailed()
}

// ran tells a failed start whose program did run.
func (h *handle) ran() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.track.svc.ran()
}

// killLeftovers ends the rest of a copy whose first process has ended by itself,
// so that nothing of it stands in the way of the next start.
func (h *handle) killLeftovers() {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	if err := h.d.kill(ctx, h.unit, "all", sigkill); err != nil && !h.over() {
		h.d.log.Debug("end what a copy left", "unit", h.unit, "error", err)
	}
}

// Signal implements workload.Handle.
func (h *handle) Signal(sig syscall.Signal) error {
	if sig <= 0 {
		return fmt.Errorf("signal %s: %d is no signal", h.spec.ID, sig)
	}
	if h.over() {
		return fmt.Errorf("signal %s: %w", h.spec.ID, os.ErrProcessDone)
	}
	ctx, cancel := context.WithTimeout(context.Background(), pid1.Answers)
	defer cancel()
	if err := h.d.kill(ctx, h.unit, "main", int32(sig)); err != nil {
		return fmt.Errorf("signal %s: %w", h.spec.ID, err)
	}
	return nil
}

// Stop implements workload.Handle. PID 1 is asked to stop the unit, from when on
// it restarts nothing; it sends the signal to all processes of the copy. The
// grace is the agent's to keep.
func (h *handle) Stop(ctx context.Context, sig syscall.Signal, grace time.Duration) error {
	h.mu.Lock()
	h.stopping = true
	h.mu.Unlock()
	if err := h.stop(ctx, sig, grace); err != nil {
		return fmt.Errorf("stop %s: %w", h.spec.ID, err)
	}
	return nil
}

func (h *handle) stop(ctx context.Context, sig syscall.Signal, grace time.Duration) error {
	if h.over() {
		return nil
	}
	gentle := grace > 0 && sig > 0
	if gentle && (sig != unitStopSignal || grace >= unitStopTime) {
		restore, err := h.d.changeStopRule(ctx, h.unit, sig, grace)
		if err != nil {
			return err
		}
		defer restore()
	}
	if err := h.d.stopUnit(ctx, h.unit); err != nil {
		return err
	}
	if gentle {
		inTime, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		select {
		case <-h.ended:
			return nil
		case <-inTime.Done():
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return h.killAll(ctx)
}

// killAll kills until the unit is over: a process may be forking.
func (h *handle) killAll(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := h.d.kill(ctx, h.unit, "all", sigkill)
		select {
		case <-h.ended:
			return nil
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// startTime is field 22 of /proc/PID/stat; 0 if the process is gone.
func startTime(pid int) uint64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The name in parentheses may hold anything.
	_, rest, _ := strings.Cut(string(b[max(strings.LastIndexByte(string(b), ')'), 0):]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return 0
	}
	n, _ := strconv.ParseUint(fields[19], 10, 64)
	return n
}

// ownerOf tells whom a process runs as.
func ownerOf(pid int) (uid, gid int, ok bool) {
	info, err := os.Stat("/proc/" + strconv.Itoa(pid))
	if err != nil {
		return 0, 0, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return int(st.Uid), int(st.Gid), true
}
