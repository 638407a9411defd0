package senses

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// TestUsageOfAProcess: a copy that shares its groups with us is known by its
// first process.
func TestUsageOfAProcess(t *testing.T) {
	cmd := start(t, "/bin/sh", "-c", "while :; do :; done")
	copies := copiesOf(Copy{ID: "web/1", PID: cmd.Process.Pid, Memory: 1 << 30, CPU: 0.5})
	u := must[*Usage](t)(NewUsage(CopiesConfig{Now: bootNow, Copies: copies, Interval: 100 * time.Millisecond}))
	e := listen(t, u)
	e.waitFor(reflexes.AppMemBytes, "web/1", func(v reflexes.Value) bool { return v.AsInt() > 10<<10 })
	e.waitFor(reflexes.AppMemRatio, "web/1", func(v reflexes.Value) bool { return v.AsFloat() > 0 && v.AsFloat() < 1 })
	e.waitFor(reflexes.AppPids, "web/1", is(reflexes.Int(1)))
	e.waitFor(reflexes.AppCPUCores, "web/1", func(v reflexes.Value) bool { return v.AsFloat() > 0 })
	e.waitFor(reflexes.AppCPURatio, "web/1", func(v reflexes.Value) bool { return v.AsFloat() > 0 })

	// Its process ends, and another one takes its place.
	_ = cmd.Process.Kill()
	e.waitFor(reflexes.AppMemBytes, "web/1", unknown)
	from := e.heard()
	next := start(t, "/bin/sleep", "1000")
	copies.Set([]Copy{{ID: "web/1", PID: next.Process.Pid}})
	e.wait("the next process", from, func(f reflexes.Fact) bool { return f.Var == reflexes.AppMemBytes && f.Value.Known() })

	// It does not belong here any more.
	from = e.heard()
	copies.Set(nil)
	e.wait("its end", from, func(f reflexes.Fact) bool { return f.Var == reflexes.AppPids && !f.Value.Known() })
	if v, ok := last(e.all()[from:], reflexes.AppMemRatio, "web/1"); ok && v.Known() {
		t.Errorf("the next one was given no memory, yet used %v of it", v)
	}
}

// TestUsageOfAGroup: what a copy's whole group uses is the copy's.
func TestUsageOfAGroup(t *testing.T) {
	want := groupDirs{v2: groupV2(t, "memory", "pids")}
	usage := filepath.Join(want.v2, "memory.current")
	if want.v2 == "" {
		want = groupDirs{v2: group(t, ""), memory: group(t, "memory"), pids: group(t, "pids")}
		usage = filepath.Join(want.memory, "memory.usage_in_bytes")
	}
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	defer in.Close()
	held := startWith(t, in, "/bin/sh", "-c", "read go; sleep 1000 & sleep 1000 & wait")
	for _, dir := range want.list() {
		if *dir != "" {
			join(t, *dir, held.Process.Pid)
		}
	}
	if _, err := out.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	cfg := CopiesConfig{Now: bootNow, Copies: copiesOf(Copy{ID: "web/1", PID: held.Process.Pid, Memory: 1 << 20, CPU: 1}), Interval: 100 * time.Millisecond}
	e := listen(t, must[*Usage](t)(NewUsage(cfg)))
	e.waitFor(reflexes.AppPids, "web/1", is(reflexes.Int(3)))
	f := e.waitFor(reflexes.AppMemBytes, "web/1", func(v reflexes.Value) bool { return v.AsInt() > 0 })
	e.waitFor(reflexes.AppCPUCores, "web/1", known)
	used := readNumberFile(t, usage)
	if f.Value.AsInt() > 2*used+1<<20 {
		t.Errorf("it is told to use %v of %d bytes", f.Value, used)
	}

	p := listen(t, must[*CopyPressure](t)(NewCopyPressure(cfg)))
	if _, err := os.Stat(filepath.Join(want.v2, "cpu.pressure")); err != nil {
		t.Logf("no pressure of groups: %v", err)
		return
	}
	// It is known after ten seconds; here it is enough that the group is found.
	d, err := must[*groupFinder](t)(newGroupFinder("/proc")).find(held.Process.Pid)
	if err != nil || d != want {
		t.Errorf("groups %+v, want %+v, %v", d, want, err)
	}
	g, err := (&CopyPressure{cfg: cfg}).open(Copy{ID: "web/1"}, d)
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	if _, err := g.look(); err != nil || len(g.meters) != 3 {
		t.Errorf("%d files of pressure, %v", len(g.meters), err)
	}
	p.stop()
}

func readNumberFile(t testing.TB, path string) int64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(string(b[:len(b)-1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestUsageAllocatesNothing in the steady state of one copy.
func TestUsageAllocatesNothing(t *testing.T) {
	u, err := openUsage("/proc", Copy{ID: "web/1", PID: os.Getpid()}, groupDirs{})
	if err != nil {
		t.Fatal(err)
	}
	defer u.close()
	var facts []reflexes.Fact
	look := func() {
		if facts, err = u.look(bootNow(), Copy{ID: "web/1", Memory: 1, CPU: 1}, facts[:0]); err != nil {
			t.Error(err)
		}
	}
	look()
	if n := testing.AllocsPerRun(100, look); n >= 1 {
		t.Errorf("%v allocations a look", n)
	}
}

func TestSharedGroupsAreNobodysOwn(t *testing.T) {
	a, b := groupDirs{v2: "/v2/session", memory: "/m/a", cpuacct: "/x/a", pids: "/x/a"}, groupDirs{v2: "/v2/session", memory: "/m/b"}
	unshared([]*groupDirs{&a, &b})
	if (a != groupDirs{memory: "/m/a", cpuacct: "/x/a", pids: "/x/a"}) || (b != groupDirs{memory: "/m/b"}) {
		t.Errorf("%+v and %+v", a, b)
	}
	for _, c := range []struct {
		group, other string
		want         bool
	}{{"/a/b", "/a", true}, {"/a", "/a", true}, {"/ab", "/a", false}, {"/", "/a", false}, {"/a", "/", true}} {
		if within(c.group, c.other) != c.want {
			t.Errorf("%+v", c)
		}
	}
	self, err := newGroupFinder("/proc")
	if err != nil {
		t.Fatal(err)
	}
	if d, err := self.find(os.Getpid()); err != nil || d != (groupDirs{}) {
		t.Errorf("our own groups are a copy's: %+v, %v", d, err)
	}
}
