package senses

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses/procfs"
)

// CopiesConfig configures the senses of copies: NewUsage, NewCopyPressure and
// NewOOM.
type CopiesConfig struct {
	// Now is the boot clock; required.
	Now Clock
	// Copies says which; required.
	Copies *Copies
	// Interval between two looks. Default: 1 s.
	Interval time.Duration
	// Proc is where proc is mounted. Default: /proc.
	Proc string
}

func (c *CopiesConfig) validate() error {
	c.Interval = defaulted(c.Interval, time.Second)
	c.Proc = defaulted(c.Proc, "/proc")
	switch {
	case c.Now == nil:
		return errNoClock
	case c.Copies == nil:
		return errors.New("no list of copies (Copies)")
	case c.Interval < 50*time.Millisecond || c.Interval > time.Second*3/2:
		return fmt.Errorf("interval %s: want 50ms to 1.5s, or values are too old to be known", c.Interval)
	}
	return nil
}

// Usage tells what copies use: memory, CPU, processes and files. It takes the
// numbers of a copy's control group where it has one for itself, of version 2 or
// else 1, and else those of its first process alone.
type Usage struct{ cfg CopiesConfig }

// NewUsage returns the sense of what copies use.
func NewUsage(cfg CopiesConfig) (*Usage, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up the sense of what copies use: %w", err)
	}
	return &Usage{cfg: cfg}, nil
}

// Name implements Sense.
func (u *Usage) Name() string { return "usage" }

var usageVars = []reflexes.VarID{
	reflexes.AppMemBytes, reflexes.AppMemRatio, reflexes.AppCPUCores, reflexes.AppCPURatio, reflexes.AppPids, reflexes.AppFiles,
}

// Vars implements Sense.
func (u *Usage) Vars() []reflexes.VarID { return usageVars }

// Run implements Sense.
func (u *Usage) Run(ctx context.Context, emit Emit) error {
	track, err := newTracker(u.cfg, func(c Copy, dirs groupDirs) (*usageFiles, error) {
		return openUsage(u.cfg.Proc, c, dirs)
	}, usageVars)
	if err != nil {
		return err
	}
	defer track.close()
	return every(ctx, u.cfg.Now, u.cfg.Interval, func() error {
		track.facts = track.facts[:0]
		track.refresh()
		for _, t := range track.copies {
			if t.files != nil {
				track.facts, err = t.files.look(u.cfg.Now(), t.copy, track.facts)
				if err != nil {
					track.drop(t)
				}
			}
		}
		emit(track.facts)
		return nil
	})
}

// usageFiles are the files that tell what one copy uses. Each but stat may be
// missing.
type usageFiles struct {
	target reflexes.Target
	stat   *procfs.File // of its first process
	memory *procfs.File // of its group
	detail *procfs.File // of that memory
	idle   string       // what in detail is a cache that may be dropped
	cpu    *procfs.File
	cpuKey string // what in cpu counts microseconds; "" if the file is a number of nanoseconds
	pids   *procfs.File
	fds    int // /proc/PID/fd
	window *window
}

func openUsage(proc string, c Copy, d groupDirs) (*usageFiles, error) {
	u := &usageFiles{target: reflexes.CopyTarget(c.ID), fds: -1, window: newWindow(time.Second, time.Second/4)}
	pid := proc + "/" + strconv.Itoa(c.PID)
	var err error
	if u.stat, err = procfs.Open(pid+"/stat", 512); err != nil {
		return nil, err
	}
	if u.fds, err = unix.Open(pid+"/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		u.fds = -1 // another user's process, and we are not root
	}
	u.openMemory(d)
	if u.cpu, u.cpuKey = openIn(d.v2, "cpu.stat"), "usage_usec"; u.cpu == nil {
		u.cpu, u.cpuKey = openIn(d.cpuacct, "cpuacct.usage"), ""
	}
	if u.pids = openIn(d.v2, "pids.current"); u.pids == nil {
		u.pids = openIn(d.pids, "pids.current")
	}
	return u, nil
}

func (u *usageFiles) openMemory(d groupDirs) {
	if u.memory = openIn(d.v2, "memory.current"); u.memory != nil {
		u.detail, u.idle = openIn(d.v2, "memory.stat"), "inactive_file"
		return
	}
	if u.memory = openIn(d.memory, "memory.usage_in_bytes"); u.memory != nil {
		u.detail, u.idle = openIn(d.memory, "memory.stat"), "total_inactive_file"
	}
}

// openIn opens a file of a group; nil if there is none.
func openIn(dir, name string) *procfs.File {
	if dir == "" {
		return nil
	}
	f, err := procfs.Open(dir+"/"+name, 2<<10)
	if err != nil {
		return nil
	}
	return f
}

func (u *usageFiles) close() {
	for _, f := range []*procfs.File{u.stat, u.memory, u.detail, u.cpu, u.pids} {
		_ = f.Close()
	}
	if u.fds >= 0 {
		unix.Close(u.fds)
	}
}

// look appends what the copy uses. An error says that it is not there any more.
func (u *usageFiles) look(at reflexes.Boot, c Copy, to []reflexes.Fact) ([]reflexes.Fact, error) {
	text, err := u.stat.Read()
	if err != nil {
		return to, err
	}
	p, err := procfs.ParseProcess(text)
	if err != nil {
		return to, err
	}
	if !p.Running() {
		return to, os.ErrProcessDone
	}
	memory, cpu, pids := int64(p.Resident)*int64(os.Getpagesize()), p.CPU, int64(p.Threads)
	if u.memory != nil {
		if memory, err = u.groupMemory(); err != nil {
			return to, err
		}
	}
	if u.cpu != nil {
		if cpu, err = u.groupCPU(); err != nil {
			return to, err
		}
	}
	if u.pids != nil {
		n, err := readNumber(u.pids)
		if err != nil {
			return to, err
		}
		pids = int64(n)
	}
	to = append(to, fact(reflexes.AppMemBytes, u.target, reflexes.Int(memory), at), fact(reflexes.AppPids, u.target, reflexes.Int(pids), at))
	if c.Memory > 0 {
		to = append(to, fact(reflexes.AppMemRatio, u.target, reflexes.Float(float64(memory)/float64(c.Memory)), at))
	}
	if n, ok := u.files(); ok {
		to = append(to, fact(reflexes.AppFiles, u.target, reflexes.Int(n), at))
	}
	return u.cores(at, c, cpu, to), nil
}

func (u *usageFiles) cores(at reflexes.Boot, c Copy, cpu time.Duration, to []reflexes.Fact) []reflexes.Fact {
	grown, over, ok := u.window.add(at, int64(cpu))
	if !ok || grown < 0 {
		return to
	}
	cores := float64(grown) / float64(over)
	to = append(to, fact(reflexes.AppCPUCores, u.target, reflexes.Float(cores), at))
	if c.CPU > 0 {
		to = append(to, fact(reflexes.AppCPURatio, u.target, reflexes.Float(cores/c.CPU), at))
	}
	return to
}

// groupMemory is what the group uses, without what the kernel would drop before
// anything else: caches of files that nobody has read twice.
func (u *usageFiles) groupMemory() (int64, error) {
	used, err := readNumber(u.memory)
	if err != nil || u.detail == nil {
		return int64(used), err
	}
	text, err := u.detail.Read()
	if err != nil {
		return 0, err
	}
	idle, _ := procfs.Field(text, u.idle)
	return int64(used - min(used, idle)), nil
}

func (u *usageFiles) groupCPU() (time.Duration, error) {
	if u.cpuKey == "" {
		ns, err := readNumber(u.cpu)
		return time.Duration(ns), err
	}
	text, err := u.cpu.Read()
	if err != nil {
		return 0, err
	}
	us, _ := procfs.Field(text, u.cpuKey)
	return time.Duration(us) * time.Microsecond, nil
}

// files counts the open files of the first process, which kernels say since 6.2
// as the size of the directory.
func (u *usageFiles) files() (int64, bool) {
	var st unix.Stat_t
	if u.fds < 0 || unix.Fstat(u.fds, &st) != nil {
		return 0, false
	}
	return st.Size, st.Size > 0
}

func readNumber(f *procfs.File) (uint64, error) {
	text, err := f.Read()
	if err != nil {
		return 0, err
	}
	n, err := procfs.Number(text)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", f.Path(), err)
	}
	return min(n, 1<<63-1), nil
}
