//go:build linux

package program

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Cgroup is one v2 group, open to be started into and to be killed.
//
// A group serves for one kill only: kernels since 6.14 (tried on 6.18) kill at
// once whatever is started by CLONE_INTO_CGROUP into a group that cgroup.kill was
// ever written to, since they compare its count of kills with that of the
// parent's own group. After a kill the directory has to be made anew.
type Cgroup struct {
	Path   string
	Dir    *os.File // to start processes in it
	events *os.File
	kill   *os.File
	spent  atomic.Bool // killed once
}

// OpenCgroup opens a group that is there.
func OpenCgroup(path string) (*Cgroup, error) {
	g := &Cgroup{Path: path}
	var errs [3]error
	g.Dir, errs[0] = os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	g.events, errs[1] = os.Open(filepath.Join(path, "cgroup.events"))
	g.kill, errs[2] = os.OpenFile(filepath.Join(path, "cgroup.kill"), os.O_WRONLY, 0)
	if err := errors.Join(errs[:]...); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

// MakeCgroup makes a group anew; one that processes live in is taken as it is.
func MakeCgroup(path string) (*Cgroup, error) {
	_ = unix.Rmdir(path)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, err
	}
	return OpenCgroup(path)
}

// Spent tells whether the group was killed and has to be made anew before the
// next start.
func (g *Cgroup) Spent() bool { return g.spent.Load() }

// Renewed returns g, or what takes its place, with the same limits, if it is
// spent. Nothing may live in it.
func (g *Cgroup) Renewed() (*Cgroup, error) {
	if !g.spent.Load() {
		return g, nil
	}
	limits := map[string][]byte{}
	for _, name := range []string{"memory.max", "cpu.max"} {
		if b, err := os.ReadFile(filepath.Join(g.Path, name)); err == nil {
			limits[name] = b
		}
	}
	if err := unix.Rmdir(g.Path); err != nil {
		return g, fmt.Errorf("renew %s: %w", g.Path, err)
	}
	fresh, err := MakeCgroup(g.Path)
	if err != nil {
		return g, err
	}
	g.Close()
	for name, b := range limits {
		if err := os.WriteFile(filepath.Join(g.Path, name), b, 0); err != nil {
			return fresh, fmt.Errorf("renew %s: %w", g.Path, err)
		}
	}
	return fresh, nil
}

// Close closes the group's files and leaves the group. It may be called on nil.
func (g *Cgroup) Close() {
	if g == nil {
		return
	}
	for _, f := range []*os.File{g.Dir, g.events, g.kill} {
		if f != nil {
			f.Close()
		}
	}
}

// Remove removes the group if it is empty, and closes it. It may be called on
// nil.
func (g *Cgroup) Remove() {
	if g != nil {
		_ = unix.Rmdir(g.Path)
		g.Close()
	}
}

// Populated tells whether any process lives in the group. It is one read.
func (g *Cgroup) Populated() bool {
	var buf [128]byte
	n, _ := g.events.ReadAt(buf[:], 0)
	return bytes.Contains(buf[:n], []byte("populated 1"))
}

// KillAll ends every process of the group, also those that are being forked.
func (g *Cgroup) KillAll() error {
	g.spent.Store(true)
	_, err := g.kill.WriteAt([]byte("1"), 0)
	return err
}

// Holds tells whether a process is in the group.
func (g *Cgroup) Holds(pid int) bool {
	f, err := os.Open(filepath.Join(g.Path, "cgroup.procs"))
	if err != nil {
		return false
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if sc.Text() == strconv.Itoa(pid) {
			return true
		}
	}
	return false
}
