//go:build linux

package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// procStat is what the driver reads of /proc/PID/stat.
type procStat struct {
	state         byte
	ppid          int
	pgrp, session int
	start         uint64 // clock ticks since boot
	exit          syscall.WaitStatus
	exitKnown     bool
}

func (s procStat) running() bool { return s.state != 'Z' && s.state != 'X' }

// ticks a second, as user space sees them on every Linux architecture.
const userHZ = 100

func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, err
	}
	return parseStat(b)
}

// parseStat takes the name, which may hold anything, by its last parenthesis.
func parseStat(b []byte) (procStat, error) {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return procStat{}, errors.New("read stat: no name")
	}
	f := strings.Fields(string(b[i+1:]))
	if len(f) < 20 { // from field 3, state, to field 22, start time
		return procStat{}, fmt.Errorf("read stat: %d fields", len(f))
	}
	var s procStat
	var errs [4]error
	s.state = f[0][0]
	s.ppid, errs[0] = strconv.Atoi(f[1])
	s.pgrp, errs[1] = strconv.Atoi(f[2])
	s.session, errs[2] = strconv.Atoi(f[3])
	s.start, errs[3] = strconv.ParseUint(f[19], 10, 64)
	if len(f) > 49 { // field 52, 0 where the reader may not see it
		if code, err := strconv.Atoi(f[49]); err == nil {
			s.exit, s.exitKnown = syscall.WaitStatus(code), true
		}
	}
	return s, errors.Join(errs[:]...)
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// sinceStart tells how long a process has run.
func sinceStart(start uint64) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return max(0, time.Duration(ts.Nano())-time.Duration(start)*(time.Second/userHZ))
}

// marked is a process that carries a nonce of this data directory.
type marked struct {
	pid   int
	nonce string
	env   []byte
}

func (m marked) get(name string) string { return environValue(m.env, name) }

// environBytes bounds how much of a process's environment is read.
const environBytes = 1 << 20

// findMarked looks through all processes for marks that begin with prefix. It
// reads every environment it may, which takes milliseconds: never on the way
// from an exit to a start.
func findMarked(prefix string) ([]marked, error) {
	pids, err := allPids()
	if err != nil {
		return nil, err
	}
	var found []marked
	for _, pid := range pids {
		env, err := readEnviron(pid)
		if err != nil || !bytes.Contains(env, []byte(NonceVar+"="+prefix)) {
			continue
		}
		if nonce := environValue(env, NonceVar); strings.HasPrefix(nonce, prefix) {
			found = append(found, marked{pid, nonce, env})
		}
	}
	return found, nil
}

// readEnviron reads a process's environment. In the middle of an exec a process
// has none, or none that we may read; so that a mark is not overlooked by that,
// it is looked at again.
func readEnviron(pid int) (env []byte, err error) {
	for range 4 {
		env, err = readEnvironOnce(pid)
		if !midExec(pid, env, err) {
			break
		}
		<-time.After(time.Millisecond)
	}
	return env, err
}

// midExec tells whether what was read may be that of a process in an exec: not a
// zombie's or a kernel thread's, which have no program.
func midExec(pid int, env []byte, err error) bool {
	if err == nil && len(env) > 0 {
		return false
	}
	if err != nil {
		uid, statErr := ownerOf(pid)
		if !errors.Is(err, fs.ErrPermission) || statErr != nil || int(uid) != os.Geteuid() {
			return false
		}
	}
	_, err = os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	return err == nil || errors.Is(err, fs.ErrPermission)
}

func readEnvironOnce(pid int) ([]byte, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, environBytes))
}

func environValue(env []byte, name string) string {
	for kv := range bytes.SplitSeq(env, []byte{0}) {
		if v, ok := bytes.CutPrefix(kv, []byte(name+"=")); ok {
			return string(v)
		}
	}
	return ""
}

func allPids() ([]int, error) {
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

// ownerOf returns the user a process runs as.
func ownerOf(pid int) (uint32, error) {
	var st unix.Stat_t
	err := unix.Stat("/proc/"+strconv.Itoa(pid), &st)
	return st.Uid, err
}
