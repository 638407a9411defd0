// Package output keeps what copies print: for each copy two files, stdout and
// stderr, that the agent opens for appending in a directory that no copy can
// write, so that a copy never notices the agent's death and can never lead the
// agent elsewhere with a link. The files are bounded by copy-and-truncate and
// read, also while they rotate, by absolute offsets.
//
// Both drivers share it: the process driver passes the open files, the systemd
// driver passes the paths (StandardOutput=append:PATH).
package output

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// The two streams of a copy.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

var names = [...]string{Stdout, Stderr}

// Config says where output is kept and how much of it.
type Config struct {
	Dir      string        // made with mode 0700 if it does not exist
	MaxBytes int64         // of a file before it rotates; default 10 MiB
	Keep     int           // files a stream, the one being written included; at least 2, default 3
	Interval time.Duration // between looks at the sizes; default 1s
	Logger   *slog.Logger  // default: none
}

func (c *Config) validate() error {
	if c.Dir == "" {
		return errors.New("open output: Dir is empty")
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 10 << 20
	}
	if c.Keep == 0 {
		c.Keep = 3
	}
	if c.MaxBytes < 0 || c.Keep < 2 {
		return fmt.Errorf("open output: MaxBytes %d and Keep %d: want more than 0 and at least 2", c.MaxBytes, c.Keep)
	}
	if c.Interval == 0 {
		c.Interval = time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Store is the output of all copies of one host. It must be the only Store of
// its directory: reading and rotation exclude each other by its locks. All
// methods may be called concurrently.
type Store struct {
	cfg  Config
	root *os.Root

	mu      sync.Mutex
	streams map[key]*stream // those this life of the agent has touched
	first   sync.Once
	used    chan struct{} // closed with the first of them
}

type key struct {
	id   workload.CopyID
	name string
}

// New opens the store.
func New(cfg Config) (*Store, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open output: %w", err)
	}
	root, err := os.OpenRoot(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open output: %w", err)
	}
	return &Store{cfg: cfg, root: root, streams: map[key]*stream{}, used: make(chan struct{})}, nil
}

// Close releases the store's own descriptors. Files given out stay open.
func (s *Store) Close() error { return s.root.Close() }

// Run bounds the files until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	select { // nothing grows before the first copy has its files
	case <-ctx.Done():
		return nil
	case <-s.used:
	}
	tick := time.NewTicker(s.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := s.Rotate(); err != nil {
				s.cfg.Logger.Warn("rotate output", "error", err)
			}
		}
	}
}

// Owner is who shall own the files, so that a copy can open /dev/stdout again.
// The directory stays the agent's.
type Owner struct {
	UID, GID int
}

// Self leaves the files to the agent's own user.
var Self = Owner{UID: -1, GID: -1}

// Open makes the files of a copy if they do not exist and opens both for
// appending. The caller closes them.
func (s *Store) Open(id workload.CopyID, own Owner) (stdout, stderr *os.File, err error) {
	dir, err := s.makeDir(id)
	if err != nil {
		return nil, nil, fmt.Errorf("open output of %s: %w", id, err)
	}
	defer dir.Close()
	var files [2]*os.File
	for i, name := range names {
		if files[i], err = openLive(dir, name, own); err != nil {
			if i == 1 {
				files[0].Close()
			}
			return nil, nil, fmt.Errorf("open output of %s: %w", id, err)
		}
	}
	s.Track(id)
	return files[0], files[1], nil
}

// Track makes Rotate look after a copy's files, for copies whose files an
// earlier life of the agent has opened.
func (s *Store) Track(id workload.CopyID) {
	for _, name := range names {
		s.stream(id, name)
	}
}

// Paths returns the absolute paths of the live files, whether they exist or not.
func (s *Store) Paths(id workload.CopyID) (stdout, stderr string) {
	dir := filepath.Join(s.cfg.Dir, dirOf(id))
	return filepath.Join(dir, live(Stdout)), filepath.Join(dir, live(Stderr))
}

// Purge removes all output of a copy that does not run.
func (s *Store) Purge(id workload.CopyID) error {
	for _, name := range names {
		st := s.stream(id, name)
		st.mu.Lock()
		defer st.mu.Unlock()
	}
	if err := s.root.RemoveAll(dirOf(id)); err != nil {
		return fmt.Errorf("purge output of %s: %w", id, err)
	}
	_ = s.root.Remove(id.App) // fails, as it should, while other copies have output
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		delete(s.streams, key{id, name})
	}
	return nil
}

func (s *Store) stream(id workload.CopyID, name string) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key{id, name}
	st := s.streams[k]
	if st == nil {
		s.first.Do(func() { close(s.used) })
		st = &stream{root: s.root, dir: dirOf(id), name: name}
		s.streams[k] = st
	}
	return st
}

func (s *Store) makeDir(id workload.CopyID) (*os.File, error) {
	if err := s.root.MkdirAll(dirOf(id), 0o700); err != nil {
		return nil, err
	}
	return s.root.Open(dirOf(id))
}

func dirOf(id workload.CopyID) string { return filepath.Join(id.App, strconv.Itoa(id.N)) }

func live(name string) string { return name + ".log" }

// openLive opens the file that is being written. It follows no link and takes
// nothing but a regular file.
func openLive(dir *os.File, name string, own Owner) (*os.File, error) {
	f, err := openat(dir, live(name), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: f.Name(), Err: errors.New("not a regular file")}
	}
	if err == nil && own != Self {
		err = f.Chown(own.UID, own.GID)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
