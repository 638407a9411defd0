//go:build linux

package keeper

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload/program"
)

// child is the copy: its first process and all that descends from it. The keeper
// is their subreaper, so whoever loses its parent becomes the keeper's child, and
// nothing can leave. It is used by one goroutine.
type child struct {
	program Program
	null    *os.File
	cg      *program.Cgroup
	forks   chan *fork

	pid       int // of the first process, until it is reaped; 0: none
	startTime uint64
}

// fork is one fork and exec, for the launcher thread.
type fork struct {
	argv []string
	path string
	attr *syscall.ProcAttr
	pid  int
	err  error
	done chan struct{}
}

// prepare makes all that does not change from start to start.
func (c *child) prepare(p Program) (err error) {
	c.program = p
	if c.null, err = os.Open(os.DevNull); err != nil {
		return err
	}
	if p.Cgroup != "" {
		if c.cg, err = program.OpenCgroup(p.Cgroup); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	c.forks = make(chan *fork)
	ready := make(chan error)
	go c.launch(ready)
	return <-ready
}

// launch forks on a thread of its own. The thread lives as long as the process:
// the death of the thread that forked it is what a child's parent death signal
// is about.
func (c *child) launch(ready chan error) {
	runtime.LockOSThread()
	_, err := program.ConfineThread(program.Confinement{
		Plain: c.program.Plain, Privileged: os.Geteuid() == 0, KeepGroups: c.program.KeepGroups,
	})
	ready <- err
	if err != nil {
		return
	}
	for f := range c.forks {
		f.pid, f.err = syscall.ForkExec(f.path, f.argv, f.attr)
		close(f.done)
	}
}

// start is the fork and exec of start number n.
func (c *child) start(n int) error {
	if err := c.renewGroup(); err != nil {
		return err
	}
	sys := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, Credential: c.credential()}
	if c.cg != nil {
		sys.UseCgroupFD, sys.CgroupFD = true, int(c.cg.Dir.Fd())
	}
	env := append(c.program.Env[:len(c.program.Env):len(c.program.Env)], "GANGLION_START="+strconv.Itoa(n))
	f := &fork{path: c.program.Path, argv: c.program.Argv, done: make(chan struct{}), attr: &syscall.ProcAttr{
		Dir: c.program.Dir, Env: env, Sys: sys,
		Files: []uintptr{c.null.Fd(), uintptr(syscall.Stdout), uintptr(syscall.Stderr)},
	}}
	c.forks <- f
	<-f.done
	if f.err != nil {
		return f.err
	}
	c.pid = f.pid
	if st, err := program.ReadStat(f.pid); err == nil {
		c.startTime = st.Start
	}
	c.afterStart()
	return nil
}

// renewGroup opens the group anew: after a kill it has to be made anew, and while
// nothing ran in it an agent may have done that.
func (c *child) renewGroup() error {
	if c.cg == nil {
		return nil
	}
	cg, err := c.cg.Renewed()
	if err == nil && cg == c.cg {
		if cg, err = program.OpenCgroup(c.program.Cgroup); err != nil {
			cg, err = program.MakeCgroup(c.program.Cgroup)
		}
		if err == nil {
			c.cg.Close()
		}
	}
	if err == nil {
		c.cg = cg
	}
	return err
}

func (c *child) credential() *syscall.Credential {
	u := c.program.User
	if u == nil {
		return nil
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups, NoSetGroups: u.Groups == nil}
}

// afterStart is what only a running process can be given. None of it is worth
// ending the copy for.
func (c *child) afterStart() {
	pid := strconv.Itoa(c.pid)
	for _, procs := range c.program.Attach {
		_ = os.WriteFile(procs, []byte(pid), 0)
	}
	// The keeper has the agent's protection from the OOM killer; the copy must
	// not.
	if b, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil && len(b) > 0 && b[0] == '-' {
		_ = os.WriteFile("/proc/"+pid+"/oom_score_adj", []byte("0"), 0)
	}
}

// signalGroup signals the process group of the first process, and wakes it if it
// is suspended. Its number is its own until it is reaped.
func (c *child) signalGroup(sig syscall.Signal) {
	if c.pid != 0 {
		_ = syscall.Kill(-c.pid, sig)
		_ = syscall.Kill(-c.pid, syscall.SIGCONT)
	}
}

// kill kills all of the copy that can be seen now. What is being forked meanwhile
// is seen next time; in a cgroup there is no meanwhile.
func (c *child) kill() {
	if c.pid != 0 {
		_ = syscall.Kill(-c.pid, syscall.SIGKILL)
	}
	if c.cg != nil && c.cg.Populated() {
		_ = c.cg.KillAll()
	}
	for pid, start := range descendants(os.Getpid()) {
		program.KillExact(pid, start)
	}
}

// empty tells whether nothing of the copy is left. All that descends from the
// keeper hangs below a child of it; reap has been called just before.
func (c *child) empty() bool {
	err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return errors.Is(err, unix.ECHILD) && (c.cg == nil || !c.cg.Populated())
}

// reap frees whoever has ended, and returns how the first process has if it is
// among them.
func (c *child) reap() (e Ended, ok bool) {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return e, ok
		}
		if pid != c.pid || pid == 0 {
			continue
		}
		c.pid, ok = 0, true
		if ws.Signaled() {
			e.Signal = ws.Signal()
		} else {
			e.Code = ws.ExitStatus()
		}
	}
}

// descendants are all processes below pid that have not ended, with their start
// times.
func descendants(pid int) map[int]uint64 {
	pids, err := program.Pids()
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	starts := map[int]uint64{}
	for _, p := range pids {
		st, err := program.ReadStat(p)
		if err != nil {
			continue
		}
		children[st.Parent] = append(children[st.Parent], p)
		if st.Running() {
			starts[p] = st.Start
		}
	}
	below := map[int]uint64{}
	for todo := children[pid]; len(todo) > 0; {
		p := todo[0]
		todo = append(todo[1:], children[p]...)
		if start, ok := starts[p]; ok {
			below[p] = start
		}
	}
	return below
}

// errnoOf is the number in the error of an exec; 0 if there is none.
func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	var path *fs.PathError
	if errors.As(err, &path) {
		return 0 // not the exec's
	}
	errors.As(err, &errno)
	return errno
}
