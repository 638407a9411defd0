//go:build linux

package hook

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ganglion-mesh/ganglion/workload/program"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long what has to happen may take on a busy machine.
const patience = 30 * time.Second

// shell is a script with a directory that anybody may write in as $1.
func shell(t *testing.T, text string) (c Command, dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hook")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return Command{Name: "test", Argv: []string{"/bin/sh", "-c", text, "sh", dir}, Timeout: patience, Output: 1 << 10, Errors: true}, dir
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-tick.C
	}
}

// pidIn returns the process that has written its number into a file.
func pidIn(t *testing.T, path string) (pid int) {
	t.Helper()
	eventually(t, "a number in "+path, func() bool {
		b, _ := os.ReadFile(path)
		n, err := strconv.Atoi(strings.TrimSuffix(string(b), "\n"))
		pid = n
		return err == nil && strings.HasSuffix(string(b), "\n")
	})
	return pid
}

func alive(pid int) bool {
	st, err := program.ReadStat(pid)
	return err == nil && st.Running()
}

// left lists the groups that commands of this process have left.
func left(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(ownGroup(), prefix+"*-"+strconv.Itoa(os.Getpid())+"-*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestWhatACommandSees: no rights, no environment but its own, and what it says
// on both streams.
func TestWhatACommandSees(t *testing.T) {
	c, _ := shell(t, `echo "$(id -u) $(id -G) $(pwd) $(umask) $#"; env | sort; grep -E '^(NoNewPrivs|Cap...):' /proc/self/status; echo said >&2; cat`)
	c.Env = []string{"A=1"}
	out, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	who := strconv.Itoa(privateUID)
	if os.Geteuid() != 0 {
		who = strconv.Itoa(os.Geteuid())
	}
	said := string(out)
	if first, _, _ := strings.Cut(said, "\n"); os.Geteuid() == 0 && first != who+" "+who+" / 0077 1" {
		t.Errorf("it is %q", first)
	}
	for _, want := range []string{"A=1\n", "PATH=/usr/local/sbin", "NoNewPrivs:\t1", "said\n"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing of:\n%s", want, said)
		}
	}
	for line := range strings.Lines(said) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if strings.HasPrefix(name, "Cap") && strings.Trim(value, "\t0") != "" && os.Geteuid() == 0 {
			t.Errorf("it has %s", line)
		}
		if strings.HasPrefix(line, "HOME=") || strings.HasPrefix(line, "GO") {
			t.Errorf("its environment has %s", line)
		}
	}
	if b, _ := os.ReadFile("/proc/self/status"); strings.Contains(string(b), "NoNewPrivs:\t1") {
		t.Error("this process itself was confined")
	}
	if l := left(t); len(l) > 0 {
		t.Errorf("left behind: %v", l)
	}
}

func TestNamedUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for user, want := range map[string]string{"nobody": "65534\n", "0": "0\n", "root": "0\n"} {
		c, _ := shell(t, "id -u")
		c.User = user
		if out, err := Run(t.Context(), c); err != nil || string(out) != want {
			t.Errorf("%s: %q, %v", user, out, err)
		}
	}
	c, _ := shell(t, "id -u")
	c.User = "no-such-one"
	if _, err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "no such user") {
		t.Error(err)
	}
}

// TestStatus: how a command ended, and what it had said.
func TestStatus(t *testing.T) {
	c, _ := shell(t, "echo almost; exit 3")
	out, err := Run(t.Context(), c)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 3 || string(out) != "almost\n" {
		t.Errorf("%q, %v", out, err)
	}
	c.Argv = []string{"/nowhere/to be found"}
	if _, err := Run(t.Context(), c); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("not there: %v", err)
	}
	for _, bad := range []Command{
		{}, {Argv: []string{"true"}, Timeout: 1, Output: 1}, {Argv: []string{"/bin/true"}, Output: 1}, {Argv: []string{"/bin/true"}, Timeout: 1},
	} {
		if _, err := Run(t.Context(), bad); err == nil {
			t.Errorf("%+v was run", bad)
		}
	}
}

// TestTimeout kills the command, what it started, and what has left it, as far as
// there are control groups.
func TestTimeout(t *testing.T) {
	c, dir := shell(t, `trap "" TERM; sleep 1000 & echo $! >$1/near; setsid sh -c 'echo $$ >'$1'/far; exec sleep 1000' & until test -s $1/far; do sleep 0.01; done; echo waiting; wait`)
	grouped := makeGroup("try")
	grouped.remove()
	ctx, cancel := context.WithCancelCause(t.Context())
	watched := make(chan struct{})
	go func() { // a timeout that comes when all is there, however busy the machine is
		defer close(watched)
		for !t.Failed() {
			if b, _ := os.ReadFile(filepath.Join(dir, "far")); strings.HasSuffix(string(b), "\n") {
				break
			}
			<-time.After(time.Millisecond)
		}
		cancel(ErrTooSlow)
	}()
	_, err := Run(ctx, c)
	<-watched
	if err == nil {
		t.Error("it ended well")
	}
	near, far := pidIn(t, filepath.Join(dir, "near")), pidIn(t, filepath.Join(dir, "far"))
	eventually(t, "the end of its child", func() bool { return !alive(near) })
	if grouped == nil {
		if p, err := os.FindProcess(far); err == nil {
			_ = p.Kill()
		}
		t.Skip("needs a cgroup v2 in which groups can be made")
	}
	eventually(t, "the end of the child that had left", func() bool { return !alive(far) })
	if l := left(t); len(l) > 0 {
		t.Errorf("left behind: %v", l)
	}
}

// TestSweep ends what a process that was killed has left of its commands, and
// nothing of others.
func TestSweep(t *testing.T) {
	mine, other := makeGroup("swept"), makeGroup("kept")
	if mine == nil {
		t.Skip("needs a cgroup v2 in which groups can be made")
	}
	defer other.remove()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	mine.take(cmd.SysProcAttr)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	mine.fd.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	Sweep("swept")
	if err := <-ended; err == nil {
		t.Error("it ended well")
	}
	if _, err := os.Stat(other.dir); err != nil {
		t.Errorf("the group of another: %v", err)
	}
}

func TestTooSlow(t *testing.T) {
	c, _ := shell(t, "exec sleep 1000")
	c.Timeout = 50 * time.Millisecond
	if out, err := Run(t.Context(), c); !errors.Is(err, ErrTooSlow) || len(out) > 0 {
		t.Errorf("%q, %v", out, err)
	}
}

// TestOutput: a strict command is killed, of another the end is kept.
func TestOutput(t *testing.T) {
	c, _ := shell(t, "exec yes")
	c.Output, c.Strict = 100, true
	if out, err := Run(t.Context(), c); !errors.Is(err, ErrTooMuch) || len(out) != 100 {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	c, _ = shell(t, "i=0; while test $i -lt 1000; do echo line $i; i=$((i+1)); done")
	c.Output = 18
	if out, err := Run(t.Context(), c); err != nil || string(out) != "line 998\nline 999\n" {
		t.Errorf("%q, %v", out, err)
	}
}
