package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// DefaultMaxBytes is the ring's size where RecorderConfig leaves it out:
	// some hundred thousand events.
	DefaultMaxBytes = 64 << 20
	// MinMaxBytes is the smallest ring: eight segments that each hold a record
	// of any size.
	MinMaxBytes = segmentCount * 2 * maxRecord

	// syncDelay is the time from the first unsynced event to its fsync, which
	// leaves the disk 60 ms of the promised 100.
	syncDelay = 40 * time.Millisecond
)

// ErrInvalid is of a draft that no recorder takes, ever.
var ErrInvalid = errors.New("the event is not valid")

// ErrClosed is returned by a recorder that has been closed.
var ErrClosed = errors.New("recorder is closed")

// RecorderConfig says where and how much a Recorder keeps.
type RecorderConfig struct {
	Dir      string       // directory of the ring; made with 0700 if missing; one process at a time
	Host     string       // name of this host, the source of its events
	MaxBytes int64        // size of the ring on disk; 0 means DefaultMaxBytes
	Logger   *slog.Logger // nil discards
}

func (c *RecorderConfig) validate() error {
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.Dir == "":
		return errors.New("open recorder: Dir is empty; name a directory")
	case !isName(c.Host):
		return fmt.Errorf("open recorder: host name %q is not valid", c.Host)
	case c.MaxBytes < MinMaxBytes:
		return fmt.Errorf("open recorder: MaxBytes %d is below %d", c.MaxBytes, MinMaxBytes)
	}
	return nil
}

// Recorder keeps the events of one host in a ring on its disk. All methods may
// be called from any goroutine. Readers never hold up Append.
type Recorder struct {
	host  string
	log   *slog.Logger
	dir   string
	kinds map[string]Kind
	ring  *ring
	lock  *os.File

	mu      sync.Mutex // orders Append; held over one write
	last    uint64     // seq of the last event
	dropped uint64     // events that failed to be recorded since
	ids     idSource
	buf     []byte // one event's JSON, reused
	closed  bool

	syncMu sync.Mutex // one fsync at a time
	dirty  chan struct{}
	grown  signal // an event was appended
	synced signal // its level is the seq up to which all is on disk
}

// OpenRecorder opens or makes the ring in cfg.Dir and goes on counting where
// it ended. Whatever bytes it finds there, it opens; what it cannot read it
// steps over. It fails if another process has the ring open.
func OpenRecorder(cfg RecorderConfig) (*Recorder, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open recorder: %w", err)
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open recorder in %s: %w", cfg.Dir, err)
	}
	ring, t, err := openRing(cfg.Dir, cfg.MaxBytes, cfg.Logger)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open recorder in %s: %w", cfg.Dir, err), lock.Close())
	}
	r := &Recorder{
		host: cfg.Host, log: cfg.Logger, dir: cfg.Dir, kinds: kindsByType(), ring: ring, lock: lock,
		last: t.seq, dirty: make(chan struct{}, 1),
	}
	if published := readCursor(cfg.Dir); published > r.last {
		// Others have seen seqs that the ring has lost: never use them again.
		r.log.Error("events: the end of the ring is lost", "recorded", r.last, "published", published)
		r.dropped = published - r.last
		r.last = published
	}
	r.ids.resume(t)
	r.grown.raise(r.last)
	r.markDirty() // what a killed process left may not be on disk yet
	return r, nil
}

// lockDir keeps a second process out; the lock ends with the process.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock it: %w; is another agent running on this data_dir?", err), f.Close())
	}
	return f, nil
}

// Append records an event with one write, makes it known, and returns it complete.
// When it returns nil the event survives a kill -9 of this process; Run makes it
// survive a power loss within 100 ms. On an error nothing was recorded and no
// seq used up; the next event that is recorded says in Dropped how many were
// lost before it. It blocks for nothing but that write.
func (r *Recorder) Append(d Draft) (Event, error) {
	e, err := r.AppendQuietly(d)
	r.Announce()
	return e, err
}

// AppendQuietly is Append, but wakes nobody, neither readers nor the flush, until
// Announce is called: for who has to act on the event first.
func (r *Recorder) AppendQuietly(d Draft) (Event, error) {
	d, data, err := d.checked(r.kinds)
	if err != nil {
		return Event{}, fmt.Errorf("record event %s: %w: %w", d.Type, ErrInvalid, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return Event{}, fmt.Errorf("record event %s: %w", d.Type, ErrClosed)
	}
	now := time.Now()
	id := d.ID
	if id == "" {
		id = r.ids.next(now)
	}
	e := Event{
		SpecVersion: SpecVersion, ID: id, Source: sourcePrefix + r.host,
		Type: TypePrefix + d.Type, Subject: d.Subject, Time: now.Round(0).UTC(),
		DataContentType: "application/json", CauseID: d.CauseID, Revision: d.Revision,
		Seq: r.last + 1, Dropped: r.dropped, Chain: d.Chain, Data: data,
	}
	r.buf = e.appendJSON(r.buf[:0])
	if err := r.ring.append(e.Seq, now.UnixNano(), r.buf); err != nil {
		r.dropped++
		return Event{}, fmt.Errorf("record event %s: %w; it is lost, and counted in the next one", d.Type, err)
	}
	r.last, r.dropped = e.Seq, 0
	return e, nil
}

// Announce makes known what was appended.
func (r *Recorder) Announce() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.last == r.grown.level() {
		return
	}
	r.grown.raise(r.last) // before dirty: a sync must not see the mark without the event
	r.markDirty()
}

// First is the smallest seq that may still be in the ring; 0 if it is empty.
func (r *Recorder) First() uint64 { return r.ring.first() }

// Last is the seq of the newest event; 0 before the first.
func (r *Recorder) Last() uint64 { return r.grown.level() }

// Changed returns a channel that is closed once an event newer than the call
// has been appended. Take it before reading, and nothing is missed.
func (r *Recorder) Changed() <-chan struct{} { return r.grown.above(r.Last()) }

// Read calls fn for each event with a seq of from or more, in order, until fn
// returns false or the newest event as of the call was given. Events that were
// evicted or damaged are passed over: Seq shows the gap. fn may be slow, and
// may call the recorder.
func (r *Recorder) Read(from uint64, fn func(Event) bool) error {
	err := r.ring.read(from, func(rec record) bool {
		e, err := Parse(rec.payload)
		if err != nil || e.Seq != rec.seq {
			r.log.Warn("events: a record is no event", "seq", rec.seq, "err", err)
			return true
		}
		return fn(e)
	})
	if err != nil {
		return fmt.Errorf("read events from %d: %w", from, err)
	}
	return nil
}

// Follow is Read that waits for further events, until fn returns false (nil)
// or ctx ends (its error).
func (r *Recorder) Follow(ctx context.Context, from uint64, fn func(Event) bool) error {
	more := true
	for more {
		err := r.Read(from, func(e Event) bool {
			from, more = e.Seq+1, fn(e)
			return more && ctx.Err() == nil
		})
		if err != nil || !more {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.grown.above(from - 1):
		}
	}
	return nil
}

// Since is the seq of the first event recorded at or after t by the host's
// wall clock, or the next seq to come if there is none. Where the clock was
// set back in between it may be off; filter by Time where that matters.
func (r *Recorder) Since(t time.Time) (uint64, error) {
	seq, err := r.ring.since(t.UnixNano(), r.Last()+1)
	if err != nil {
		return 0, fmt.Errorf("find events since %s: %w", t.Format(time.RFC3339), err)
	}
	return seq, nil
}

// Close ends the recorder after a last fsync. Run must have returned.
func (r *Recorder) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	r.mu.Unlock()
	r.syncMu.Lock()
	defer r.syncMu.Unlock()
	return errors.Join(r.ring.close(), r.lock.Close())
}
