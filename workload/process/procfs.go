//go:build linux

package process

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload/bootclock"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

// ticks a second, as user space sees them on every Linux architecture.
const userHZ = 100

// sinceStart tells how long a process has run.
func sinceStart(start uint64) time.Duration {
	return max(0, bootclock.Now()-time.Duration(start)*(time.Second/userHZ))
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
	found, _, err := search(prefix)
	return found, err
}

// search is findMarked that also tells who could not be asked, with their start
// times: a process in its end, or for longer than anybody waits in the middle of
// an exec, may have a mark and shows none.
func search(prefix string) (found []marked, silent map[int]uint64, err error) {
	pids, err := program.Pids()
	if err != nil {
		return nil, nil, err
	}
	silent = map[int]uint64{}
	for _, pid := range pids {
		env, err := readEnviron(pid)
		if err != nil || len(env) == 0 {
			if st, statErr := program.ReadStat(pid); statErr == nil && st.Running() && maySee(pid) &&
				(st.Exiting || err == nil && midExec(pid)) {
				silent[pid] = st.Start
			}
			continue
		}
		if !bytes.Contains(env, []byte(NonceVar+"="+prefix)) {
			continue
		}
		if nonce := environValue(env, NonceVar); strings.HasPrefix(nonce, prefix) {
			found = append(found, marked{pid, nonce, env})
		}
	}
	return found, silent, nil
}

// How long a process is looked at again for its environment: in the middle of an
// exec, where a starved machine may leave it for a while; and one that may be
// there, or hides its environment for good.
const (
	execTime   = 2 * time.Second
	hiddenTime = 4 * time.Millisecond
)

// readEnviron reads a process's environment. In the middle of an exec a process
// has none, or none that we may read; so that a mark is not overlooked by that,
// it is looked at again.
func readEnviron(pid int) (env []byte, err error) {
	begun := time.Now()
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		env, err = readEnvironOnce(pid)
		again := time.Duration(0)
		switch {
		case err == nil && len(env) == 0 && midExec(pid):
			again = execTime
		case errors.Is(err, fs.ErrPermission) && maySee(pid) && hasProgram(pid):
			again = hiddenTime
		}
		if time.Since(begun) >= again {
			return env, err
		}
		<-time.After(pause)
	}
}

// midExec tells whether a process that has shown no environment has one all the
// same, or is going to: not a zombie, one in its end or a thread of the kernel,
// which have no program, nor one whose environment is empty. While the kernel
// still writes the environment, that looks empty too: only CodeStart, which comes
// after it, tells the two apart.
func midExec(pid int) bool {
	if !hasProgram(pid) {
		return false
	}
	st, err := program.ReadStat(pid)
	return err == nil && (st.EnvEnd == 0 || st.EnvStart < st.EnvEnd || st.CodeStart == 0)
}

func hasProgram(pid int) bool {
	_, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	return err == nil || errors.Is(err, fs.ErrPermission)
}

// maySee tells whether a process's environment is for us to read, but for a
// process that hides it.
func maySee(pid int) bool {
	me := os.Geteuid()
	uid, err := ownerOf(pid)
	return me == 0 || err == nil && int(uid) == me
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

// ownerOf returns the user a process runs as.
func ownerOf(pid int) (uint32, error) {
	var st unix.Stat_t
	err := unix.Stat("/proc/"+strconv.Itoa(pid), &st)
	return st.Uid, err
}
