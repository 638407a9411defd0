//go:build linux

package process

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
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

// read takes the exit of a process that has ended: by wait if it is a child of
// this process; else, for a copy that an earlier life of the agent started, from
// the kernel by its pidfd or, while its new parent has not reaped it yet, from
// its stat. On an old kernel with a quick parent it stays unknown.
func (r exitReader) read(pidfd, pid int, start uint64) workload.Exit {
	if e, ok := reap(pidfd, pid); ok {
		return e
	}
	if e, ok := r.byPidfd(pidfd); ok {
		return e
	}
	if st, err := readStat(pid); err == nil && st.start == start && !st.running() && st.exitKnown {
		return exitOf(st.exit)
	}
	e, _ := r.byPidfd(pidfd) // reaped between the two looks
	return e
}

// reap waits for the process if it is ours to wait for. Whether it is, the
// pidfd tells: the number may be another child's by now.
func reap(pidfd, pid int) (workload.Exit, bool) {
	err := ignoreEINTR(func() error {
		return unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	})
	if err != nil {
		return workload.Exit{}, false
	}
	var ws unix.WaitStatus
	var got int
	err = ignoreEINTR(func() (err error) {
		got, err = unix.Wait4(pid, &ws, unix.WNOHANG, nil)
		return err
	})
	return exitOf(syscall.WaitStatus(ws)), err == nil && got == pid
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
	if st, err := readStat(pid); err != nil || st.start != start {
		return unix.ESRCH
	}
	return unix.Kill(-pid, sig)
}

// killExact kills one process if it is still the one that started at start.
func killExact(pid int, start uint64) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if st, err := readStat(pid); err == nil && st.start == start {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}
