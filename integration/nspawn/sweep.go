//go:build linux

package nspawn

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// runDir holds the disks of running hosts, each named after the test process
// that booted it.
func runDir() string { return filepath.Join(cacheDir(), "run") }

// sweep ends the hosts of test processes that were killed, where they did not end
// with them, and removes their disks and namespaces.
func sweep(t testing.TB) {
	t.Helper()
	entries, err := os.ReadDir(runDir())
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, name, _ := strings.Cut(e.Name(), "-")
		n, err := strconv.Atoi(pid)
		if err != nil || n == os.Getpid() || alive(n) {
			continue
		}
		if err := sweepGroup(name); err != nil {
			t.Logf("sweep: %v", err)
		}
		if _, err := os.Stat("/run/netns/" + name); err == nil && strings.HasPrefix(name, "gt"+pid+"-") {
			if err := command("ip", "netns", "del", name); err != nil {
				t.Logf("sweep: %v", err)
			}
		}
		if err := removeDisk(filepath.Join(runDir(), e.Name())); err != nil {
			t.Logf("sweep: %v", err)
		}
	}
}

func alive(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

// removeDisk unmounts and removes a host's directory.
func removeDisk(dir string) error {
	err := syscall.Unmount(filepath.Join(dir, "root"), syscall.MNT_DETACH)
	if err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOENT) { // EINVAL: no mount
		return err
	}
	return os.RemoveAll(dir)
}
