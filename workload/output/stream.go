package output

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// stream is one of the two files of a copy and its rotated pieces. A position in
// it is absolute: the number of bytes the copy has written before, so that it
// stays valid when the file rotates. Each piece carries in its name the position
// of its first byte (stdout.00000000000000000000.log); the live file begins
// where the last piece ends.
//
// mu is held for reading by each read of a chunk and for writing by a rotation,
// so that no reader sees half of one.
type stream struct {
	root *os.Root
	dir  string
	name string
	mu   sync.RWMutex
}

type piece struct {
	file        string
	start, size int64
}

func pieceName(name string, start int64) string { return fmt.Sprintf("%s.%020d.log", name, start) }

// pieces lists the rotated pieces, oldest first.
func (s *stream) pieces() ([]piece, error) {
	entries, err := fs.ReadDir(s.root.FS(), filepath.ToSlash(s.dir))
	if err != nil {
		return nil, err
	}
	var ps []piece
	for _, e := range entries {
		num, ok := strings.CutPrefix(e.Name(), s.name+".")
		num, ok2 := strings.CutSuffix(num, ".log")
		start, err := strconv.ParseInt(num, 10, 64)
		if !ok || !ok2 || len(num) != 20 || err != nil {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			ps = append(ps, piece{e.Name(), start, info.Size()})
		}
	}
	slices.SortFunc(ps, func(a, b piece) int { return cmp.Compare(a.start, b.start) })
	return ps, nil
}

func base(ps []piece) int64 {
	if len(ps) == 0 {
		return 0
	}
	last := ps[len(ps)-1]
	return last.start + last.size
}

// Rotate bounds every stream that has grown over the limit. An error about one
// stream does not keep the others from being bounded.
func (s *Store) Rotate() error {
	s.mu.Lock()
	all := make([]*stream, 0, len(s.streams))
	for _, st := range s.streams {
		all = append(all, st)
	}
	s.mu.Unlock()
	var errs []error
	for _, st := range all {
		if err := st.rotate(s.cfg.MaxBytes, s.cfg.Keep); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("rotate %s of %s: %w", st.name, st.dir, err))
		}
	}
	return errors.Join(errs...)
}

// rotate copies the live file to a new piece and truncates it, if it is larger
// than limit. What the copy writes between the last read and the truncation is
// lost (microseconds); what lies more than twice limit before the end is skipped,
// so that a copy that makes a file of a terabyte of holes costs no more than any
// other. If the disk is full the output is dropped rather than left to grow.
func (s *stream) rotate(limit int64, keep int) error {
	info, err := s.root.Lstat(filepath.Join(s.dir, live(s.name)))
	if err != nil || info.Size() <= limit {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := s.root.Open(s.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	src, err := openat(dir, live(s.name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	ps, err := s.pieces()
	if err != nil {
		return err
	}
	copyErr := s.copyOut(dir, src, base(ps), limit)
	if err := src.Truncate(0); err != nil {
		return errors.Join(copyErr, err)
	}
	if copyErr != nil {
		return fmt.Errorf("output is lost: %w", copyErr)
	}
	return s.drop(keep)
}

func (s *stream) copyOut(dir, src *os.File, base, limit int64) error {
	info, err := src.Stat()
	if err != nil {
		return err
	}
	from := max(0, info.Size()-2*limit)
	tmp := filepath.Join(s.dir, "."+s.name+".tmp")
	if err := s.root.RemoveAll(tmp); err != nil {
		return err
	}
	dst, err := openat(dir, filepath.Base(tmp), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close()
	// To the end as it is then, with a bound, for a copy that writes meanwhile.
	rest := io.NewSectionReader(src, from, 3*limit)
	if _, err := io.Copy(dst, rest); err != nil {
		return errors.Join(err, s.root.Remove(tmp))
	}
	if err := s.root.Rename(tmp, filepath.Join(s.dir, pieceName(s.name, base+from))); err != nil {
		return err
	}
	// Naming a file can take long. What came in the meantime is the last that is
	// read before the truncation.
	_, err = io.Copy(dst, rest)
	return err
}

// drop removes the oldest pieces over keep files, the live one counted.
func (s *stream) drop(keep int) error {
	ps, err := s.pieces()
	if err != nil {
		return err
	}
	var errs []error
	for len(ps) > keep-1 {
		errs = append(errs, s.root.Remove(filepath.Join(s.dir, ps[0].file)))
		ps = ps[1:]
	}
	return errors.Join(errs...)
}
