package senses

import (
	"context"
	"fmt"
	"time"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// ClockConfig configures the sense of clocks.
type ClockConfig struct {
	// Now is the boot clock, which goes on while the host is suspended; required.
	Now Clock
	// Wall is the wall clock. Default: time.Now.
	Wall func() time.Time
	// Interval between two looks. Default: 500 ms.
	Interval time.Duration
}

// Clocks tells of pauses of this host, or of the process on it, and of steps of
// the wall clock.
type Clocks struct {
	cfg   ClockConfig
	watch clockWatch // belongs to the run
}

// NewClocks returns the sense of clocks.
func NewClocks(cfg ClockConfig) (*Clocks, error) {
	cfg.Interval = defaulted(cfg.Interval, 500*time.Millisecond)
	if cfg.Wall == nil {
		cfg.Wall = time.Now
	}
	if cfg.Now == nil {
		return nil, fmt.Errorf("set up the sense of clocks: %w", errNoClock)
	}
	if cfg.Interval < 10*time.Millisecond || cfg.Interval > 2*time.Second {
		return nil, fmt.Errorf("set up the sense of clocks: interval %s: want 10ms to 2s", cfg.Interval)
	}
	return &Clocks{cfg: cfg, watch: clockWatch{interval: cfg.Interval}}, nil
}

// Name implements Sense.
func (c *Clocks) Name() string { return "clocks" }

// Vars implements Sense.
func (c *Clocks) Vars() []reflexes.VarID {
	return []reflexes.VarID{reflexes.HostUptime, reflexes.ClockGaps, reflexes.ClockGapSeconds, reflexes.ClockSteps, reflexes.ClockStepSeconds}
}

// Run implements Sense.
func (c *Clocks) Run(ctx context.Context, emit Emit) error {
	c.watch.began = false // while none looked, there was no pause that anyone saw
	var facts []reflexes.Fact
	return every(ctx, c.cfg.Now, c.cfg.Interval, func() error {
		// The wall clock without Go's monotonic reading, which would hide its steps.
		facts = c.watch.look(c.cfg.Now(), c.cfg.Wall().Round(0), facts[:0])
		emit(facts)
		return nil
	})
}

// The least that counts as a pause and as a step. A wall clock that is being
// slewed gains or loses up to a tenth, which is no step.
const (
	leastGap  = 2 * time.Second
	leastStep = 2 * time.Second
	slew      = 10
)

// clockWatch compares what clocks say from look to look. It is pure.
type clockWatch struct {
	interval time.Duration
	began    bool
	boot     reflexes.Boot
	wall     time.Time
	gaps     int64
	steps    int64
}

func (c *clockWatch) look(boot reflexes.Boot, wall time.Time, to []reflexes.Fact) []reflexes.Fact {
	to = append(to, hostFact(reflexes.HostUptime, reflexes.Float(boot.Seconds()), boot))
	if !c.began {
		c.began = true
		to = append(to, hostFact(reflexes.ClockGaps, reflexes.Int(c.gaps), boot), hostFact(reflexes.ClockSteps, reflexes.Int(c.steps), boot))
		c.boot, c.wall = boot, wall
		return to
	}
	passed := boot - c.boot
	if passed >= c.interval+leastGap {
		c.gaps++
		to = append(to, hostFact(reflexes.ClockGapSeconds, reflexes.Float(passed.Seconds()), boot), hostFact(reflexes.ClockGaps, reflexes.Int(c.gaps), boot))
	}
	step := wall.Sub(c.wall) - passed
	if step.Abs() >= leastStep+passed/slew {
		c.steps++
		to = append(to, hostFact(reflexes.ClockStepSeconds, reflexes.Float(step.Seconds()), boot), hostFact(reflexes.ClockSteps, reflexes.Int(c.steps), boot))
	}
	c.boot, c.wall = boot, wall
	return to
}
