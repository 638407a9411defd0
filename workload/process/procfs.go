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
	pids, err := program.Pids()
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

// ownerOf returns the user a process runs as.
func ownerOf(pid int) (uint32, error) {
	var st unix.Stat_t
	err := unix.Stat("/proc/"+strconv.Itoa(pid), &st)
	return st.Uid, err
}
