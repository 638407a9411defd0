package consensus

import (
	"context"
	"math"
	"time"

	"github.com/hashicorp/raft"
)

// Status is a server's view of the quorum. It is local: a deposed leader may
// still believe in itself for a moment, so nothing is done on its strength
// without a Barrier or an Apply.
type Status struct {
	ID          string
	Leader      bool // this server believes that it leads
	LeaderID    string
	LeaderAddr  string
	Term        uint64
	Index       uint64        // of the last command applied here
	LastContact time.Duration // since the leader was heard; 0 on the leader, the longest duration if never
	Peers       []Peer
	Removed     bool          // this server was in the configuration and is not any more: stop and Wipe
	LowSpace    bool          // the disk is nearly full
	Writing     time.Duration // for how long the disk has not finished a write
}

// Peer is a server of the configuration.
type Peer struct {
	ID      string
	Addr    string
	Voter   bool
	Leader  bool
	Healthy bool // answers; known of all on the leader, elsewhere of the leader and this server only
}

// removedSilence is how long a server that finds itself out of the
// configuration waits before it believes it: while it is being caught up it
// reads configurations of times before its own.
const removedSilence = 3 * time.Second

// Status says how this server sees the quorum, without asking anyone.
func (n *Node) Status() Status {
	st := Status{ID: n.id, Index: n.machine.index.Load(), LowSpace: n.disk.low.Load(), Writing: n.store.writing(), LastContact: math.MaxInt64}
	r := n.raft.Load()
	if r == nil {
		return st
	}
	addr, id := r.LeaderWithID()
	st.Leader, st.LeaderID, st.LeaderAddr = r.State() == raft.Leader, string(id), string(addr)
	st.Term = r.CurrentTerm()
	if st.Leader {
		st.LastContact = 0
	} else if last := r.LastContact(); !last.IsZero() {
		st.LastContact = time.Since(last)
	}
	member := false
	for _, s := range r.GetConfiguration().Configuration().Servers {
		p := Peer{ID: string(s.ID), Addr: string(s.Address), Voter: s.Suffrage == raft.Voter, Leader: s.ID == id}
		member = member || p.ID == n.id
		p.Healthy = n.heard(st, p)
		st.Peers = append(st.Peers, p)
	}
	quiet := st.LastContact > removedSilence*time.Duration(n.cfg.Timing)
	st.Removed = len(st.Peers) > 0 && !member && quiet
	return st
}

func (n *Node) heard(st Status, p Peer) bool {
	switch {
	case p.ID == n.id:
		return true
	case st.Leader:
		return n.progress.contact(p.ID, 0, 0).silence <= freshContact
	default:
		return p.Leader && st.LastContact <= freshContact
	}
}

func (st Status) otherVoters() bool {
	for _, p := range st.Peers {
		if p.Voter && p.ID != st.ID {
			return true
		}
	}
	return false
}

// Term is the current term.
func (n *Node) Term() uint64 {
	if r := n.raft.Load(); r != nil {
		return r.CurrentTerm()
	}
	return 0
}

// Leadership returns a channel that is closed at the next change of role,
// leader or term. Take it before looking at Status, so that none is missed.
func (n *Node) Leadership() <-chan struct{} { return n.changes.wait() }

// watchLeadership turns raft's observations into the level-triggered signal.
func (n *Node) watchLeadership(ctx context.Context, r *raft.Raft) {
	seen := make(chan raft.Observation, 1) // raft drops what does not fit: one is enough to look again
	o := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.RaftState, raft.LeaderObservation:
			return true
		}
		return false
	})
	r.RegisterObserver(o)
	defer r.DeregisterObserver(o)
	n.noteRole(r)
	for {
		select {
		case <-ctx.Done():
			return
		case <-seen:
			n.noteRole(r)
		}
	}
}

func (n *Node) noteRole(r *raft.Raft) {
	if r.State() == raft.Leader {
		n.progress.lead(r.CurrentTerm())
	}
	n.changes.raise()
}
