// Package consensus keeps the desired topology the same on every voter: a Raft
// log under the pure state machine of package topology.
//
// A Node is one server. It is voter, non-voter, or not yet in any
// configuration; hosts that carry no voter run no Node at all. Reads of State
// are local and free; Barrier makes them linearizable; Apply changes the
// state, on the leader only. Tend, on the leader, keeps the right number of
// voters.
package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// Bounds of an orderly end.
const (
	drainTimeout    = 2 * time.Second  // for calls in progress
	shutdownTimeout = 10 * time.Second // for raft's goroutines
)

// Node is one Raft server. Its methods may be called from any goroutine; those
// that need a running server say ErrStopped before Run and after it.
type Node struct {
	cfg Config
	id  string
	log *slog.Logger

	store    *guardedStore
	snaps    raft.SnapshotStore
	machine  *fsm
	progress *progress
	barrier  *barrier
	tending  *tending
	disk     *diskGuard
	changes  *edge
	calls    *calls

	raft  atomic.Pointer[raft.Raft] // set while it runs
	fatal *failure
}

// New opens the server's files, and makes them in a fresh directory. It starts
// nothing: call Run, or Close.
func New(cfg Config) (*Node, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, log: cfg.Logger, progress: newProgress(), barrier: newBarrier(), tending: newTending(),
		changes: newEdge(), calls: newCalls(), fatal: newFailure(),
		disk: newDiskGuard(cfg.Dir, cfg.LowSpace, cfg.Reserve),
	}
	n.machine = &fsm{published: newPublished(), halt: n.fatal.set}
	if err := n.open(); err != nil {
		return nil, err
	}
	return n, nil
}

func (n *Node) open() error {
	raftDir := filepath.Join(n.cfg.Dir, raftDirName)
	if err := os.MkdirAll(raftDir, dirMode); err != nil {
		return fmt.Errorf("open consensus: %w", err)
	}
	id, err := loadServerID(raftDir)
	if err != nil {
		return fmt.Errorf("open consensus: %w", err)
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(raftDir, snapshotsRetained, newRaftLogger(n.log))
	if err != nil {
		return fmt.Errorf("open consensus: %w", err)
	}
	store := n.cfg.Store
	if store == nil {
		if store, err = openStore(raftDir); err != nil {
			if errors.Is(err, syscall.ENOSPC) {
				n.disk.release()
			}
			return fmt.Errorf("open consensus: %w", err)
		}
	}
	n.id, n.snaps = id, snaps
	n.store = &guardedStore{Store: store, failed: n.fatal.set, closed: make(chan struct{})}
	return nil
}

// Close releases what a node holds that was never run. After Run it does
// nothing.
func (n *Node) Close() error {
	if !n.calls.close() {
		return nil
	}
	if n.cfg.Streams != nil {
		return errors.Join(n.cfg.Streams.Close(), n.store.Close())
	}
	return n.store.Close()
}

// ServerID is this server's id: a UUID that lives and dies with its log.
func (n *Node) ServerID() string { return n.id }

// Bootstrap founds a mesh with this server as its only voter. It is refused
// on a host that was ever part of one, also when its log is gone since. It may
// be called before Run or during it.
func (n *Node) Bootstrap() error {
	marker, err := readMarker(n.cfg.Dir)
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	// A marker of this very id without a log is a bootstrap that was cut short.
	if marker != "" && marker != n.id {
		return fmt.Errorf("bootstrap: %w", ErrBootstrapped)
	}
	has, err := raft.HasExistingState(n.store, n.store, n.snaps)
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	if has {
		return fmt.Errorf("bootstrap: %w", ErrBootstrapped)
	}
	if err := writeMarker(n.cfg.Dir, n.id); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	first := raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(n.id), Address: raft.ServerAddress(n.cfg.Addr),
	}}}
	if r := n.raft.Load(); r != nil {
		err = r.BootstrapCluster(first).Error()
	} else {
		err = raft.BootstrapCluster(n.cfg.raftConfig(n.id), n.store, n.store, n.snaps, nil, first)
	}
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// Run runs the server until ctx ends (nil) or it cannot go on (wraps
// ErrFatal). At the end it hands leadership over if it leads and others vote,
// and joins everything it started; only with ErrStuckDisk does it leave
// goroutines behind, in the disk's hands. A node runs once.
func (n *Node) Run(ctx context.Context) error {
	r, l, err := n.start()
	if err != nil {
		return err
	}
	loops, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { n.watchLeadership(loops, r) })
	for _, loop := range []func(context.Context){n.watchLog, n.watchDisk, n.serveBarriers} {
		wg.Go(func() { loop(loops) })
	}

	select {
	case <-ctx.Done():
		n.handOver()
		n.calls.close()
		n.calls.wait(drainTimeout)
	case <-n.fatal.done:
		n.calls.close()
	}
	stop()
	return n.teardown(r, l, &wg)
}

func (n *Node) start() (*raft.Raft, *link, error) {
	if !n.calls.open() {
		return nil, nil, fmt.Errorf("run consensus: %w: it runs only once", ErrStopped)
	}
	l, err := n.newLink()
	if err != nil {
		n.calls.close()
		return nil, nil, errors.Join(err, n.store.Close())
	}
	var r *raft.Raft
	logs, err := raft.NewLogCache(logCacheEntries, n.store)
	if err == nil {
		r, err = raft.NewRaft(n.cfg.raftConfig(n.id), n.machine, logs, n.store, n.snaps, l)
	}
	if err != nil {
		n.calls.close()
		return nil, nil, errors.Join(fmt.Errorf("run consensus: %w", err), l.Close(), n.store.Close())
	}
	n.raft.Store(r)
	n.changes.raise()
	return r, l, nil
}

// teardown ends raft and closes the files. Heartbeats end first: whatever
// hangs after, the others can elect.
func (n *Node) teardown(r *raft.Raft, l *link, wg *sync.WaitGroup) error {
	err := n.fatal.get()
	n.raft.Store(nil)
	future := r.Shutdown()
	close(n.store.closed)
	if closeErr := l.Close(); closeErr != nil { // calls under way end, and raft with them
		n.log.Debug("consensus: close connections", "error", closeErr)
	}
	if errors.Is(err, ErrStuckDisk) {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	timer := time.NewTimer(shutdownTimeout)
	defer timer.Stop()
	select {
	case shutdownErr := <-done:
		wg.Wait()
		n.calls.wait(drainTimeout)
		err = errors.Join(err, shutdownErr, n.store.Close())
	case <-timer.C:
		err = errors.Join(err, fmt.Errorf("%w: raft did not stop within %v: %w", ErrFatal, shutdownTimeout, ErrStuckDisk))
	}
	if errors.Is(err, syscall.ENOSPC) {
		n.disk.release() // so that the next start finds room
	}
	n.changes.raise()
	return err
}

// State is the state as this server has it: immutable, never nil, possibly
// behind. Call Barrier first for one that is not.
func (n *Node) State() *topology.State { return n.machine.state.Load() }

// Changed returns a channel that is closed once State's revision is above rev.
// It is level-triggered, so no change can be missed; it may also close early:
// look at State again.
func (n *Node) Changed(rev uint64) <-chan struct{} { return n.machine.changed(rev) }
