//go:build linux

package nspawn

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHost boots a host, looks around and leaves nothing behind.
func TestHost(t *testing.T) {
	var h *Host
	machine, _ := os.ReadFile("/etc/machine-id")
	hostID := strings.TrimSpace(string(machine))
	t.Run("up", func(t *testing.T) {
		begin := time.Now()
		h = Boot(t, Options{})
		t.Logf("booted in %v", time.Since(begin).Round(time.Millisecond))
		if got := strings.TrimSpace(h.MustRun(t, "cat", "/proc/1/comm")); got != "systemd" {
			t.Errorf("PID 1 is %q, want systemd", got)
		}
		if got := strings.TrimSpace(h.MustRun(t, "hostname")); got != h.Name {
			t.Errorf("hostname %q, want %q", got, h.Name)
		}
		if got := strings.TrimSpace(h.MustRun(t, "sh", "-c", "cat /proc/sys/kernel/hostname; pwd -P")); got != h.Name+"\n/" {
			t.Errorf("commands run at %q, want %q", got, h.Name+"\n/")
		}
		if got := strings.TrimSpace(h.MustRun(t, "cat", "/etc/machine-id")); len(got) != 32 || got == hostID {
			t.Errorf("machine id %q: not its own", got)
		}
		if links := strings.Count(h.MustRun(t, "ip", "-o", "link"), "\n"); links != 1 {
			t.Errorf("%d network links, want loopback alone", links)
		}
		if _, err := h.Run(context.Background(), "sh", "-c", "echo why >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "why") {
			t.Errorf("a failing command: %v, want its error output", err)
		}
		src := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(src, []byte("hello"), 0o600); err != nil {
			t.Fatal(err)
		}
		h.CopyIn(t, src, "/tmp/in/f", 0o755)
		if got := h.MustRun(t, "sh", "-c", "cat /tmp/in/f; test -x /tmp/in/f"); got != "hello" {
			t.Errorf("copied %q", got)
		}
		if _, err := os.Stat(filepath.Join(cacheDir(), imageName, "tmp/in")); err == nil {
			t.Error("the image was written to")
		}
	})
	if h == nil {
		return // skipped
	}
	if alive(h.leader) {
		t.Error("its PID 1 is still there")
	}
	for _, path := range []string{h.dir, h.group, "/run/netns/" + h.Netns} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there", path)
		}
	}
}

// TestCrash ends a host without asking it.
func TestCrash(t *testing.T) {
	h := Boot(t, Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := h.Crash(ctx); err != nil {
		t.Fatal(err)
	}
	if alive(h.leader) {
		t.Error("its PID 1 is still there")
	}
}

// TestTwoHosts boots two hosts at once: neither may see the other's units or
// processes.
func TestTwoHosts(t *testing.T) {
	a, b := Boot(t, Options{}), Boot(t, Options{})
	for _, h := range []*Host{a, b} {
		h.MustRun(t, "systemd-run", "--quiet", "--unit=same", "sleep", "1000")
	}
	group := "/sys/fs/cgroup/system.slice/same.service/cgroup.procs"
	for _, h := range []*Host{a, b} {
		want := h.MustRun(t, "systemctl", "show", "-p", "MainPID", "--value", "same")
		if got := h.MustRun(t, "cat", group); got != want {
			t.Errorf("%s: the unit's group holds %q, want %q", h.Name, got, want)
		}
	}
	a.MustRun(t, "sh", "-c", "echo 1 >/sys/fs/cgroup/system.slice/same.service/cgroup.kill")
	if got := strings.TrimSpace(b.MustRun(t, "systemctl", "is-active", "same")); got != "active" {
		t.Errorf("a kill on one host left the other's unit %s", got)
	}
}

// TestSweep removes what a test process that is gone has left.
func TestSweep(t *testing.T) {
	t.Setenv("GANGLION_TEST_CACHE", t.TempDir())
	dead := filepath.Join(runDir(), "999999999-gt999999999-1")
	ours := filepath.Join(runDir(), "1-other")
	for _, dir := range []string{dead, ours} {
		if err := os.MkdirAll(filepath.Join(dir, "root"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sweep(t)
	if _, err := os.Stat(dead); err == nil {
		t.Error("the dead process's disk is still there")
	}
	if _, err := os.Stat(ours); err != nil {
		t.Error("a living process's disk was removed")
	}
}
