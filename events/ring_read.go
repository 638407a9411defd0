package events

import (
	"bufio"
	"io"
	"os"
	"sort"
)

// view is a frozen piece of a segment that a reader works through without the
// ring's lock: the file only ever grows behind size.
type view struct {
	path          string
	offset, size  int64
	after, before uint64 // seqs that may be in it, both exclusive
}

// viewOf is the part of segment i that holds seqs >= from. The lock is held,
// or nobody else has the ring yet.
func (r *ring) viewOf(i int, from uint64) view {
	seg := r.segs[i]
	v := view{path: seg.path, size: seg.size, after: seg.first - 1, before: r.last + 1}
	if i+1 < len(r.segs) {
		v.before = r.segs[i+1].first
	}
	n := sort.Search(len(seg.marks), func(j int) bool { return seg.marks[j].seq > from })
	if n > 0 {
		v.offset = seg.marks[n-1].offset
	}
	return v
}

// views lists what holds seqs >= from, oldest first.
func (r *ring) views(from uint64) []view {
	r.mu.RLock()
	defer r.mu.RUnlock()
	// The last segment that starts at or before from, or the very first.
	i := max(0, sort.Search(len(r.segs), func(j int) bool { return r.segs[j].first > from })-1)
	var vs []view
	for ; i < len(r.segs); i++ {
		vs = append(vs, r.viewOf(i, from))
	}
	return vs
}

// read calls fn for each record with seq >= from, in order, until fn returns
// false or the end as of the call is reached. Damage and eviction show as
// gaps. No lock is held while fn runs; the record is valid during the call.
func (r *ring) read(from uint64, fn func(record) bool) error {
	more := true
	for _, v := range r.views(from) {
		err := r.scan(v, func(rec record) bool {
			if rec.seq >= from {
				more = fn(rec)
			}
			return more
		})
		if err != nil && !isGone(err) {
			return err
		}
		if !more {
			return nil
		}
	}
	return nil
}

// scan calls fn for each good record of a view until fn returns false.
func (r *ring) scan(v view, fn func(record) bool) error {
	f, err := os.Open(v.path)
	if err != nil {
		return err
	}
	defer f.Close()
	in, _ := r.bufs.Get().(*bufio.Reader)
	if in == nil {
		in = bufio.NewReaderSize(nil, maxRecord)
	}
	defer func() { in.Reset(nil); r.bufs.Put(in) }()
	in.Reset(io.NewSectionReader(f, v.offset, v.size-v.offset))
	s := newScanner(in, v.after, v.before)
	for {
		rec, err := s.next()
		if err != nil {
			if s.damaged > 0 {
				r.log.Warn("events: a segment is damaged; its good records were read", "file", v.path, "bytes", s.damaged)
			}
			return ignoreEOF(err)
		}
		rec.offset += v.offset
		if !fn(rec) {
			return nil
		}
	}
}

// since is the seq of the first record at or after a wall clock time; the seq
// after the last one if there is none. It assumes that the clock mostly ran
// forward: it goes back from the newest segment to the first that starts
// earlier, and looks on from there.
func (r *ring) since(unixNS int64, next uint64) (uint64, error) {
	vs := r.views(0)
	start := 0
	for i := len(vs) - 1; i >= 0; i-- {
		earlier := false
		err := r.scan(vs[i], func(rec record) bool { earlier = rec.unixNS < unixNS; return false })
		if err != nil && !isGone(err) {
			return 0, err
		}
		if earlier {
			start = i
			break
		}
	}
	found := next
	for _, v := range vs[start:] {
		err := r.scan(v, func(rec record) bool {
			if rec.unixNS >= unixNS {
				found = rec.seq
			}
			return found == next
		})
		if err != nil && !isGone(err) {
			return 0, err
		}
		if found != next {
			return found, nil
		}
	}
	return next, nil
}
