package senses

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ganglion-mesh/ganglion/reflexes/senses/procfs"
)

// groupDirs are the directories of the control groups that a copy has for
// itself; empty where it shares one with others, or cannot be seen.
type groupDirs struct {
	v2                    string // of version 2, with or without controllers
	memory, cpuacct, pids string // of version 1
}

// groupFinder finds the groups of copies, on any mixture of the two versions.
type groupFinder struct {
	proc        string
	hierarchies []procfs.Hierarchy
	self        procfs.Groups
}

func newGroupFinder(proc string) (*groupFinder, error) {
	mounts, err := os.ReadFile(filepath.Join(proc, "self/mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("find control groups: %w", err)
	}
	self, err := os.ReadFile(filepath.Join(proc, "self/cgroup"))
	if err != nil {
		return nil, fmt.Errorf("find control groups: %w", err)
	}
	return &groupFinder{proc: proc, hierarchies: procfs.ParseHierarchies(string(mounts)), self: procfs.ParseGroups(string(self))}, nil
}

// find returns the groups that a process has for itself and its descendants. A
// group that this process is in or below of is shared with it.
func (f *groupFinder) find(pid int) (groupDirs, error) {
	b, err := os.ReadFile(filepath.Join(f.proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return groupDirs{}, err
	}
	g := procfs.ParseGroups(string(b))
	dir := func(controller string) string {
		path, own := g.V1(controller), f.self.V1(controller)
		if controller == "" {
			path, own = g.V2(), f.self.V2()
		}
		if path == "" || within(own, path) {
			return ""
		}
		for _, h := range f.hierarchies {
			if controller == "" && h.V2() || controller != "" && slices.Contains(h.Controllers, controller) {
				if d, ok := h.Dir(path); ok {
					return d
				}
			}
		}
		return ""
	}
	return groupDirs{v2: dir(""), memory: dir("memory"), cpuacct: dir("cpuacct"), pids: dir("pids")}, nil
}

// within tells whether a group is another one or below it.
func within(group, other string) bool {
	return other == "/" || group == other || strings.HasPrefix(group, other+"/")
}

// unshared clears what several copies have in common: a session's group, say,
// where an agent without privileges starts all of them.
func unshared(all []*groupDirs) {
	count := map[string]int{}
	for _, d := range all {
		own := d.list()
		for i, dir := range own {
			if !slices.ContainsFunc(own[:i], func(other *string) bool { return *other == *dir }) {
				count[*dir]++
			}
		}
	}
	for _, d := range all {
		for _, dir := range d.list() {
			if count[*dir] > 1 {
				*dir = ""
			}
		}
	}
}

func (d *groupDirs) list() []*string { return []*string{&d.v2, &d.memory, &d.cpuacct, &d.pids} }
