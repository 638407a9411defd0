//go:build linux

package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/bootclock"
)

// Process is a keeper's process as the driver that started or found it knows it.
type Process interface {
	// Ended is closed when the keeper has ended and nothing that it left runs, or
	// when the driver lets go of both.
	Ended() <-chan struct{}
	// Released tells, once Ended is closed, that the driver has let go.
	Released() bool
	// End kills the keeper and all of its copy, and returns when neither runs.
	End(ctx context.Context) error
}

// HandleConfig is what a Handle is made of.
type HandleConfig struct {
	Spec   workload.Spec
	Client *Client
	// Watch was begun before the keeper was told to start its copy, or was found
	// to have one: so that no end of that is missed. Run closes it.
	Watch   *Watch
	Process Process
	// Began is told each instance that the keeper has started by itself.
	Began func(workload.Instance)
}

// Handle is a copy under a keeper: a workload.Handle that is a workload.Leased
// as well. It follows the keeper by Run.
type Handle struct {
	cfg    HandleConfig
	exited chan workload.Exit
	ended  chan struct{} // closed when the last exit is in exited, or by the driver's end

	mu       sync.Mutex // guards what is below
	inst     workload.Instance
	last     Status
	released bool
}

// exitBuffer is how many exits wait for a reader; with more the oldest go.
const exitBuffer = 64

// NewHandle returns a handle of a keeper that stands as st. Run must be called.
func NewHandle(cfg HandleConfig, st Status) *Handle {
	h := &Handle{cfg: cfg, exited: make(chan workload.Exit, exitBuffer), ended: make(chan struct{})}
	h.inst, h.last = h.instance(st), st
	return h
}

// instance is the copy that a status tells of.
func (h *Handle) instance(st Status) workload.Instance {
	spec, lease := h.cfg.Spec, st.Lease
	spec.Lease = &lease
	return workload.Instance{
		Spec: spec, Start: st.Start, Pid: st.Pid, StartTime: st.StartTime,
		Since: time.Now().Add(st.Began - bootclock.Now()),
	}
}

// Instance implements workload.Handle.
func (h *Handle) Instance() workload.Instance {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inst
}

// Exited implements workload.Handle.
func (h *Handle) Exited() <-chan workload.Exit { return h.exited }

// Lease implements workload.Leased.
func (h *Handle) Lease() workload.Lease {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last.Lease
}

// reconnect is how long after a broken connection the next is tried.
const reconnect = 20 * time.Millisecond

// lastWords is how long after a keeper's end its last status may take to be read.
// It is there already, so that this is for an agent that does not get to read.
const lastWords = 5 * time.Second

// Run follows the keeper until it and its copy have ended or the driver lets go.
// It must be called once.
func (h *Handle) Run() {
	ctx, cancel := context.WithCancel(context.Background())
	var end sync.WaitGroup
	end.Go(func() {
		defer cancel()
		<-h.cfg.Process.Ended()
		if h.cfg.Process.Released() {
			return
		}
		select { // what it has told last is in the socket
		case <-time.After(lastWords):
		case <-ctx.Done():
		}
	})
	for watch := h.cfg.Watch; ; {
		if watch != nil {
			_ = watch.Follow(ctx, h.see)
			watch.Close()
		}
		select {
		case <-h.cfg.Process.Ended():
			cancel()
			end.Wait()
			h.finish()
			return
		case <-time.After(reconnect):
		}
		watch, _ = h.cfg.Client.Watch(ctx)
	}
}

// see takes in how the keeper stands, and says whether the agent takes a restart
// over: always, since it knows the app's rules for when.
func (h *Handle) see(st Status) (take bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if st.Start < h.last.Start {
		return false
	}
	h.last = st
	if st.Start > h.inst.Start && st.Pid != 0 {
		e := workload.Exit{At: time.Now()}
		if st.Last.Start == h.inst.Start {
			e = exitOf(st.Last)
		}
		h.inst = h.instance(st)
		next := h.inst
		e.Successor = &next
		workload.DeliverExit(h.exited, e)
		if h.cfg.Began != nil {
			h.cfg.Began(next)
		}
	}
	if st.Pid != 0 {
		lease := st.Lease
		h.inst.Spec.Lease = &lease
	}
	return st.Delayed
}

func exitOf(e Ended) workload.Exit {
	return workload.Exit{Known: true, Code: e.Code, Signal: e.Signal, Ran: e.Ran, Fenced: e.Fenced, At: time.Now()}
}

// finish tells the last exit. A keeper that has not told it was killed, by
// somebody or by its own timer at the deadline, and its copy with it.
func (h *Handle) finish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.cfg.Process.Released():
		h.released = true
	case h.last.Last.Start >= h.inst.Start:
		workload.DeliverExit(h.exited, exitOf(h.last.Last))
	default:
		workload.DeliverExit(h.exited, workload.Exit{
			Known: true, Signal: syscall.SIGKILL, Fenced: bootclock.Now() >= h.last.Lease.Deadline,
			At: time.Now(), Ran: time.Since(h.inst.Since),
		})
	}
	close(h.exited)
	close(h.ended)
}

func (h *Handle) over() bool {
	select {
	case <-h.ended:
		return true
	default:
		return false
	}
}

// How long a keeper has for an answer, and for its end once a grace is over,
// before it counts as stuck and is killed with its copy. A copy that is given a
// grace is not to lose it where the machine is starved: then an answer may take
// some of that, up to slowAnswer.
const (
	answerTime = time.Second
	slowAnswer = 3 * time.Second
	endTime    = 2 * time.Second
)

// Extend implements workload.Leased.
func (h *Handle) Extend(ctx context.Context, token uint64, deadline time.Duration) error {
	if h.over() {
		return fmt.Errorf("extend lease of %s: its keeper has ended", h.cfg.Spec.ID)
	}
	st, err := h.cfg.Client.Extend(ctx, token, deadline)
	if err != nil {
		return fmt.Errorf("extend lease of %s: %w", h.cfg.Spec.ID, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if st.Lease.Deadline >= h.last.Lease.Deadline {
		h.last.Lease = st.Lease
	}
	return nil
}

// Hold implements workload.Holdable.
func (h *Handle) Hold(ctx context.Context, hold bool) error {
	if h.over() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if _, err := h.cfg.Client.Hold(ctx, hold); err != nil {
		return fmt.Errorf("hold restarts of %s: %w", h.cfg.Spec.ID, err)
	}
	return nil
}

// Signal implements workload.Handle.
func (h *Handle) Signal(sig syscall.Signal) error {
	if sig <= 0 {
		return fmt.Errorf("signal %s: %d is no signal", h.cfg.Spec.ID, sig)
	}
	if h.over() {
		return fmt.Errorf("signal %s: %w", h.cfg.Spec.ID, os.ErrProcessDone)
	}
	ctx, cancel := context.WithTimeout(context.Background(), slowAnswer)
	defer cancel()
	if _, err := h.cfg.Client.Signal(ctx, sig); err != nil {
		return fmt.Errorf("signal %s: %w", h.cfg.Spec.ID, err)
	}
	return nil
}

// Stop implements workload.Handle. The keeper does it, with the whole grace;
// one that does not answer, or does not end, is killed with all of its copy.
func (h *Handle) Stop(ctx context.Context, sig syscall.Signal, grace time.Duration) error {
	if err := h.stop(ctx, sig, grace); err != nil {
		return fmt.Errorf("stop %s: %w", h.cfg.Spec.ID, err)
	}
	return nil
}

func (h *Handle) stop(ctx context.Context, sig syscall.Signal, grace time.Duration) error {
	if h.over() {
		return h.lost()
	}
	asked, cancel := context.WithTimeout(ctx, max(answerTime, min(grace, slowAnswer)))
	_, err := h.cfg.Client.Stop(asked, sig, grace)
	cancel()
	if err == nil {
		t := time.NewTimer(grace + endTime)
		defer t.Stop()
		select {
		case <-h.ended:
			return h.lost()
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := h.cfg.Process.End(ctx); err != nil {
		return err
	}
	select {
	case <-h.ended:
		return h.lost()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lost tells an end that is only that of the driver.
func (h *Handle) lost() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.released {
		return errors.New("the driver is closed")
	}
	return nil
}
