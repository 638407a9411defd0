//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/pause"
)

// TestKillProcessesFindsEscapees: what a copy starts belongs to the mesh, in
// whatever session it hides; what merely names the directory does not.
func TestKillProcessesFindsEscapees(t *testing.T) {
	dir := t.TempDir()
	start := func(env string, args ...string) *exec.Cmd {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = []string{env}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd
	}
	start("STATE_DIR="+dir+"/h1/data/apps/web/0", "/bin/sh", "-c", "setsid sleep 1000 & exec sleep 1000")
	other := start("STATE_DIR="+dir+"x/h1", "/bin/sleep", "1000")
	reader := start("PWD="+dir, "/bin/sh", "-c", "sleep 1000; : "+dir)
	deadline := time.Now().Add(5 * time.Second)
	for len(processesBelow(dir)) < 2 {
		if time.Now().After(deadline) {
			t.Fatalf("found %v, want the copy and its child", processesBelow(dir))
		}
		pause.For(t.Context(), 5*time.Millisecond)
	}
	found := processesBelow(dir)
	if slices.Contains(found, other.Process.Pid) || slices.Contains(found, reader.Process.Pid) {
		t.Errorf("found strangers among %v", found)
	}
	if got := processesBelow(dir + "/h2"); len(got) != 0 {
		t.Errorf("h2 has none, found %v", got)
	}
	if err := killProcesses(dir); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []*exec.Cmd{other, reader} {
		if _, err := startTime(cmd.Process.Pid); err != nil {
			t.Errorf("a stranger was killed: %v", err)
		}
	}
	for _, pid := range found {
		if _, err := startTime(pid); err == nil {
			t.Errorf("pid %d lives", pid)
		}
	}
}

func TestChoosePortsAreDistinctAndFree(t *testing.T) {
	ports, err := choosePorts(20)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for i, p := range ports {
		for _, port := range p.agents() {
			if seen[port] || port < agentPortMin || port > agentPortMax || !portFree(port) {
				t.Errorf("host %d: port %d", i, port)
			}
			seen[port] = true
		}
		if p.first < copyPortMin || p.last > copyPortMax || p.last-p.first+1 != copyPortsEach || i > 0 && p.first <= ports[i-1].last {
			t.Errorf("host %d: copies' ports %d-%d", i, p.first, p.last)
		}
	}
}

func TestHomeIsWhereProgramsRun(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), strings.Repeat("long", 30)))
	if err := os.MkdirAll(os.TempDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	dir, bin, err := makeHome("test")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if filepath.Dir(dir) == os.TempDir() {
		t.Errorf("%s is too long for a socket", dir)
	}
	if out, err := exec.Command(bin, "version").Output(); err != nil || !strings.HasPrefix(string(out), "ganglion ") {
		t.Errorf("version: %q, %v", out, err)
	}
	if left, _ := os.ReadDir(os.TempDir()); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	private := t.TempDir()
	if err := os.Chmod(private, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := openToAll(filepath.Join(private)); err == nil {
		t.Errorf("other users cannot pass through %s, and it was taken", private)
	}
}

// TestDemoChecksBite: the observations that the demo prints must fail on what is
// not so.
func TestDemoChecksBite(t *testing.T) {
	me := topology.CopyStatus{ID: "web/0", Host: "h1", Pid: os.Getpid(), Ready: true, Ports: map[string]int{"http": 1}}
	st := topology.AppStatus{Copies: []topology.CopyStatus{me}}
	p, err := processesOn(st, "h1")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.in(st); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	other := me
	other.Pid++
	if p.in(topology.AppStatus{Copies: []topology.CopyStatus{other}}) == nil {
		t.Error("another pid was taken for the same")
	}
	moved := me
	moved.Host = "h2"
	if p.in(topology.AppStatus{Copies: []topology.CopyStatus{moved}}) == nil {
		t.Error("another host was taken for the same")
	}
	if err := p.same(t.Context()); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("nobody listens at its port: %v", err)
	}
	p[0].start = "1"
	if err := p.same(t.Context()); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a re-used pid: %v", err)
	}
	if _, err := processesOn(st, "h2"); err == nil {
		t.Error("nothing to see, and no error")
	}
	if elsewhere(t.Context(), st, "h1", 1) == nil || elsewhere(t.Context(), st, "h2", 2) == nil {
		t.Error("a copy on the lost host, or one too few, passed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := successor(ctx, me); err == nil {
		t.Error("a successor where nobody answers")
	}
}

// TestDemoFailsLoudly: a mesh that cannot start ends the demo with 1, tells why
// with the log of the host, and leaves nothing.
func TestDemoFailsLoudly(t *testing.T) {
	m, err := newLocalMesh("test", 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.hosts[0].dataDir(), nil, 0o600); err != nil { // no directory can be made there
		t.Fatal(err)
	}
	err = m.start(t.Context())
	var blamed *hostError
	if !errors.As(err, &blamed) || blamed.host != m.hosts[0] {
		t.Errorf("got %v, want a failure of h1", err)
	}
	var errs strings.Builder
	(&cli{errs: &errs}).printLogTail(err, m)
	if !strings.Contains(errs.String(), "data_dir") {
		t.Errorf("the log tells %q", errs.String())
	}
	if err := m.close(); err != nil {
		t.Error(err)
	}
	noTrace(t, m.dir)
}
