//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// processesBelow lists the processes that belong to a directory of a localMesh:
// those that were told to keep their state below it, which copies and whatever
// they start inherit, and agents by their data directory. Processes of other
// users that we cannot look into are none of ours.
func processesBelow(dir string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && pid != os.Getpid() && belongsTo(pid, dir) {
			out = append(out, pid)
		}
	}
	return out
}

func belongsTo(pid int, dir string) bool {
	proc := "/proc/" + strconv.Itoa(pid)
	env, err := os.ReadFile(proc + "/environ")
	if err == nil && bytes.Contains(append([]byte{0}, env...), []byte("\x00STATE_DIR="+dir+"/")) {
		return true
	}
	cmdline, err := os.ReadFile(proc + "/cmdline")
	if err != nil {
		return false
	}
	argv := strings.Split(string(cmdline), "\x00")
	i := slices.Index(argv, "--data-dir")
	return len(argv) > 1 && argv[1] == "agent" && i > 0 && i+1 < len(argv) && strings.HasPrefix(argv[i+1], dir+"/")
}

// killProcesses kills everything that belongs to dir until nothing is left, and
// removes the cgroups that it ran in: whoever kills a copy behind its agent's
// back has to tidy up after it.
func killProcesses(dir string) error {
	groups := map[string]bool{}
	deadline := time.Now().Add(5 * time.Second)
	for {
		pids := processesBelow(dir)
		for _, pid := range pids {
			if g := ownCgroup(pid); g != "" {
				groups[g] = true
			}
			syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it may just have ended
		}
		if len(pids) == 0 {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("kill what is left of %s: processes %v do not end", dir, pids)
		}
		<-time.After(5 * time.Millisecond)
	}
	deadline = time.Now().Add(5 * time.Second)
	for g := range groups {
		for busy(os.Remove(g)) && time.Now().Before(deadline) {
			<-time.After(5 * time.Millisecond)
		}
		os.Remove(filepath.Dir(g)) //nolint:errcheck // others may still be in it
	}
	return nil
}

// busy tells that a cgroup could not be removed because a process is still in it:
// on a busy machine one that was killed has given up all else long before.
func busy(err error) bool { return errors.Is(err, syscall.EBUSY) }

// ownCgroup is the directory of the cgroup that a driver made for a copy; empty
// if it made none.
func ownCgroup(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok || !strings.HasPrefix(filepath.Base(filepath.Dir(path)), "ganglion-") {
			continue
		}
		for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
			if _, err := os.Stat(mount + path + "/cgroup.procs"); err == nil {
				return mount + path
			}
		}
	}
	return ""
}
