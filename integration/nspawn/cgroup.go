//go:build linux

package nspawn

import (
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
	return os.OpenFile(h.group, os.O_RDONLY|syscall.O_DIRECTORY, 0)
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
	// What was killed leaves its group a moment later.
	for deadline := time.Now().Add(5 * time.Second); ; <-time.After(10 * time.Millisecond) {
		if err = removeGroup(dir); !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}
