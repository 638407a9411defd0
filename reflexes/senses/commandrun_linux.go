package senses

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var (
	errTooSlow = errors.New("it did not end in time")
	errTooMuch = errors.New("it wrote too much")
)

// once runs the command and returns its output.
func (c *Command) once(ctx context.Context) ([]byte, error) {
	c.runs++
	group := makeCommandGroup(fmt.Sprintf("ganglion-sense-%s-%d-%d", c.cfg.Target, os.Getpid(), c.runs))
	defer func() { group.remove() }()
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.Timeout, errTooSlow)
	defer cancel()
	out := &limitedOutput{max: c.cfg.MaxOutput, full: make(chan struct{})}
	cmd, err := c.start(out, group)
	if err != nil && group != nil { // perhaps processes may not begin in a group (clone3) here
		group.remove()
		group = nil
		cmd, err = c.start(out, nil)
	}
	if err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	modest(pid)
	ended := make(chan struct{})
	go func() {
		awaitEnd(pid)
		close(ended)
	}()
	var why error
	select {
	case <-ended:
	case <-out.full:
		why = errTooMuch
	case <-ctx.Done():
		why = context.Cause(ctx)
	}
	// Before it is reaped: until then nobody else can be the group of this number.
	_ = unix.Kill(-pid, unix.SIGKILL)
	<-ended
	group.kill() // and what has left that
	err = cmd.Wait()
	switch {
	case why != nil:
		err = why
	case out.over:
		err = errTooMuch
	}
	return out.b, err
}

func (c *Command) start(out *limitedOutput, group *commandGroup) (*exec.Cmd, error) {
	cmd := exec.Command(c.cfg.Command[0], c.cfg.Command[1:]...)
	cmd.Dir = c.cfg.Dir
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, c.cfg.Env...)
	cmd.Stdout = out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.cfg.As, Pdeathsig: syscall.SIGKILL}
	group.take(cmd.SysProcAttr)
	cmd.WaitDelay = time.Second // for what has left its group and holds the pipe
	return cmd, cmd.Start()
}

// modest gives a command the priority that programs have, where an agent gave
// itself a higher one.
func modest(pid int) {
	const ordinary = 20 // 20 - nice
	if own, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil && own > ordinary {
		_ = unix.Setpriority(unix.PRIO_PGRP, pid, 0)
	}
}

// awaitEnd waits until a child has ended, and leaves it to be reaped.
func awaitEnd(pid int) {
	for {
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// limitedOutput keeps what is written up to a size, and closes full beyond it.
type limitedOutput struct {
	b    []byte
	max  int
	over bool
	full chan struct{}
}

func (o *limitedOutput) Write(p []byte) (int, error) {
	if room := o.max - len(o.b); len(p) > room {
		o.b = append(o.b, p[:room]...)
		if !o.over {
			o.over = true
			close(o.full)
		}
		return room, errTooMuch
	}
	o.b = append(o.b, p...)
	return len(p), nil
}

// commandGroup is the control group of version 2 that one run of a command has
// for itself; another run gets another group, as kernels (6.14 and later) kill
// what begins in a group that was killed before. All its methods may be called on
// nil, which is none.
type commandGroup struct {
	dir string
	fd  *os.File
}

// makeCommandGroup makes a group below our own; nil where that cannot be.
func makeCommandGroup(name string) *commandGroup {
	finder, err := newGroupFinder("/proc")
	if err != nil {
		return nil
	}
	for _, h := range finder.hierarchies {
		own, ok := h.Dir(finder.self.V2())
		if !h.V2() || !ok {
			continue
		}
		dir := filepath.Join(own, name)
		if os.Mkdir(dir, 0o755) != nil {
			return nil
		}
		g := &commandGroup{dir: dir}
		_, err := os.Stat(filepath.Join(dir, "cgroup.kill")) // since Linux 5.14
		if err == nil {
			g.fd, err = os.Open(dir)
		}
		if err != nil {
			g.remove()
			return nil
		}
		return g
	}
	return nil
}

// take has a process begin in the group.
func (g *commandGroup) take(attr *syscall.SysProcAttr) {
	if g != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(g.fd.Fd())
	}
}

// kill ends all that is in the group.
func (g *commandGroup) kill() {
	if g != nil {
		_ = os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0)
	}
}

// The dead leave their group a moment after they were killed.
const (
	groupEmpties = time.Second
	groupLooks   = 5 * time.Millisecond
)

// remove ends what is in the group and removes it. One that cannot be removed
// stays behind, empty.
func (g *commandGroup) remove() {
	if g == nil {
		return
	}
	g.kill()
	if g.fd != nil {
		g.fd.Close()
	}
	tick := time.NewTicker(groupLooks)
	defer tick.Stop()
	for range groupEmpties / groupLooks {
		if err := unix.Rmdir(g.dir); !errors.Is(err, unix.EBUSY) {
			return
		}
		<-tick.C
	}
}
