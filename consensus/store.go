package consensus

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// lockTimeout is how long to wait for another process to let go of the log.
const lockTimeout = 2 * time.Second

// openStore opens the log on disk.
func openStore(raftDir string) (Store, error) {
	path := filepath.Join(raftDir, logFileName)
	s, err := raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout:        lockTimeout,
			NoFreelistSync: true, // else every append writes the list of free pages too
			FreelistType:   bbolt.FreelistMapType,
		},
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open log %s: another process holds it: is a second agent running?", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", path, err)
	}
	return s, nil
}

// guardedStore makes a failed write final. After a failed flush the kernel may
// have thrown the dirty pages away, so that a second flush that succeeds
// proves nothing: the store is not used again in this process.
//
// Raft panics when one of its durable values cannot be saved. A library must
// not take the process down, so the goroutine that asked is parked instead
// until the node is torn down, and then ended.
type guardedStore struct {
	Store
	failed func(error)   // tells the node; must not block
	closed chan struct{} // closed when the node is torn down

	mu    sync.Mutex
	err   error     // the first failure
	busy  int       // writes in progress
	since time.Time // when busy left zero
}

func (g *guardedStore) write(do func() error) error {
	g.mu.Lock()
	if err := g.err; err != nil {
		g.mu.Unlock()
		return err
	}
	if g.busy++; g.busy == 1 {
		g.since = time.Now()
	}
	g.mu.Unlock()

	err := do()

	g.mu.Lock()
	g.busy--
	first := err != nil && g.err == nil
	if first {
		g.err = fmt.Errorf("%w: %w", ErrStore, err)
	}
	if err != nil {
		err = g.err
	}
	g.mu.Unlock()
	if first {
		g.failed(err)
	}
	return err
}

// writing tells for how long writes have been in progress without a pause.
func (g *guardedStore) writing() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy == 0 {
		return 0
	}
	return time.Since(g.since)
}

// value writes one of raft's durable values, and does not return on failure.
func (g *guardedStore) value(do func() error) error {
	if g.write(do) == nil {
		return nil
	}
	<-g.closed
	runtime.Goexit()
	return nil
}

// StoreLog appends an entry.
func (g *guardedStore) StoreLog(l *raft.Log) error {
	return g.write(func() error { return g.Store.StoreLog(l) })
}

// StoreLogs appends entries.
func (g *guardedStore) StoreLogs(ls []*raft.Log) error {
	return g.write(func() error { return g.Store.StoreLogs(ls) })
}

// DeleteRange drops entries.
func (g *guardedStore) DeleteRange(min, max uint64) error {
	return g.write(func() error { return g.Store.DeleteRange(min, max) })
}

// Set stores a value.
func (g *guardedStore) Set(key, val []byte) error {
	return g.value(func() error { return g.Store.Set(key, val) })
}

// SetUint64 stores a number.
func (g *guardedStore) SetUint64(key []byte, val uint64) error {
	return g.value(func() error { return g.Store.SetUint64(key, val) })
}
