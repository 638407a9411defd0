//go:build linux

package process

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/bootclock"
	"github.com/ganglion-mesh/ganglion/workload/output"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

// NonceVar is the variable that marks every process of a start. Its value is
// the tag of the data directory, a dash and a random number.
const NonceVar = "GANGLION_NONCE"

// UIDRange is the reserved range of user ids for the private users of apps.
type UIDRange struct {
	First, Last uint32
}

// Config of the driver.
type Config struct {
	Dir       string        // the agent's data_dir; made with mode 0711
	Host      string        // GANGLION_HOST
	UIDs      UIDRange      // default 800000–865535; used by a root agent only
	Output    *output.Store // default: one of the driver's own, under Dir/output
	NoCgroups bool          // make no cgroups: groups are found by session and mark alone
	Keeper    []string      // command line of a keeper (keeper.Run), for copies under a lease; empty: there can be none
	Logger    *slog.Logger  // default: none
}

func (c *Config) validate() error {
	if !filepath.IsAbs(c.Dir) || c.Host == "" {
		return fmt.Errorf("open process driver: Dir %q and Host %q: want an absolute path and a name", c.Dir, c.Host)
	}
	if c.UIDs == (UIDRange{}) {
		c.UIDs = UIDRange{First: 800000, Last: 865535}
	}
	if c.UIDs.First == 0 || c.UIDs.Last < c.UIDs.First {
		return fmt.Errorf("open process driver: UIDs %d–%d: want a range above 0", c.UIDs.First, c.UIDs.Last)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Dir = filepath.Clean(c.Dir)
	return nil
}

// Driver implements workload.Driver. It must be the only one of its directory.
type Driver struct {
	cfg    Config
	log    *slog.Logger
	boot   string
	tag    string // names this data directory in marks and cgroups
	root   bool   // whether copies can get users of their own
	oom    bool   // whether copies must be freed of the agent's OOM score
	null   *os.File
	out    *output.Store
	ownOut bool
	users  *users
	cg     cgroups
	exits  exitReader

	// For tests alone.
	keepClass  bool   // copies inherit the agent's scheduling class
	shareTable bool   // launchers share the agent's descriptors, as where they cannot do otherwise
	afterFork  func() // called between an exec and its record

	closing chan struct{}
	wg      sync.WaitGroup // launchers, watchers, sweeps

	mu        sync.Mutex
	closed    bool
	copies    map[workload.CopyID]*slot
	launchers [2]chan *launch // plain, confined; nil until first used
	checks    uint64
	over      []string // marks of starts that are over, to be swept
}

// slot is what the driver keeps for one copy between its starts. mu is held for
// the length of a Start or Purge, never while waiting for a copy.
type slot struct {
	mu       sync.Mutex
	prep     *prepared
	live     *handle
	remnants []string     // marks of earlier starts that may have left processes
	starts   atomic.Int64 // number of the last start, for checks
}

// New opens the driver. It starts nothing. As a side effect on the whole
// process, descriptors that the agent inherited above 2 become close-on-exec, so
// that no copy gets them.
func New(cfg Config) (*Driver, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(cfg.Dir))
	d := &Driver{
		cfg: cfg, log: cfg.Logger, out: cfg.Output,
		tag:     hex.EncodeToString(sum[:6]),
		root:    os.Geteuid() == 0,
		oom:     inheritsOOMScore(),
		closing: make(chan struct{}),
		copies:  map[workload.CopyID]*slot{},
		exits:   exitReader{info: true},
	}
	if err := d.acquire(); err != nil {
		return nil, errors.Join(fmt.Errorf("open process driver: %w", err), d.release())
	}
	return d, nil
}

func (d *Driver) acquire() (err error) {
	program.CatchIgnored()
	if err := makeDirs(d.cfg.Dir); err != nil {
		return err
	}
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		if err := closeOnExecAll(); err != nil {
			return err
		}
	}
	if d.boot, err = bootclock.ID(); err != nil {
		return err
	}
	if d.null, err = os.Open(os.DevNull); err != nil {
		return err
	}
	if d.users, err = openUsers(filepath.Join(d.cfg.Dir, privateDir, "uids.json"), d.cfg.UIDs); err != nil {
		return err
	}
	if d.out == nil {
		d.ownOut = true
		cfg := output.Config{Dir: filepath.Join(d.cfg.Dir, "output"), Logger: d.log}
		if d.out, err = output.New(cfg); err != nil {
			return err
		}
	}
	if !d.cfg.NoCgroups {
		d.cg = findCgroups("ganglion-"+d.tag, d.log)
	}
	return nil
}

// Output is where copies' output is kept, to be read.
func (d *Driver) Output() *output.Store { return d.out }

// Run bounds the output files until ctx ends and closes the driver then. Copies
// go on running.
func (d *Driver) Run(ctx context.Context) error {
	err := d.out.Run(ctx)
	return errors.Join(err, d.Close())
}

// Close ends the driver's goroutines, joins them and releases what it holds.
// Copies go on running; channels of their exits are closed without one.
func (d *Driver) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	close(d.closing)
	slots := make([]*slot, 0, len(d.copies))
	for _, s := range d.copies {
		slots = append(slots, s)
	}
	d.mu.Unlock()
	for _, s := range slots {
		s.mu.Lock()
		if s.live != nil {
			s.live.release()
		}
		s.mu.Unlock()
	}
	d.wg.Wait()
	for _, s := range slots {
		s.mu.Lock()
		s.prep.close()
		s.prep = nil
		s.mu.Unlock()
	}
	d.cg.removeBase()
	return d.release()
}

func (d *Driver) release() error {
	var errs []error
	if d.null != nil {
		errs = append(errs, d.null.Close())
	}
	if d.ownOut && d.out != nil {
		errs = append(errs, d.out.Close())
	}
	return errors.Join(errs...)
}

// ErrClosed is returned by all methods of a closed driver.
var ErrClosed = errors.New("process driver is closed")

func (d *Driver) slot(id workload.CopyID) (*slot, error) {
	if !validID(id) {
		return nil, fmt.Errorf("copy %q: not a name and a number", id)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	s := d.copies[id]
	if s == nil {
		s = &slot{}
		d.copies[id] = s
	}
	return s, nil
}

// spawn runs f on a goroutine that Close joins. It tells whether it did: a
// closed driver starts nothing more.
func (d *Driver) spawn(f func()) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.wg.Go(f)
	return true
}

func (d *Driver) newNonce() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return d.tag + "-" + hex.EncodeToString(b[:])
}

func validID(id workload.CopyID) bool {
	if id.N < 0 || len(id.App) == 0 || len(id.App) > 63 || id.App[0] == '-' {
		return false
	}
	for _, c := range []byte(id.App) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
