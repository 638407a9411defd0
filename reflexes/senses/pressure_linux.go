package senses

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses/procfs"
)

// PressureConfig configures the sense of the host's pressure.
type PressureConfig struct {
	// Now is the boot clock; required.
	Now Clock
	// Dir holds the files cpu, memory and io. Default: /proc/pressure.
	Dir string
	// Interval between two looks while there is pressure, or always where the
	// kernel does not let us wait for it. Default: 40 ms, which leaves an act 15 ms of
	// the 60 that it may come after the crossing, on a host that is busy with what the
	// pressure is of.
	Interval time.Duration
	// Refresh is how often a value is told that does not change, and how often is
	// looked while there is no pressure. Default: 500 ms.
	Refresh time.Duration
	// Window of the kernel's triggers. Default: 500 ms. Without CAP_SYS_RESOURCE
	// kernels allow only multiples of 2 s, which is too late to be of use.
	Window time.Duration
	// Logger; default: discard.
	Logger *slog.Logger
}

func (c *PressureConfig) validate() error {
	c.Dir = defaulted(c.Dir, "/proc/pressure")
	c.Interval = defaulted(c.Interval, 40*time.Millisecond)
	c.Refresh = defaulted(c.Refresh, 500*time.Millisecond)
	c.Window = defaulted(c.Window, 500*time.Millisecond)
	c.Logger = loggerOr(c.Logger)
	switch {
	case c.Now == nil:
		return errNoClock
	case c.Interval < 5*time.Millisecond || c.Interval > c.Refresh:
		return fmt.Errorf("interval %s: want 5ms to %s", c.Interval, c.Refresh)
	case c.Refresh > 900*time.Millisecond:
		return fmt.Errorf("refresh %s: want at most 900ms, or values are too old to be known", c.Refresh)
	case c.Window < 500*time.Millisecond || c.Window > 10*time.Second:
		return fmt.Errorf("window %s: the kernel allows 500ms to 10s", c.Window)
	}
	return nil
}

// Pressure tells how much of the time tasks of the host wait for a core, for
// memory, or for a disk.
type Pressure struct {
	cfg   PressureConfig
	lazy  atomic.Bool   // no rule reads it: Refresh is often enough
	stirs chan struct{} // has something when lazy has changed
}

// NewPressure returns the sense of the host's pressure.
func NewPressure(cfg PressureConfig) (*Pressure, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up the sense of pressure: %w", err)
	}
	return &Pressure{cfg: cfg, stirs: make(chan struct{}, 1)}, nil
}

// hostPressure says what is told of which file.
var hostPressure = []struct {
	file                         string
	some1, some10, full1, full10 reflexes.VarID
}{
	{"cpu", reflexes.HostPSICPUSome1s, reflexes.HostPSICPUSome10s, 0, 0}, // all tasks of a host never wait for a core at once
	{"memory", reflexes.HostPSIMemorySome1s, reflexes.HostPSIMemorySome10s, reflexes.HostPSIMemoryFull1s, reflexes.HostPSIMemoryFull10s},
	{"io", reflexes.HostPSIIOSome1s, reflexes.HostPSIIOSome10s, reflexes.HostPSIIOFull1s, reflexes.HostPSIIOFull10s},
}

// Name implements Sense.
func (p *Pressure) Name() string { return "pressure" }

// Vars implements Sense.
func (p *Pressure) Vars() (ids []reflexes.VarID) {
	for _, h := range hostPressure {
		for _, id := range []reflexes.VarID{h.some1, h.some10, h.full1, h.full10} {
			if id != 0 {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// attend implements attentive.
func (p *Pressure) attend(read bool) {
	if p.lazy.Swap(!read) == read {
		select {
		case p.stirs <- struct{}{}:
		default:
		}
	}
}

// Run implements Sense.
func (p *Pressure) Run(ctx context.Context, emit Emit) error {
	g := gauge{now: p.cfg.Now, refresh: p.cfg.Refresh}
	defer g.close()
	for _, h := range hostPressure {
		f, err := procfs.Open(filepath.Join(p.cfg.Dir, h.file), 256)
		if err != nil {
			return explainPressure(err)
		}
		g.add(f, reflexes.Host(), p.cfg.Interval, h.some1, h.some10, h.full1, h.full10)
	}
	wake, stop, err := p.arm()
	if err != nil {
		p.cfg.Logger.Debug("pressure is looked at all the time", "interval", p.cfg.Interval, "because", err)
	}
	defer stop()
	return p.loop(ctx, &g, wake, emit)
}

// quiet is how long nothing must have waited before looking becomes rare again.
const quiet = 2 * time.Second

// loop looks at each Interval; if wake is not nil, only while there is pressure,
// which wake tells.
func (p *Pressure) loop(ctx context.Context, g *gauge, wake <-chan struct{}, emit Emit) error {
	tick := time.NewTimer(time.Hour)
	defer tick.Stop()
	for {
		facts, err := g.look()
		if err != nil {
			return explainPressure(err)
		}
		emit(facts)
		now, interval := p.cfg.Now(), p.cfg.Refresh
		if calm := wake != nil && now-g.grew > quiet; !calm && !p.lazy.Load() {
			interval = p.cfg.Interval
		}
		tick.Reset(untilNext(now, interval))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-p.stirs:
		case _, ok := <-wake:
			if !ok { // the kernel tells no more
				wake = nil
			}
		}
	}
}

// arm asks the kernel to tell of pressure. The channel is nil if it will not;
// stop is to be called in any case.
func (p *Pressure) arm() (wake <-chan struct{}, stop func(), err error) {
	t := &triggers{stop: -1}
	window := p.cfg.Window.Microseconds()
	for _, h := range hostPressure {
		// A fiftieth of the window, which is what nobody cares about.
		if err := t.add(filepath.Join(p.cfg.Dir, h.file), fmt.Sprintf("some %d %d", window/50, window)); err != nil {
			t.close()
			return nil, func() {}, err
		}
	}
	if err := t.start(); err != nil {
		t.close()
		return nil, func() {}, err
	}
	return t.wake, t.close, nil
}

// explainPressure says of a missing file why it may be missing.
func explainPressure(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w (the kernel has no pressure stall information: it needs CONFIG_PSI, and perhaps psi=1 at boot)", err)
	}
	return err
}

// gauge reads files of pressure and turns their counters into ratios.
type gauge struct {
	now     Clock
	refresh time.Duration
	meters  []*pressureMeter
	facts   []reflexes.Fact
	grew    reflexes.Boot // when anything was last seen to have waited
}

// pressureMeter is one file of pressure.
type pressureMeter struct {
	file   *procfs.File
	target reflexes.Target
	last   procfs.Pressure
	began  bool
	ratios []pressureRatio
}

// pressureRatio is one variable of it.
type pressureRatio struct {
	id     reflexes.VarID
	full   bool
	window *window
	told   float64
	toldAt reflexes.Boot
	known  bool
}

// add takes a file over, with the variables for the last second and the last ten
// seconds; a variable 0 is not told.
func (g *gauge) add(f *procfs.File, t reflexes.Target, step time.Duration, some1, some10, full1, full10 reflexes.VarID) {
	m := &pressureMeter{file: f, target: t}
	for _, r := range []struct {
		id   reflexes.VarID
		full bool
		span time.Duration
	}{{some1, false, time.Second}, {some10, false, 10 * time.Second}, {full1, true, time.Second}, {full10, true, 10 * time.Second}} {
		if r.id != 0 {
			// Exact to a twentieth. Looks are late by turns: were those kept that are a
			// whole step apart, it would often be the second only.
			m.ratios = append(m.ratios, pressureRatio{id: r.id, full: r.full, window: newWindow(r.span, max(step, r.span/20)/2)})
		}
	}
	g.meters = append(g.meters, m)
}

// look reads all files and returns what has changed or is to be told again. The
// facts are valid until the next look.
func (g *gauge) look() ([]reflexes.Fact, error) {
	g.facts = g.facts[:0]
	for _, m := range g.meters {
		if err := g.read(m); err != nil {
			return nil, err
		}
	}
	return g.facts, nil
}

func (g *gauge) read(m *pressureMeter) error {
	text, err := m.file.Read()
	at := g.now()
	if err != nil {
		return err
	}
	p, err := procfs.ParsePressure(text)
	if err != nil {
		return fmt.Errorf("%s: %w", m.file.Path(), err)
	}
	if !m.began || p.Some > m.last.Some {
		g.grew = at
	}
	m.last, m.began = p, true
	for i := range m.ratios {
		r := &m.ratios[i]
		total := p.Some
		if r.full {
			if !p.HasFull {
				continue
			}
			total = p.Full
		}
		v, ok := r.window.ratio(at, total)
		if ok && r.worth(v, at, g.refresh) {
			r.told, r.toldAt, r.known = v, at, true
			g.facts = append(g.facts, fact(r.id, m.target, reflexes.Float(v), at))
		}
	}
	return nil
}

// resolution is by how much a ratio has to change to be told at once: less than
// any rule asks about.
const resolution = 0.001

// worth tells whether a value is to be told now.
func (r *pressureRatio) worth(v float64, at reflexes.Boot, refresh time.Duration) bool {
	// A refresh that is due before the next look but one is done now.
	return !r.known || math.Abs(v-r.told) >= resolution || at-r.toldAt >= refresh-refresh/10 ||
		(v == 0) != (r.told == 0) || (v == 1) != (r.told == 1)
}

func (g *gauge) close() {
	for _, m := range g.meters {
		_ = m.file.Close()
	}
}
