package events

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// tail is what a ring remembers of its last record.
type tail struct {
	seq     uint64 // largest seq known to have been used; 0 for a new ring
	unixNS  int64
	payload []byte // nil if no record is left
}

// openRing opens the segments of a directory and removes the torn end that a
// crash may have left. It writes nothing else, so that it works on a full disk.
func openRing(dir string, maxBytes int64, log *slog.Logger) (*ring, tail, error) {
	r := &ring{dir: dir, maxBytes: maxBytes, segBytes: maxBytes / segmentCount, log: log, last: maxSeq - 1}
	r.create = createSegment(r.segBytes)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, tail{}, err
	}
	for _, e := range entries {
		if s := segmentOf(dir, e); s != nil {
			r.segs = append(r.segs, s)
		}
	}
	slices.SortFunc(r.segs, func(a, b *segment) int { return cmp.Compare(a.first, b.first) })
	t, err := r.recover()
	r.last = t.seq
	return r, t, err
}

// segmentOf is the segment a directory entry holds; nil if it is none. Files
// with other names are not ours and are left alone.
func segmentOf(dir string, e fs.DirEntry) *segment {
	digits, ok := strings.CutSuffix(e.Name(), segmentSuffix)
	if !ok || len(digits) != 20 || !e.Type().IsRegular() {
		return nil
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || first == 0 || first >= maxSeq {
		return nil
	}
	info, err := e.Info()
	if err != nil {
		return nil
	}
	return &segment{path: filepath.Join(dir, e.Name()), first: first, size: info.Size(), full: true}
}

// recover finds the last record and makes the last segment ready to append to.
func (r *ring) recover() (tail, error) {
	var t tail
	for i := len(r.segs) - 1; i >= 0; i-- {
		found, end, err := r.scanTail(i)
		if err != nil {
			return tail{}, fmt.Errorf("read %s: %w", r.segs[i].path, err)
		}
		if i == len(r.segs)-1 {
			t.seq = r.segs[i].first - 1 // its name says that all before were used
			r.reopen(r.segs[i], end)
		}
		if found.payload != nil {
			found.seq = max(found.seq, t.seq)
			return found, nil
		}
	}
	return t, nil
}

// scanTail reads a whole segment, builds its marks, and returns its last good
// record and where that ends.
func (r *ring) scanTail(i int) (t tail, end int64, err error) {
	seg := r.segs[i]
	seg.marks = nil
	err = r.scan(r.viewOf(i, 0), func(rec record) bool {
		if n := len(seg.marks); n == 0 || rec.offset-seg.marks[n-1].offset >= markEvery {
			seg.marks = append(seg.marks, mark{seq: rec.seq, offset: rec.offset})
		}
		t.seq, t.unixNS, t.payload = rec.seq, rec.unixNS, append(t.payload[:0], rec.payload...)
		end = rec.offset + int64(rec.size)
		return true
	})
	return t, end, err
}

// reopen lets the last segment be continued after its last good record. A tail
// short enough to be one torn write is cut off; anything longer is damage or a
// format of the future: it stays, and new records follow it.
func (r *ring) reopen(seg *segment, end int64) {
	seg.full = false
	torn := seg.size - end
	if torn == 0 {
		return
	}
	r.log.Warn("events: the last segment has a bad end", "file", seg.path, "bytes", torn)
	if torn > maxRecord {
		return
	}
	if err := os.Truncate(seg.path, end); err != nil {
		r.warn("cut torn record", err)
		return
	}
	seg.size = end
}

// close seals the ring: it fsyncs and closes what is open.
func (r *ring) close() error {
	r.mu.Lock()
	r.seal()
	r.mu.Unlock()
	return r.sync()
}

// isGone reports whether a segment was evicted under a reader.
func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// ignoreEOF turns the end of a scan into success.
func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
