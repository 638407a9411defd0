// Package hook runs one command of a user's on this host: as somebody without
// rights, in a control group of its own, for a bounded time, with all that it has
// started ended behind it.
package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload/program"
)

// What ends a command, or makes it fail, besides its own status.
var (
	ErrTooSlow = errors.New("it did not end in time and was killed")
	ErrTooMuch = errors.New("it wrote too much and was killed")
)

// Command is what to run.
type Command struct {
	// Name is part of the name of its control group: letters, digits and dashes.
	Name string
	// Argv is the program, by its absolute path, and its arguments; required. No
	// shell sees them.
	Argv []string
	// Env is the whole environment, besides a plain PATH.
	Env []string
	// User by name or number; empty: a user who owns nothing where this process is
	// root, else its own.
	User string
	// Timeout, after which it is killed with all that it started; required.
	Timeout time.Duration
	// Output is how many bytes of it are kept; required.
	Output int
	// Errors says that what it writes to its standard error is output too.
	Errors bool
	// Strict says that a command is killed, and has failed, that writes more than
	// Output; else the end of what it writes is kept.
	Strict bool
}

func (c *Command) validate() error {
	switch {
	case len(c.Argv) == 0 || !filepath.IsAbs(c.Argv[0]):
		return errors.New("a command needs a program by its absolute path")
	case c.Timeout <= 0 || c.Output <= 0:
		return errors.New("a command needs a timeout and a bound for its output")
	}
	return nil
}

// Run runs a command and returns what it wrote, also when it has failed. The
// error is an *fs.PathError or *exec.Error if it could not be started, an
// *exec.ExitError if it ended otherwise than by status 0, and else tells why it
// was killed. When ctx ends the command is killed. What it leaves behind is
// killed: all of it where a control group of version 2 can be made, else what has
// stayed in its process group.
func Run(ctx context.Context, c Command) ([]byte, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	who, err := accountOf(c.User)
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	var out []byte
	go func() {
		defer close(ended)
		out, err = c.onOwnThread(ctx, who)
	}()
	<-ended
	return out, err
}

// onOwnThread runs the command from a thread that is confined, and ends with its
// goroutine: what is taken from the command is taken from the thread that starts
// it. The command ends with that thread, so it stays until then.
func (c *Command) onOwnThread(ctx context.Context, who *account) (out []byte, err error) {
	runtime.LockOSThread() // and never unlocked
	if unix.Gettid() == unix.Getpid() {
		// Not on the main thread, which cannot end. While this goroutine holds it,
		// the next gets another.
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			out, err = c.onOwnThread(ctx, who)
		}()
		<-ended
		runtime.UnlockOSThread()
		return out, err
	}
	root := os.Geteuid() == 0
	if _, err := program.ConfineThread(program.Confinement{Plain: root && who.root(), Privileged: root}); err != nil {
		return nil, fmt.Errorf("confine it: %w", err)
	}
	return c.run(ctx, who)
}

func (c *Command) run(ctx context.Context, who *account) ([]byte, error) {
	group := makeGroup(c.Name)
	defer func() { group.remove() }()
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, ErrTooSlow)
	defer cancel()
	out := &output{most: c.Output, strict: c.Strict, full: make(chan struct{})}
	cmd, err := c.start(out, group, who)
	if err != nil && group != nil { // perhaps processes may not begin in a group (clone3) here
		group.remove()
		group = nil
		cmd, err = c.start(out, nil, who)
	}
	if err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	forgive(pid)
	ended := make(chan struct{})
	go func() {
		awaitEnd(pid)
		close(ended)
	}()
	var why error
	select {
	case <-ended:
	case <-out.full:
		why = ErrTooMuch
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
	case out.over && c.Strict:
		err = ErrTooMuch
	}
	return out.b, err
}

func (c *Command) start(out *output, group *group, who *account) (*exec.Cmd, error) {
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, c.Env...)
	cmd.Stdout = out
	if c.Errors {
		cmd.Stderr = out
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: who.credential(), Pdeathsig: syscall.SIGKILL}
	group.take(cmd.SysProcAttr)
	cmd.WaitDelay = time.Second // for what has left its group and holds the pipe
	return cmd, cmd.Start()
}

// forgive frees a command of the protection from the kernel's choice of a victim
// that an agent has.
func forgive(pid int) {
	const file = "/oom_score_adj"
	if b, err := os.ReadFile("/proc/self" + file); err == nil && len(b) > 0 && b[0] == '-' {
		_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+file, []byte("0"), 0)
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

// output keeps what is written up to a size. Beyond it, if it is strict, it
// closes full; else it keeps the end.
type output struct {
	b      []byte
	most   int
	strict bool
	over   bool
	full   chan struct{}
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	n := len(p)
	if o.strict && n > o.most-len(o.b) {
		room := o.most - len(o.b)
		o.b = append(o.b, p[:room]...)
		if !o.over {
			o.over = true
			close(o.full)
		}
		return room, ErrTooMuch
	}
	o.b = append(o.b, p[max(0, n-o.most):]...)
	if more := len(o.b) - o.most; more > 0 {
		o.b = append(o.b[:0], o.b[more:]...)
	}
	return n, nil
}
