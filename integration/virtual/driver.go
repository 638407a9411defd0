package virtual

import (
	"context"
	"sync"
	"syscall"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/workloadtest"
)

// lifeDriver is the driver of one life of an agent. When the agent is killed
// the driver is severed: what the agent still does while its parts end reaches
// nothing, as with a process that is gone.
type lifeDriver struct {
	workload.Driver
	once sync.Once
	gone chan struct{}
}

func newLifeDriver(h *workloadtest.Host) *lifeDriver {
	return &lifeDriver{Driver: workloadtest.NewMemory(h), gone: make(chan struct{})}
}

func (d *lifeDriver) sever() { d.once.Do(func() { close(d.gone) }) }

// alive returns at once for a living agent and not before ctx ends for a dead
// one.
func (d *lifeDriver) alive(ctx context.Context) error {
	select {
	case <-d.gone:
		<-ctx.Done()
		return ctx.Err()
	default:
		return nil
	}
}

// Start implements workload.Driver.
func (d *lifeDriver) Start(ctx context.Context, spec workload.Spec, n int) (workload.Handle, error) {
	if err := d.alive(ctx); err != nil {
		return nil, err
	}
	h, err := d.Driver.Start(ctx, spec, n)
	if err != nil {
		return nil, err
	}
	return d.handle(h), nil
}

// Adopt implements workload.Driver.
func (d *lifeDriver) Adopt(ctx context.Context) ([]workload.Handle, error) {
	hs, err := d.Driver.Adopt(ctx)
	for i, h := range hs {
		hs[i] = d.handle(h)
	}
	return hs, err
}

// Exec implements workload.Driver.
func (d *lifeDriver) Exec(ctx context.Context, spec workload.Spec, argv []string) ([]byte, error) {
	if err := d.alive(ctx); err != nil {
		return nil, err
	}
	return d.Driver.Exec(ctx, spec, argv)
}

// Purge implements workload.Driver.
func (d *lifeDriver) Purge(ctx context.Context, id workload.CopyID) error {
	if err := d.alive(ctx); err != nil {
		return err
	}
	return d.Driver.Purge(ctx, id)
}

// handle is h for this life. It is Leased if h is.
func (d *lifeDriver) handle(h workload.Handle) workload.Handle {
	mine := &lifeHandle{h, d}
	if l, ok := h.(workload.Leased); ok {
		return &lifeLeased{mine, l}
	}
	return mine
}

// lifeLeased is a lifeHandle of a copy under a lease. Its keeper outlives the
// agent, but hears no more from it.
type lifeLeased struct {
	*lifeHandle
	workload.Leased
}

// Extend implements workload.Leased.
func (h *lifeLeased) Extend(ctx context.Context, token uint64, deadline time.Duration) error {
	if err := h.d.alive(ctx); err != nil {
		return err
	}
	return h.Leased.Extend(ctx, token, deadline)
}

type lifeHandle struct {
	workload.Handle
	d *lifeDriver
}

// Stop implements workload.Handle. A kill of the agent in the middle of it
// leaves the copy with the signal that was sent, but not killed.
func (h *lifeHandle) Stop(ctx context.Context, sig syscall.Signal, grace time.Duration) error {
	if err := h.d.alive(ctx); err != nil {
		return err
	}
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-h.d.gone:
			cancel()
		case <-done:
		}
	}()
	err := h.Handle.Stop(sctx, sig, grace)
	if err != nil {
		if dead := h.d.alive(ctx); dead != nil {
			return dead
		}
	}
	return err
}

// Signal implements workload.Handle.
func (h *lifeHandle) Signal(sig syscall.Signal) error {
	select {
	case <-h.d.gone:
		return nil
	default:
		return h.Handle.Signal(sig)
	}
}
