package events

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/ganglion-mesh/ganglion/pause"
)

// Run fsyncs what is appended, each event within 100 ms, until ctx ends, and
// once more then. It sleeps while nothing is appended. It always returns nil:
// a disk that fails costs durability, not the agent.
func (r *Recorder) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			r.logSync()
			return nil
		case <-r.dirty:
		}
		// Events come in flurries (exited, fired, restarted): wait the flurry
		// out, so that none of its writes meets the fsync of the one before.
		pause.For(ctx, syncDelay)
		r.logSync()
	}
}

func (r *Recorder) logSync() {
	if err := r.Sync(); err != nil {
		r.log.Error("events: fsync failed; recent events may not survive a power loss", "dir", r.dir, "err", err)
	}
}

// Sync returns once every event appended before the call is on disk: what an
// action needs that must be on record before it starts. After an error the
// records may or may not be durable; they are never synced again, because a
// second fsync would lie, and further events go to a new file.
func (r *Recorder) Sync() error {
	r.syncMu.Lock()
	defer r.syncMu.Unlock()
	upTo := r.Last()
	err := r.ring.sync()
	// Even after a failure: what will never be more durable must not hold up
	// the story for ever.
	r.synced.raise(upTo)
	if err != nil {
		return fmt.Errorf("fsync events: %w", err)
	}
	return nil
}

func (r *Recorder) markDirty() {
	select {
	case r.dirty <- struct{}{}:
	default:
	}
}

// signal is a level that only rises, and a way to wait for it. The zero value
// is at level 0.
type signal struct {
	mu  sync.Mutex
	at  uint64
	all chan struct{} // closed at the next rise; nil while nobody waits
}

func (s *signal) raise(to uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if to <= s.at {
		return
	}
	s.at = to
	if s.all != nil {
		close(s.all)
		s.all = nil
	}
}

func (s *signal) level() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

// above returns a channel that is closed once the level is, or already was,
// above n; it may also be closed by a rise that stays below.
func (s *signal) above(n uint64) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at > n {
		c := make(chan struct{})
		close(c)
		return c
	}
	if s.all == nil {
		s.all = make(chan struct{})
	}
	return s.all
}

// idSource makes ULIDs that rise with each call, whatever the wall clock does.
type idSource struct {
	ms      uint64
	entropy *ulid.MonotonicEntropy
}

// resume continues after the last record, so that ids rise across restarts.
func (s *idSource) resume(t tail) {
	s.entropy = ulid.Monotonic(bufio.NewReaderSize(rand.Reader, 256), 0)
	if t.payload == nil {
		return
	}
	if e, err := Parse(t.payload); err == nil {
		if id, err := ulid.ParseStrict(e.ID); err == nil && id.Time() < ulid.MaxTime() {
			s.ms = max(id.Time(), uint64(max(0, e.Time.UnixMilli()))) + 1
		}
	}
}

// next is a fresh id for an event of now.
func (s *idSource) next(now time.Time) string {
	s.ms = max(s.ms, uint64(max(0, now.UnixMilli())))
	id, err := ulid.New(s.ms, s.entropy)
	if err != nil { // the random part of this millisecond is used up
		s.ms++
		id = ulid.MustNew(min(s.ms, ulid.MaxTime()), rand.Reader)
	}
	return id.String()
}
