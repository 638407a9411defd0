package senses

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses/procfs"
)

// DisksConfig configures the senses of mounted file systems: NewDisks and
// NewDiskBusy.
type DisksConfig struct {
	// Now is the boot clock; required.
	Now Clock
	// Interval between two looks. Default: 2 s.
	Interval time.Duration
	// Proc is where proc is mounted. Default: /proc.
	Proc string
}

func (c *DisksConfig) validate() error {
	c.Interval = defaulted(c.Interval, 2*time.Second)
	c.Proc = defaulted(c.Proc, "/proc")
	if c.Now == nil {
		return errNoClock
	}
	if c.Interval < 10*time.Millisecond || c.Interval > 4*time.Second {
		return fmt.Errorf("interval %s: want 10ms to 4s, or values are too old to be known", c.Interval)
	}
	return nil
}

// Disks tells how full mounted file systems are, and when they will be. There is
// no event for that in Linux. It looks at those that this host itself stores, so
// that a server elsewhere that does not answer cannot hold it up.
type Disks struct{ cfg DisksConfig }

// NewDisks returns the sense of how full file systems are.
func NewDisks(cfg DisksConfig) (*Disks, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up the sense of disks: %w", err)
	}
	return &Disks{cfg: cfg}, nil
}

// Name implements Sense.
func (d *Disks) Name() string { return "disks" }

var diskVars = []reflexes.VarID{
	reflexes.DiskFree, reflexes.DiskFreeBytes, reflexes.DiskInodes, reflexes.DiskFullIn, reflexes.DiskReadOnly,
}

// Vars implements Sense.
func (d *Disks) Vars() []reflexes.VarID { return diskVars }

// Run implements Sense.
func (d *Disks) Run(ctx context.Context, emit Emit) error {
	r := disksRun{cfg: d.cfg, disks: map[string]*diskFill{}}
	return every(ctx, d.cfg.Now, d.cfg.Interval, func() error {
		mounts, err := localMounts(d.cfg.Proc)
		if err != nil {
			return err
		}
		emit(r.look(mounts))
		return nil
	})
}

// disksRun is one run of the sense.
type disksRun struct {
	cfg   DisksConfig
	disks map[string]*diskFill // by mount point
	facts []reflexes.Fact
}

func (r *disksRun) look(mounts []procfs.Mount) []reflexes.Fact {
	r.facts = r.facts[:0]
	seen := make(map[string]bool, len(mounts))
	for _, m := range mounts {
		var st unix.Statfs_t
		if err := statfs(m.Point, &st); err != nil || st.Blocks == 0 || st.Bsize <= 0 {
			continue // it has just been unmounted, or has no limit
		}
		seen[m.Point] = true
		r.disk(m, &st)
	}
	at := r.cfg.Now()
	for point, d := range r.disks {
		if !seen[point] {
			delete(r.disks, point)
			r.facts = gone(r.facts, d.target, at, diskVars...)
		}
	}
	return r.facts
}

func statfs(path string, st *unix.Statfs_t) error {
	for {
		if err := unix.Statfs(path, st); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (r *disksRun) disk(m procfs.Mount, st *unix.Statfs_t) {
	d := r.disks[m.Point]
	if d == nil || d.device != m.Device { // another file system than was there
		d = newDiskFill(m.Point, m.Device)
		r.disks[m.Point] = d
	}
	at := r.cfg.Now()
	free, used := st.Bavail, st.Blocks-min(st.Blocks, st.Bfree) // as df counts: the reserve of root is neither
	total := max(1, used+free)
	inodes := 1.0
	if st.Files > 0 {
		inodes = float64(st.Ffree) / float64(st.Files)
	}
	bytes := int64(min(free, 1<<62/uint64(st.Bsize)) * uint64(st.Bsize))
	r.facts = append(r.facts,
		fact(reflexes.DiskFree, d.target, reflexes.Float(float64(free)/float64(total)), at),
		fact(reflexes.DiskFreeBytes, d.target, reflexes.Int(bytes), at),
		fact(reflexes.DiskInodes, d.target, reflexes.Float(inodes), at),
		fact(reflexes.DiskReadOnly, d.target, reflexes.Bool(st.Flags&unix.ST_RDONLY != 0), at))
	if in, ok := d.fullIn(at, bytes); ok {
		r.facts = append(r.facts, fact(reflexes.DiskFullIn, d.target, reflexes.Float(in), at))
	}
}

// localTypes are file systems of which this host itself is the store, and which
// can fill.
var localTypes = []string{
	"bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "ntfs3", "reiserfs", "tmpfs", "vfat", "xfs", "zfs",
}

// maxDisks bounds how many file systems are looked at.
const maxDisks = 128

// localMounts returns what is mounted of them: of each file system the mount with
// the shortest path, and of each path what was mounted last.
func localMounts(proc string) ([]procfs.Mount, error) {
	b, err := os.ReadFile(filepath.Join(proc, "self/mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("find file systems: %w", err)
	}
	top := map[string]procfs.Mount{}
	for _, m := range procfs.ParseMounts(string(b)) {
		top[m.Point] = m
	}
	best := map[string]procfs.Mount{}
	for _, m := range top {
		if !slices.Contains(localTypes, m.Type) && !(m.Type == "overlay" && m.Point == "/") {
			continue
		}
		if old, ok := best[m.Device]; !ok || len(m.Point) < len(old.Point) || len(m.Point) == len(old.Point) && m.Point < old.Point {
			best[m.Device] = m
		}
	}
	mounts := make([]procfs.Mount, 0, len(best))
	for _, m := range best {
		mounts = append(mounts, m)
	}
	slices.SortFunc(mounts, func(a, b procfs.Mount) int { return strings.Compare(a.Point, b.Point) })
	return mounts[:min(len(mounts), maxDisks)], nil
}
