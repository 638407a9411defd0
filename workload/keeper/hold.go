//go:build linux

package keeper

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	memoryLimit = 8 << 20
	// nice is as favoured as ordinary priority gets: on a host whose cores are
	// all taken the keeper must not stand in the queue. Copies start without it.
	nice = -20
)

// settle makes the process as small and as prompt as it can be. None of it is
// needed for the lease to be kept on a healthy host, so none of it has to work: an
// agent that is no root can give its keepers no precedence.
func settle() {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(memoryLimit)
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, t := range tasks {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, tid, nice) // threads to come inherit it
		}
	}
	if sid, err := unix.Getsid(0); err == nil && sid == os.Getpid() {
		_ = os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(nice)), 0)
	}
}

// shed gives back what only the start of the process has needed: the memory of
// the initialisation of packages that a keeper has no use for, and the pages of
// the binary that it has touched. What is needed again comes from the page cache.
func shed() {
	debug.FreeOSMemory()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	var from, to uint64 // the mapping that the lines are about; 0: not one to give back
	for line := range bytes.Lines(maps) {
		f := strings.Fields(string(line))
		switch {
		case len(f) >= 5 && strings.Contains(f[0], "-"):
			from, to = mapping(f)
		case len(f) == 3 && f[0] == "Anonymous:" && f[1] == "0" && from != 0:
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(from), uintptr(to-from), unix.MADV_DONTNEED)
		}
	}
}

// mapping is where a mapping lies that is a file's and not to be written; zeroes
// for another. Whether it was written before that, by a linker, its count of
// anonymous pages tells.
func mapping(f []string) (from, to uint64) {
	if len(f) < 6 || !strings.HasPrefix(f[5], "/") || strings.Contains(f[1], "w") {
		return 0, 0
	}
	a, b, _ := strings.Cut(f[0], "-")
	from, err1 := strconv.ParseUint(a, 16, 64)
	to, err2 := strconv.ParseUint(b, 16, 64)
	if err1 != nil || err2 != nil || from >= to {
		return 0, 0
	}
	return from, to
}
