package events

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/ganglion-mesh/ganglion/durable"
)

const (
	segmentSuffix = ".events"
	segmentCount  = 8        // segments that share the ring's budget
	markEvery     = 16 << 10 // bytes between two marks of the sparse index
	leastReserve  = 64 << 10 // what a segment takes of a nearly full disk
)

// ringFile is what the ring needs of the segment it writes; *os.File, and in
// tests one that fails.
type ringFile interface {
	Write(b []byte) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// ring keeps records in segment files of one directory, oldest evicted first.
// It knows nothing of events. One writer and any number of readers: readers
// hold the lock only to copy the list of segments.
type ring struct {
	dir      string
	maxBytes int64
	segBytes int64
	log      *slog.Logger
	create   func(path string) (ringFile, error)

	mu     sync.RWMutex
	segs   []*segment // oldest first
	last   uint64     // seq of the newest record; nothing above it is believed
	active ringFile   // writes the last of segs; nil until the next append opens one
	sealed []ringFile // written and full, still to be fsynced and closed
	newDir bool       // the directory has entries that are not fsynced
	buf    []byte     // one record, reused
	bufs   sync.Pool  // *bufio.Reader for scanners
}

// segment is one file: the records from seq first on.
type segment struct {
	path  string
	first uint64 // smallest seq it may hold; its name
	size  int64  // bytes that readers may read; the next record starts here
	full  bool   // never to be appended to again
	marks []mark // sparse, rising; empty for segments of an earlier run
}

// mark says where the record of a seq starts.
type mark struct {
	seq    uint64
	offset int64
}

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d%s", first, segmentSuffix))
}

// append writes one record with one write call. Seq must rise from call to
// call. After an error the record is not in the ring.
func (r *ring) append(seq uint64, unixNS int64, payload []byte) error {
	if len(payload) > maxRecord-recordHeader {
		return fmt.Errorf("record of %d bytes is above %d", len(payload), maxRecord-recordHeader)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buf = appendRecord(r.buf[:0], seq, unixNS, payload)
	err := r.write(seq)
	if errors.Is(err, syscall.ENOSPC) && len(r.segs) > segmentCount/2 && r.evictOldest() {
		// The disk is full of others' data: live off our own oldest, but keep
		// half of the ring, lest whoever fills the disk erases the history.
		err = r.write(seq)
	}
	if err == nil {
		r.last = seq
	}
	return err
}

// write puts r.buf at the end of the active segment.
func (r *ring) write(seq uint64) error {
	if r.active == nil || !r.fits() {
		if err := r.rotate(seq); err != nil {
			return err
		}
	}
	seg := r.segs[len(r.segs)-1]
	n, err := r.active.Write(r.buf)
	if err != nil {
		if n > 0 && r.active.Truncate(seg.size) != nil {
			r.seal() // a torn record stays behind; readers step over it
		}
		return err
	}
	seg.add(seq, len(r.buf))
	return nil
}

// fits reports whether the last segment has room for r.buf.
func (r *ring) fits() bool {
	if len(r.segs) == 0 {
		return false
	}
	last := r.segs[len(r.segs)-1]
	return !last.full && last.size+int64(len(r.buf)) <= r.segBytes
}

// add notes a record at the end of the segment.
func (s *segment) add(seq uint64, size int) {
	if n := len(s.marks); n == 0 || s.size-s.marks[n-1].offset >= markEvery {
		s.marks = append(s.marks, mark{seq: seq, offset: s.size})
	}
	s.size += int64(size)
}

// rotate makes room and opens the segment whose first record is seq, or goes
// on with the last one if that has room and merely is not open.
func (r *ring) rotate(seq uint64) error {
	if r.active == nil && r.fits() {
		f, err := r.create(r.segs[len(r.segs)-1].path)
		if err == nil {
			r.active = f
		}
		return err
	}
	r.seal()
	if n := len(r.segs); n > 0 && r.segs[n-1].first == seq {
		// It was to start with this very seq, so no good record is in it.
		if err := os.Remove(r.segs[n-1].path); err != nil {
			return err
		}
		r.segs = r.segs[:n-1]
	}
	for r.bytes()+r.segBytes > r.maxBytes && r.evictOldest() {
	}
	path := segmentPath(r.dir, seq)
	f, err := r.create(path)
	if err != nil {
		return err
	}
	r.active, r.newDir = f, true
	r.segs = append(r.segs, &segment{path: path, first: seq})
	return nil
}

// seal ends the active segment; it is fsynced and closed by the next sync. If
// nobody syncs, the oldest is closed unsynced rather than kept open for ever.
func (r *ring) seal() {
	if r.active == nil {
		return
	}
	if len(r.sealed) >= segmentCount {
		r.warn("close segment", r.sealed[0].Close())
		r.sealed = r.sealed[1:]
	}
	r.sealed, r.active = append(r.sealed, r.active), nil
	r.segs[len(r.segs)-1].full = true
}

func (r *ring) bytes() (n int64) {
	for _, s := range r.segs {
		n += s.size
	}
	return n
}

// evictOldest removes the oldest segment, never the one being written.
func (r *ring) evictOldest() bool {
	if len(r.segs) == 0 || (len(r.segs) == 1 && r.active != nil) {
		return false
	}
	if err := os.Remove(r.segs[0].path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.warn("evict segment", err)
		return false
	}
	r.segs = slices.Delete(r.segs, 0, 1)
	return true
}

// first is the smallest seq the ring may still hold; 0 if it is empty.
func (r *ring) first() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.segs) == 0 {
		return 0
	}
	return r.segs[0].first
}

// toSync hands out the files that may hold unsynced records: the sealed ones,
// which the caller must close, and the active one, which it must not.
func (r *ring) toSync() (sealed []ringFile, active ringFile, dir bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sealed, r.sealed = r.sealed, nil
	dir, r.newDir = r.newDir, false
	return sealed, r.active, dir
}

// abandon seals f if it is still being written, after its fsync has failed:
// what the kernel then still knows of the file is anybody's guess.
func (r *ring) abandon(f ringFile) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.active != f {
		return
	}
	r.active = nil
	r.segs[len(r.segs)-1].full = true
	r.warn("close segment", f.Close())
}

// sync makes everything appended before the call durable.
func (r *ring) sync() error {
	sealed, active, dir := r.toSync()
	var errs []error
	for _, f := range sealed {
		errs = append(errs, f.Sync(), f.Close())
	}
	if active != nil {
		if err := active.Sync(); err != nil {
			r.abandon(active)
			errs = append(errs, err)
		}
	}
	if dir {
		errs = append(errs, durable.SyncDir(r.dir))
	}
	return errors.Join(errs...)
}

func (r *ring) warn(what string, err error) {
	if err != nil {
		r.log.Warn("events: "+what, "dir", r.dir, "err", err)
	}
}

// createSegment opens a segment for appending and reserves its blocks, so that
// a disk that fills up later does not silence the recorder in mid-segment.
func createSegment(segBytes int64) func(path string) (ringFile, error) {
	return func(path string) (ringFile, error) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		if err = reserve(f, segBytes); errors.Is(err, syscall.ENOSPC) {
			err = reserve(f, leastReserve)
		}
		if errors.Is(err, syscall.ENOSPC) {
			return nil, errors.Join(err, f.Close()) // the caller evicts and tries again
		}
		return f, nil // any other error: a file system that cannot reserve
	}
}
