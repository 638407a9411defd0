//go:build linux

package process

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

// exitReader learns how a process ended. info is false where the kernel has no
// PIDFD_GET_INFO, or to test as if.
type exitReader struct {
	info bool
}

// ended tells whether the process of a pidfd has ended (a zombie has).
func ended(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0
		}
	}
}

// read learns the exit of a process that has ended: by waiting if it is a child
// of this process; else, for a copy that an earlier life of the agent started,
// from the kernel by its pidfd or, while its new parent has not reaped it yet,
// from its stat. On an old kernel with a quick parent it stays unknown. A child
// is left to be reaped, which takes longer than to know: a restart need not wait
// for it.
func (r exitReader) read(pidfd, pid int, start uint64) (e workload.Exit, child bool) {
	if e, ok := waitExit(pidfd); ok {
		return e, true
	}
	if e, ok := r.byPidfd(pidfd); ok {
		return e, false
	}
	if st, err := program.ReadStat(pid); err == nil && st.Start == start && !st.Running() && st.ExitKnown {
		return exitOf(st.Exit), false
	}
	e, _ = r.byPidfd(pidfd) // reaped between the two looks
	return e, false
}

// waitExit waits without reaping. Whether the process is ours to wait for, the
// pidfd tells; by its number alone it could be another child.
func waitExit(pidfd int) (workload.Exit, bool) {
	var info unix.Siginfo
	err := ignoreEINTR(func() error {
		return unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	})
	if err != nil || info.Signo == 0 {
		return workload.Exit{}, false
	}
	if info.Code == cldExited {
		return workload.Exit{Known: true, Code: siStatus(&info)}, true
	}
	return workload.Exit{Known: true, Signal: syscall.Signal(siStatus(&info))}, true
}

const cldExited = 1 // CLD_EXITED; other ends are by a signal

// siStatus reads si_status, which x/sys hides in padding: on 64-bit Linux at 24.
func siStatus(info *unix.Siginfo) int {
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), 24)))
}

// reap frees a child that has ended.
func reap(pid int) {
	_ = ignoreEINTR(func() error {
		_, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
		return err
	})
}

func ignoreEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (r exitReader) byPidfd(pidfd int) (workload.Exit, bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if !r.info || unix.IoctlPidfdInfo(pidfd, &info) != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return workload.Exit{}, false
	}
	return exitOf(syscall.WaitStatus(info.Exit_code)), true
}

func exitOf(ws syscall.WaitStatus) workload.Exit {
	if ws.Signaled() {
		return workload.Exit{Known: true, Signal: ws.Signal()}
	}
	return workload.Exit{Known: true, Code: ws.ExitStatus()}
}

// signalGroup sends sig to the process group of a pidfd's process, which is its
// leader and has not been reaped, as far as we know.
func signalGroup(pidfd, pid int, start uint64, sig syscall.Signal) error {
	err := unix.PidfdSendSignal(pidfd, sig, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	// A kernel before 6.9. The group's number is not given anew while the leader
	// is there, and that it is there is checked as late as possible.
	if st, err := program.ReadStat(pid); err != nil || st.Start != start {
		return unix.ESRCH
	}
	return unix.Kill(-pid, sig)
}
