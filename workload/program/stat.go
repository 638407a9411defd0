//go:build linux

package program

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Stat is what /proc/PID/stat tells of a process.
type Stat struct {
	State          byte
	Parent         int
	Group, Session int
	Start          uint64 // clock ticks since boot
	Exit           syscall.WaitStatus
	ExitKnown      bool
	// Exiting tells a process in its end: of its own it does nothing more, but it
	// may hold its files, locks and ports until it runs no more.
	Exiting bool
	// EnvStart and EnvEnd are where in its memory its environment is: 0 in the
	// middle of an exec, where there is no memory, and where the reader may not
	// see it.
	EnvStart, EnvEnd uint64
	// CodeStart is where in its memory its program is: 0 in the middle of an exec,
	// until all of its memory is in place.
	CodeStart uint64
}

const flagExiting = 4 // PF_EXITING of the kernel

// Running tells whether the process has not ended: a zombie has.
func (s Stat) Running() bool { return s.State != 'Z' && s.State != 'X' }

// ReadStat reads what the kernel tells of a process.
func ReadStat(pid int) (Stat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Stat{}, err
	}
	return parseStat(b)
}

// parseStat takes the name, which may hold anything, by its last parenthesis.
func parseStat(b []byte) (Stat, error) {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return Stat{}, errors.New("read stat: no name")
	}
	f := strings.Fields(string(b[i+1:]))
	if len(f) < 20 { // from field 3, state, to field 22, start time
		return Stat{}, fmt.Errorf("read stat: %d fields", len(f))
	}
	var s Stat
	var errs [4]error
	s.State = f[0][0]
	s.Parent, errs[0] = strconv.Atoi(f[1])
	s.Group, errs[1] = strconv.Atoi(f[2])
	s.Session, errs[2] = strconv.Atoi(f[3])
	s.Start, errs[3] = strconv.ParseUint(f[19], 10, 64)
	if flags, err := strconv.ParseUint(f[6], 10, 64); err == nil { // field 9
		s.Exiting = flags&flagExiting != 0
	}
	if len(f) > 48 { // fields 26, 50 and 51
		s.CodeStart, _ = strconv.ParseUint(f[23], 10, 64)
		s.EnvStart, _ = strconv.ParseUint(f[47], 10, 64)
		s.EnvEnd, _ = strconv.ParseUint(f[48], 10, 64)
	}
	if len(f) > 49 { // field 52, 0 where the reader may not see it
		if code, err := strconv.Atoi(f[49]); err == nil {
			s.Exit, s.ExitKnown = syscall.WaitStatus(code), true
		}
	}
	return s, errors.Join(errs[:]...)
}

// Pids lists all processes.
func Pids() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	pids := make([]int, 0, len(names))
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// KillExact kills one process if it is still the one that started at start.
func KillExact(pid int, start uint64) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if st, err := ReadStat(pid); err == nil && st.Start == start {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}
