package consensus

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

var (
	// ErrFatal is what Run's error wraps when the server must not go on in this
	// process: the agent exits, and starts afresh.
	ErrFatal = errors.New("consensus cannot go on in this process")
	// ErrStuckDisk says that this server led, but its log did not commit for too
	// long: its disk hangs, or replication does. Only leaving helps, since a
	// leader with a hung disk heartbeats for ever. Wrapped with ErrFatal.
	ErrStuckDisk = errors.New("the log does not commit")
	// ErrStore says that the disk refused a write of the log. What a failed
	// flush left behind is unknown, so it is never tried again. Wrapped with
	// ErrFatal.
	ErrStore = errors.New("the log cannot be written")
	// ErrHalted says that a committed entry could not be understood, and that
	// applying later ones would make this server diverge. Wrapped with ErrFatal.
	ErrHalted = errors.New("a committed entry cannot be applied")

	// ErrUnknownOutcome says that a command may or may not have been committed:
	// read before trying again, or repeat it with the same request id.
	ErrUnknownOutcome = errors.New("the outcome is unknown: the command may or may not have been committed")
	// ErrStopped says that the node does not run (yet, or any more).
	ErrStopped = errors.New("consensus is not running")
	// ErrBootstrapped says that this host has once been part of a mesh, and must
	// not found another.
	ErrBootstrapped = errors.New("this host was part of a mesh before: join it again, or remove its data to found a new one")
)

// NotLeaderError says that another server must be asked. The command was not
// proposed.
type NotLeaderError struct {
	Leader string // mesh address of the leader; empty if there is none or none is known
}

// Error tells whom to ask.
func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return "not the leader, and no leader is known"
	}
	return "not the leader: ask " + e.Leader
}

// refused maps an error of raft that came before anything was proposed, or
// with a definite "no", to ours; ok is false if the outcome is not definite.
func (n *Node) refused(err error) (mapped error, ok bool) {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return &NotLeaderError{Leader: n.otherLeader()}, true
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("propose: the leader is busy, nothing was proposed: %w", context.DeadlineExceeded), true
	}
	return nil, false
}

// otherLeader is the address of the leader if that is not this server.
func (n *Node) otherLeader() string {
	r := n.raft.Load()
	if r == nil {
		return ""
	}
	addr, id := r.LeaderWithID()
	if string(id) == n.id {
		return ""
	}
	return string(addr)
}
