package consensus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// proposeTimeout bounds how long a call without a deadline waits for the
// leader's loop to take it.
const proposeTimeout = 10 * time.Second

// Apply commits a command, with the time it was proposed at, and returns what
// applying it gave, rejections included. Errors: *NotLeaderError (not proposed, ask another),
// ErrUnknownOutcome (read before trying again), ErrStopped (not proposed), or
// that of ctx if it ended before anything was proposed.
func (n *Node) Apply(ctx context.Context, cmd topology.Command) (topology.Result, error) {
	cmd.At = time.Now().UnixMilli()
	data, err := topology.EncodeCommand(cmd)
	if err != nil {
		return topology.Result{}, fmt.Errorf("apply: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return topology.Result{}, fmt.Errorf("apply: nothing was proposed: %w", err)
	}
	var out outcome
	err = n.call(ctx, func(r *raft.Raft) error {
		f := r.Apply(data, remaining(ctx))
		if err := f.Error(); err != nil {
			return err
		}
		out = f.Response().(outcome)
		return out.err
	})
	switch {
	case err == nil:
		return out.result, nil
	case errors.Is(err, ErrStopped), errors.Is(err, ErrUnknownOutcome):
		return topology.Result{}, fmt.Errorf("apply: %w", err)
	}
	if refused, ok := n.refused(err); ok {
		return topology.Result{}, refused
	}
	return topology.Result{}, fmt.Errorf("apply: %w: %w", ErrUnknownOutcome, err)
}

// call runs one blocking call into raft, and stops waiting for it when ctx
// ends: raft's futures know no context. The call itself ends soon after, with
// the leader's loop or with raft. What do writes may be read only if call
// returns nil.
func (n *Node) call(ctx context.Context, do func(*raft.Raft) error) error {
	if !n.calls.enter() {
		return ErrStopped
	}
	r := n.raft.Load()
	if r == nil {
		n.calls.leave()
		return ErrStopped
	}
	done := make(chan error, 1)
	go func() {
		defer n.calls.leave()
		done <- do(r)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())
	}
}

// remaining is the time that is left to hand something to the leader's loop.
func remaining(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return proposeTimeout
	}
	return max(time.Until(deadline), time.Nanosecond)
}

// Transfer hands leadership to the voter that is furthest, and returns when it
// has let go.
func (n *Node) Transfer(ctx context.Context) error {
	return n.transferTo(ctx, "", "")
}

func (n *Node) transferTo(ctx context.Context, id, addr string) error {
	err := n.call(ctx, func(r *raft.Raft) error {
		if r.State() != raft.Leader {
			return raft.ErrNotLeader
		}
		if id == "" {
			return r.LeadershipTransfer().Error()
		}
		return r.LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(addr)).Error()
	})
	if err == nil {
		return nil
	}
	if refused, ok := n.refused(err); ok {
		return refused
	}
	return fmt.Errorf("transfer leadership: %w", err)
}

// handOver gives leadership away before the end, if there is anyone to take
// it. Without it the others would wait for an election timeout.
func (n *Node) handOver() {
	st := n.Status()
	if !st.Leader || !st.otherVoters() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Duration(n.cfg.Timing)*time.Second)
	defer cancel()
	if err := n.Transfer(ctx); err != nil {
		n.log.Warn("consensus: leadership was not handed over; the others will elect", "error", err)
	}
}
