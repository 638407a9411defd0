//go:build linux

package install

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/integration/nspawn"
)

// host is a booted host on which packages are installed.
type host struct {
	*nspawn.Host
	t    *testing.T
	addr string
}

// boot boots a host in a network namespace of its own with an address in it, and
// shows what its agent logged if the test fails.
func boot(t *testing.T, name, addr string) *host {
	t.Helper()
	ns := fmt.Sprintf("gt%d-%s", os.Getpid(), name)
	h := &host{t: t, addr: addr}
	// Asked before anything is made: whether there can be hosts at all.
	h.Host = nspawn.Boot(t, nspawn.Options{Name: ns})
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := h.try("journalctl", "--no-pager", "-n", "60", "-o", "short-precise", "-u", "ganglion.service", "-u", "ganglion-*")
			t.Logf("journal of %s (the end):\n%s", ns, out)
		}
	})
	return h
}

// wire joins two hosts by a cable.
func wire(t *testing.T, a, b *host) {
	t.Helper()
	for _, args := range [][]string{
		{"-n", a.Netns, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", b.Netns},
		{"-n", a.Netns, "addr", "add", a.addr + "/24", "dev", "eth0"},
		{"-n", b.Netns, "addr", "add", b.addr + "/24", "dev", "eth0"},
		{"-n", a.Netns, "link", "set", "eth0", "up"},
		{"-n", b.Netns, "link", "set", "eth0", "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", args, err, out)
		}
	}
}

// lonely gives a host an address that nobody else can reach.
func lonely(t *testing.T, h *host) {
	t.Helper()
	for _, args := range [][]string{
		{"-n", h.Netns, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"},
		{"-n", h.Netns, "addr", "add", h.addr + "/24", "dev", "eth0"},
		{"-n", h.Netns, "link", "set", "eth0", "up"},
		{"-n", h.Netns, "link", "set", "eth1", "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", args, err, out)
		}
	}
}

// try runs a command on the host.
func (h *host) try(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := h.Run(ctx, argv...)
	return strings.TrimSpace(string(out)), err
}

// must is try, of what may not fail.
func (h *host) must(argv ...string) string {
	h.t.Helper()
	out, err := h.try(argv...)
	if err != nil {
		h.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// write makes a file on the host.
func (h *host) write(path, text string, mode os.FileMode) {
	h.t.Helper()
	from := filepath.Join(h.t.TempDir(), "f")
	if err := os.WriteFile(from, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.CopyIn(h.t, from, path, mode)
}

// await polls until try succeeds, and returns how long that took.
func (h *host) await(within time.Duration, try func() error) time.Duration {
	h.t.Helper()
	begun := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return time.Since(begun)
		}
		if time.Since(begun) > within {
			h.t.Fatalf("%s: after %s: %v", h.Name, within, err)
		}
		<-tick.C
	}
}

// property reads one of a unit's properties.
func (h *host) property(unit, name string) string {
	h.t.Helper()
	return h.must("systemctl", "show", "--property="+name, "--value", unit)
}

// agent returns the agent's pid. The agent must be active: it has said that it
// is ready.
func (h *host) agent() int {
	h.t.Helper()
	if state := h.property("ganglion.service", "ActiveState"); state != "active" {
		h.t.Fatalf("%s: the agent is %s", h.Name, state)
	}
	pid, err := strconv.Atoi(h.property("ganglion.service", "MainPID"))
	if err != nil || pid <= 1 {
		h.t.Fatalf("%s: the agent's pid is %d (%v)", h.Name, pid, err)
	}
	return pid
}

// units maps the transient units of an app's copies to their pids, as PID 1
// tells them.
func (h *host) units(app string) map[string]int {
	h.t.Helper()
	pids := map[string]int{}
	for line := range strings.Lines(h.must("systemctl", "list-units", "--plain", "--no-legend", "--full", "ganglion-"+app+"-*")) {
		unit := strings.Fields(line)[0]
		pids[unit], _ = strconv.Atoi(h.property(unit, "MainPID"))
	}
	return pids
}

// same checks that nothing happened to copies meanwhile.
func (h *host) same(before map[string]int, what string) {
	h.t.Helper()
	if now := h.units("web"); !maps.Equal(before, now) || len(now) == 0 {
		h.t.Errorf("%s: %s: the copies were %v and are %v", h.Name, what, before, now)
	}
}

// status is an app's, as the leader tells it.
func (h *host) status(app string) (st topology.AppStatus, err error) {
	out, err := h.try("ganglion", "status", app, "-o", "json")
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal([]byte(out), &st)
}

// ready waits until an app has so many ready copies, and returns their pids by
// host.
func (h *host) ready(app string, n int) map[string]int {
	h.t.Helper()
	pids := map[string]int{}
	h.await(40*time.Second, func() error {
		st, err := h.status(app)
		if err != nil {
			return err
		}
		if st.Ready != n {
			return fmt.Errorf("%d ready, want %d: %+v", st.Ready, n, st.Copies)
		}
		for _, c := range st.Copies {
			pids[c.Host] = c.Pid
		}
		return nil
	})
	return pids
}

// hostsAlive waits until the mesh has so many living hosts.
func (h *host) hostsAlive(n int) {
	h.t.Helper()
	h.await(30*time.Second, func() error {
		out, err := h.try("ganglion", "hosts")
		if err != nil {
			return err
		}
		if got := strings.Count(out, "alive"); got != n {
			return fmt.Errorf("%d hosts are alive, want %d:\n%s", got, n, out)
		}
		return nil
	})
}

// running lists processes by their command line.
func (h *host) running(pattern string) string {
	h.t.Helper()
	out, _ := h.try("pgrep", "-af", pattern) // 1: none
	return out
}

// everything lists all files of the host but those that the system and its
// package managers write by themselves.
func (h *host) everything() map[string]bool {
	h.t.Helper()
	out := h.must("find", "/", "/run", "-xdev",
		"(", "-path", "/proc", "-o", "-path", "/sys", "-o", "-path", "/dev", "-o", "-path", "/tmp",
		"-o", "-path", "/var/log", "-o", "-path", "/var/cache", "-o", "-path", "/var/lib/dpkg", "-o", "-path", "/var/lib/apt", "-o", "-path", "/var/lib/rpm",
		"-o", "-path", "/run/systemd/journal", "-o", "-path", "/run/log", "-o", "-path", "/run/udev", ")", "-prune", "-o", "-print")
	files := map[string]bool{}
	defer func() { // systemd's own, made when there is first something to put into them
		delete(files, "/run/systemd/transient")
		delete(files, "/run/systemd/dynamic-uid")
	}()
	for line := range strings.Lines(out) {
		files[strings.TrimSpace(line)] = true
	}
	return files
}
