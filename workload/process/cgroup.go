//go:build linux

package process

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload/program"
)

// cgroups are the directories under which this driver makes groups; empty where
// it cannot. v2 serves to start and to kill a group whole, with or without
// controllers. Limits need the controllers: those of v2 where they can be
// enabled for the groups, else those of v1.
type cgroups struct {
	v2       string // base of the copies' groups
	v2memory bool
	v2cpu    bool
	v1memory string
	v1cpu    string
}

// findCgroups finds out what can be done in the agent's own cgroups, by trying.
// Groups are made below the agent's own, so that a limit on it holds for them.
func findCgroups(name string, log *slog.Logger) cgroups {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return cgroups{}
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return cgroups{}
	}
	var c cgroups
	for _, m := range parseMounts(mounts) {
		dir := filepath.Join(m.under(ownPath(own, m.controllers)), name)
		switch {
		case m.controllers == nil:
			c.v2 = tryV2(dir, log)
		case m.controllers["memory"]:
			c.v1memory = dir
		case m.controllers["cpu"]:
			c.v1cpu = dir
		}
	}
	if c.v2 != "" {
		c.enableV2()
	}
	return c
}

type cgroupMount struct {
	root, point string
	controllers map[string]bool // nil: version 2
}

// under is where a cgroup path is seen in this mount.
func (m cgroupMount) under(path string) string {
	rel, err := filepath.Rel(m.root, path)
	if err != nil || !filepath.IsLocal(rel) {
		return m.point // we are outside of what this container shows
	}
	return filepath.Join(m.point, rel)
}

func parseMounts(mountinfo []byte) []cgroupMount {
	var ms []cgroupMount
	for line := range strings.Lines(string(mountinfo)) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 {
			continue
		}
		m := cgroupMount{root: l[3], point: l[4]}
		switch r[0] {
		case "cgroup":
			m.controllers = map[string]bool{}
			for o := range strings.SplitSeq(r[2], ",") {
				m.controllers[o] = true
			}
		case "cgroup2":
		default:
			continue
		}
		ms = append(ms, m)
	}
	return ms
}

// ownPath is the agent's path in the hierarchy with these controllers.
func ownPath(procCgroup []byte, controllers map[string]bool) string {
	for line := range strings.Lines(string(procCgroup)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		first, _, _ := strings.Cut(f[1], ",")
		if (controllers == nil && f[0] == "0") || (first != "" && controllers[first]) {
			return f[2]
		}
	}
	return "/"
}

// tryV2 makes the base and starts a program that does not exist in it: if it is
// the program that is missed, groups work.
func tryV2(dir string, log *slog.Logger) string {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		log.Debug("no cgroups", "error", err)
		return ""
	}
	err := probe(dir)
	if err == nil {
		return dir
	}
	log.Debug("no cgroups", "dir", dir, "error", err)
	_ = os.Remove(dir)
	return ""
}

// enableV2 hands the controllers down to the groups. In the usual cgroup of a
// service this is refused, since processes live in it.
func (c *cgroups) enableV2() {
	for _, ctl := range []struct {
		name string
		on   *bool
	}{{"memory", &c.v2memory}, {"cpu", &c.v2cpu}} {
		for _, dir := range []string{filepath.Dir(c.v2), c.v2} {
			*ctl.on = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+ctl.name), 0) == nil
			if !*ctl.on {
				break
			}
		}
	}
}

// removeBase removes the bases if no group is left in them.
func (c *cgroups) removeBase() {
	for _, dir := range []string{c.v2, c.v1memory, c.v1cpu} {
		if dir != "" {
			_ = unix.Rmdir(dir)
		}
	}
}

// limits sets what a spec asks for and returns the files to which the copy's pid
// is to be written after its start (version 1 alone: a process of version 2 is
// started in its group). The error tells what is not enforced, and why.
func (c *cgroups) limits(name string, g *program.Cgroup, cpu float64, memory int64) (attach []string, err error) {
	var errs []error
	if memory > 0 {
		if g != nil && c.v2memory {
			errs = append(errs, set(g.Path, "memory.max", strconv.FormatInt(memory, 10)))
		} else {
			procs, err := v1Limit(c.v1memory, name, "memory.limit_in_bytes", strconv.FormatInt(memory, 10))
			attach, errs = append(attach, procs...), append(errs, err)
		}
	}
	if cpu > 0 {
		quota := strconv.Itoa(max(1000, int(cpu*100_000))) // microseconds of each 100 ms, the kernel's default period
		if g != nil && c.v2cpu {
			errs = append(errs, set(g.Path, "cpu.max", quota+" 100000"))
		} else {
			procs, err := v1Limit(c.v1cpu, name, "cpu.cfs_quota_us", quota)
			attach, errs = append(attach, procs...), append(errs, err)
		}
	}
	return attach, errors.Join(errs...)
}

func v1Limit(base, name, file, value string) ([]string, error) {
	if base == "" {
		return nil, fmt.Errorf("set %s: no controller for it on this host", file)
	}
	dir := filepath.Join(base, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return []string{filepath.Join(dir, "cgroup.procs")}, set(dir, file, value)
}

func set(dir, file, value string) error {
	return os.WriteFile(filepath.Join(dir, file), []byte(value), 0)
}

// removeV1 removes the v1 groups of a copy that does not run.
func (c *cgroups) removeV1(name string) {
	for _, base := range []string{c.v1memory, c.v1cpu} {
		if base != "" {
			_ = unix.Rmdir(filepath.Join(base, name))
		}
	}
}
