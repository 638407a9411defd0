package hook

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// prefix begins the names of all groups of commands.
const prefix = "ganglion-hook-"

// group is the control group of version 2 that one run of a command has for
// itself; another run gets another group, as kernels (6.14 and later) kill what
// begins in a group that was killed before. All its methods may be called on
// nil, which is none.
type group struct {
	dir string
	fd  *os.File
}

// runs tells groups of one process apart.
var runs atomic.Uint64

// makeGroup makes a group below our own; nil where that cannot be.
func makeGroup(name string) *group {
	own := ownGroup()
	if own == "" {
		return nil
	}
	g := &group{dir: filepath.Join(own, fmt.Sprintf("%s%s-%d-%d", prefix, name, os.Getpid(), runs.Add(1)))}
	if os.Mkdir(g.dir, 0o755) != nil {
		return nil
	}
	_, err := os.Stat(filepath.Join(g.dir, "cgroup.kill")) // since Linux 5.14
	if err == nil {
		g.fd, err = os.Open(g.dir)
	}
	if err != nil {
		g.remove()
		return nil
	}
	return g
}

// ownGroup is the directory of our own group of version 2; empty: there is none.
func ownGroup() string {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	path := "/"
	for line := range strings.Lines(string(groups)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			path = rest
		}
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 5 || !strings.Contains(line, " - cgroup2 ") {
			continue
		}
		if rel, err := filepath.Rel(f[3], path); err == nil && filepath.IsLocal(rel) {
			return filepath.Join(f[4], rel)
		}
	}
	return ""
}

// take has a process begin in the group.
func (g *group) take(attr *syscall.SysProcAttr) {
	if g != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(g.fd.Fd())
	}
}

// kill ends all that is in the group.
func (g *group) kill() {
	if g != nil {
		_ = os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0)
	}
}

// The dead leave their group a moment after they were killed.
const (
	groupEmpties = time.Second
	groupLooks   = 5 * time.Millisecond
)

// remove ends what is in the group and removes it. One that cannot be removed
// stays behind, empty.
func (g *group) remove() {
	if g == nil {
		return
	}
	g.kill()
	if g.fd != nil {
		g.fd.Close()
	}
	tick := time.NewTicker(groupLooks)
	defer tick.Stop()
	for range groupEmpties / groupLooks {
		if err := unix.Rmdir(g.dir); !errors.Is(err, unix.EBUSY) {
			return
		}
		<-tick.C
	}
}

// Sweep ends what commands of that name have left whose process ended without
// seeing to it. Nobody else may run commands of that name.
func Sweep(name string) {
	left, _ := filepath.Glob(filepath.Join(ownGroup(), prefix+name+"-*")) // the pattern is good
	for _, dir := range left {
		(&group{dir: dir}).remove()
	}
}
