package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
)

// part is a package on its way, on disk. What a killed agent has left of one is
// taken up again: each chunk is checked by its hash, so nothing needs to be
// trusted or recorded.
type part struct {
	store  *Store
	digest Digest
	chunks Chunks
	f      *os.File

	mu   sync.Mutex
	have []bool
	left int
}

// claimPart sees to it that nobody else fetches d into this store: it waits until
// whoever does has ended.
func (s *Store) claimPart(ctx context.Context, d Digest) error {
	for {
		s.mu.Lock()
		ended := s.parts[d]
		if ended == nil {
			s.parts[d] = make(chan struct{})
		}
		s.mu.Unlock()
		if ended == nil {
			return nil
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Store) releasePart(d Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.parts[d])
	delete(s.parts, d)
}

// openPart opens the part of d, with the chunks that it already has. What is
// still missing must fit on the disk.
func (s *Store) openPart(d Digest, c Chunks) (_ *part, err error) {
	f, err := os.OpenFile(s.path(dirParts, d.hex()), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	p := &part{store: s, digest: d, chunks: c, f: f, have: make([]bool, len(c.Sums)), left: len(c.Sums)}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > c.Size {
		if err := f.Truncate(c.Size); err != nil {
			return nil, err
		}
	}
	if err := p.resume(info.Size()); err != nil {
		return nil, err
	}
	return p, s.room(int64(p.left) * ChunkSize)
}

// resume finds the chunks that are whole.
func (p *part) resume(size int64) error {
	buf := make([]byte, ChunkSize)
	for i := range p.have {
		off, n := p.chunks.span(i)
		if off+n > size {
			break
		}
		if _, err := p.f.ReadAt(buf[:n], off); err != nil {
			return err
		}
		if sum := sha256.Sum256(buf[:n]); bytes.Equal(sum[:], p.chunks.Sums[i]) {
			p.have[i] = true
			p.left--
		}
	}
	return nil
}

// put stores chunk i. ErrCorrupt means that it is not what its hash says.
func (p *part) put(i int, data []byte) error {
	off, n := p.chunks.span(i)
	sum := sha256.Sum256(data)
	if int64(len(data)) != n || !bytes.Equal(sum[:], p.chunks.Sums[i]) {
		return fmt.Errorf("bytes %d to %d: %w", off, off+n-1, ErrCorrupt)
	}
	if _, err := p.f.WriteAt(data, off); err != nil {
		return &diskError{err}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.have[i] {
		p.have[i] = true
		p.left--
	}
	return nil
}

// done is how many bytes are here.
func (p *part) done() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, p.chunks.Size-int64(p.left)*ChunkSize)
}

func (p *part) missing() (out []int) {
	for i, have := range p.have {
		if !have {
			out = append(out, i)
		}
	}
	return out
}

// finish checks the whole and puts it in place. With ErrCorrupt the part is
// gone: its chunks were not those of the package.
func (p *part) finish(name string) error {
	if _, err := p.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, p.f); err != nil {
		return &diskError{err}
	}
	if got := digestOf(sum.Sum(nil)); got != p.digest {
		return errors.Join(fmt.Errorf("%w: it is %s", ErrCorrupt, got.Short()), os.Remove(p.f.Name()))
	}
	return p.store.commit(p.f, p.digest, meta{Chunks: p.chunks, Name: cleanName(name)})
}

func (p *part) close() { p.f.Close() }

// diskError is a fault of this host, not of a source.
type diskError struct{ err error }

func (e *diskError) Error() string { return "write package: " + e.err.Error() }
func (e *diskError) Unwrap() error { return e.err }

// openTail opens what there is of a package that comes from its beginning to its
// end, from a server that knows no chunks.
func (s *Store) openTail(d Digest) (f *os.File, have int64, err error) {
	f, err = os.OpenFile(s.path(dirParts, d.hex()+".tail"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, 0, err
	}
	have, err = f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
	}
	return f, have, err
}

// dropPart removes what was fetched of d.
func (s *Store) dropPart(d Digest) {
	for _, name := range []string{d.hex(), d.hex() + ".tail"} {
		if err := os.Remove(s.path(dirParts, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.cfg.Logger.Warn("remove part of a package", "package", d.Short(), "error", err)
		}
	}
}
