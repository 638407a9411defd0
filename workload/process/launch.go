//go:build linux

package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload/program"
)

// launch is one fork and exec, handed to a launcher thread.
type launch struct {
	path  string
	argv  []string
	attr  *syscall.ProcAttr
	pid   int
	pidfd int // of pid
	err   error
	done  chan struct{}
}

// Kinds of launcher threads.
const (
	plain    = iota // copies of a user who is root: nothing is taken from them
	confined        // all others: no new privileges, no capability can come back
)

// fork runs l on the launcher thread of the kind. Go's fork/exec cannot set
// no_new_privs, the bounding set or the umask of a child; but all three belong
// to threads and are inherited, so they are set once on a thread that does
// nothing but fork. It costs a start one switch of threads.
func (d *Driver) fork(kind int, l *launch) error {
	reqs, err := d.launcher(kind)
	if err != nil {
		return err
	}
	l.pidfd, l.done = -1, make(chan struct{})
	select {
	case reqs <- l:
	case <-d.closing:
		return ErrClosed
	}
	<-l.done
	if l.err != nil || l.pidfd >= 0 {
		return l.err
	}
	// One made with the process would be in the launcher's table. The number is
	// surely the copy's: only we reap it.
	if l.pidfd, err = unix.PidfdOpen(l.pid, 0); err != nil {
		abandon(l.pid)
		return fmt.Errorf("watch process %d (Linux 5.10 or later is needed): %w", l.pid, err)
	}
	return nil
}

// run forks and execs on the launcher thread, whose table of descriptors is own,
// or nil where it shares the agent's.
func (l *launch) run(own *table) {
	if own != nil {
		l.pid, l.err = own.forkExec(l.path, l.argv, l.attr)
		return
	}
	l.attr.Sys.PidFD = &l.pidfd
	l.pid, l.err = syscall.ForkExec(l.path, l.argv, l.attr)
}

func (d *Driver) launcher(kind int) (chan *launch, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	if d.launchers[kind] != nil {
		return d.launchers[kind], nil
	}
	reqs, ready := make(chan *launch), make(chan error)
	d.wg.Go(func() { ownThread(func() { d.launcherThread(kind, reqs, ready) }) })
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("confine a thread for starting copies: %w", err)
	}
	d.launchers[kind] = reqs
	return reqs, nil
}

// launcherThread runs on an ownThread, so that no other goroutine ever runs with
// what is set on it.
func (d *Driver) launcherThread(kind int, reqs chan *launch, ready chan error) {
	warn, err := program.ConfineThread(program.Confinement{Plain: kind == plain, Privileged: d.root, KeepClass: d.keepClass})
	if warn != nil {
		d.log.Warn("confine copies", "error", warn)
	}
	var own *table
	if err == nil && !d.shareTable {
		own, err = newTable()
	}
	if errors.Is(err, errShared) {
		d.log.Info("starts take longer the more descriptors the agent holds", "error", err)
		err = nil
	}
	ready <- err
	for err == nil {
		select {
		case l := <-reqs:
			l.run(own)
			close(l.done)
		case <-d.closing:
			return
		}
	}
}

// ownThread runs f on a thread that no other goroutine has ever again: it ends
// with f. It is not the main thread, which cannot end, and whose confinement and
// descriptors /proc/PID would show as the agent's.
func ownThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	// While this goroutine holds the main thread, the next gets another.
	done := make(chan struct{})
	go func() {
		defer close(done)
		ownThread(f)
	}()
	<-done
	runtime.UnlockOSThread()
}

const oomScoreFile = "oom_score_adj"

// inheritsOOMScore tells whether the agent is protected from the OOM killer, as
// its unit does. Copies must not inherit that.
func inheritsOOMScore() bool {
	b, err := os.ReadFile("/proc/self/" + oomScoreFile)
	return err == nil && len(b) > 0 && b[0] == '-'
}

// resetOOMScore frees a started copy of the agent's protection. It is done after
// the exec, off the fast path; what the copy forked before that keeps it.
func (d *Driver) resetOOMScore(pid int) {
	if !d.oom {
		return
	}
	path := "/proc/" + strconv.Itoa(pid) + "/" + oomScoreFile
	if err := os.WriteFile(path, []byte("0"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("copy keeps the agent's OOM score", "pid", pid, "error", err)
	}
}

// closeOnExecAll is for kernels without close_range.
func closeOnExecAll() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
