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
	path string
	argv []string
	attr *syscall.ProcAttr
	pid  int
	err  error
	done chan struct{}
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
	l.done = make(chan struct{})
	select {
	case reqs <- l:
	case <-d.closing:
		return ErrClosed
	}
	<-l.done
	return l.err
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
	d.wg.Go(func() { d.launcherThread(kind, reqs, ready) })
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("confine a thread for starting copies: %w", err)
	}
	d.launchers[kind] = reqs
	return reqs, nil
}

// launcherThread never unlocks its thread, so the thread ends with it and no
// other goroutine ever runs with what was set on it.
func (d *Driver) launcherThread(kind int, reqs chan *launch, ready chan error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// Not on the main thread: it cannot end, and /proc/PID would show its
		// confinement as the agent's. While this goroutine holds it, the next
		// gets another.
		done := make(chan struct{})
		go func() {
			defer close(done)
			d.launcherThread(kind, reqs, ready)
		}()
		<-done
		runtime.UnlockOSThread()
		return
	}
	warn, err := program.ConfineThread(program.Confinement{Plain: kind == plain, Privileged: d.root, KeepClass: d.keepClass})
	if warn != nil {
		d.log.Warn("confine copies", "error", warn)
	}
	ready <- err
	for err == nil {
		select {
		case l := <-reqs:
			l.pid, l.err = syscall.ForkExec(l.path, l.argv, l.attr)
			close(l.done)
		case <-d.closing:
			return
		}
	}
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
