//go:build linux

package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// marks returns the running processes that carry a mark of the driver.
func marks(t testing.TB, d *Driver) (pids []int) {
	t.Helper()
	found, err := findMarked(d.tag + "-")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range found {
		if alive(m.pid) {
			pids = append(pids, m.pid)
		}
	}
	return pids
}

// twiceForked is a daemon: two forks and a session of its own.
const twiceForked = `setsid sh -c "setsid sleep 1000 & exec sleep 1001" & `

func TestDaemonIsStoppedWhole(t *testing.T) {
	modes(t, func(t *testing.T, cfg Config) {
		d := fresh(t, cfg)
		for _, grace := range []time.Duration{0, 200 * time.Millisecond} {
			h := start(t, d, shell(1, twiceForked+"wait; sleep 1002"), 1)
			until(t, "the daemon", func() bool { return len(marks(t, d)) == 3 })
			stop(t, h, grace)
			if left := marks(t, d); len(left) != 0 {
				t.Errorf("grace %v: processes %v are left", grace, left)
			}
		}
	})
}

// What a copy leaves when it ends by itself does not live on beside the next.
func TestDaemonOfDeadCopyEnds(t *testing.T) {
	modes(t, func(t *testing.T, cfg Config) {
		d := fresh(t, cfg)
		h := start(t, d, shell(1, twiceForked+"sleep 0.1; exit 7"), 1)
		if e := exitFrom(t, h); e.Code != 7 {
			t.Errorf("exit %+v", e)
		}
		next := start(t, d, shell(1, "exec sleep 1000"), 2)
		until(t, "the daemon's end", func() bool { return len(marks(t, d)) == 1 })
		if !alive(next.inst.Pid) {
			t.Error("the next copy was ended")
		}
		stop(t, next, 0)
	})
}

// A daemon that wipes its environment is held by a cgroup; without one it is
// found by its session.
func TestBareDaemon(t *testing.T) {
	modes(t, func(t *testing.T, cfg Config) {
		d := fresh(t, cfg)
		h := start(t, d, shell(1, `env -i sleep 1000 & echo $!; wait`), 1)
		pid, _ := strconv.Atoi(printed(t, d, h.inst.Spec.ID))
		stop(t, h, 0)
		if alive(pid) {
			t.Error("it is left")
		}
	})
}

func TestForkBomb(t *testing.T) {
	modes(t, func(t *testing.T, cfg Config) {
		d := fresh(t, cfg)
		h := start(t, d, shell(1, `trap "" TERM; while :; do setsid sleep 100 & sleep 0.005; done`), 1)
		until(t, "the bomb", func() bool { return len(marks(t, d)) > 20 })
		stop(t, h, 50*time.Millisecond)
		if left := marks(t, d); len(left) != 0 {
			t.Errorf("%d processes are left", len(left))
		}
	})
}

// A child that needs its grace gets it, though the first process is gone at once.
func TestGraceIsTheGroups(t *testing.T) {
	modes(t, func(t *testing.T, cfg Config) {
		d := fresh(t, cfg)
		h := start(t, d, shell(1, `sh -c 'trap "sleep 0.3; echo clean; exit" TERM; echo up; while :; do sleep 0.01; done' & wait`), 1)
		printed(t, d, h.inst.Spec.ID)
		stop(t, h, patience)
		if out := printed(t, d, h.inst.Spec.ID); out != "up\nclean" {
			t.Errorf("it printed %q", out)
		}
	})
}

func TestSuspendedCopyHeedsTheSignal(t *testing.T) {
	d := fresh(t, Config{})
	h := start(t, d, shell(1, "exec sleep 1000"), 1)
	if err := h.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stop(t, h, patience)
	if e := exitFrom(t, h); e.Signal != syscall.SIGTERM {
		t.Errorf("exit %+v", e)
	}
}

func TestQuickRestarts(t *testing.T) {
	modes(t, func(t *testing.T, cfg Config) {
		d := fresh(t, cfg)
		s := shell(1, "exit 1")
		fds := 0
		for n := 1; n <= 100; n++ {
			h := start(t, d, s, n)
			if e := exitFrom(t, h); e.Code != 1 || !e.Known {
				t.Fatalf("exit %+v of start %d", e, n)
			}
			<-h.ended
			if n == 10 {
				fds = countFds(t)
			}
		}
		if now := countFds(t); now > fds+8 { // sweeps come and go
			t.Errorf("%d descriptors after 10 starts, %d after 100", fds, now)
		}
	})
}

func countFds(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// The copy turns what it owns into links to what it does not. Nothing outside is
// made, given away or removed.
func TestLinksLeadNowhere(t *testing.T) {
	d := fresh(t, Config{})
	victim := filepath.Join(dataDir(t), "victim")
	if err := os.MkdirAll(filepath.Join(victim, "inner"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := shell(1, fmt.Sprintf(`rm -rf "$STATE_DIR"; ln -s %[1]s "$STATE_DIR"; ln -s %[1]s dir; ln -s %[1]s/inner x; echo ok; exec sleep 1000`, victim))
	h := start(t, d, s, 1)
	printed(t, d, s.ID)
	stop(t, h, 0)
	before, _ := os.Stat(victim)
	s.Version = "v2"
	if _, err := d.Start(ctxOf(t), s, 1); err == nil {
		t.Error("started with a state directory that is a link")
	}
	after, err := os.Stat(victim)
	if err != nil || after.Sys().(*syscall.Stat_t).Uid != before.Sys().(*syscall.Stat_t).Uid || after.Mode() != before.Mode() {
		t.Errorf("the victim was changed: %v, %v", after, err)
	}
	if err := d.Purge(ctxOf(t), s.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(victim, "inner")); err != nil {
		t.Errorf("the victim was emptied: %v", err)
	}
	if _, err := os.Lstat(d.copyDir(s.ID)); err == nil {
		t.Error("the copy's directory is left")
	}
	stop(t, start(t, d, shell(1, "exec sleep 1000"), 1), 0)
}

// As if somebody had got into the directory of outputs after all.
func TestLinkForOutput(t *testing.T) {
	d := fresh(t, Config{})
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := shell(1, "echo overwritten")
	path, _ := d.out.Paths(s.ID)
	for _, plant := range []func() error{
		func() error { return os.Symlink(victim, path) },
		func() error { return syscall.Mkfifo(path, 0o600) },
		func() error { return os.Mkdir(path, 0o700) },
	} {
		_ = os.MkdirAll(filepath.Dir(path), 0o700)
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Start(ctxOf(t), s, 1); err == nil {
			t.Error("started with a planted output")
		}
		if b, _ := os.ReadFile(victim); string(b) != "precious" {
			t.Errorf("the victim holds %q", b)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
}

// A directory that its owner has closed goes all the same.
func TestPurgeOfClosedDirectory(t *testing.T) {
	d := fresh(t, Config{})
	s := shell(1, `mkdir -p a/b; : >a/b/c; chmod 0 a/b a; echo ok; exec sleep 1000`)
	h := start(t, d, s, 1)
	printed(t, d, s.ID)
	stop(t, h, 0)
	if err := d.Purge(ctxOf(t), s.ID); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{d.copyDir(s.ID), filepath.Dir(d.copyDir(s.ID)), d.recordDir(s.ID)} {
		if _, err := os.Lstat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
	if d.cg.v2 != "" {
		if _, err := os.Lstat(filepath.Join(d.cg.v2, "web.1")); err == nil {
			t.Error("the cgroup is left")
		}
	}
}

func TestChecksAreKilledWhole(t *testing.T) {
	d := fresh(t, Config{})
	s := shell(1, "exec sleep 1000")
	h := start(t, d, s, 1)
	defer stop(t, h, 0)
	out, err := d.Exec(ctxOf(t), s, []string{"/bin/sh", "-c", twiceForked + "sleep 0.1; echo out; exit 3"})
	if err == nil || strings.TrimSpace(string(out)) != "out" {
		t.Errorf("output %q, error %v", out, err)
	}
	if d.cg.v2 != "" {
		if left := marks(t, d); len(left) != 1 {
			t.Errorf("processes %v are left, want the copy %d", left, h.inst.Pid)
		}
		if dirs, _ := filepath.Glob(filepath.Join(d.cg.v2, "*.check*")); len(dirs) != 0 {
			t.Errorf("groups %v are left", dirs)
		}
	}
}

func TestClosedDriver(t *testing.T) {
	d := fresh(t, Config{})
	s := shell(1, "exec sleep 1000")
	h := start(t, d, s, 1)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if e, ok := <-h.Exited(); ok {
		t.Errorf("closing told of an exit: %+v", e)
	}
	if !alive(h.inst.Pid) {
		t.Error("closing ended the copy")
	}
	if err := h.Stop(ctxOf(t), syscall.SIGTERM, 0); err == nil {
		t.Error("a closed driver claims to have stopped a copy")
	}
	if _, err := d.Start(ctxOf(t), s, 2); err == nil {
		t.Error("a closed driver starts")
	}
	if _, err := d.Exec(ctxOf(t), s, []string{"true"}); err == nil {
		t.Error("a closed driver checks")
	}
	if err := d.Purge(ctxOf(t), workload.CopyID{App: "web", N: 1}); err == nil {
		t.Error("a closed driver purges")
	}
}
