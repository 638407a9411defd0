package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/durable"
	"github.com/ganglion-mesh/ganglion/trust"
	"github.com/ganglion-mesh/ganglion/workload/artifact"
)

// store is the agent's own corner of the data directory. Each file is written
// whole to a temporary name, flushed and renamed, so that a crash leaves the
// old or the new one.
type store struct {
	dir  string
	lock *os.File
}

// openStore makes the data directory and takes it for this process alone.
func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("make data_dir: %w", err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // copies must reach their own directories below it
		return nil, fmt.Errorf("make data_dir: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data_dir: %w", err)
	}
	if err := lockFile(lock); err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock data_dir %s: another agent uses it; stop that one or set another data_dir", dir)
	}
	return &store{dir: dir, lock: lock}, nil
}

// lockPatience is how long a lock may outlive its agent: a child between its
// fork and its exec holds what the agent held, even if that was killed.
const lockPatience = 2 * time.Second

func lockFile(f *os.File) error {
	tick := time.NewTicker(20 * time.Millisecond) // a flock that waits cannot be given up
	defer tick.Stop()
	for begun := time.Now(); ; <-tick.C {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || time.Since(begun) > lockPatience {
			return err
		}
	}
}

func (s *store) close() error { return s.lock.Close() }

// path returns a private directory below the data directory.
func (s *store) path(name string) string { return filepath.Join(s.dir, name) }

const (
	fileSlice = "slice.json"
	filePorts = "ports.json"
	filePeers = "peers.json"

	fileFreeze = "freeze.json"
	askFreeze  = "freeze" // asks for a freeze by being there

	fileJoinKey  = "joinkey.json"  // what this host enrols with
	fileFounding = "founding.json" // what a new mesh must still commit
)

// loadSlice returns the last accepted slice; the zero one if there is none.
func (s *store) loadSlice() (topology.Slice, error) {
	var sl topology.Slice
	return sl, s.load(fileSlice, &sl)
}

// saveSlice makes sl the last accepted slice, durably (S3).
func (s *store) saveSlice(sl topology.Slice) error { return s.save(fileSlice, sl) }

// leaveMesh removes everything that ties this host to its mesh. The keys go
// first: after a crash in between the host is no member, and the next start
// removes the rest.
func (s *store) leaveMesh() error {
	if err := s.remove(fileJoinKey); err != nil {
		return err
	}
	if err := trust.RemoveIdentity(s.path(dirIdentity)); err != nil {
		return err
	}
	return s.forgetMesh()
}

// forgetMesh removes what a host that has no identity may still have of a mesh.
func (s *store) forgetMesh() error {
	var errs []error
	for _, name := range []string{dirIdentity, dirRaft, dirSerf, fileFounding, fileSlice, filePeers, fileFreeze, dirEvents} {
		errs = append(errs, os.RemoveAll(s.path(name)))
	}
	errs = append(errs, artifact.RemoveStore(s.path(dirArtifacts)))
	return errors.Join(append(errs, durable.SyncDir(s.dir))...)
}

// remove removes a file durably. That there is none is no error.
func (s *store) remove(name string) error {
	err := os.Remove(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = durable.SyncDir(s.dir)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", s.path(name), err)
	}
	return nil
}

func (s *store) load(name string, v any) error {
	b, err := os.ReadFile(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", s.path(name), err)
	}
	return nil
}

func (s *store) save(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := durable.Replace(s.path(name), b, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", s.path(name), err)
	}
	return nil
}
