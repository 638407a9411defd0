//go:build linux

package nspawn

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Options of a host.
type Options struct {
	// Name is the host's name; default: one of its own.
	Name string
	// Netns is a network namespace (of `ip netns`) made by the caller, for hosts
	// that shall reach each other. Default: one of its own, with only loopback.
	Netns string
	// Quotas gives its systemd a cpu controller that works, where this machine has that
	// of version 1: its control groups are then of version 1. Else they are of version
	// 2, and have the controllers that this machine's version 2 gives them, maybe none.
	Quotas bool
}

// Host is a booted host. Its methods may be called from any goroutine.
type Host struct {
	Name  string
	Netns string // its network namespace, of `ip netns`

	dir      string   // holds the overlay
	root     string   // its root directory, as mounted here
	group    string   // its control group
	v1       []string // those of version 1 that it has beside that
	ownNetns bool
	nspawn   *exec.Cmd
	console  *os.File
	ended    chan error // the end of systemd-nspawn
	leader   int        // its PID 1, as seen from here
}

// bootTime bounds a boot and a power-off. It is generous: tests share two cores.
const bootTime = 60 * time.Second

// serial tells the hosts of one test process apart.
var serial atomic.Int64

// skip skips a test by name, or fails it where all tests are required to run: in
// CI, which sets GANGLION_TEST_REQUIRE=all.
func skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("GANGLION_TEST_REQUIRE") == "all" {
		t.Fatalf("GANGLION_TEST_REQUIRE=all, but this test cannot run: it %s", why)
	}
	t.Skip(why)
}

// Boot starts a host and returns when its systemd has started everything. The
// test is skipped by name where hosts cannot be booted, unless
// GANGLION_TEST_REQUIRE is all: then it fails.
func Boot(t testing.TB, opt Options) *Host {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	image, err := Image(ctx)
	if why, ok := errors.AsType[*Unavailable](err); ok {
		skip(t, "needs hosts with systemd: "+why.Why)
	}
	if err != nil {
		t.Fatal(err)
	}
	sweep(t)
	h := &Host{Name: opt.Name, Netns: opt.Netns}
	if opt.Quotas {
		h.v1 = v1Groups()
	}
	if h.Name == "" {
		h.Name = fmt.Sprintf("gt%d-%d", os.Getpid(), serial.Add(1))
	}
	t.Cleanup(func() { h.remove(t) })
	if err := h.boot(image); err != nil {
		t.Fatalf("boot %s: %v\n%s", h.Name, err, h.Console())
	}
	return h
}

func (h *Host) boot(image string) error {
	if err := h.mount(image); err != nil {
		return err
	}
	if h.Netns == "" {
		h.Netns = h.Name
		h.ownNetns = true
		for _, args := range [][]string{{"netns", "add", h.Netns}, {"-n", h.Netns, "link", "set", "lo", "up"}} {
			if err := command("ip", args...); err != nil {
				return err
			}
		}
	}
	if err := h.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), bootTime)
	defer cancel()
	if err := h.poll(ctx, h.findLeader); err != nil {
		return fmt.Errorf("find its PID 1: %w", err)
	}
	if err := h.poll(ctx, func() (bool, error) {
		// degraded: some unit of the image does not like containers
		out, _ := h.Run(ctx, "systemctl", "is-system-running")
		state := strings.TrimSpace(string(out))
		return state == "running" || state == "degraded", nil
	}); err != nil {
		return err
	}
	ctx, cancel = context.WithTimeout(context.Background(), bootTime)
	defer cancel()
	return h.giveQuotas(ctx)
}

// mount lays a disk of its own over the image.
func (h *Host) mount(image string) error {
	h.dir = filepath.Join(runDir(), fmt.Sprintf("%d-%s", os.Getpid(), h.Name))
	h.root = filepath.Join(h.dir, "root")
	for _, sub := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(h.dir, sub), 0o755); err != nil {
			return err
		}
	}
	opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", image, filepath.Join(h.dir, "upper"), filepath.Join(h.dir, "work"))
	if err := syscall.Mount("overlay", h.root, "overlay", 0, opts); err == nil {
		return nil
	}
	// No overlay here (the cache may itself be on one): a whole copy does too.
	return command("cp", "-a", "--reflink=auto", image+"/.", h.root)
}

// start runs systemd-nspawn. It ends with this process, however that ends.
func (h *Host) start() (err error) {
	if h.console, err = os.Create(filepath.Join(h.dir, "console")); err != nil {
		return err
	}
	argv := append(h.enterV1(), "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--kill-signal=SIGRTMIN+3",
		"--machine="+h.Name, "--hostname="+h.Name, "--uuid="+machineID(), "-D", h.root,
		"--network-namespace-path=/run/netns/"+h.Netns, "--console=pipe", "-b")
	h.nspawn = exec.Command(argv[0], argv[1:]...)
	h.nspawn.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY="+strconv.FormatBool(len(h.v1) == 0))
	h.nspawn.Stdout, h.nspawn.Stderr = h.console, h.console
	group, err := h.makeGroup()
	if err != nil {
		return err
	}
	defer group.Close()
	// A process group of its own: ^C in a terminal is for the test, which powers off.
	h.nspawn.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true, UseCgroupFD: true, CgroupFD: int(group.Fd())}
	h.ended = make(chan error, 1)
	started := make(chan error)
	go func() {
		// The death signal is tied to the thread that forks: keep it for as long
		// as the host runs.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := h.nspawn.Start()
		started <- err
		if err == nil {
			h.ended <- h.nspawn.Wait()
		}
	}()
	return <-started
}

// machineID is one that no other host has.
func machineID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// findLeader looks for the process below systemd-nspawn that is number 1 in a
// namespace of its own.
func (h *Host) findLeader() (bool, error) {
	children, err := descendants(h.nspawn.Process.Pid)
	for _, pid := range children {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); len(f) > 2 && f[0] == "NSpid:" && f[len(f)-1] == "1" {
				h.leader = pid
				return true, nil
			}
		}
	}
	return false, err
}

func descendants(pid int) ([]int, error) {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var all []int
	for _, list := range lists {
		b, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(b)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				continue
			}
			below, _ := descendants(child)
			all = append(append(all, child), below...)
		}
	}
	return all, err
}

// poll repeats try until it is done, fails, the host ends or ctx does.
func (h *Host) poll(ctx context.Context, try func() (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if done, err := try(); done || err != nil {
			return err
		}
		select {
		case err := <-h.ended:
			h.ended <- err
			return errors.Join(errors.New("the host ended"), err)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Command prepares a command that runs inside the host, as its root, with a
// plain environment. It is killed when ctx ends.
func (h *Host) Command(ctx context.Context, argv ...string) *exec.Cmd {
	if h.leader <= 1 {
		panic("nspawn: the host has no PID 1; refusing to enter the machine's own") // or a poweroff would be ours
	}
	// --wd alone is the working directory of its PID 1: its root. (A path would be
	// one of this machine's, which is nowhere for a command on the host.)
	args := append([]string{"-t", strconv.Itoa(h.leader), "-m", "-p", "-u", "-i", "-n", "-C", "--wd", "--"}, argv...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb"}
	return cmd
}

// Run runs a command inside the host and returns its standard output; its error
// output is in the error.
func (h *Host) Run(ctx context.Context, argv ...string) ([]byte, error) {
	out, err := h.Command(ctx, argv...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out, fmt.Errorf("run %v on %s: %w: %s", argv, h.Name, err, strings.TrimSpace(string(exit.Stderr)))
	}
	return out, err
}

// MustRun is Run that ends the test on an error.
func (h *Host) MustRun(t testing.TB, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bootTime)
	defer cancel()
	out, err := h.Run(ctx, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// Path returns where a path of the host is found from outside, also below its
// own mounts (/run, /tmp).
func (h *Host) Path(inside string) string {
	return fmt.Sprintf("/proc/%d/root%s", h.leader, filepath.Clean("/"+inside))
}

// CopyIn copies a file of this machine into the host.
func (h *Host) CopyIn(t testing.TB, from, inside string, mode os.FileMode) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	to := h.Path(inside)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(dst, src)
	if err := errors.Join(err, dst.Chmod(mode), dst.Close()); err != nil {
		t.Fatal(err)
	}
}

// Leader is the host's PID 1, as numbered on this machine.
func (h *Host) Leader() int { return h.leader }

// Console returns what the host has printed.
func (h *Host) Console() string {
	b, _ := os.ReadFile(filepath.Join(h.dir, "console"))
	return string(b)
}

// PowerOff shuts the host down in order and waits for it.
func (h *Host) PowerOff(ctx context.Context) error {
	// systemd-nspawn passes this on as "power off" once its PID 1 is up.
	if err := h.nspawn.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return h.wait(ctx)
}

// Crash ends the host as a power failure would.
func (h *Host) Crash(ctx context.Context) error {
	if h.leader > 1 {
		_ = syscall.Kill(h.leader, syscall.SIGKILL) // takes its whole pid namespace along; systemd-nspawn ends by that
	} else {
		_ = h.nspawn.Process.Kill()
	}
	return h.wait(ctx)
}

func (h *Host) wait(ctx context.Context) error {
	select {
	case err := <-h.ended:
		h.ended <- err // for whoever waits next
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s is still up: %w", h.Name, ctx.Err())
	}
}

// remove ends the host if it still runs, and leaves nothing of it.
func (h *Host) remove(t testing.TB) {
	t.Helper()
	if h.nspawn != nil && h.nspawn.Process != nil {
		ctx, cancel := context.WithTimeout(context.Background(), bootTime/2)
		defer cancel()
		if err := h.PowerOff(ctx); err != nil {
			t.Logf("power off: %v; ending it hard", err)
			hard, cancel := context.WithTimeout(context.Background(), bootTime/2)
			defer cancel()
			if err := h.Crash(hard); err != nil {
				t.Errorf("remove host: %v", err)
			}
		}
	}
	if h.console != nil {
		h.console.Close()
	}
	if h.group != "" {
		if err := removeGroups(append(h.groupsV1(), h.group)); err != nil {
			t.Errorf("remove host: %v", err)
		}
	}
	if h.ownNetns {
		if err := command("ip", "netns", "del", h.Netns); err != nil {
			t.Errorf("remove host: %v", err)
		}
	}
	if h.dir != "" {
		if err := removeDisk(h.dir); err != nil {
			t.Errorf("remove host: %v", err)
		}
	}
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, lastLine(out))
	}
	return nil
}
