package artifact

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Keep says what becomes of packages when space is made.
type Keep struct {
	// Pinned packages are never removed: they run, or a rollback needs them.
	// Fresh ones are not removed either; they are on their way to be used.
	Pinned, Fresh map[Digest]bool
	Bound         int64 // bytes that all may have together; what is pinned may have more
}

// Collect removes packages that nothing needs, those used longest ago first,
// until all that is left fits the bound. It returns what it removed. What a
// process still runs from stays.
func (s *Store) Collect(k Keep) ([]Info, error) {
	list := s.List()
	var total int64
	for _, i := range list {
		total += i.Size + i.Unpacked
	}
	slices.SortFunc(list, func(a, b Info) int { return cmp.Compare(a.Used, b.Used) })
	var gone []Info
	var errs []error
	for _, i := range list {
		if total <= k.Bound {
			break
		}
		if k.Pinned[i.Digest] || k.Fresh[i.Digest] {
			continue
		}
		switch err := s.Remove(i.Digest); {
		case errors.As(err, new(*InUseError)):
		case err != nil:
			errs = append(errs, err)
		default:
			total -= i.Size + i.Unpacked
			gone = append(gone, i)
		}
	}
	return gone, errors.Join(append(errs, s.saveOrder(), s.dropParts(k.Pinned))...)
}

// InUseError is a package that cannot be removed because a process runs from it.
type InUseError struct {
	Digest Digest
	Pid    int
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("remove package %s: process %d runs from it", e.Digest.Short(), e.Pid)
}

// Remove removes a package and what was unpacked of it; ErrAbsent if there is
// none. It takes the package out of sight by renames, so that a crash leaves
// none that is half there.
func (s *Store) Remove(d Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[d]
	if e == nil {
		return fmt.Errorf("remove package %s: %w", d.Short(), ErrAbsent)
	}
	for name := range e.trees {
		if pid := runsFrom(s.path(dirTrees, name)); pid != 0 {
			return &InUseError{d, pid}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.trees)) {
		if err := s.dropTree(name); err != nil {
			return fmt.Errorf("remove package %s: %w", d.Short(), err)
		}
		delete(e.trees, name)
	}
	var err error
	for _, name := range []string{d.hex(), d.hex() + metaSuffix} { // the package first: a meta alone is nothing
		if gone := os.Remove(s.path(dirPackages, name)); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	if err == nil {
		err = s.syncDir(s.path(dirPackages))
	}
	if err != nil {
		return fmt.Errorf("remove package %s: %w", d.Short(), err)
	}
	delete(s.entries, d)
	return nil
}

// dropTree takes a tree out of sight, then removes it. It is called with mu held.
func (s *Store) dropTree(name string) error {
	temp, err := os.MkdirTemp(s.path(dirTemp), "gone-")
	if err != nil {
		return err
	}
	_ = os.Chmod(s.path(dirTrees, name), modeUnfinished) // else its owner, unless root, cannot move it
	err = os.Rename(s.path(dirTrees, name), filepath.Join(temp, "tree"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = os.Remove(s.path(dirTrees, name+metaSuffix))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(s.syncDir(s.path(dirTrees)), removeTree(temp))
}

// dropParts removes what is left of fetches that nobody needs any more.
func (s *Store) dropParts(wanted map[Digest]bool) error {
	files, err := os.ReadDir(s.path(dirParts))
	if err != nil {
		return err
	}
	for _, f := range files {
		hexed, _, _ := strings.Cut(f.Name(), ".")
		if d := Digest(digestPrefix + hexed); !wanted[d] && !s.isFetched(d) {
			if err := os.Remove(s.path(dirParts, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// isFetched tells whether a package is on its way here.
func (s *Store) isFetched(d Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parts[d] != nil
}

// loadOrder reads in what order packages were used. It is a hint: without it all
// are equally old.
func (s *Store) loadOrder() {
	var order []Digest
	_ = readJSON(s.path(fileOrder), &order)
	for _, d := range order {
		s.use(d)
	}
}

func (s *Store) saveOrder() error {
	list := s.List()
	slices.SortFunc(list, func(a, b Info) int { return cmp.Compare(a.Used, b.Used) })
	order := make([]Digest, len(list))
	for i, info := range list {
		order[i] = info.Digest
	}
	var before []Digest
	if readJSON(s.path(fileOrder), &before) == nil && slices.Equal(before, order) {
		return nil
	}
	return s.writeJSON(s.path(fileOrder), order)
}

// runsFrom returns a process that executes from dir, is in it or has mapped a
// file of it; 0 if there is none that can be seen.
func runsFrom(dir string) int {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		for _, link := range []string{"exe", "cwd", "root"} {
			if to, err := os.Readlink(filepath.Join(p, link)); err == nil && inside(dir, to) {
				return pidOf(p)
			}
		}
		if maps, err := os.ReadFile(filepath.Join(p, "maps")); err == nil && strings.Contains(string(maps), dir+"/") {
			return pidOf(p)
		}
	}
	return 0
}

func inside(dir, path string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func pidOf(proc string) (pid int) {
	fmt.Sscan(filepath.Base(proc), &pid) //nolint:errcheck // the glob matched digits
	return pid
}
