//go:build linux

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

// handle is one running process of a copy. A goroutine waits for its pidfd in
// the runtime's poller; no thread does.
type handle struct {
	inst   workload.Instance
	mark   string
	begun  time.Time // zero if adopted
	pidfd  *os.File
	exited chan workload.Exit
	gone   atomic.Bool   // set right before the exit is in exited: a next start may come
	ended  chan struct{} // closed when the exit is in exited, or by release
	driver *Driver
	check  bool   // not a copy but a check of one
	kept   bool   // not a copy but the keeper of one
	cgroup string // kept: the directory of the copy's group, which the keeper may make anew; empty: none

	mu       sync.Mutex
	group    group // its tracked set is guarded by mu
	stopping bool  // a Stop is under way: leave the group its grace
	dead     bool  // the first process has ended
	retired  bool  // the group belongs to the next start
	released bool  // the driver is closed: nobody waits for the exit any more
}

// newHandle takes over pidfd.
func (d *Driver) newHandle(spec workload.Spec, n, pid, pidfd int, r run) (*handle, error) {
	st, err := program.ReadStat(pid)
	if err == nil {
		err = unix.SetNonblock(pidfd, true) // what makes os.NewFile use the poller
	}
	if err != nil {
		unix.Close(pidfd)
		return nil, err
	}
	return &handle{
		inst: workload.Instance{
			Spec: spec, Start: n, Pid: pid, StartTime: st.Start, Since: r.Since,
		},
		mark:   r.Nonce,
		pidfd:  os.NewFile(uintptr(pidfd), "pidfd"),
		exited: make(chan workload.Exit, 1),
		ended:  make(chan struct{}),
		driver: d,
		group:  group{leader: pid, start: st.Start, mark: r.Nonce},
	}, nil
}

// Instance implements workload.Handle.
func (h *handle) Instance() workload.Instance { return h.inst }

// Exited implements workload.Handle.
func (h *handle) Exited() <-chan workload.Exit { return h.exited }

// over tells whether the exit has been delivered.
func (h *handle) over() bool {
	select {
	case <-h.ended:
		return true
	default:
		return false
	}
}

// release ends the watching without an exit.
func (h *handle) release() {
	h.mu.Lock()
	h.released = true
	h.mu.Unlock()
	h.pidfd.Close()
}

// retire gives the group up to the next start. If a Stop still gives the rest of
// it some grace, that ends here.
func (h *handle) retire(ctx context.Context) error {
	h.mu.Lock()
	stopping := h.stopping && !h.retired
	h.mu.Unlock()
	if stopping {
		if err := h.killGroup(ctx); err != nil {
			return err
		}
	}
	h.mu.Lock()
	h.retired = true
	h.mu.Unlock()
	return nil
}

// watch waits for the exit on a goroutine that Close joins.
func (h *handle) watch() {
	ok := h.driver.spawn(func() {
		defer close(h.ended)
		defer close(h.exited)
		defer h.pidfd.Close()
		if h.wait() {
			e, child := h.learnAndClear()
			h.gone.Store(true)
			h.exited <- e
			runtime.Gosched() // whoever waits for the exit goes on now, not after our cleaning up
			if child {
				reap(h.inst.Pid)
			}
		}
	})
	if !ok {
		h.pidfd.Close()
		close(h.exited)
		close(h.ended)
	}
}

// wait returns true when the process has ended, false when released.
func (h *handle) wait() bool {
	conn, err := h.pidfd.SyscallConn()
	if err != nil {
		return false
	}
	return conn.Read(func(fd uintptr) bool { return ended(int(fd)) }) == nil
}

// learnAndClear learns the exit and sees to it that nothing of the group stands in
// the way of the next start: what is left when the first process has ended by
// itself is killed.
func (h *handle) learnAndClear() (e workload.Exit, child bool) {
	at := time.Now()
	h.mu.Lock()
	stopping := h.stopping
	h.dead = true
	if h.group.cg == nil && !stopping {
		// Not reaped yet, so that the number of the group is surely ours.
		_ = h.control(func(fd int) error { return signalGroup(fd, h.inst.Pid, h.inst.StartTime, syscall.SIGKILL) })
	}
	h.mu.Unlock()
	_ = h.control(func(fd int) error {
		e, child = h.driver.exits.read(fd, h.inst.Pid, h.inst.StartTime)
		return nil
	})
	e.At, e.Ran = at, at.Sub(h.begun)
	if h.begun.IsZero() {
		e.Ran = sinceStart(h.inst.StartTime)
	}
	if !stopping {
		h.clear()
	}
	return e, child
}

// clearFor bounds how long a restart waits for the rest of the group to be gone.
const clearFor = 500 * time.Millisecond

// clear kills the rest of the group. With a cgroup that is one read in the usual
// case that nothing is left. Without one the search takes milliseconds, so it
// comes after the restart; its mark is not the next start's.
func (h *handle) clear() {
	if h.kept {
		h.clearKept()
		return
	}
	if h.group.cg == nil {
		if h.check {
			return // often, and its process group is gone: not worth a search
		}
		h.driver.sweepLater(h.mark)
		return
	}
	if !h.group.cg.Populated() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), clearFor)
	defer cancel()
	if err := h.group.end(ctx); err != nil {
		h.driver.log.Warn("end what a copy left", "copy", h.inst.Spec.ID.String(), "error", err)
	}
}

// control runs f on the pidfd, which stays open meanwhile.
func (h *handle) control(f func(fd int) error) error {
	conn, err := h.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := conn.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

// Signal implements workload.Handle.
func (h *handle) Signal(sig syscall.Signal) error {
	if sig <= 0 {
		return fmt.Errorf("signal %s: %d is no signal", h.inst.Spec.ID, sig)
	}
	err := h.control(func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, 0) })
	if err != nil {
		return fmt.Errorf("signal %s: %w", h.inst.Spec.ID, err)
	}
	return nil
}

// Stop implements workload.Handle. The signal goes to the process group of the
// first process; then all of the group, however it has spread, has the grace to
// end before it is killed.
func (h *handle) Stop(ctx context.Context, sig syscall.Signal, grace time.Duration) error {
	h.mu.Lock()
	h.stopping = true
	if h.group.cg == nil && !h.dead && !h.released {
		_ = h.group.look() // while the first process lives, its session tells who belongs to it
	}
	h.mu.Unlock()
	if grace > 0 && sig > 0 && !h.over() {
		h.signalAll(sig)
		if err := h.await(ctx, grace); err != nil {
			return h.stopError(err)
		}
	}
	if err := h.killGroup(ctx); err != nil {
		return h.stopError(err)
	}
	select {
	case <-h.ended:
	case <-ctx.Done():
		return h.stopError(ctx.Err())
	}
	h.mu.Lock()
	lost := h.released && !h.dead
	h.mu.Unlock()
	if lost {
		return h.stopError(ErrClosed)
	}
	h.driver.disarm(h)
	return nil
}

// signalAll signals the process group, and wakes it if it is suspended: else it
// could not heed the signal.
func (h *handle) signalAll(sig syscall.Signal) {
	_ = h.control(func(fd int) error {
		err := signalGroup(fd, h.inst.Pid, h.inst.StartTime, sig)
		return errors.Join(err, signalGroup(fd, h.inst.Pid, h.inst.StartTime, syscall.SIGCONT))
	})
}

func (h *handle) stopError(err error) error {
	return fmt.Errorf("stop %s: %w", h.inst.Spec.ID, err)
}

// await gives the group up to grace to end by itself. Its error is ctx's.
func (h *handle) await(ctx context.Context, grace time.Duration) error {
	inTime, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	select {
	case <-h.ended: // the usual end of the story comes without a poll
	case <-inTime.Done():
		return ctx.Err()
	}
	_ = poll(inTime, func() (bool, error) {
		alive, err := h.groupAlive()
		return !alive, err
	})
	return ctx.Err()
}

func (h *handle) groupAlive() (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.alive()
}

// alive is called with mu held.
func (h *handle) alive() (bool, error) {
	if h.retired || h.released {
		return false, nil
	}
	return h.group.alive()
}

// killGroup kills until nothing of the group runs.
func (h *handle) killGroup(ctx context.Context) error {
	return poll(ctx, func() (bool, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if alive, err := h.alive(); err != nil || !alive {
			return err == nil, err
		}
		return false, h.group.kill()
	})
}
