package senses

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// FilesConfig configures a sense of changed files.
type FilesConfig struct {
	// Target is the sense's name, as rules know it; required.
	Target string
	// Paths are the files, and directories of which every entry counts; absolute,
	// at most 64. They need not exist.
	Paths []string
	// Now is the boot clock; required.
	Now Clock
	// Relook is how often all is looked at, whatever the kernel told. Default: 10 s.
	Relook time.Duration
}

// maxPaths bounds the paths of one sense.
const maxPaths = 64

func (c *FilesConfig) validate() error {
	c.Relook = defaulted(c.Relook, 10*time.Second)
	switch {
	case c.Now == nil:
		return errNoClock
	case !isName(c.Target):
		return errBadName
	case len(c.Paths) == 0 || len(c.Paths) > maxPaths:
		return fmt.Errorf("%d paths: want 1 to %d", len(c.Paths), maxPaths)
	case c.Relook < 100*time.Millisecond:
		return fmt.Errorf("relook every %s: want at least 100ms", c.Relook)
	}
	for i, p := range c.Paths {
		if !filepath.IsAbs(p) {
			return fmt.Errorf("path %q: want an absolute one", p)
		}
		c.Paths[i] = filepath.Clean(p)
	}
	return nil
}

// Files tells of changes of files: of what they hold or of what they are, by
// whatever way they came about. A file that is being written has changed when
// it is closed. Several changes at once may count as one.
type Files struct {
	cfg    FilesConfig
	target reflexes.Target

	// What one run leaves to the next.
	count int64
	seen  map[string]fingerprint // of files; absent before the first look
}

// NewFiles returns a sense of changed files.
func NewFiles(cfg FilesConfig) (*Files, error) {
	cfg.Paths = slices.Clone(cfg.Paths)
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up the sense of files %q: %w", cfg.Target, err)
	}
	return &Files{cfg: cfg, target: reflexes.Target{Scope: reflexes.ScopeSense, Name: cfg.Target}, seen: map[string]fingerprint{}}, nil
}

// Target is whom the sense tells of.
func (f *Files) Target() reflexes.Target { return f.target }

// Name implements Sense.
func (f *Files) Name() string { return "files:" + f.cfg.Target }

// Vars implements Sense.
func (f *Files) Vars() []reflexes.VarID {
	return []reflexes.VarID{reflexes.SenseCount, reflexes.SenseSubject}
}

// fingerprint is what tells a file from one that has changed.
type fingerprint struct {
	exists, dir  bool
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

func fingerprintOf(path string) fingerprint {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return fingerprint{}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fingerprint{exists: true, dir: true, dev: st.Dev, ino: st.Ino} // its entries are told one by one
	}
	return fingerprint{exists: true, dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
}

// Run implements Sense.
func (f *Files) Run(ctx context.Context, emit Emit) error {
	ino, err := newInotify()
	if err != nil {
		return err
	}
	r := &filesRun{Files: f, emit: emit, ino: ino, dirs: map[int32]string{}, news: make(chan fileNews), done: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(r.receive)
	err = r.loop(ctx)
	close(r.done)
	ino.close()
	wg.Wait()
	return err
}

// filesRun is one run of the sense.
type filesRun struct {
	*Files
	emit Emit
	ino  *inotify
	dirs map[int32]string // watched directories
	news chan fileNews
	done chan struct{}
}

type fileNews struct {
	events []fileEvent
	err    error
}

func (r *filesRun) receive() {
	for {
		events, err := r.ino.read()
		select {
		case r.news <- fileNews{events, err}:
		case <-r.done:
			return
		}
		if err != nil {
			return
		}
	}
}

func (r *filesRun) loop(ctx context.Context) error {
	again := time.NewTicker(r.cfg.Relook)
	defer again.Stop()
	r.watch()
	r.lookAll()
	// From now on nothing is missed.
	r.emit([]reflexes.Fact{fact(reflexes.SenseCount, r.target, reflexes.Int(r.count), r.cfg.Now())})
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			r.watch()
			r.lookAll()
		case n := <-r.news:
			if n.err != nil {
				return fmt.Errorf("watch files: %w", n.err)
			}
			r.take(n.events)
		}
	}
}

// Files are watched by their directories: a file that is replaced is another
// file, of which a watch would know nothing.
const fileMask = unix.IN_CLOSE_WRITE | unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_ATTRIB |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// watch adds the watches that are missing. What cannot be watched now is tried
// again later, and looked at meanwhile.
func (r *filesRun) watch() {
	for _, p := range r.cfg.Paths {
		for _, dir := range []string{filepath.Dir(p), p} {
			if wd, err := r.ino.add(dir, fileMask); err == nil {
				r.dirs[wd] = dir
			}
		}
	}
}

func (r *filesRun) take(events []fileEvent) {
	for _, e := range events {
		dir, ok := r.dirs[e.wd]
		switch {
		case e.lost():
			r.watch()
			r.lookAll()
			for _, p := range r.cfg.Paths {
				if r.seen[p].dir {
					r.changed(p) // one has, for all we know
				}
			}
		case !ok:
		case e.ended():
			delete(r.dirs, e.wd)
			r.watch()
			r.lookAll()
		case e.name == "", halfWritten(dir, e):
		default:
			r.entry(dir, e)
		}
	}
}

// halfWritten tells of a file that has just been made and will be closed by
// whoever writes it.
func halfWritten(dir string, e fileEvent) bool {
	if e.mask&unix.IN_CREATE == 0 || e.mask&unix.IN_ISDIR != 0 {
		return false
	}
	var st unix.Stat_t
	return unix.Lstat(filepath.Join(dir, e.name), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1
}

// entry looks at what an entry of a watched directory may have changed: itself,
// and files that are reached through it if it is a link.
func (r *filesRun) entry(dir string, e fileEvent) {
	const attributesOnly = unix.IN_ATTRIB
	for _, p := range r.cfg.Paths {
		switch {
		case p == dir && e.mask&attributesOnly == 0:
			r.seen[p] = fingerprintOf(p)
			r.changed(filepath.Join(dir, e.name))
		case filepath.Dir(p) == dir:
			if filepath.Base(p) == e.name && e.mask&unix.IN_ISDIR != 0 {
				r.watch()
			}
			if filepath.Base(p) == e.name && e.mask&unix.IN_CLOSE_WRITE != 0 && justWritten(p) {
				delete(r.seen, p)
				r.changed(p)
			}
			r.look(p)
		}
	}
}

// justWritten tells of a file whose time of change says too little: kernels before
// 6.13 count it in steps of up to 10 ms, in which there may be two changes.
func justWritten(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && time.Since(time.Unix(st.Mtim.Unix())).Abs() < 20*time.Millisecond
}

func (r *filesRun) lookAll() {
	for _, p := range r.cfg.Paths {
		r.look(p)
	}
}

// look compares a path with what it last was.
func (r *filesRun) look(path string) {
	now := fingerprintOf(path)
	was, known := r.seen[path]
	r.seen[path] = now
	if known && was != now {
		r.changed(path)
	}
}

func (r *filesRun) changed(path string) {
	r.count++
	at := r.cfg.Now()
	r.emit([]reflexes.Fact{
		fact(reflexes.SenseSubject, r.target, reflexes.Text(strings.ToValidUTF8(path, "�")), at),
		fact(reflexes.SenseCount, r.target, reflexes.Int(r.count), at),
	})
}
