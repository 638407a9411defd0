package consensus

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/consensustest"
	"golang.org/x/sys/unix"
)

func TestDiskGuard(t *testing.T) {
	dir := t.TempDir()
	free := int64(1 << 30)
	g := newDiskGuard(dir, 100<<20, 1<<20)
	g.free = func(string) (int64, error) { return free, nil }
	reserve := func() int64 {
		st, err := os.Stat(filepath.Join(dir, reserveName))
		if err != nil {
			return 0
		}
		return st.Sys().(*syscall.Stat_t).Blocks * 512
	}
	look := func(now int64) {
		t.Helper()
		free = now
		if err := g.check(); err != nil {
			t.Fatal(err)
		}
	}
	look(1 << 30)
	if g.low.Load() || reserve() < 1<<20 {
		t.Errorf("low %v with a free disk, reserve of %d bytes", g.low.Load(), reserve())
	}
	look(99 << 20)
	if !g.low.Load() {
		t.Error("not low below the mark")
	}
	look(110 << 20)
	if !g.low.Load() {
		t.Error("it flaps just above the mark")
	}
	g.release()
	look(101 << 20)
	if reserve() != 0 {
		t.Error("the reserve was filled on a disk that is nearly full")
	}
	look(1 << 30)
	if g.low.Load() || reserve() < 1<<20 {
		t.Error("it does not recover")
	}
	g.free = func(string) (int64, error) { return 0, unix.EIO }
	if err := g.check(); !errors.Is(err, unix.EIO) {
		t.Errorf("a disk that cannot be asked: %v", err)
	}
}

// A really full file system: the server ends, frees its reserve, and starts
// again on what that gave.
func TestFullFileSystem(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("no tmpfs here: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	open := func() *Node {
		n, err := New(Config{Dir: filepath.Join(dir, "c"), Addr: "h1:1", Transport: consensustest.NewNetwork().Transport("h1:1"), LowSpace: 1 << 20, Reserve: 4 << 20})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	n := open()
	if err := n.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- n.Run(t.Context()) }()
	eventually(t, 10*time.Second, "it leads", func() bool { return n.Barrier(t.Context()) == nil })
	mustPut(t, n, "k", "v")
	fill(t, filepath.Join(dir, "ballast"))
	value := strings.Repeat("x", 120)
	var err error
	eventually(t, 60*time.Second, "the disk is full, and it ends", func() bool {
		for range 200 {
			_ = put(t.Context(), n, "big", value) // fails at some point: that is the point
		}
		select {
		case err = <-done:
			return true
		default:
			return false
		}
	})
	if !errors.Is(err, ErrStore) || !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("run said %v", err)
	}
	// No operator, no freed ballast: the reserve is enough to go on for a while.
	n = open()
	stop := run(t, n)
	eventually(t, 10*time.Second, "it leads again", func() bool { return n.Barrier(t.Context()) == nil })
	if get(n, "k") != "v" {
		t.Error("what was acknowledged is gone")
	}
	mustPut(t, n, "k", "w")
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// fill leaves no room in the file system of path.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 4096; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}
