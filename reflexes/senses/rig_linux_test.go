package senses

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses/procfs"
)

// patience bounds a wait for what comes within milliseconds on a machine that
// has nothing else to do.
const patience = 60 * time.Second

// skip skips a test by name: kernels and containers differ in what they allow.
func skip(t testing.TB, why string) {
	t.Helper()
	t.Skip("needs " + why)
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "root")
	}
}

func bootNow() reflexes.Boot {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

// ear hears what one sense tells.
type ear struct {
	t    testing.TB
	stop func()

	mu    sync.Mutex
	facts []reflexes.Fact
	when  []time.Time
	more  chan struct{} // closed when there is more
}

// listen runs a sense until the test ends. The sense may not fail.
func listen(t testing.TB, s Sense) *ear {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	e := &ear{t: t, more: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx, e.hear); err != nil {
			t.Errorf("%s: %v", s.Name(), err)
		}
	})
	e.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(e.stop)
	return e
}

func (e *ear) hear(facts []reflexes.Fact) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(facts) == 0 {
		return
	}
	for _, f := range facts {
		e.facts = append(e.facts, f)
		e.when = append(e.when, now)
	}
	close(e.more)
	e.more = make(chan struct{})
}

// wait returns the first fact from the from-th on that is as wanted, and its
// place.
func (e *ear) wait(what string, from int, want func(reflexes.Fact) bool) (reflexes.Fact, int) {
	e.t.Helper()
	late := time.After(patience)
	for {
		e.mu.Lock()
		for i := from; i < len(e.facts); i++ {
			if want(e.facts[i]) {
				defer e.mu.Unlock()
				return e.facts[i], i
			}
		}
		from = len(e.facts)
		more := e.more
		e.mu.Unlock()
		select {
		case <-more:
		case <-late:
			e.t.Fatalf("never told: %s; told last: %v", what, e.tail())
		}
	}
}

// waitFor waits for a value of a variable of a target.
func (e *ear) waitFor(id reflexes.VarID, name string, want func(reflexes.Value) bool) reflexes.Fact {
	e.t.Helper()
	f, _ := e.wait(fmt.Sprintf("%s of %q as wanted", id, name), 0, func(f reflexes.Fact) bool {
		return f.Var == id && f.Target.Name == name && want(f.Value)
	})
	return f
}

func (e *ear) tail() []reflexes.Fact {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.facts[max(0, len(e.facts)-20):])
}

// heard is how many facts were told so far.
func (e *ear) heard() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.facts)
}

func (e *ear) all() []reflexes.Fact {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.facts)
}

func is(v reflexes.Value) func(reflexes.Value) bool {
	return func(got reflexes.Value) bool { return got == v }
}

func known(v reflexes.Value) bool   { return v.Known() }
func unknown(v reflexes.Value) bool { return !v.Known() }

// start runs a program until the test ends.
func start(t testing.TB, argv ...string) *exec.Cmd {
	t.Helper()
	return startWith(t, nil, argv...)
}

// group makes a control group of version 1 with a controller, or of version 2 if
// it is "", below our own, and removes it when the test ends.
func group(t testing.TB, controller string) string {
	t.Helper()
	needRoot(t)
	f, err := newGroupFinder("/proc")
	if err != nil {
		t.Fatal(err)
	}
	own := f.self.V1(controller)
	if controller == "" {
		own = f.self.V2()
	}
	for _, h := range f.hierarchies {
		if controller == "" && !h.V2() || controller != "" && !slices.Contains(h.Controllers, controller) {
			continue
		}
		if base, ok := h.Dir(own); ok {
			return makeGroup(t, base)
		}
	}
	skip(t, fmt.Sprintf("a hierarchy of control groups with controller %q", controller))
	return ""
}

func makeGroup(t testing.TB, base string) string {
	t.Helper()
	dir := filepath.Join(base, fmt.Sprintf("senses-test-%d-%d", os.Getpid(), bootNow()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		skip(t, fmt.Sprintf("to make control groups: %v", err))
	}
	t.Cleanup(func() { removeGroup(t, dir) })
	return dir
}

// groupV2 makes a control group of version 2 that has controllers, where version
// 2 has them. It is "" on hosts of version 1.
func groupV2(t testing.TB, controllers ...string) string {
	t.Helper()
	needRoot(t)
	f, err := newGroupFinder("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range f.hierarchies {
		has, err := os.ReadFile(filepath.Join(h.Point, "cgroup.controllers"))
		if err != nil || !h.V2() {
			continue
		}
		for _, c := range controllers {
			if !slices.Contains(strings.Fields(string(has)), c) {
				return ""
			}
			// Below the topmost group alone may there be both groups and processes.
			if err := os.WriteFile(filepath.Join(h.Point, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
				skip(t, fmt.Sprintf("to give control groups the controller %s: %v", c, err))
			}
		}
		return makeGroup(t, h.Point)
	}
	return ""
}

// removeGroup removes a group once what was killed in it is gone.
func removeGroup(t testing.TB, dir string) {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Rmdir(dir)
		if err == nil || os.IsNotExist(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("remove %s: %v", dir, err)
			return
		}
		<-tick.C
	}
}

func put(t testing.TB, dir, file, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// join puts a process into a group.
func join(t testing.TB, dir string, pid int) {
	t.Helper()
	put(t, dir, "cgroup.procs", strconv.Itoa(pid))
}

// spinners keep all processors busy until the test ends.
func spinners(t testing.TB) []*exec.Cmd {
	t.Helper()
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	var all []*exec.Cmd
	for range countCPUs(b) + 1 {
		cmd := start(t, "/bin/sh", "-c", "while :; do :; done")
		_ = unix.Setpriority(unix.PRIO_PROCESS, cmd.Process.Pid, 19) // they shall wait, not others for them
		all = append(all, cmd)
	}
	return all
}

func copiesOf(list ...Copy) *Copies {
	c := NewCopies()
	c.Set(list)
	return c
}

func readField(t testing.TB, path, key string) uint64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n, ok := procfs.Field(b, key)
	if !ok {
		t.Fatalf("%s has no %s:\n%s", path, key, strings.TrimSpace(string(b)))
	}
	return n
}

// startWith is start with a standard input. The program ends with this process too,
// however that ends.
func startWith(t testing.TB, in *os.File, argv ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	if in != nil {
		cmd.Stdin = in
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started, over := make(chan error), make(chan struct{})
	var holder sync.WaitGroup
	holder.Go(func() {
		// The signal comes when the thread ends that forks: it is kept.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		started <- cmd.Start()
		<-over
	})
	t.Cleanup(func() { close(over); holder.Wait() })
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	return cmd
}
