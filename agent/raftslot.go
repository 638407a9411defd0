package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus"
)

// raftSlot is the place of this host's Raft server, if it has one: most hosts
// of a large mesh do not. A server appears when the host founds a mesh or the
// leader asks for one, and goes when it has been removed from the quorum.
type raftSlot struct {
	dir     string
	addr    string
	streams func() consensus.StreamLayer // a fresh one for each server
	log     *slog.Logger

	mu     sync.Mutex // serialises starting and ending
	over   bool       // nothing is run any more
	cur    atomic.Pointer[consensus.Node]
	begin  chan *consensus.Node
	finish chan chan error
	onMove func()                        // told when a server appears or goes
	moved  atomic.Pointer[chan struct{}] // closed when a server appears or goes
}

func newRaftSlot(dir, addr string, streams func() consensus.StreamLayer, log *slog.Logger) *raftSlot {
	s := &raftSlot{dir: dir, addr: addr, streams: streams, log: log, begin: make(chan *consensus.Node, 1), finish: make(chan chan error), onMove: func() {}}
	s.moved.Store(new(make(chan struct{})))
	return s
}

// changed returns a channel that is closed when a server next appears or goes.
// Take it, then look at node, then wait.
func (s *raftSlot) changed() <-chan struct{} { return *s.moved.Load() }

// announce tells everybody that a server has appeared or gone.
func (s *raftSlot) announce() {
	close(*s.moved.Swap(new(make(chan struct{}))))
	s.onMove()
}

// node returns the Raft server of this host, nil if it has none.
func (s *raftSlot) node() *consensus.Node { return s.cur.Load() }

// found makes this host's Raft server the first of a new quorum, and opens it.
// One that was made so already is only opened.
func (s *raftSlot) found() (*consensus.Node, error) {
	return s.prepare((*consensus.Node).Bootstrap)
}

// open makes this host's Raft server if it has none yet; run runs it.
func (s *raftSlot) open() (*consensus.Node, error) {
	return s.prepare(func(*consensus.Node) error { return nil })
}

func (s *raftSlot) prepare(first func(*consensus.Node) error) (*consensus.Node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.cur.Load(); n != nil {
		return n, nil
	}
	if s.over {
		return nil, fmt.Errorf("open raft: %w", consensus.ErrStopped)
	}
	n, err := consensus.New(consensus.Config{Dir: s.dir, Addr: s.addr, Streams: s.streams(), Logger: s.log})
	if err != nil {
		return nil, fmt.Errorf("open raft: %w", err)
	}
	if err := first(n); err != nil && !errors.Is(err, consensus.ErrBootstrapped) {
		return nil, errors.Join(fmt.Errorf("open raft: %w", err), n.Close())
	}
	s.cur.Store(n)
	s.begin <- n
	return n, nil
}

// reopen opens the server if an earlier life of the agent had one.
func (s *raftSlot) reopen() error {
	exists, err := consensus.Exists(s.dir)
	if exists {
		_, err = s.open()
	}
	return err
}

// run runs the servers that open makes, one after the other, until ctx ends.
func (s *raftSlot) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return s.close()
		case n := <-s.begin:
			s.announce()
			ended, err := s.runOne(ctx, n)
			if !ended {
				return err
			}
			s.announce()
		}
	}
}

// close closes a server that was opened and never run.
func (s *raftSlot) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	select {
	case n := <-s.begin:
		return n.Close()
	default:
		return nil
	}
}

// runOne runs n until ctx ends, n cannot go on, or the leader wants it gone.
// Then its log is wiped: a host outside the quorum has none.
func (s *raftSlot) runOne(ctx context.Context, n *consensus.Node) (ended bool, err error) {
	nctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- n.Run(nctx) }()
	select {
	case err := <-done:
		return false, err
	case reply := <-s.finish:
		cancel()
		err := <-done
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cur.Store(nil)
		s.log.Info("raft server ended: it is in no quorum; its log is wiped")
		err = errors.Join(err, consensus.Wipe(s.dir))
		reply <- err
		return err == nil, err
	}
}

// end ends this host's Raft server, if it has one, and wipes its log, at the wish
// of a leader of that term. A server that still counts in a quorum is left alone:
// if it does not know whether it does, an older leader does not either.
func (s *raftSlot) end(ctx context.Context, term uint64) error {
	n := s.node()
	if n == nil {
		return nil
	}
	st := n.Status()
	if inQuorum(st) && st.LastContact < 10*time.Second {
		return errors.New("end raft server: it is still in the quorum")
	}
	if term < st.Term {
		return fmt.Errorf("end raft server: asked by a leader of term %d, but term %d has begun", term, st.Term)
	}
	reply := make(chan error, 1)
	select {
	case s.finish <- reply:
		return <-reply
	case <-ctx.Done():
		return ctx.Err()
	}
}

// inQuorum tells whether a server counts in the quorum it knows of.
func inQuorum(st consensus.Status) bool {
	for _, p := range st.Peers {
		if p.ID == st.ID {
			return !st.Removed
		}
	}
	return false
}
