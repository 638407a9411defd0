package consensus

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// published is the state that readers see: immutable, replaced as a whole by
// the only goroutine that applies entries.
type published struct {
	state atomic.Pointer[topology.State]
	index atomic.Uint64 // of the last entry applied
	conf  atomic.Uint64 // index of the last Raft configuration applied; 0 if it came by snapshot

	mu    sync.Mutex
	moved chan struct{} // closed and replaced when the revision moves
}

func newPublished() *published {
	p := &published{moved: make(chan struct{})}
	p.state.Store(topology.New())
	return p
}

// put makes a state visible, and wakes waiters if its revision is another.
func (p *published) put(s *topology.State, index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.state.Load().Revision()
	p.state.Store(s)
	p.index.Store(index)
	if s.Revision() != before {
		close(p.moved)
		p.moved = make(chan struct{})
	}
}

// changed returns a channel that is closed once the revision is, or may be,
// above rev.
func (p *published) changed(rev uint64) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.Load().Revision() > rev {
		done := make(chan struct{})
		close(done)
		return done
	}
	return p.moved
}

var _ raft.ConfigurationStore = (*fsm)(nil)

// fsm adapts the pure topology to raft. Raft calls Apply, Snapshot and Restore
// from one goroutine; Persist runs beside them on an immutable state.
type fsm struct {
	*published
	halt   func(error) // tells the node; must not block
	halted error       // set once: nothing is applied or snapshotted any more
}

// outcome is what Apply hands back to the proposer.
type outcome struct {
	result topology.Result
	err    error
}

// Apply applies one entry. An entry that cannot be understood halts this
// server: to skip it would be to diverge from those that understand it.
func (f *fsm) Apply(entry *raft.Log) any {
	if f.halted != nil {
		return outcome{err: f.halted}
	}
	cmd, err := topology.DecodeCommand(entry.Data)
	if err != nil {
		f.halted = fmt.Errorf("apply entry %d: %w: %w: run the version that wrote it", entry.Index, ErrHalted, err)
		f.halt(f.halted)
		return outcome{err: f.halted}
	}
	next, result := f.state.Load().Apply(entry.Index, cmd)
	f.put(next, entry.Index)
	return outcome{result: result}
}

// StoreConfiguration notes where the present configuration stands in the log,
// which raft itself does not tell.
func (f *fsm) StoreConfiguration(index uint64, _ raft.Configuration) { f.conf.Store(index) }

// Snapshot takes the state as it is, in no time: it is immutable.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.halted != nil {
		// Raft would file it under the index of entries that were not applied.
		return nil, f.halted
	}
	return snapshot{f.state.Load()}, nil
}

// Restore replaces the state by that of a snapshot.
func (f *fsm) Restore(r io.ReadCloser) error {
	state, err := topology.Read(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	f.put(state, max(f.index.Load(), state.Revision()))
	return nil
}

type snapshot struct{ state *topology.State }

// Persist writes the snapshot; raft flushes it to disk before it counts.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.state.Write(sink); err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

// Release has nothing to free.
func (s snapshot) Release() {}
