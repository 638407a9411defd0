package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ganglion-mesh/ganglion/pause"
	"github.com/ganglion-mesh/ganglion/workload"
)

// Limits of one read: a chunk, and how far back Tail looks, at first and at last.
const (
	chunkBytes  = 64 << 10
	glanceBytes = 8 << 10
	tailBytes   = 1 << 20
	followEvery = 100 * time.Millisecond
)

// Cursor is a place in a copy's output, in bytes written before it. It stays
// valid when files rotate; a place that is no longer kept means the oldest byte
// that is.
type Cursor struct {
	Stdout int64 `json:"stdout"`
	Stderr int64 `json:"stderr"`
}

// Chunk is a piece of one stream: whole lines, unless a line is longer than a
// chunk or does not go on.
type Chunk struct {
	Stream string
	Data   []byte // valid until the callback returns
	Next   Cursor // to go on after this chunk
}

// ReadOptions says what to read. Without Tail it begins at From; the zero From
// is the oldest byte kept.
type ReadOptions struct {
	From   Cursor
	Tail   int  // only the last lines of each stream (within its last MiB)
	Follow bool // go on until ctx ends; wait for a copy that has no output yet
}

// Read calls fn with the output of a copy, each stream in order. (In which order
// lines of different streams were written is not known.) It returns at the end,
// or with Follow when ctx ends, and with fn's error as soon as there is one. A
// copy without output here is fs.ErrNotExist.
func (s *Store) Read(ctx context.Context, id workload.CopyID, opt ReadOptions, fn func(Chunk) error) error {
	r := &reader{store: s, id: id, at: opt.From, fn: fn}
	if opt.Tail > 0 {
		if err := r.seekTail(opt.Tail); err != nil && !(opt.Follow && errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("read output of %s: %w", id, err)
		}
	}
	for {
		grown, err := r.pass(opt.Follow)
		if err != nil && !(opt.Follow && errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("read output of %s: %w", id, err)
		}
		if grown {
			if ctx.Err() != nil {
				return nil
			}
			continue
		}
		if !opt.Follow || !pause.For(ctx, followEvery) {
			return nil
		}
	}
}

type reader struct {
	store *Store
	id    workload.CopyID
	at    Cursor
	fn    func(Chunk) error
	held  [len(names)]int64 // end of an unfinished line that was held back once
	buf   [chunkBytes]byte
}

func (r *reader) pos(i int) *int64 {
	if i == 0 {
		return &r.at.Stdout
	}
	return &r.at.Stderr
}

// pass yields at most one chunk of each stream and tells whether there was any.
func (r *reader) pass(follow bool) (grown bool, err error) {
	for i, name := range names {
		pos := r.pos(i)
		n, at, err := r.store.peek(r.id, name).readAt(r.buf[:], *pos)
		if err != nil {
			return false, err
		}
		*pos = at
		data := r.whole(i, r.buf[:n], follow)
		if len(data) == 0 {
			continue
		}
		*pos += int64(len(data))
		grown = true
		if err := r.fn(Chunk{Stream: name, Data: data, Next: r.at}); err != nil {
			return false, err
		}
	}
	return grown, nil
}

// whole cuts data after its last line. A line without an end is held back for
// one round if its end may yet come.
func (r *reader) whole(i int, data []byte, follow bool) []byte {
	if cut := bytes.LastIndexByte(data, '\n') + 1; cut > 0 {
		return data[:cut]
	}
	end := *r.pos(i) + int64(len(data))
	if len(data) == 0 || len(data) == len(r.buf) || !follow || r.held[i] == end {
		return data
	}
	r.held[i] = end
	return nil
}

// seekTail sets the cursor to the last lines of each stream.
func (r *reader) seekTail(lines int) error {
	for i, name := range names {
		st := r.store.peek(r.id, name)
		end, err := st.end()
		if err != nil {
			return err
		}
		*r.pos(i) = st.tail(end, lines)
	}
	return nil
}

// tail is where the last lines before end begin. It looks further back only where
// lines are long: it is asked for right after a restart, which it must not burden.
func (s *stream) tail(end int64, lines int) int64 {
	for look := int64(glanceBytes); ; look = min(8*look, tailBytes) {
		from := max(0, end-look)
		buf := make([]byte, end-from)
		fill, at := s.fill(buf, from)
		start := tailStart(buf[:fill], lines)
		if start > 0 || from == 0 || at > from || look == tailBytes {
			return at + int64(start)
		}
	}
}

// fill reads what is kept from a position on, and returns where that begins.
func (s *stream) fill(buf []byte, pos int64) (fill int, at int64) {
	at = pos
	for fill < len(buf) {
		n, got, err := s.readAt(buf[fill:], at+int64(fill))
		if err != nil || n == 0 {
			break
		}
		if fill == 0 {
			at = got // the oldest byte kept may lie later
		}
		fill += n
	}
	return fill, at
}

func tailStart(b []byte, lines int) int {
	i := len(b)
	if i > 0 && b[i-1] == '\n' {
		i--
	}
	for ; lines > 0; lines-- {
		if i = bytes.LastIndexByte(b[:i], '\n'); i < 0 {
			return 0
		}
	}
	return i + 1
}

// peek returns a stream to read: a tracked one with its lock, else one of its
// own, so that reading leaves nothing behind.
func (s *Store) peek(id workload.CopyID, name string) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.streams[key{id, name}]; st != nil {
		return st
	}
	return &stream{root: s.root, dir: dirOf(id), name: name}
}

// end is the position after the last byte.
func (s *stream) end() (int64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ps, err := s.pieces()
	if err != nil {
		return 0, err
	}
	info, err := s.root.Lstat(filepath.Join(s.dir, live(s.name)))
	if err != nil {
		return 0, err
	}
	return base(ps) + info.Size(), nil
}

// readAt reads at an absolute position and returns where it really read: later,
// if that is no longer kept; at the end, if the copy has cut its own file.
func (s *stream) readAt(buf []byte, pos int64) (n int, at int64, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ps, err := s.pieces()
	if err != nil {
		return 0, pos, err
	}
	for _, p := range ps {
		if pos < p.start+p.size {
			pos = max(pos, p.start)
			n, err = s.readFile(p.file, buf, pos-p.start)
			return n, pos, err
		}
	}
	off := pos - base(ps)
	size, err := s.size(live(s.name))
	if err != nil {
		return 0, pos, err
	}
	if off > size {
		return 0, base(ps) + size, nil
	}
	n, err = s.readFile(live(s.name), buf, off)
	return n, pos, err
}

func (s *stream) size(file string) (int64, error) {
	info, err := s.root.Lstat(filepath.Join(s.dir, file))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (s *stream) readFile(file string, buf []byte, off int64) (int, error) {
	dir, err := s.root.Open(s.dir)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	f, err := openat(dir, file, os.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := f.ReadAt(buf, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}
