package copies

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// wish is one thing that a reflex wants done to a copy.
type wish struct {
	why     string
	signal  syscall.Signal // not 0: to be sent; else a restart
	revives bool           // of a restart: what runs already is as good
	may     func() error   // asked just before it is done
	done    chan error     // cap 1
}

var errGone = errors.New("the copy is no longer kept on this host")

// Restart restarts a copy for the reason why, back-off or not, and returns when
// it runs again, or why it does not. With revives a copy that runs is left alone.
// A copy that is not to run is not started. It may have to wait for its turn:
// just before anything is done, may is asked whether it is still allowed.
func (m *Manager) Restart(ctx context.Context, id workload.CopyID, why string, revives bool, may func() error) error {
	return m.wish(ctx, id, wish{why: why, revives: revives, may: may})
}

// Signal sends a signal to a copy's first process, if may, asked just before,
// still allows it.
func (m *Manager) Signal(ctx context.Context, id workload.CopyID, sig syscall.Signal, may func() error) error {
	return m.wish(ctx, id, wish{signal: sig, may: may})
}

// wish hands a wish to the runner of a copy and waits for what comes of it. When
// ctx ends it may still be fulfilled.
func (m *Manager) wish(ctx context.Context, id workload.CopyID, w wish) error {
	w.done = make(chan error, 1)
	m.mu.Lock()
	r := m.runners[id]
	if r == nil {
		m.mu.Unlock()
		return fmt.Errorf("act on %s: %w", id, ErrUnknownCopy)
	}
	r.wishes = append(r.wishes, w)
	select {
	case r.bell <- struct{}{}:
	default:
	}
	m.mu.Unlock()
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fulfil does what was wished for since the last time. It returns when to step
// again, if it has stepped.
func (r *runner) fulfil(ctx context.Context) (wake time.Time, stepped bool) {
	for _, w := range r.takeWishes() {
		err := w.may()
		switch {
		case err != nil:
		case w.signal != 0:
			err = r.signal(w.signal)
		case !w.revives || r.handle == nil:
			wake, err = r.restart(ctx, w.why)
			stepped = true
		}
		w.done <- err
	}
	return wake, stepped
}

func (r *runner) takeWishes() []wish {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	out := r.wishes
	r.wishes = nil
	return out
}

// refuseWishes answers what came too late.
func (r *runner) refuseWishes() {
	for _, w := range r.takeWishes() {
		w.done <- errGone
	}
}

func (r *runner) signal(sig syscall.Signal) error {
	if r.handle == nil {
		return errors.New("it does not run")
	}
	return r.handle.Signal(sig)
}

// restart asks the supervisor for a restart and looks what has come of it.
func (r *runner) restart(ctx context.Context, why string) (wake time.Time, err error) {
	before := r.sup.Status().Instance
	wake = r.step(ctx, workload.RestartAsked{Why: why})
	after := r.sup.Status()
	switch {
	case ctx.Err() != nil:
		return wake, ctx.Err()
	case after.Instance == nil:
		return wake, fmt.Errorf("it does not run: %s", after.Why)
	case before != nil && before.Pid == after.Instance.Pid && before.StartTime == after.Instance.StartTime:
		return wake, fmt.Errorf("it was not restarted: %s", after.Why)
	}
	return wake, nil
}

var errNoThrottle = errors.New("the driver of this host cannot hold copies back")

// CanThrottle tells why copies of this host cannot be held back so, or nil.
func (m *Manager) CanThrottle(t workload.Throttle) error {
	if d, ok := m.cfg.Driver.(workload.Throttler); ok {
		return d.CanThrottle(t)
	}
	return errNoThrottle
}

// Throttle holds a copy back, or with the zero Throttle ends that.
func (m *Manager) Throttle(ctx context.Context, id workload.CopyID, t workload.Throttle) error {
	if d, ok := m.cfg.Driver.(workload.Throttler); ok {
		return d.Throttle(ctx, id, t)
	}
	return errNoThrottle
}
