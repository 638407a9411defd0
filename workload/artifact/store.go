package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/ganglion-mesh/ganglion/workload/bootclock"
)

// The directories of a store. Copies pass through the store and trees to what
// they run from; the rest is the agent's alone.
const (
	dirPackages = "packages" // <hex>: a whole package; <hex>.meta: its Chunks and name
	dirParts    = "parts"    // packages that are being fetched
	dirTrees    = "trees"    // <hex>: an unpacked package; <hex>.meta: its size
	dirTemp     = "tmp"      // what a crash leaves here is nothing's
	fileOrder   = "order.json"

	metaSuffix = ".meta"
)

// Config of a Store.
type Config struct {
	Dir    string // made if absent
	Limits Limits
	// Spare is how much of the file system is left free for others: nothing is
	// written beyond it. Default 64 MiB.
	Spare  int64
	Logger *slog.Logger // default: none
}

func (c *Config) validate() error {
	if c.Dir == "" {
		return errors.New("configure artifact store: Dir is missing")
	}
	if c.Spare < 0 {
		return errors.New("configure artifact store: Spare is negative")
	}
	c.Limits = c.Limits.withDefaults()
	orElse(&c.Spare, 64<<20)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Store keeps packages and what was unpacked of them on disk. What is visible
// in it is whole and was checked: everything is made elsewhere, flushed, and put
// in place by one rename. Its methods may be called from any goroutine.
type Store struct {
	cfg Config

	mu      sync.Mutex
	entries map[Digest]*entry
	parts   map[Digest]chan struct{} // being fetched now; closed when that ends
	noSync  bool                     // for the fuzzer, which would wait for nothing else
	clock   uint64                   // rises with each use; an order, no time
}

// entry is what is known of a package that is here, whole or unpacked.
type entry struct {
	meta  meta
	whole bool
	trees map[string]int64 // bytes by the name of the directory
	used  uint64
}

// meta is the file beside a package.
type meta struct {
	Chunks
	Name string `json:"name,omitempty"`
}

// treeMeta is the file beside an unpacked package. A tree is not flushed when it
// is made: that would hold up its copies, and everybody else on the disk. Until
// it is settled it counts for the boot in which it was made; after that it is
// unpacked again.
type treeMeta struct {
	Bytes   int64  `json:"bytes"`
	Files   int    `json:"files"`
	Boot    string `json:"boot,omitempty"`
	Settled bool   `json:"settled,omitempty"`
}

// counts tells whether the tree is known to be whole.
func (m treeMeta) counts() bool {
	boot, _ := bootclock.Read()
	return m.Settled || m.Boot != "" && m.Boot == boot
}

// Info is what a store tells of a package.
type Info struct {
	Digest   Digest
	Name     string // as who pushed it called it; for display
	Size     int64  // bytes of the package; 0 if only what was unpacked of it is left
	Unpacked int64  // bytes of what was unpacked of it
	Used     uint64 // a higher one was used later
}

// Open opens the store and removes what a crash has left of unfinished work.
func Open(cfg Config) (*Store, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, entries: map[Digest]*entry{}, parts: map[Digest]chan struct{}{}}
	if err := s.makeDirs(); err != nil {
		return nil, fmt.Errorf("open artifact store: %w", err)
	}
	if err := errors.Join(s.scanPackages(), s.scanTrees()); err != nil {
		return nil, fmt.Errorf("open artifact store: %w", err)
	}
	s.loadOrder()
	return s, nil
}

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.cfg.Dir}, parts...)...)
}

func (s *Store) makeDirs() error {
	if err := removeTree(s.path(dirTemp)); err != nil {
		return err
	}
	for _, d := range []struct {
		name string
		mode fs.FileMode
	}{{"", 0o711}, {dirPackages, 0o700}, {dirParts, 0o700}, {dirTrees, 0o711}, {dirTemp, 0o700}} {
		if err := os.MkdirAll(s.path(d.name), d.mode); err != nil {
			return err
		}
		if err := os.Chmod(s.path(d.name), d.mode); err != nil {
			return err
		}
	}
	return nil
}

// scanPackages finds the packages, each with its meta; one without the other is
// half of a Put or of a removal.
func (s *Store) scanPackages() error {
	files, err := os.ReadDir(s.path(dirPackages))
	if err != nil {
		return err
	}
	for _, f := range files {
		hexed, isMeta := strings.CutSuffix(f.Name(), metaSuffix)
		d, err := ParseDigest(digestPrefix + hexed)
		if err != nil || isMeta {
			continue
		}
		e := &entry{whole: true, trees: map[string]int64{}}
		info, err := f.Info()
		if err == nil {
			err = readJSON(s.path(dirPackages, hexed+metaSuffix), &e.meta)
		}
		if err == nil && e.meta.Size == info.Size() && e.meta.check(s.cfg.Limits.Package) == nil {
			s.entries[d] = e
		}
	}
	for _, f := range files {
		hexed, _ := strings.CutSuffix(f.Name(), metaSuffix)
		if s.entries[Digest(digestPrefix+hexed)] == nil {
			s.cfg.Logger.Info("remove half a package", "file", f.Name())
			if err := os.Remove(s.path(dirPackages, f.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// scanTrees finds what is unpacked. A meta without its tree, a tree without its
// meta and one that may not have reached the disk before a crash are removed.
func (s *Store) scanTrees() error {
	files, err := os.ReadDir(s.path(dirTrees))
	if err != nil {
		return err
	}
	for _, f := range files {
		name, isMeta := strings.CutSuffix(f.Name(), metaSuffix)
		var m treeMeta
		d, err := digestOfTree(name)
		if err == nil {
			err = readJSON(s.path(dirTrees, name+metaSuffix), &m)
		}
		if err == nil {
			_, err = os.Lstat(s.path(dirTrees, name))
		}
		if err != nil || !m.counts() {
			if err := removeTree(s.path(dirTrees, f.Name())); err != nil {
				return err
			}
			continue
		}
		if !isMeta {
			s.entry(d).trees[name] = m.Bytes
		}
	}
	return nil
}

// entry returns the entry of d, a new one if there is none. It is called with mu
// held, or before anyone else has the store.
func (s *Store) entry(d Digest) *entry {
	e := s.entries[d]
	if e == nil {
		e = &entry{trees: map[string]int64{}}
		s.entries[d] = e
	}
	return e
}

// Has tells whether the whole package is here.
func (s *Store) Has(d Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[d]
	return e != nil && e.whole
}

// Open opens a package to read. The caller closes the file.
func (s *Store) Open(d Digest) (*os.File, error) {
	s.use(d)
	if !s.Has(d) {
		return nil, fmt.Errorf("open package %s: %w", d.Short(), ErrAbsent)
	}
	f, err := os.Open(s.path(dirPackages, d.hex()))
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrAbsent // somebody took it out of the store behind our back
		s.mu.Lock()
		s.entry(d).whole = false
		s.mu.Unlock()
	}
	if err != nil {
		return nil, fmt.Errorf("open package %s: %w", d.Short(), err)
	}
	return f, nil
}

// Chunks returns the hashes of a package's pieces.
func (s *Store) Chunks(d Digest) (Chunks, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[d]
	if e == nil || !e.whole {
		return Chunks{}, fmt.Errorf("read chunks of package %s: %w", d.Short(), ErrAbsent)
	}
	return e.meta.Chunks, nil
}

// Name returns what the package was called when it was pushed; empty if that is
// not known.
func (s *Store) Name(d Digest) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[d]; e != nil {
		return e.meta.Name
	}
	return ""
}

// List tells of everything that is here, ordered by digest.
func (s *Store) List() []Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Info, 0, len(s.entries))
	for d, e := range s.entries {
		out = append(out, e.info(d))
	}
	slices.SortFunc(out, func(a, b Info) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return out
}

func (e *entry) info(d Digest) Info {
	i := Info{Digest: d, Name: e.meta.Name, Used: e.used}
	if e.whole {
		i.Size = e.meta.Size
	}
	for _, n := range e.trees {
		i.Unpacked += n
	}
	return i
}

// Size is how many bytes all packages and trees have.
func (s *Store) Size() (n int64) {
	for _, i := range s.List() {
		n += i.Size + i.Unpacked
	}
	return n
}

// use notes that a package was used now.
func (s *Store) use(d Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[d]; e != nil {
		s.clock++
		e.used = s.clock
	}
}

// PutOptions say what is put.
type PutOptions struct {
	Want Digest // refuse anything else; empty: take what comes
	Name string // for display
}

// Put stores a package and returns its digest. It is durable when Put returns,
// and invisible before. To put what is there already costs the reading alone.
func (s *Store) Put(ctx context.Context, r io.Reader, opt PutOptions) (Digest, error) {
	f, err := os.CreateTemp(s.path(dirTemp), "put-")
	if err != nil {
		return "", fmt.Errorf("store package: %w", err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone if it was put in place
	defer f.Close()
	sum := newChunker()
	room := &roomWriter{store: s, w: io.MultiWriter(f, sum)}
	n, err := io.Copy(room, io.LimitReader(contextReader{ctx, r}, s.cfg.Limits.Package+1))
	if err == nil && n > s.cfg.Limits.Package {
		err = refused("larger than %s", Bytes(s.cfg.Limits.Package))
	}
	if err == nil && n == 0 {
		err = refused("it is empty")
	}
	if err != nil {
		return "", fmt.Errorf("store package: %w", err)
	}
	d, chunks := sum.finish()
	if opt.Want != "" && d != opt.Want {
		return "", fmt.Errorf("store package %s: %w: it is %s", opt.Want.Short(), ErrCorrupt, d.Short())
	}
	return d, s.commit(f, d, meta{Chunks: chunks, Name: cleanName(opt.Name)})
}

// commit puts a checked file in place: first durable, then visible.
func (s *Store) commit(f *os.File, d Digest, m meta) error {
	if err := s.sync(f); err != nil {
		return fmt.Errorf("store package %s: %w", d.Short(), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[d]; e != nil && e.whole {
		m.Name = keep(m.Name, e.meta.Name)
	}
	err := s.writeJSON(s.path(dirPackages, d.hex()+metaSuffix), m)
	if err == nil {
		err = os.Rename(f.Name(), s.path(dirPackages, d.hex()))
	}
	if err == nil {
		err = s.syncDir(s.path(dirPackages))
	}
	if err != nil {
		return fmt.Errorf("store package %s: %w", d.Short(), err)
	}
	e := s.entry(d)
	e.meta, e.whole = m, true
	s.clock++
	e.used = s.clock
	return nil
}

func (s *Store) sync(f *os.File) error {
	if s.noSync {
		return nil
	}
	return f.Sync()
}

func (s *Store) syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(s.sync(d), d.Close())
}

func keep(now, before string) string {
	if now == "" {
		return before
	}
	return now
}

// roomWriter stops before the file system is full.
type roomWriter struct {
	store *Store
	w     io.Writer
	since int64 // bytes since the last look
}

// lookEvery is how many bytes are written between two looks at the free space.
const lookEvery = 8 << 20

func (r *roomWriter) Write(p []byte) (int, error) {
	if r.since == 0 || r.since > lookEvery {
		if err := r.store.room(int64(len(p))); err != nil {
			return 0, err
		}
		r.since = 0
	}
	n, err := r.w.Write(p)
	r.since += int64(n)
	return n, err
}

// SpaceError is a file system without the room for a package.
type SpaceError struct {
	Dir        string
	Need, Free int64 // bytes; Free is what packages may use
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("no space: %s are needed below %s and %s may be used; free some", Bytes(e.Need), e.Dir, Bytes(max(e.Free, 0)))
}

// room refuses to begin what would not fit.
func (s *Store) room(need int64) error {
	free, err := freeSpace(s.cfg.Dir)
	if err != nil {
		return err
	}
	if free -= s.cfg.Spare; free < need {
		return &SpaceError{Dir: s.cfg.Dir, Need: need, Free: free}
	}
	return nil
}

// contextReader ends a long copy with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
