package consensustest

import (
	"sync"

	"github.com/hashicorp/raft"
)

// Store is a log in memory whose disk can be made to fail or hang. It
// outlives the Node that uses it, so that a restart finds it again.
type Store struct {
	*raft.InmemStore

	mu   sync.Mutex
	err  error
	hang chan struct{} // open while writes hang
}

// NewStore makes an empty store that works.
func NewStore() *Store { return &Store{InmemStore: raft.NewInmemStore()} }

// Fail makes every write fail from now on; nil ends it.
func (s *Store) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// Hang makes every write hang from now on, until the function that it returns
// is called.
func (s *Store) Hang() (resume func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hang := make(chan struct{})
	s.hang = hang
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.hang = nil
		close(hang)
	})
}

func (s *Store) fault() error {
	s.mu.Lock()
	hang := s.hang
	s.mu.Unlock()
	if hang != nil {
		<-hang
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close does nothing: the content stays.
func (s *Store) Close() error { return nil }

// StoreLog appends an entry.
func (s *Store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends entries, copied as a disk would.
func (s *Store) StoreLogs(ls []*raft.Log) error {
	if err := s.fault(); err != nil {
		return err
	}
	kept := make([]*raft.Log, len(ls))
	for i, l := range ls {
		entry := *l
		kept[i] = &entry
	}
	return s.InmemStore.StoreLogs(kept)
}

// DeleteRange drops entries.
func (s *Store) DeleteRange(min, max uint64) error {
	if err := s.fault(); err != nil {
		return err
	}
	return s.InmemStore.DeleteRange(min, max)
}

// Set stores a value.
func (s *Store) Set(key, val []byte) error {
	if err := s.fault(); err != nil {
		return err
	}
	return s.InmemStore.Set(key, val)
}

// SetUint64 stores a number.
func (s *Store) SetUint64(key []byte, val uint64) error {
	if err := s.fault(); err != nil {
		return err
	}
	return s.InmemStore.SetUint64(key, val)
}
