//go:build linux

package process

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/bootclock"
	"github.com/ganglion-mesh/ganglion/workload/keeper"
	"github.com/ganglion-mesh/ganglion/workload/program"
	"github.com/ganglion-mesh/ganglion/workload/workloadtest"
)

const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "keeper" {
		if err := keeper.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if role := os.Getenv(roleVar); role != "" {
		os.Exit(play(role))
	}
	goleak.VerifyTestMain(m)
}

// dataDir is a directory that the users of copies may pass through, which those
// of t.TempDir are not.
func dataDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ganglion-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// ownKeeper has this test binary be the keeper.
func ownKeeper(t testing.TB) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{exe, "keeper"}
}

func open(t testing.TB, cfg Config) *Driver {
	t.Helper()
	if cfg.Host == "" {
		cfg.Host = "h1"
	}
	if cfg.Keeper == nil {
		cfg.Keeper = ownKeeper(t)
	}
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// fresh opens a driver whose copies, whoever started them, end with the test.
func fresh(t testing.TB, cfg Config) *Driver {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = dataDir(t)
	}
	t.Cleanup(func() { endAll(t, cfg) })
	return open(t, cfg)
}

// endAll ends what carries a mark of a directory, as one would by hand.
func endAll(t testing.TB, cfg Config) {
	d := open(t, cfg)
	defer d.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	hs, err := d.Adopt(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, h := range hs {
		if err := h.Stop(ctx, syscall.SIGKILL, 0); err != nil {
			t.Error(err)
		}
		if err := d.Purge(ctx, h.Instance().Spec.ID); err != nil {
			t.Error(err)
		}
	}
	if d.cg.v2 != "" {
		dirs, _ := filepath.Glob(filepath.Join(d.cg.v2, "*.*"))
		for _, dir := range dirs {
			if g, err := program.OpenCgroup(dir); err == nil {
				_ = (&group{cg: g}).end(ctx)
				g.Remove()
			}
		}
	}
	left, _ := findMarked(d.tag + "-")
	var marks []string
	for _, m := range left {
		marks = append(marks, m.nonce)
	}
	_ = endRemnants(ctx, d.tag, marks)
}

// modes runs a test with cgroups, where there are any, and without.
func modes(t *testing.T, f func(t *testing.T, cfg Config)) {
	t.Run("cgroup", func(t *testing.T) {
		d := fresh(t, Config{})
		if d.cg.v2 == "" {
			t.Skip("needs a cgroup v2 in which groups can be made")
		}
		f(t, Config{Dir: d.cfg.Dir + "/data"})
	})
	t.Run("search", func(t *testing.T) { f(t, Config{Dir: dataDir(t), NoCgroups: true}) })
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func TestConforms(t *testing.T) {
	modes(t, func(t *testing.T, cfg Config) {
		n := 0
		var mu sync.Mutex
		workloadtest.Run(t, workloadtest.Harness{
			Host: "h1",
			New: func(t *testing.T) workload.Driver {
				mu.Lock()
				defer mu.Unlock()
				n++
				cfg := cfg
				cfg.Dir = filepath.Join(cfg.Dir, string(rune('a'+n)))
				return fresh(t, cfg)
			},
			Restart: func(t *testing.T, old workload.Driver) workload.Driver {
				d := old.(*Driver)
				d.Close()
				return open(t, d.cfg)
			},
			Programs: workloadtest.ShellPrograms(),
			Now:      bootclock.Now,
			Runs: func(in workload.Instance) bool {
				st, err := program.ReadStat(in.Pid)
				return err == nil && st.Running() && st.Start == in.StartTime
			},
			Extra: func(name string) bool { return name == NonceVar },
		})
	})
}

func ctxOf(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func shell(n int, script string) workload.Spec {
	return workload.Spec{ID: workload.CopyID{App: "web", N: n}, Version: "v", Command: []string{"/bin/sh", "-c", script}}
}

func start(t testing.TB, d *Driver, s workload.Spec, n int) *handle {
	t.Helper()
	h, err := d.Start(ctxOf(t), s, n)
	if err != nil {
		t.Fatal(err)
	}
	return h.(*handle)
}

func stop(t testing.TB, h workload.Handle, grace time.Duration) {
	t.Helper()
	if err := h.Stop(ctxOf(t), syscall.SIGTERM, grace); err != nil {
		t.Fatal(err)
	}
}

func exitFrom(t testing.TB, h workload.Handle) workload.Exit {
	t.Helper()
	select {
	case e, ok := <-h.Exited():
		if !ok {
			t.Fatal("no exit")
		}
		return e
	case <-ctxOf(t).Done():
		t.Fatal("no exit in time")
	}
	return workload.Exit{}
}

// until polls a condition.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	ctx := ctxOf(t)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// printed waits until a copy has printed something that ends in a newline.
func printed(t testing.TB, d *Driver, id workload.CopyID) string {
	t.Helper()
	path, _ := d.out.Paths(id)
	var b []byte
	until(t, "output of "+id.String(), func() bool {
		b, _ = os.ReadFile(path)
		return strings.HasSuffix(string(b), "\n")
	})
	return strings.TrimSuffix(string(b), "\n")
}

func alive(pid int) bool {
	st, err := program.ReadStat(pid)
	return err == nil && st.Running()
}
