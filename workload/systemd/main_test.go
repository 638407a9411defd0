//go:build linux

package systemd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/keeper"
)

const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == keeper.Command {
		if err := keeper.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(roleVar) == "stamp" {
		os.Exit(stamp())
	}
	goleak.VerifyTestMain(m)
}

// needSystemd skips where PID 1 is not systemd. Package integration/nspawn runs
// these tests on a booted host.
func needSystemd(t testing.TB) {
	t.Helper()
	if err := Available(); err != nil {
		t.Skipf("needs systemd as PID 1: %v", err)
	}
}

// dataDir is a data_dir below /var/lib, where it belongs.
func dataDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(varLib, "ganglion-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = os.RemoveAll(dir)
		_ = os.RemoveAll(filepath.Join(varLib, "private", filepath.Base(dir)))
	})
	return dir
}

func open(t testing.TB, dir string) *Driver {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(Config{Dir: dir, Host: "h1", Keeper: []string{exe, keeper.Command}, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// fresh opens a driver whose copies, whoever started them, end with the test.
func fresh(t testing.TB, dir string) *Driver {
	t.Helper()
	t.Cleanup(func() { endAll(t, dir) })
	return open(t, dir)
}

// endAll ends all units of a directory, as one would by hand.
func endAll(t testing.TB, dir string) {
	pattern := unitPrefix + "*-" + tagOf(dir) + "*" + unitSuffix
	_ = exec.Command("systemctl", "kill", "--signal=KILL", pattern).Run()
	if out, err := exec.Command("systemctl", "stop", pattern).CombinedOutput(); err != nil {
		t.Logf("stop units: %v: %s", err, out)
	}
}

func ctxFor(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

func specOf(app string, n int, command []string) workload.Spec {
	return workload.Spec{ID: workload.CopyID{App: app, N: n}, Version: "0123456789ab", Generation: 1, Command: command}
}

func start(t testing.TB, d *Driver, s workload.Spec, n int) workload.Handle {
	t.Helper()
	h, err := d.Start(ctxFor(t), s, n)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// nextExit waits for an exit; ok is false at the channel's end.
func nextExit(t testing.TB, h workload.Handle) (workload.Exit, bool) {
	t.Helper()
	select {
	case e, ok := <-h.Exited():
		return e, ok
	case <-time.After(patience):
		t.Fatal("no exit")
		return workload.Exit{}, false
	}
}

func eventually(t testing.TB, what string, cond func() bool) {
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

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func property1(t testing.TB, unit, name string) string {
	t.Helper()
	out, err := exec.Command("systemctl", "show", "--value", "-p", name, unit).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
