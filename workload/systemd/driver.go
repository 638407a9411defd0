//go:build linux

package systemd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ganglion-mesh/ganglion/pid1"
	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/output"
)

// Config of the driver.
type Config struct {
	Dir    string        // the agent's data_dir
	Host   string        // GANGLION_HOST
	Keeper []string      // command line of a keeper (keeper.Run), for copies under a lease; empty: there can be none
	Output *output.Store // default: one of the driver's own, under Dir/output
	Logger *slog.Logger  // default: none
}

func (c *Config) validate() error {
	if !filepath.IsAbs(c.Dir) || c.Host == "" {
		return fmt.Errorf("open systemd driver: Dir %q and Host %q: want an absolute path and a name", c.Dir, c.Host)
	}
	if os.Geteuid() != 0 {
		return errors.New("open systemd driver: the agent is not root, so PID 1 takes no units from it; use driver = \"process\"")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Dir = filepath.Clean(c.Dir)
	return nil
}

// ErrClosed is returned by all methods of a closed driver.
var ErrClosed = errors.New("systemd driver is closed")

// Driver implements workload.Driver. It must be the only one of its directory.
type Driver struct {
	cfg    Config
	log    *slog.Logger
	tag    string // names this data directory in units
	dirs   dirs
	out    *output.Store
	ownOut bool
	bus    *bus
	wg     sync.WaitGroup // kills of leftovers, followers of keepers
	tidy   sync.WaitGroup // collecting what is over, for which the bus is needed

	holding sync.Mutex // one Hold at a time
	held    atomic.Pointer[func(app string) bool]

	mu     sync.Mutex
	closed bool
	ends   []workload.End
	copies map[workload.CopyID]*slot
}

// slot is what the driver keeps for one copy between its starts. mu is held for
// the length of a Start or Purge, never while waiting for a copy.
type slot struct {
	mu      sync.Mutex
	checked bool // no unit of an earlier life runs, or it was adopted
	prep    *prepared
	live    *handle
	doubt   []string // units of starts whose outcome is unknown: to be gone before the next
	uid     int      // owner of the output files; 0: not known

	current atomic.Pointer[handle] // live, for checks, which wait for no Start
}

// hold makes h what runs. The caller holds the lock.
func (s *slot) hold(h *handle) {
	s.live = h
	s.current.Store(h)
}

// Available tells why this host has no systemd to run copies by; nil: it has.
func Available() error {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return errors.New("systemd is not PID 1 of this host")
	}
	if os.Geteuid() != 0 {
		return errors.New("the agent is not root")
	}
	if _, err := os.Stat(pid1.Socket); err != nil {
		return fmt.Errorf("PID 1 cannot be reached: %w", err)
	}
	return nil
}

// New opens the driver. It starts nothing: the connection to PID 1 is made when
// it is first needed, and made again whenever PID 1 drops it.
func New(cfg Config) (*Driver, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := Available(); err != nil {
		return nil, fmt.Errorf("open systemd driver: %w; use driver = \"process\"", err)
	}
	d := &Driver{
		cfg: cfg, log: cfg.Logger, out: cfg.Output, tag: tagOf(cfg.Dir),
		bus: newBus(pid1.Socket, cfg.Logger), copies: map[workload.CopyID]*slot{},
	}
	var err error
	if d.dirs, err = makeDirs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("open systemd driver: %w", err)
	}
	if d.out == nil {
		d.ownOut = true
		if d.out, err = output.New(output.Config{Dir: filepath.Join(cfg.Dir, "output"), Logger: d.log}); err != nil {
			return nil, fmt.Errorf("open systemd driver: %w", err)
		}
	}
	return d, nil
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
	d.mu.Unlock()
	slots := d.slots()
	d.tidy.Wait()
	d.bus.close()
	for _, s := range slots {
		s.mu.Lock()
		if s.live != nil {
			s.live.release()
		}
		s.mu.Unlock()
	}
	d.wg.Wait()
	if d.ownOut {
		return d.out.Close()
	}
	return nil
}

func (d *Driver) slots() []*slot {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.copies))
}

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

// spawn runs f on a goroutine that Close joins, unless the driver is closed.
func (d *Driver) spawn(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.wg.Go(f)
	}
}

// endTimeout bounds what is done after a caller has given up, to leave nothing
// behind.
const endTimeout = 10 * time.Second

// kill sends sig to processes of a unit: "main" or "all".
func (d *Driver) kill(ctx context.Context, unit, who string, sig int32) error {
	return d.bus.call(ctx, "KillUnit", []any{unit, who, sig})
}

// stopUnit asks PID 1 to end a unit. From then on it does not restart it,
// whatever happens to its processes. That there is no such unit is no error.
func (d *Driver) stopUnit(ctx context.Context, unit string) error {
	var job any
	err := d.bus.call(ctx, "StopUnit", []any{unit, "replace"}, &job)
	if isNoUnit(err) {
		return nil
	}
	return err
}
