//go:build linux

package systemd

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ganglion-mesh/ganglion/workload"
)

// stdout waits for the copy's output to have n lines and returns it.
func stdout(t testing.TB, d *Driver, id workload.CopyID, n int) string {
	t.Helper()
	path, _ := d.out.Paths(id)
	var out string
	eventually(t, "output", func() bool {
		b, _ := os.ReadFile(path)
		out = string(b)
		return strings.Count(out, "\n") >= n
	})
	return out
}

// TestArgumentsAreLiteral: argv reaches the program as written, also after PID 1
// has read the unit anew.
func TestArgumentsAreLiteral(t *testing.T) {
	needSystemd(t)
	d := fresh(t, dataDir(t))
	args := []string{"$HOME", "${PATH}", "%n", "%%", `"double"`, `'single'`, `back\slash\n`, "; rm -rf", "a  b", "", "ä", "-x", "@y", "!z", ":w"}
	s := specOf("web", 1, append([]string{"/bin/sh", "-c", `printf '[%s]\n' "$@"; exec sleep 1000`, "sh"}, args...))
	s.SelfHeal = true
	h := start(t, d, s, 1)
	want := "[" + strings.Join(args, "]\n[") + "]\n"
	if got := stdout(t, d, s.ID, len(args)); got != want {
		t.Errorf("the program got\n%swant\n%s", got, want)
	}
	if out, err := exec.Command("systemctl", "daemon-reload").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := h.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e, _ := nextExit(t, h); e.Successor == nil {
		t.Fatalf("exit %+v", e)
	}
	if got := stdout(t, d, s.ID, 2*len(args)); got != want+want {
		t.Errorf("after a reload the program got\n%swant\n%s", strings.TrimPrefix(got, want), want)
	}
}

// TestEnvironmentIsExact: what the reference documents and nothing else, for
// PID 1's restarts too; and nobody but root can read it.
func TestEnvironmentIsExact(t *testing.T) {
	needSystemd(t)
	if out, err := exec.Command("systemctl", "set-environment", "LEAKED=from-the-manager").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("systemctl", "unset-environment", "LEAKED").Run() })
	d := fresh(t, dataDir(t))
	s := specOf("web", 2, []string{"/usr/bin/env", "-0"})
	s.Env = map[string]string{"PORT_HTTP": "20001", "SECRET": "hunter2", "ODD": "two\nlines \"and\" $more `x` \\", "LANG": "C"}
	h := start(t, d, s, 7)
	nextExit(t, h)
	path, _ := d.out.Paths(s.ID)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	slices.Sort(got)
	want := s.Environ("h1", 7, filepath.Join(d.dirs.copyDir(s.ID), stateDir))
	if !slices.Equal(got, want) {
		t.Errorf("environment\n%q, want\n%q", got, want)
	}
	s.Command = []string{"sleep", "1000"}
	unit := start(t, d, s, 8).(*handle).unit
	out, err := exec.Command("systemctl", "show", unit).Output()
	if err != nil || strings.Contains(string(out), "hunter2") {
		t.Errorf("the bus shows the environment (%v)", err)
	}
	for _, f := range []string{d.dirs.envFile(unit), d.dirs.recordFile(unit)} {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", f, info, err)
		}
	}
	if info, err := os.Stat(d.dirs.units); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v, %v; want mode 0700", d.dirs.units, info, err)
	}
	bad := s
	bad.Env = map[string]string{"A-B": "x"}
	bad.Generation++
	bad.ID.N++
	if _, err := d.Start(ctxFor(t), bad, 1); !isStartError(err) {
		t.Errorf("a variable that PID 1 drops: %v, want a StartError", err)
	}
}

func isStartError(err error) bool { _, ok := errors.AsType[*workload.StartError](err); return ok }

// TestWhoCopiesRunAs: a private user with nothing to its name, the same for all
// copies and checks of an app; a named one; root only when asked.
func TestWhoCopiesRunAs(t *testing.T) {
	needSystemd(t)
	d := fresh(t, dataDir(t))
	const who = `id -u; grep -E '^(CapBnd|CapEff|NoNewPrivs)' /proc/self/status | tr '\n' ' '; echo; umask; touch /usr/x "$STATE_DIR/mine" 2>&1 | wc -l; exec sleep 1000`
	lines := func(app string, n int, user string) []string {
		s := specOf(app, n, sh(who))
		s.User = user
		h := start(t, d, s, 1)
		defer func() {
			if err := h.Stop(ctxFor(t), syscall.SIGTERM, 0); err != nil {
				t.Error(err)
			}
		}()
		out := stdout(t, d, s.ID, 4)
		uid, err := d.Exec(ctxFor(t), s, []string{"id", "-u"})
		if got := strings.SplitN(out, "\n", 2)[0]; err != nil || got != strings.TrimSpace(string(uid)) {
			t.Errorf("%s: the copy is user %s, its check %s (%v)", s.ID, got, uid, err)
		}
		return strings.Split(out, "\n")
	}
	private := lines("web", 1, "")
	if private[0] == "0" || !strings.Contains(private[1], "CapBnd:\t0000000000000000") || !strings.Contains(private[1], "NoNewPrivs:\t1") {
		t.Errorf("private user: %q", private)
	}
	if private[2] != "0077" || private[3] != "1" { // one complaint: about /usr/x
		t.Errorf("umask %s, %s complaints about writing; want 0077 and one", private[2], private[3])
	}
	if again := lines("web", 2, ""); again[0] != private[0] {
		t.Errorf("two copies of an app are users %s and %s", private[0], again[0])
	}
	if named := lines("named", 1, "nobody"); named[0] == "0" || !strings.Contains(named[1], "CapBnd:\t0000000000000000") {
		t.Errorf("nobody: %q", named)
	}
	if root := lines("rooted", 1, "root"); root[0] != "0" {
		t.Errorf("root: %q", root)
	}
	s := specOf("web", 3, sh(who))
	s.User = "no-such-user"
	if _, err := d.Start(ctxFor(t), s, 1); !isStartError(err) || !strings.Contains(err.Error(), "no-such-user") {
		t.Errorf("unknown user: %v, want a StartError that names it", err)
	}
}

// TestStartFaults: what will fail again is told as such, in words.
func TestStartFaults(t *testing.T) {
	needSystemd(t)
	d := fresh(t, dataDir(t))
	pkg := dataDir(t)
	if err := os.Chmod(pkg, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"plain": "no program", "lost": "#!/no/such/interpreter\n"} {
		if err := os.WriteFile(filepath.Join(pkg, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(pkg, "noexec"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		command, dir, want string
	}{
		"no program":     {"./plain", "", "cannot be executed"},
		"no interpreter": {"./lost", "", "cannot be executed"},
		"no mode":        {"./noexec", "", "not executable"},
		"missing":        {"./missing", "", "does not exist"},
		"out":            {"../x", "", "leads out"},
		"not in PATH":    {"no-such-command", "", "not found"},
		"a directory":    {"/usr", "", "is a directory"},
		"no directory":   {"sleep", "sub", "working directory"},
	} {
		s := specOf("web", 1, []string{c.command})
		s.Package, s.Dir, s.SelfHeal = pkg, c.dir, true
		_, err := d.Start(ctxFor(t), s, 1)
		if !isStartError(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a StartError with %q", name, err, c.want)
		}
		if units, err := d.list(ctxFor(t), unitPrefix+"*"+d.tag+"*"); err != nil || len(units) > 0 {
			t.Errorf("%s: units left: %v, %v", name, units, err)
		}
	}
	if left, err := os.ReadDir(d.dirs.units); err != nil || len(left) > 0 {
		t.Errorf("records left: %v, %v", left, err)
	}
}

// TestOutputAndLimits: output is appended over restarts in files that only the
// agent finds, and that the copy may open again; limits are set on the unit.
func TestOutputAndLimits(t *testing.T) {
	needSystemd(t)
	d := fresh(t, dataDir(t))
	s := specOf("web", 1, sh(`echo out; echo err >&2; sleep 0.3; echo again >>/dev/stdout; exec sleep 1000`))
	s.CPU, s.Memory, s.SelfHeal = 0.5, 256<<20, true
	h := start(t, d, s, 1)
	if got := stdout(t, d, s.ID, 2); got != "out\nagain\n" {
		t.Errorf("output %q", got)
	}
	if err := h.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	nextExit(t, h)
	if got := stdout(t, d, s.ID, 4); got != "out\nagain\nout\nagain\n" {
		t.Errorf("output after a restart %q", got)
	}
	_, errPath := d.out.Paths(s.ID)
	if b, err := os.ReadFile(errPath); err != nil || string(b) != "err\nerr\n" {
		t.Errorf("error output %q, %v", b, err)
	}
	if info, err := os.Stat(filepath.Dir(errPath)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory of the output: %v, %v", info, err)
	}
	unit := h.(*handle).unit
	for name, want := range map[string]string{
		"MemoryMax": "268435456", "CPUQuotaPerSecUSec": "500ms", "Slice": "ganglion.slice", "KillMode": "control-group",
		"Restart": "always", "RestartUSec": "0", "DynamicUser": "yes", "StartLimitBurst": "5",
	} {
		if got := property1(t, unit, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// TestAdoptOthers: a lost record is replaced by what the unit tells; another
// agent's copies are left alone; a copy is not doubled before it is adopted.
func TestAdoptOthers(t *testing.T) {
	needSystemd(t)
	dir, otherDir := dataDir(t), dataDir(t)
	d, other := fresh(t, dir), fresh(t, otherDir)
	s := specOf("web", 1, []string{"sleep", "1000"})
	s.Generation = 9
	pid := start(t, d, s, 4).Instance().Pid
	foreign := start(t, other, s, 1)
	unit := d.copies[s.ID].live.unit
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(d.dirs.recordFile(unit)); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(d.dirs.units, "ganglion-old-1-0-"+d.tag+"00000000.service.json")
	if err := os.WriteFile(stale, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	d = open(t, dir)
	if _, err := d.Start(ctxFor(t), s, 5); err == nil || !strings.Contains(err.Error(), "not adopted") {
		t.Fatalf("start over an unadopted copy: %v", err)
	}
	hs, err := d.Adopt(ctxFor(t))
	if err != nil || len(hs) != 1 {
		t.Fatalf("adopted %v, %v; want one", hs, err)
	}
	if in := hs[0].Instance(); in.Pid != pid || in.Spec.ID != s.ID || in.Spec.Generation != 9 || in.Spec.Version != s.Version || in.Start != 4 {
		t.Errorf("adopted %+v", in)
	}
	if _, err := os.Stat(stale); err == nil {
		t.Error("the record of a unit that is gone is still there")
	}
	if err := hs[0].Stop(ctxFor(t), syscall.SIGTERM, patience); err != nil {
		t.Fatal(err)
	}
	if !alive(foreign.Instance().Pid) {
		t.Error("another agent's copy was ended")
	}
}

// TestDirectories: state is kept where data_dir is, or by its own name where PID
// 1 cannot keep it there; purge leaves nothing; what a copy plants is harmless.
func TestDirectories(t *testing.T) {
	needSystemd(t)
	far, err := os.MkdirTemp("/opt", "ganglion-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(far) })
	for _, dir := range []string{dataDir(t), far} {
		d := fresh(t, dir)
		s := specOf("web", 1, sh(`rmdir "$STATE_DIR"; ln -s /etc "$STATE_DIR"; echo done; exec sleep 1000`))
		h := start(t, d, s, 1)
		stdout(t, d, s.ID, 1)
		own := d.dirs.copyDir(s.ID)
		if dir != far && !strings.HasPrefix(own, dir+"/apps/web/1") {
			t.Errorf("directory of the copy: %s", own)
		}
		if err := h.Stop(ctxFor(t), syscall.SIGTERM, patience); err != nil {
			t.Fatal(err)
		}
		s.Command, s.Generation = []string{"sleep", "1000"}, 2
		h = start(t, d, s, 1)
		if info, err := os.Stat("/etc"); err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
			t.Fatal("/etc was given to the copy")
		}
		if err := h.Stop(ctxFor(t), syscall.SIGTERM, patience); err != nil {
			t.Fatal(err)
		}
		if err := d.Purge(ctxFor(t), s.ID); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{own, filepath.Join(varLib, "private", d.dirs.stateName(s.ID))} {
			if _, err := os.Lstat(path); !os.IsNotExist(err) {
				t.Errorf("%s is still there (%v)", path, err)
			}
		}
		if _, err := os.Stat("/etc/passwd"); err != nil {
			t.Fatal("purge followed a link to /etc")
		}
		t.Cleanup(func() { _ = os.RemoveAll(filepath.Join(varLib, filepath.Dir(d.dirs.apps))) })
	}
}
