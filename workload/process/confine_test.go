//go:build linux

package process

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
)

func lookAs(t *testing.T, d *Driver, s workload.Spec) look {
	t.Helper()
	// Without the setting Go keeps descriptors of its cgroup's CPU limit.
	s.Env = map[string]string{roleVar: "look", "GODEBUG": "containermaxprocs=0,updatemaxprocs=0"}
	h := start(t, d, s, 1)
	if e := exitFrom(t, h); e.Code != 0 {
		t.Fatalf("exit %+v", e)
	}
	var l look
	if err := json.Unmarshal([]byte(printed(t, d, s.ID)), &l); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestWhatACopySees(t *testing.T) {
	leak, err := unix.Dup(2) // as if inherited: not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	d := fresh(t, Config{})
	s := shell(1, "")
	s.Command = []string{self(t)}
	l := lookAs(t, d, s)
	if !slices.Equal(l.Fds, []int{0, 1, 2}) {
		t.Errorf("descriptors %v", l.Fds)
	}
	if !l.Leader {
		t.Error("it has no session of its own")
	}
	if l.Cwd != d.copyDir(s.ID) {
		t.Errorf("it runs in %s", l.Cwd)
	}
	if l.Status["NoNewPrivs"] != "1" || l.Status["Umask"] != "0077" {
		t.Errorf("NoNewPrivs %s, umask %s", l.Status["NoNewPrivs"], l.Status["Umask"])
	}
	if own, _ := os.ReadFile("/proc/self/status"); strings.Contains(string(own), "NoNewPrivs:\t1") {
		t.Error("the agent itself was confined")
	}
	want := append(d.environ(s), "GANGLION_START=1", roleVar+"=look", "GODEBUG=containermaxprocs=0,updatemaxprocs=0")
	for _, kv := range l.Env {
		if !slices.Contains(want, kv) && !strings.HasPrefix(kv, NonceVar+"="+d.tag+"-") {
			t.Errorf("environment has %q", kv)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	for name, v := range map[string]string{"CapEff": "", "CapPrm": "", "CapInh": "", "CapBnd": "", "CapAmb": ""} {
		if v = strings.Trim(l.Status[name], "0"); v != "" {
			t.Errorf("%s is %s", name, v)
		}
	}
	if l.Status["Groups"] != "" {
		t.Errorf("groups %q", l.Status["Groups"])
	}
	uid, _ := d.users.of("web")
	for _, ids := range []string{l.Status["Uid"], l.Status["Gid"]} {
		if slices.ContainsFunc(strings.Fields(ids), func(f string) bool { return f != strconv.Itoa(int(uid)) }) {
			t.Errorf("ids %q, want %d", ids, uid)
		}
	}
}

func TestNamedUser(t *testing.T) {
	needRoot(t)
	d := fresh(t, Config{})
	s := shell(1, "")
	s.Command, s.User = []string{self(t)}, "nobody"
	if l := lookAs(t, d, s); !strings.HasPrefix(l.Status["Uid"], "65534") || strings.Trim(l.Status["CapBnd"], "0") != "" {
		t.Errorf("ids %q, bounding set %s", l.Status["Uid"], l.Status["CapBnd"])
	}
	s.ID.N, s.User = 2, "root"
	if l := lookAs(t, d, s); !strings.HasPrefix(l.Status["Uid"], "0") || strings.Trim(l.Status["CapEff"], "0") == "" || l.Status["Umask"] != "0077" {
		t.Errorf("root asked for: ids %q, capabilities %s, umask %s", l.Status["Uid"], l.Status["CapEff"], l.Status["Umask"])
	}
}

func TestPrivateUsers(t *testing.T) {
	needRoot(t)
	d := fresh(t, Config{UIDs: UIDRange{First: 900000, Last: 900002}})
	seen := map[uint32]string{}
	for _, app := range []string{"a", "b", "c"} {
		s := shell(1, `echo x >"$STATE_DIR/secret"; echo ok; exec sleep 1000`)
		s.ID.App = app
		h := start(t, d, s, 1)
		printed(t, d, s.ID)
		uid, err := ownerOf(h.inst.Pid)
		if err != nil || uid < 900000 || uid > 900002 || seen[uid] != "" {
			t.Errorf("app %s runs as %d, others as %v", app, uid, seen)
		}
		seen[uid] = app
		for path, mode := range map[string]os.FileMode{".": 0o700, "state": 0o700, "state/secret": 0o600} {
			info, err := os.Stat(filepath.Join(d.copyDir(s.ID), path))
			if err != nil || info.Mode().Perm() != mode || info.Sys().(*syscall.Stat_t).Uid != uid {
				t.Errorf("%s of %s: %v %v", path, app, info, err)
			}
		}
	}
	s := shell(1, "")
	s.ID.App = "d"
	if _, err := d.Start(ctxOf(t), s, 1); err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("a fourth user was found in a range of three: %v", err)
	}
	other := shell(1, "")
	other.ID.App = "b"
	for _, script := range []string{
		"cat ../../../a/1/state/secret", "ls ../../../a/1", "ls ../..", "ls ../../..", "ls ../../../process", "ls ../../../output",
		": >../../../output/b/1/evil", "kill -0 " + strconv.Itoa(pidOf(d, "a")),
	} {
		if out, err := d.Exec(ctxOf(t), other, []string{"/bin/sh", "-c", script + " 2>&1"}); err == nil {
			t.Errorf("another app may %s: %s", script, out)
		}
	}
	d.Close()
	d = open(t, d.cfg)
	for uid, app := range seen {
		if again, err := d.users.of(app); err != nil || again != uid {
			t.Errorf("app %s has user %d, and %d after a restart", app, uid, again)
		}
	}
}

func pidOf(d *Driver, app string) int {
	s, _ := d.slot(workload.CopyID{App: app, N: 1})
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live.inst.Pid
}

func TestStartErrors(t *testing.T) {
	d := fresh(t, Config{})
	dir := dataDir(t)
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("pkg", "#!/bin/sh\n", 0o755)
	for _, c := range []struct {
		why     string
		command string
		change  func(*workload.Spec)
	}{
		{"does not exist", "/no/such/program", nil},
		{"not found in /usr/local/sbin", "no-such-program", nil},
		{"leads out of the package", "../sh", nil},
		{"does not exist", "./missing", nil},
		{"is a directory", dir, nil},
		{"is not executable; chmod +x it", write("plain", "x", 0o644), nil},
		{"is not a regular file", "/dev/null", nil},
		{"interpreter or loader", write("bad-interpreter", "#!/no/such/sh\n", 0o755), nil},
		{"no program for this machine", write("garbage", "\x01\x02", 0o755), nil},
		{"working directory /no/such/dir does not exist", "sleep", func(s *workload.Spec) { s.Dir = "/no/such/dir" }},
		{"is not a directory", "sleep", func(s *workload.Spec) { s.Dir = filepath.Join(dir, "plain") }},
		{"no such user", "sleep", func(s *workload.Spec) { s.User = "nobody-at-all" }},
		{"argument list too long", "sleep", func(s *workload.Spec) { s.Command = append(s.Command, strings.Repeat("x", 1<<20)) }},
	} {
		s := workload.Spec{ID: workload.CopyID{App: "web", N: 1}, Command: []string{c.command}}
		if c.change != nil {
			c.change(&s)
		}
		want := c.why
		if s.User != "" && os.Geteuid() != 0 {
			want = "not root"
		}
		_, err := d.Start(ctxOf(t), s, 1)
		var start *workload.StartError
		if !errors.As(err, &start) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want a StartError with %q", c.command, err, want)
		}
		if !strings.Contains(c.why, "too long") { // a check has its own command
			_, err = d.Exec(ctxOf(t), s, s.Command)
			if !errors.As(err, &start) && !strings.Contains(c.why, "directory") {
				t.Errorf("%s as a check: error %v", c.command, err)
			}
		}
	}
	hidden := filepath.Join(dir, "hidden")
	_ = os.Mkdir(hidden, 0o700)
	b, _ := os.ReadFile("/bin/sh")
	_ = os.WriteFile(filepath.Join(hidden, "sh"), b, 0o755)
	if os.Geteuid() == 0 {
		s := workload.Spec{ID: workload.CopyID{App: "web", N: 1}, Command: []string{filepath.Join(hidden, "sh")}}
		if _, err := d.Start(ctxOf(t), s, 1); err == nil || !strings.Contains(err.Error(), "may not execute") {
			t.Errorf("hidden program: %v", err)
		}
	}
}

func TestPackage(t *testing.T) {
	d := fresh(t, Config{})
	pkg := dataDir(t)
	if err := os.Chmod(pkg, 0o755); err != nil {
		t.Fatal(err)
	}
	_ = os.Mkdir(filepath.Join(pkg, "bin"), 0o755)
	_ = os.WriteFile(filepath.Join(pkg, "bin", "run"), []byte("#!/bin/sh\npwd; echo 1 >>/dev/stdout\n"), 0o755)
	for dir, want := range map[string]string{"": pkg, "bin": pkg + "/bin", "/": "/"} {
		s := workload.Spec{ID: workload.CopyID{App: "web", N: len(dir)}, Command: []string{"./bin/run"}, Package: pkg, Dir: dir}
		if e := exitFrom(t, start(t, d, s, 1)); e.Code != 0 {
			t.Errorf("dir %q: exit %+v", dir, e)
		}
		if out := printed(t, d, s.ID); out != want+"\n1" {
			t.Errorf("dir %q: printed %q, want %q", dir, out, want+"\n1")
		}
	}
}

func TestOOMScore(t *testing.T) {
	const own = "/proc/self/oom_score_adj"
	before, err := os.ReadFile(own)
	if err != nil || os.WriteFile(own, []byte("77"), 0) != nil {
		t.Skip("needs to change its own OOM score")
	}
	defer os.WriteFile(own, before, 0)
	d := fresh(t, Config{})
	d.oom = true // what a negative score sets; making it negative needs a privilege
	h := start(t, d, shell(1, "exec sleep 1000"), 1)
	if b, err := os.ReadFile("/proc/" + strconv.Itoa(h.inst.Pid) + "/oom_score_adj"); err != nil || strings.TrimSpace(string(b)) != "0" {
		t.Skipf("score of the copy is %q (%v): needs the privilege to lower it", b, err)
	}
	stop(t, h, 0)
}

// Threads of an agent may have all the time in the world; copies' timers are as
// exact as ever.
func TestTimerSlack(t *testing.T) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		path := "/proc/" + task.Name() + "/timerslack_ns"
		before, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, []byte("77000"), 0)
		}
		if err != nil {
			t.Skipf("needs the right to set the slack of threads: %v", err)
		}
		defer os.WriteFile(path, before, 0)
	}
	d := fresh(t, Config{})
	s := shell(1, "cat /proc/self/timerslack_ns")
	if e := exitFrom(t, start(t, d, s, 1)); e.Code != 0 {
		t.Fatalf("exit %+v", e)
	}
	if out := printed(t, d, s.ID); out != "50000" {
		t.Errorf("a copy's timer slack is %q ns", out)
	}
}
