package senses

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v3/disk"
	"github.com/shirou/gopsutil/v3/net"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// DiskBusy tells for how much of the time the devices of file systems were busy.
type DiskBusy struct{ cfg DisksConfig }

// NewDiskBusy returns the sense of busy disks.
func NewDiskBusy(cfg DisksConfig) (*DiskBusy, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up the sense of busy disks: %w", err)
	}
	return &DiskBusy{cfg: cfg}, nil
}

// Name implements Sense.
func (d *DiskBusy) Name() string { return "disk-busy" }

// Vars implements Sense.
func (d *DiskBusy) Vars() []reflexes.VarID { return []reflexes.VarID{reflexes.DiskBusy} }

// Run implements Sense.
func (d *DiskBusy) Run(ctx context.Context, emit Emit) error {
	g := newGrowth(reflexes.DiskBusy)
	return every(ctx, d.cfg.Now, d.cfg.Interval, func() error {
		mounts, err := localMounts(d.cfg.Proc)
		if err != nil {
			return err
		}
		counters, err := disk.IOCountersWithContext(ctx)
		if err != nil {
			return fmt.Errorf("read counters of disks: %w", err)
		}
		g.begin(d.cfg.Now())
		for _, m := range mounts {
			c, ok := counters[deviceName(m.Device)]
			if !ok {
				continue // a file system in memory, or of several devices
			}
			busy := time.Duration(c.IoTime) * time.Millisecond
			g.add(reflexes.Target{Scope: reflexes.ScopeDisk, Name: m.Point}, int64(busy), func(grown int64, over time.Duration) float64 {
				return min(1, float64(grown)/float64(over))
			})
		}
		emit(g.end())
		return nil
	})
}

// deviceName is the kernel's name of a block device, given its number; "" if it
// has none.
func deviceName(number string) string {
	link, err := os.Readlink("/sys/dev/block/" + number)
	if err != nil {
		return ""
	}
	return strings.ReplaceAll(filepath.Base(link), "!", "/") // as sysfs writes the slash of cciss/c0d0
}

// LinkErrorsConfig configures the sense of errors on links.
type LinkErrorsConfig struct {
	// Now is the boot clock; required.
	Now Clock
	// Interval between two looks. Default: 2 s.
	Interval time.Duration
}

// LinkErrors tells how many packets were in error or dropped.
type LinkErrors struct{ cfg LinkErrorsConfig }

// NewLinkErrors returns the sense of errors on links.
func NewLinkErrors(cfg LinkErrorsConfig) (*LinkErrors, error) {
	disks := DisksConfig{Now: cfg.Now, Interval: cfg.Interval}
	if err := disks.validate(); err != nil {
		return nil, fmt.Errorf("set up the sense of errors on links: %w", err)
	}
	cfg.Interval = disks.Interval
	return &LinkErrors{cfg: cfg}, nil
}

// Name implements Sense.
func (l *LinkErrors) Name() string { return "link-errors" }

// Vars implements Sense.
func (l *LinkErrors) Vars() []reflexes.VarID { return []reflexes.VarID{reflexes.LinkErrors} }

// Run implements Sense.
func (l *LinkErrors) Run(ctx context.Context, emit Emit) error {
	g := newGrowth(reflexes.LinkErrors)
	return every(ctx, l.cfg.Now, l.cfg.Interval, func() error {
		counters, err := net.IOCountersWithContext(ctx, true)
		if err != nil {
			return fmt.Errorf("read counters of links: %w", err)
		}
		g.begin(l.cfg.Now())
		for _, c := range counters {
			g.add(reflexes.Target{Scope: reflexes.ScopeLink, Name: c.Name}, int64(c.Errin+c.Errout+c.Dropin+c.Dropout), func(grown int64, over time.Duration) float64 {
				return float64(grown) / over.Seconds()
			})
		}
		emit(g.end())
		return nil
	})
}

// growth turns counters of many targets into one variable of each.
type growth struct {
	id    reflexes.VarID
	at    reflexes.Boot
	last  map[reflexes.Target]counted
	facts []reflexes.Fact
}

type counted struct {
	reading
	told bool
}

func newGrowth(id reflexes.VarID) *growth {
	return &growth{id: id, last: map[reflexes.Target]counted{}}
}

func (g *growth) begin(at reflexes.Boot) { g.at, g.facts = at, g.facts[:0] }

// add takes in a counter and tells what its growth means.
func (g *growth) add(t reflexes.Target, value int64, meaning func(grown int64, over time.Duration) float64) {
	last, ok := g.last[t]
	told := last.told
	if ok && g.at > last.at && value >= last.value {
		g.facts = append(g.facts, fact(g.id, t, reflexes.Float(meaning(value-last.value, g.at-last.at)), g.at))
		told = true
	}
	g.last[t] = counted{reading{g.at, value}, told}
}

// end returns the facts, also of those targets that were not added again.
func (g *growth) end() []reflexes.Fact {
	for t, last := range g.last {
		if last.at != g.at {
			delete(g.last, t)
			if last.told {
				g.facts = gone(g.facts, t, g.at, g.id)
			}
		}
	}
	return g.facts
}
