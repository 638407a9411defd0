package consensus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// watchdogTick is the watchdog's own clock. It counts ticks instead of
// reading a clock: a process that was paused finds one tick due, not all those
// it slept through, and does not take its own pause for a hung disk.
const watchdogTick = time.Second

// watchLog proves, while this server leads, that its log commits. A leader
// whose disk hangs still heartbeats, and nobody would ever replace it.
func (n *Node) watchLog(ctx context.Context) {
	ticker := time.NewTicker(watchdogTick)
	defer ticker.Stop()
	every, limit := ticks(n.cfg.HeartbeatEvery), ticks(n.cfg.StuckAfter)
	var (
		pending chan error // of the proof in progress; nil if none
		waited  int
		term    uint64
	)
	for {
		role, tick := n.Leadership(), ticker.C
		if !n.Status().Leader {
			tick = nil // nothing to prove, and no need to wake up
		}
		select {
		case <-ctx.Done():
			return
		case <-role:
		case <-pending: // committed, or refused because leadership went: both are motion
			pending, waited = nil, 0
		case <-tick:
			st := n.Status()
			if !st.Leader || st.Term != term {
				term, pending, waited = st.Term, nil, 0
				continue
			}
			waited++
			switch {
			case pending == nil && waited >= every:
				pending, waited = n.prove(ctx), 0
			case pending != nil && waited >= limit:
				n.fatal.set(fmt.Errorf("lead: %w within %v (a write has been in progress for %v): restart on a disk that works",
					ErrStuckDisk, n.cfg.StuckAfter, n.store.writing().Round(time.Millisecond)))
				return
			}
		}
	}
}

func ticks(d time.Duration) int { return max(1, int(d/watchdogTick)) }

// prove commits an entry that changes nothing. The channel stays silent as
// long as nothing is decided.
func (n *Node) prove(ctx context.Context) chan error {
	done := make(chan error, 1)
	if !n.calls.enter() {
		return done
	}
	go func() {
		defer n.calls.leave()
		ctx, cancel := context.WithTimeout(ctx, 2*n.cfg.StuckAfter)
		defer cancel()
		_, err := n.Apply(ctx, topology.Command{Heartbeat: &topology.Heartbeat{}})
		if !errors.Is(err, context.DeadlineExceeded) {
			done <- err
		}
	}()
	return done
}
