package artifact

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Settle flushes what was unpacked and not flushed yet, so that it need not be
// unpacked again after a reboot. It is for a quiet moment: by then the kernel
// has written most of it.
func (s *Store) Settle(ctx context.Context) error {
	s.mu.Lock()
	var names []string
	for _, e := range s.entries {
		for name := range e.trees {
			names = append(names, name)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, name := range names {
		if err := s.settle(ctx, name); err != nil && !errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *Store) settle(ctx context.Context, name string) error {
	var m treeMeta
	path := s.path(dirTrees, name+metaSuffix)
	if err := readJSON(path, &m); err != nil || m.Settled {
		return err
	}
	err := filepath.WalkDir(s.path(dirTrees, name), func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
	if err != nil {
		return err
	}
	m.Settled = true
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := os.Lstat(path); err != nil {
		return err
	}
	return errors.Join(s.writeJSON(path, m), s.syncDir(s.path(dirTrees)))
}
