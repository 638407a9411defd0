//go:build linux

package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
)

// Quotas are microseconds of each 100 ms, the kernel's default period.
const period = 100_000

// CanThrottle implements workload.Throttler.
func (d *Driver) CanThrottle(t workload.Throttle) error {
	if t.CPU > 0 && (d.cg.v2 == "" || !d.cg.v2cpu) {
		if d.cg.v1cpu == "" {
			return errors.New("this agent has no cpu controller of cgroups")
		}
		if err := os.MkdirAll(d.cg.v1cpu, 0o755); err != nil {
			return fmt.Errorf("this agent may make no cgroups of the cpu controller: %w", err)
		}
	}
	if t.Memory > 0 && (d.cg.v2 == "" || !d.cg.v2memory) {
		return errors.New("this agent has no memory controller of cgroup version 2, which alone slows down instead of killing")
	}
	return nil
}

// Throttle implements workload.Throttler.
func (d *Driver) Throttle(_ context.Context, id workload.CopyID, t workload.Throttle) error {
	s, err := d.slot(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.prep == nil || s.live == nil {
		return fmt.Errorf("throttle %s: it does not run", id)
	}
	if err := errors.Join(d.throttleCPU(s, t.CPU), d.throttleMemory(s.prep, t.Memory)); err != nil {
		return fmt.Errorf("throttle %s: %w", id, err)
	}
	return nil
}

func (d *Driver) throttleMemory(p *prepared, most int64) error {
	switch {
	case p.cg != nil && d.cg.v2memory:
		mark := "max"
		if most > 0 {
			mark = strconv.FormatInt(most, 10)
		}
		return set(p.cg.Path, "memory.high", mark)
	case most > 0:
		return d.CanThrottle(workload.Throttle{Memory: most})
	}
	return nil
}

// throttleCPU is called with the slot's lock held.
func (d *Driver) throttleCPU(s *slot, most float64) error {
	own := s.prep.spec.CPU
	quota := "max"
	if cpu := least(most, own); cpu > 0 {
		quota = strconv.Itoa(max(period/100, int(cpu*period)))
	}
	if s.prep.cg != nil && d.cg.v2cpu {
		return set(s.prep.cg.Path, "cpu.max", quota+" "+strconv.Itoa(period))
	}
	switch {
	case most > 0:
		return d.throttleV1(s, quota)
	case own > 0:
		return set(filepath.Join(d.cg.v1cpu, copyName(s.prep.spec.ID)), "cpu.cfs_quota_us", quota)
	}
	return d.unthrottleV1(copyName(s.prep.spec.ID))
}

// least is the lesser of two bounds of which 0 is none.
func least(a, b float64) float64 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// moves bounds how often a copy's processes are looked for that are not in its
// group of version 1 yet: it may be forking.
const moves = 50

// throttleV1 sets a quota and moves all processes of the copy below it.
func (d *Driver) throttleV1(s *slot, quota string) error {
	if err := d.CanThrottle(workload.Throttle{CPU: 1}); err != nil {
		return err
	}
	if s.live.kept && s.prep.cg == nil {
		return errors.New("its keeper would be held back too: there is no cgroup version 2 to tell them apart")
	}
	dir := filepath.Join(d.cg.v1cpu, copyName(s.prep.spec.ID))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := set(dir, "cpu.cfs_quota_us", quota); err != nil {
		return err
	}
	for range moves {
		all, err := s.processes()
		if err != nil {
			return err
		}
		moved, err := moveTo(dir, all)
		if err != nil || moved == 0 {
			return err
		}
	}
	return errors.New("it starts processes faster than they can be held back")
}

// processes are the copy's. It is called with the slot's lock held.
func (s *slot) processes() (map[int]bool, error) {
	if s.prep.cg != nil {
		return procsOf(s.prep.cg.Path)
	}
	h := s.live
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead || h.released {
		return nil, nil
	}
	if err := h.group.look(); err != nil {
		return nil, err
	}
	pids := map[int]bool{}
	for pid := range h.group.tracked {
		pids[pid] = true
	}
	return pids, nil
}

// moveTo moves those of all to a group that are not in it, and tells how many.
func moveTo(dir string, all map[int]bool) (moved int, err error) {
	in, err := procsOf(dir)
	if err != nil {
		return 0, err
	}
	for pid := range all {
		if in[pid] {
			continue
		}
		switch err := set(dir, "cgroup.procs", strconv.Itoa(pid)); {
		case errors.Is(err, syscall.ESRCH): // it has ended
		case err != nil:
			return moved, err
		default:
			moved++
		}
	}
	return moved, nil
}

func procsOf(dir string) (map[int]bool, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	pids := map[int]bool{}
	for line := range strings.Lines(string(b)) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
			pids[pid] = true
		}
	}
	return pids, nil
}

// unthrottleV1 ends a group that is there for a throttle alone: its processes go
// back to where copies without a limit are.
func (d *Driver) unthrottleV1(name string) error {
	if d.cg.v1cpu == "" {
		return nil
	}
	dir := filepath.Join(d.cg.v1cpu, name)
	err := set(dir, "cpu.cfs_quota_us", "-1")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there was none
	}
	if err != nil {
		return err
	}
	for range moves {
		all, err := procsOf(dir)
		if err != nil {
			return err
		}
		if len(all) == 0 {
			break
		}
		if _, err := moveTo(filepath.Dir(d.cg.v1cpu), all); err != nil {
			return err
		}
	}
	_ = unix.Rmdir(dir) // one that is left is empty, and without a quota
	return nil
}
