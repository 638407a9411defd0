//go:build linux

package nspawn

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// groupPrefix is what the control groups of hosts are called by.
const groupPrefix = "ganglion-nspawn-"

// cgroup2 returns where control groups of version 2 are, also beside those of
// version 1.
func cgroup2() (string, error) {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir, nil
		}
	}
	return "", errors.New("no cgroup v2 is mounted on this machine")
}

// makeGroup makes the control group that a host lives in. Without one of its own
// its systemd would make its units' groups in this machine's root group, where
// those of all hosts are the same: a unit of one would be found to have the
// other's processes.
func (h *Host) makeGroup() (*os.File, error) {
	root, err := cgroup2()
	if err != nil {
		return nil, err
	}
	h.group = filepath.Join(root, groupPrefix+h.Name)
	if err := os.Mkdir(h.group, 0o755); err != nil {
		return nil, fmt.Errorf("make control group: %w", err)
	}
	for _, dir := range h.groupsV1() {
		// systemd-nspawn makes, and leaves, a group of that name for every host where
		// systemd keeps its processes; and process ids come again.
		if err := errors.Join(removeGroup(dir), os.Mkdir(dir, 0o755)); err != nil {
			return nil, fmt.Errorf("make control group: %w", err)
		}
	}
	return os.OpenFile(h.group, os.O_RDONLY|syscall.O_DIRECTORY, 0)
}

const cgroup1 = "/sys/fs/cgroup"

// v1Groups are the hierarchies of version 1 in which a host with quotas has a group of
// its own: those of the cpu controllers, which its systemd takes for one, and that in
// which it keeps its processes. None where this machine has no such.
func v1Groups() []string {
	for _, set := range [][]string{{"cpu,cpuacct"}, {"cpu", "cpuacct"}} {
		var dirs []string
		for _, name := range append(set, "systemd") {
			if _, err := os.Stat(filepath.Join(cgroup1, name, "cgroup.procs")); err == nil {
				dirs = append(dirs, filepath.Join(cgroup1, name))
			}
		}
		if len(dirs) == len(set)+1 {
			return dirs
		}
	}
	return nil
}

// groupsV1 are the host's groups of version 1.
func (h *Host) groupsV1() (dirs []string) {
	for _, dir := range h.v1 {
		dirs = append(dirs, filepath.Join(dir, groupPrefix+h.Name))
	}
	return dirs
}

// enterV1 is a command that enters the host's groups of version 1 and goes on as what
// is written after it.
func (h *Host) enterV1() []string {
	if len(h.v1) == 0 {
		return nil
	}
	argv := []string{"sh", "-c", `while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit; shift; done; shift; exec "$@"`, "sh"}
	return append(append(argv, h.groupsV1()...), "--")
}

// giveQuotas has the host's systemd use the cpu controllers of version 1, which
// systemd-nspawn mounts so that it may not. It acts on the host's own groups alone.
func (h *Host) giveQuotas(ctx context.Context) error {
	if len(h.v1) == 0 {
		return nil
	}
	for _, dir := range h.v1 {
		if _, err := h.Run(ctx, "mount", "-o", "remount,bind,rw", dir); err != nil {
			return err
		}
	}
	// Which controllers it may use it asks once in its life.
	_, err := h.Run(ctx, "systemctl", "daemon-reexec")
	return err
}

// removeGroup removes a control group with all below it. Nothing lives in it any
// more.
func removeGroup(dir string) error {
	var groups []string
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			groups = append(groups, p)
		}
		return err
	})
	for _, g := range slices.Backward(groups) {
		err = errors.Join(err, unix.Rmdir(g))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// sweepGroup ends the host that a dead test process has left, if it is still up,
// and removes its group.
func sweepGroup(host string) error {
	root, err := cgroup2()
	if err != nil || strings.ContainsRune(host, '/') || host == "" {
		return err
	}
	dir := filepath.Join(root, groupPrefix+host)
	if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
				return nil
			}
		}
		return fmt.Errorf("kill what is left of host %s: %w", host, err)
	}
	dirs := []string{dir}
	for _, v1 := range v1Groups() {
		dirs = append(dirs, filepath.Join(v1, groupPrefix+host))
	}
	return removeGroups(dirs)
}

// removeGroups removes control groups with all below them. What ended a moment ago may
// be in them still.
func removeGroups(dirs []string) (err error) {
	for deadline := time.Now().Add(5 * time.Second); ; <-time.After(10 * time.Millisecond) {
		var errs []error
		for _, d := range dirs {
			errs = append(errs, removeGroup(d))
		}
		if err = errors.Join(errs...); !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}
