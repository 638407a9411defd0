//go:build linux

package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

func TestFindMounts(t *testing.T) {
	const hybrid = `25 30 0:23 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 25 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
32 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct
33 25 0:28 /docker/1 /sys/fs/cgroup/memory rw shared:12 - cgroup cgroup rw,memory
34 25 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
broken
`
	own := []byte("4:memory:/docker/1/agent\n3:cpu,cpuacct:/agent.slice\n1:name=systemd:/x\n0::/system.slice/ganglion.service\n")
	var got []string
	for _, m := range parseMounts([]byte(hybrid)) {
		got = append(got, m.under(ownPath(own, m.controllers)))
	}
	want := []string{
		"/sys/fs/cgroup/unified/system.slice/ganglion.service", "/sys/fs/cgroup/cpu,cpuacct/agent.slice",
		"/sys/fs/cgroup/memory/agent", "/sys/fs/cgroup/systemd/x",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if outside := (cgroupMount{root: "/docker/1", point: "/m"}).under("/docker/2"); outside != "/m" {
		t.Errorf("outside of the mount: %s", outside)
	}
}

// The controllers of version 2, on a directory that looks like a group of it.
func TestLimitsV2(t *testing.T) {
	base := filepath.Join(t.TempDir(), "own", "ganglion")
	if err := os.MkdirAll(base, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{base, filepath.Dir(base)} {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := cgroups{v2: base}
	c.enableV2()
	if !c.v2memory || !c.v2cpu {
		t.Fatalf("controllers: %+v", c)
	}
	g := &program.Cgroup{Path: base}
	for _, file := range []string{"memory.max", "cpu.max"} {
		if err := os.WriteFile(filepath.Join(base, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if attach, err := c.limits("web.1", g, 0.5, 64<<20); err != nil || len(attach) != 0 {
		t.Errorf("attach %v, %v", attach, err)
	}
	for file, want := range map[string]string{"memory.max": "67108864", "cpu.max": "50000 100000"} {
		if b, _ := os.ReadFile(filepath.Join(base, file)); string(b) != want {
			t.Errorf("%s is %q, want %q", file, b, want)
		}
	}
	if _, err := (&cgroups{}).limits("web.1", nil, 1, 1); err == nil {
		t.Error("limits without controllers are no error")
	}
	if attach, err := (&cgroups{}).limits("web.1", nil, 0, 0); err != nil || attach != nil {
		t.Errorf("no limits: %v, %v", attach, err)
	}
}

func TestLimitsV1(t *testing.T) {
	needRoot(t)
	d := fresh(t, Config{})
	if d.cg.v1memory == "" || d.cg.v1cpu == "" {
		t.Skip("needs the controllers of cgroup v1")
	}
	if b, _ := os.ReadFile("/proc/swaps"); strings.Count(string(b), "\n") > 1 {
		t.Skip("needs a machine without swap: the limit of v1 leaves that out")
	}
	s := workload.Spec{
		ID: workload.CopyID{App: "web", N: 1}, Command: []string{self(t)},
		Env: map[string]string{roleVar: "eat"}, Memory: 64 << 20, CPU: 0.5,
	}
	if e := exitFrom(t, start(t, d, s, 1)); e.Signal != syscall.SIGKILL {
		t.Errorf("a copy of 256 MiB under a limit of 64: exit %+v", e)
	}
	b, _ := os.ReadFile(filepath.Join(d.cg.v1cpu, "web.1", "cpu.cfs_quota_us"))
	if strings.TrimSpace(string(b)) != "50000" {
		t.Errorf("quota %q", b)
	}
	s.Memory, s.ID.N = 1<<30, 2
	if e := exitFrom(t, start(t, d, s, 1)); !e.Known || e.Signal != 0 {
		t.Errorf("the same under 1 GiB: exit %+v", e)
	}
	for n := 1; n <= 2; n++ {
		id := workload.CopyID{App: "web", N: n}
		if err := d.Purge(ctxOf(t), id); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(d.cg.v1memory, copyName(id))); err == nil {
			t.Error("the v1 group is left")
		}
	}
}

func TestConfig(t *testing.T) {
	for _, bad := range []Config{
		{}, {Dir: "relative", Host: "h1"}, {Dir: "/x"}, {Dir: "/x", Host: "h", UIDs: UIDRange{First: 0, Last: 5}},
		{Dir: "/x", Host: "h", UIDs: UIDRange{First: 9, Last: 5}}, {Dir: "/dev/null/x", Host: "h1"},
	} {
		if d, err := New(bad); err == nil {
			t.Errorf("%+v was accepted", bad)
			d.Close()
		}
	}
	dir := dataDir(t)
	_ = os.MkdirAll(filepath.Join(dir, privateDir), 0o700)
	for _, text := range []string{`{"web": 0}`, `torn`} {
		_ = os.WriteFile(filepath.Join(dir, privateDir, "uids.json"), []byte(text), 0o600)
		if d, err := New(Config{Dir: dir, Host: "h1"}); err == nil {
			t.Errorf("user ids %s were accepted", text)
			d.Close()
		}
	}
}

func TestModesOfDirectories(t *testing.T) {
	d := fresh(t, Config{})
	for path, want := range map[string]os.FileMode{".": 0o711, appsDir: 0o711, privateDir: 0o700, "process/copies": 0o700, "output": 0o700} {
		info, err := os.Stat(filepath.Join(d.cfg.Dir, path))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %o", path, info, err, want)
		}
	}
}

func TestCopyNames(t *testing.T) {
	for _, id := range []workload.CopyID{{App: "web", N: 0}, {App: "a-1", N: 12}} {
		if got, ok := parseCopyName(copyName(id)); !ok || got != id {
			t.Errorf("%v became %v", id, got)
		}
	}
	for _, bad := range []string{"web", "web.", "web.01", "web.-1", ".1", "Web.1", "a.b.1", "-a.1", "web.1.check2"} {
		if id, ok := parseCopyName(bad); ok {
			t.Errorf("%q became %v", bad, id)
		}
	}
}

func TestRunRecordFits(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), runFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := writeRun(f, run{Nonce: strings.Repeat("x", runBytes)}); err == nil {
		t.Error("a record larger than its page was written")
	}
	for _, r := range []run{{Boot: "b", Nonce: strings.Repeat("long", 50), Pid: 7}, {Boot: "b", Pid: 8}} {
		if err := writeRun(f, r); err != nil {
			t.Fatal(err)
		}
		if got, err := readRun(filepath.Dir(f.Name())); err != nil || got != r {
			t.Errorf("wrote %+v, read %+v, %v", r, got, err)
		}
	}
}

// A process that does nothing but exec is not seen without its mark, though it
// gets little CPU for that.
func TestMarkIsSeenDuringExec(t *testing.T) {
	path := filepath.Join(dataDir(t), "again")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexec \"$0\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Env = []string{NonceVar + "=t-1"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	_ = unix.Setpriority(unix.PRIO_PROCESS, cmd.Process.Pid, 10)
	for begun := time.Now(); time.Since(begun) < time.Second; {
		asked := time.Now()
		env, err := readEnviron(cmd.Process.Pid)
		if got := environValue(env, NonceVar); got != "t-1" && time.Since(asked) < execTime {
			t.Fatalf("its mark is %q, %v", got, err)
		}
	}
}

// Nobody waits for the mark of a process whose environment is empty for good.
func TestEmptyEnvironmentIsNoExec(t *testing.T) {
	cmd := exec.Command("/bin/sleep", "1000")
	cmd.Env = []string{}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if env, err := readEnviron(cmd.Process.Pid); err != nil || len(env) > 0 || midExec(cmd.Process.Pid) {
		t.Errorf("environment %q, %v", env, err)
	}
}
