package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// barrierWindow is how long the first reader waits for others to share its
	// log entry.
	barrierWindow = 3 * time.Millisecond
	// barrierTimeout bounds one round, whose readers may have longer deadlines.
	barrierTimeout = 10 * time.Second
)

// barrier gathers readers into rounds. A reader joins the round that has not
// begun yet: an entry proposed before it came would prove nothing to it.
type barrier struct {
	mu    sync.Mutex
	next  *round
	ended bool
	kick  chan struct{}
}

type round struct {
	done chan struct{}
	err  error // valid once done
}

func newBarrier() *barrier { return &barrier{kick: make(chan struct{}, 1)} }

func (b *barrier) join() *round {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return endedRound()
	}
	if b.next == nil {
		b.next = &round{done: make(chan struct{})}
		select {
		case b.kick <- struct{}{}:
		default:
		}
	}
	return b.next
}

func (b *barrier) take() *round {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.next
	b.next = nil
	return r
}

// Barrier returns once State contains every write that was acknowledged
// before Barrier was called, anywhere in the mesh: it commits an entry in the
// leader's own term, which a deposed leader cannot. (Raft's cheaper
// VerifyLeader can be fooled by an answer to an older question, as after a
// pause of the process.) Readers that come within a few milliseconds share an
// entry. Errors: *NotLeaderError, ErrStopped, that of ctx, or a deadline's.
func (n *Node) Barrier(ctx context.Context) error {
	if n.raft.Load() == nil {
		return fmt.Errorf("barrier: %w", ErrStopped)
	}
	r := n.barrier.join()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("barrier: no answer from a majority: %w", ctx.Err())
	case <-n.fatal.done:
		return fmt.Errorf("barrier: %w: %w", ErrStopped, n.fatal.get())
	}
}

// serveBarriers runs the rounds, one after another.
func (n *Node) serveBarriers(ctx context.Context) {
	window := time.NewTimer(barrierWindow)
	defer window.Stop()
	for {
		select {
		case <-ctx.Done():
			n.barrier.end()
			return
		case <-n.barrier.kick:
		}
		window.Reset(barrierWindow)
		select {
		case <-ctx.Done():
		case <-window.C:
		}
		r := n.barrier.take()
		r.err = n.oneBarrier(ctx)
		close(r.done)
	}
}

func (b *barrier) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	if b.next != nil {
		b.next.err = fmt.Errorf("barrier: %w", ErrStopped)
		close(b.next.done)
		b.next = nil
	}
}

func endedRound() *round {
	r := &round{done: make(chan struct{}), err: fmt.Errorf("barrier: %w", ErrStopped)}
	close(r.done)
	return r
}

func (n *Node) oneBarrier(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, barrierTimeout)
	defer cancel()
	err := n.call(ctx, func(r *raft.Raft) error { return r.Barrier(barrierTimeout).Error() })
	if err == nil {
		// Raft takes entries off a halted state machine as if it applied them.
		return n.fatal.get()
	}
	// A barrier changes nothing, so nothing about it is unknown: it failed.
	switch refused, ok := n.refused(err); {
	case ok:
		return refused
	case errors.Is(err, raft.ErrLeadershipLost):
		return &NotLeaderError{Leader: n.otherLeader()}
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("barrier: no answer from a majority: %w", context.DeadlineExceeded)
	default:
		return fmt.Errorf("barrier: %w: %w", ErrStopped, err)
	}
}
