//go:build linux

package program

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Confinement says what is taken from the processes that a thread starts.
type Confinement struct {
	Plain      bool // nothing of what protects: copies of a user who is root
	Privileged bool // the thread is root's: there are capabilities to take away
	KeepGroups bool // supplementary groups are the copy's already
	KeepClass  bool // leave them the scheduling class of the thread
}

// defaultTimerSlack is what the kernel gives its first process, in nanoseconds.
const defaultTimerSlack = 50_000

// ConfineThread sets what children of the calling thread inherit: Go's fork and
// exec cannot set no_new_privs, the bounding set or the umask of a child, but
// all belong to threads and are inherited. The goroutine must have locked its
// thread and never unlock it. What is convenience may fail (a container's seccomp
// filter) and comes back as warn; what protects may not.
func ConfineThread(c Confinement) (warn, err error) {
	if e := unix.Unshare(unix.CLONE_FS); e == nil {
		unix.Umask(0o077)
	} else {
		warn = fmt.Errorf("copies keep the agent's umask: %w", e)
	}
	// Children of a real-time or favoured agent start at ordinary priority.
	if attr, e := unix.SchedGetAttr(0, 0); e == nil && !c.KeepClass {
		attr.Flags |= unix.SCHED_FLAG_RESET_ON_FORK
		_ = unix.SchedSetAttr(0, attr, 0)
	}
	// Nor are their timers as late as the agent's may be.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, defaultTimerSlack, 0, 0, 0)
	if c.Plain {
		return warn, nil
	}
	if c.Privileged && !c.KeepGroups {
		// By the raw call, which is for this thread alone. Private users then
		// need not do it at each start.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
			return warn, errno
		}
	}
	if c.Privileged {
		if e := errors.Join(dropInheritable(), dropBoundingSet()); e != nil {
			warn = errors.Join(warn, fmt.Errorf("copies keep the capability bounding set: %w", e))
		}
	}
	return warn, unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// dropInheritable empties the inheritable set of this thread, and with it the
// ambient one.
func dropInheritable() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return err
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	return unix.Capset(&hdr, &data[0])
}

func dropBoundingSet() error {
	for c := uintptr(0); c < 64; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // past the last capability of this kernel
		}
		if err != nil {
			return err
		}
	}
	return nil
}
