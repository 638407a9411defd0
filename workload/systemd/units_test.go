//go:build linux

package systemd

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

func TestUnitNames(t *testing.T) {
	d := &Driver{tag: tagOf("/var/lib/ganglion")}
	for _, app := range []string{"web", "a", "my-app-7", "x-1-2-3", "check", "0", strings.Repeat("a", 63)} {
		s := specOf(app, 12, nil)
		unit := d.unitName(s)
		if len(unit) > 255 || !strings.HasPrefix(unit, "ganglion-"+app+"-12-01234567-") {
			t.Errorf("unit of %s: %s", app, unit)
		}
		if id, ok := parseUnitName(unit, d.tag); !ok || id != s.ID {
			t.Errorf("%s is read as %v, %v", unit, id, ok)
		}
		if _, ok := parseUnitName(unit, tagOf("/srv/other")); ok {
			t.Errorf("%s is taken for another data_dir's", unit)
		}
		if unit == d.unitName(s) {
			t.Error("two starts share a unit")
		}
	}
	for _, unit := range []string{
		"ganglion.service", "ganglion-agent.service", "ganglion-web-1.service", "ganglion-web-1-01234567-.service",
		"ganglion-web-x-01234567-" + d.tag + "00000000.service", "ganglion--1-01234567-" + d.tag + "00000000.service",
		checkPrefix + d.tag + "00000000.service", "ganglion-web-1-01234567-" + d.tag + "00000000.timer",
		"ganglion-../x-1-01234567-" + d.tag + "00000000.service",
	} {
		if id, ok := parseUnitName(unit, d.tag); ok {
			t.Errorf("%s is read as %v", unit, id)
		}
	}
	if got := objectPath("ganglion-web-1.service"); got != "/org/freedesktop/systemd1/unit/ganglion_2dweb_2d1_2eservice" {
		t.Errorf("path %s", got)
	}
}

func TestVersionsThatAreNoHex(t *testing.T) {
	for v, want := range map[string]string{"": "0", "0123456789": "01234567", "a/b": "0", "A": "0", "-x": "0", "v1": "v1"} {
		if got := cleanVersion(v); got != want {
			t.Errorf("%q in a unit's name: %q, want %q", v, got, want)
		}
	}
}

func TestDescriptionsRoundTrip(t *testing.T) {
	want := specOf("my-app", 3, nil)
	want.Generation = 42
	got, n, ok := parseDescription(describe(want, 7))
	if !ok || n != 7 || got.ID != want.ID || got.Version != want.Version || got.Generation != 42 {
		t.Errorf("read %+v, %d, %v", got, n, ok)
	}
	if _, _, ok := parseDescription("Some Other Service"); ok {
		t.Error("any description is read")
	}
}

func TestDynamicUserNames(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, app := range []string{"web", long, "0day"} {
		name := dynamicUser(app)
		if len(name) > maxUserName || name[0] != 'g' {
			t.Errorf("user of %s: %q", app, name)
		}
	}
	if dynamicUser(long) == dynamicUser(long[:62]+"b") {
		t.Error("two apps share a user")
	}
}

// TestEnvFiles decodes what encodeEnv wrote by systemd's own rules.
func TestEnvFiles(t *testing.T) {
	env := []string{"A=", "B=plain", `C="quoted" 'single' \ back`, "D=$HOME ${X} `id`", "E=two\nlines\tand a tab", "F=# no comment", "G=ä=ö", "_h1=  spaces  "}
	b, err := encodeEnv(env)
	if err != nil {
		t.Fatal(err)
	}
	if got := decodeEnv(t, string(b)); strings.Join(got, "\x00") != strings.Join(env, "\x00") {
		t.Errorf("read back %q, want %q", got, env)
	}
	for _, bad := range []string{"1A=x", "A-B=x", "=x", "A B=x", "A=\xff", "A=\x00", "A=\r", "A=\x1b[0m"} {
		if _, err := encodeEnv([]string{bad}); err == nil {
			t.Errorf("%q was accepted: PID 1 would drop it", bad)
		}
	}
}

// decodeEnv reads NAME="…" lines in which a backslash takes " \ ` $ as they are.
func decodeEnv(t *testing.T, s string) (env []string) {
	t.Helper()
	for s != "" {
		name, rest, ok := strings.Cut(s, `="`)
		if !ok {
			t.Fatalf("no value in %q", s)
		}
		var v strings.Builder
		i := 0
		for ; rest[i] != '"'; i++ {
			if rest[i] == '\\' && strings.IndexByte("\"\\`$", rest[i+1]) >= 0 {
				i++
			}
			v.WriteByte(rest[i])
		}
		env = append(env, name+"="+v.String())
		s = strings.TrimPrefix(rest[i+1:], "\n")
	}
	return env
}

func TestUnwantedVariables(t *testing.T) {
	got := unwanted([]string{"HOME=/mine", "PATH=/bin"}, []string{"LEAK=1", "PATH=/x", "LANG=C"})
	has := strings.Join(got, " ") + " "
	for name, want := range map[string]bool{"HOME": false, "PATH": false, "LEAK": true, "LANG": true, "INVOCATION_ID": true} {
		if strings.Contains(" "+has, " "+name+" ") != want {
			t.Errorf("%s taken out: %v, want %v", name, !want, want)
		}
	}
	if strings.Count(" "+has, " LANG ") != 1 {
		t.Error("LANG is listed twice")
	}
}

// life is a unit's life as PID 1 tells it: moments, each a service and a unit.
type life struct {
	svc  service
	unit unitState
}

// lives makes a random true life of a unit: some processes, each with an end,
// then its own end. want are the exits by process.
func lives(r *rand.Rand) (moments []life, pids []uint32, codes []int) {
	clock := uint64(1000)
	tick := func() uint64 { clock += 1 + uint64(r.IntN(50)); return clock }
	n := 1 + r.IntN(6)
	var s service
	for i := range n {
		pid := uint32(100 + i)
		s = service{mainPID: pid, lastPID: pid, startUSec: tick(), restarts: uint32(i)}
		moments = append(moments,
			life{s, unitState{active: "activating", sub: "start", changedUSec: tick()}},
			life{s, unitState{active: "active", sub: "running", changedUSec: tick()}})
		pids, codes = append(pids, pid), append(codes, r.IntN(256))
		s.mainPID, s.code, s.status, s.exitUSec = 0, 1, int32(codes[i]), tick()
		moments = append(moments, life{s, unitState{active: "failed", sub: "failed", changedUSec: tick()}})
		if i < n-1 {
			moments = append(moments, life{s, unitState{active: "activating", sub: "auto-restart", changedUSec: tick()}})
		}
	}
	return moments, pids, codes
}

// TestTrackerOnAllLives: whatever moments PID 1 leaves out, repeats or tells
// late, each report is true, in order, and the last one has no successor.
func TestTrackerOnAllLives(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		moments, pids, codes := lives(r)
		tr := tracker{first: 5, heals: true}
		now := time.Now()
		at, finals, known := 0, 0, 0
		check := func(rep *report) {
			if rep == nil {
				return
			}
			if rep.exit.Known {
				known++
				if rep.exit.Code != codes[at] {
					t.Fatalf("seed %d: process %d exited with %d, told %d", seed, pids[at], codes[at], rep.exit.Code)
				}
			}
			if rep.successor.pid == 0 {
				finals++
				return
			}
			next := int(rep.successor.pid) - 100
			if next <= at || rep.start != 5+next || finals > 0 {
				t.Fatalf("seed %d: after process %d comes %d as start %d", seed, at, next, rep.start)
			}
			at = next
		}
		feed := func(m life) {
			tr.seeService(m.svc, now)
			check(tr.seeUnit(m.unit, now))
		}
		feed(moments[0])
		feed(moments[1])
		tr.begin()
		whole := seed%2 == 0
		for i, m := range moments[2:] {
			last := i == len(moments)-3
			if !whole && !last && r.IntN(3) == 0 {
				continue // left out
			}
			if r.IntN(4) == 0 {
				feed(moments[r.IntN(i+2)]) // old news
			}
			feed(m)
			feed(m) // told twice
			if uncertain := tr.uncertain(); uncertain != (tr.unit.active == "failed") {
				t.Fatalf("seed %d: uncertain %v at %+v", seed, uncertain, tr.unit)
			}
		}
		check(tr.end(now))
		check(tr.end(now))
		if finals != 1 || !tr.finished {
			t.Fatalf("seed %d: %d last exits", seed, finals)
		}
		if whole && known != len(pids) {
			t.Fatalf("seed %d: %d of %d exits known though all was told", seed, known, len(pids))
		}
	}
}

func TestTrackerDetails(t *testing.T) {
	now := time.Now()
	run := service{mainPID: 7, lastPID: 7, startUSec: 10}
	tr := tracker{first: 1, heals: true}
	tr.seeService(run, now)
	if r := tr.seeUnit(unitState{active: "inactive", sub: "dead"}, now); r != nil || tr.unit.over() {
		t.Error("a unit that is only about to start is taken for one that is over")
	}
	tr.seeUnit(unitState{active: "active", sub: "running", changedUSec: 11}, now)
	tr.begin()
	killed := service{lastPID: 7, startUSec: 10, exitUSec: 1010, code: 2, status: 9}
	tr.seeService(killed, now)
	tr.seeUnit(unitState{active: "deactivating", sub: "stop-sigterm", changedUSec: 12}, now)
	if !tr.leftovers() {
		t.Error("the first process has ended and the unit waits: no leftovers seen")
	}
	if r := tr.seeUnit(unitState{active: "failed", sub: "failed-before-auto-restart", changedUSec: 13}, now); r != nil {
		t.Error("a unit on the way to its next start is told to be over")
	}
	tr.seeService(service{mainPID: 8, lastPID: 8, startUSec: 2000, restarts: 1}, now)
	if r := tr.seeUnit(unitState{active: "activating", sub: "start", changedUSec: 14}, now); r != nil {
		t.Error("a successor is told before its exec")
	}
	r := tr.seeUnit(unitState{active: "active", sub: "running", changedUSec: 15}, now)
	if r == nil || r.successor.pid != 8 || r.start != 2 || r.exit.Signal != syscall.SIGKILL || r.exit.Ran != time.Millisecond {
		t.Errorf("report %+v", r)
	}
}

// TestTrackerWithoutHealing: the first end is the last.
func TestTrackerWithoutHealing(t *testing.T) {
	now := time.Now()
	tr := tracker{first: 1}
	tr.seeService(service{mainPID: 7, lastPID: 7, startUSec: 10}, now)
	tr.begin()
	tr.seeService(service{lastPID: 7, startUSec: 10, exitUSec: 1010, code: cldExited, status: 4}, now)
	r := tr.seeUnit(unitState{active: "failed", sub: "failed", changedUSec: 12}, now)
	if r == nil || r.exit.Code != 4 || r.successor.pid != 0 || tr.end(now) != nil {
		t.Errorf("report %+v", r)
	}
}

// TestWrappedCommands runs wrapped commands by this machine's shell.
func TestWrappedCommands(t *testing.T) {
	args := []string{"$HOME", "a;b", `it's "q" \ back\n`, "two\nlines\n", "", "%s", "ä\x01", "`id`", "-n", "end\n"}
	s := specOf("web", 1, nil)
	s.SelfHeal = true
	got := command("/usr/bin/printf", append([]string{"printf", `[%s]\n`}, args...), s)
	if got.Path != "/bin/sh" || strings.ContainsAny(strings.Join(got.Argv, ""), "$;") {
		t.Fatalf("wrapped as %+v", got)
	}
	cmd := exec.Command(got.Path, got.Argv[1:]...)
	out, err := cmd.Output()
	if want := "[" + strings.Join(args, "]\n[") + "]\n"; err != nil || string(out) != want {
		t.Errorf("printed\n%s(%v), want\n%s", out, err, want)
	}
	env := command("/usr/bin/env", []string{"env", "A=;"}, s)
	cmd = exec.Command(env.Path, env.Argv[1:]...)
	cmd.Env = []string{"X=1"}
	if out, err := cmd.Output(); err != nil || string(out) != "X=1\nA=;\n" {
		t.Errorf("environment of a wrapped command: %q, %v", out, err)
	}
	if plain := command("/bin/x", []string{"x", "a b"}, s); plain.Path != "/bin/x" || plain.Argv[1] != "a b" {
		t.Errorf("a harmless command was changed: %+v", plain)
	}
	s.SelfHeal = false
	if once := command("/bin/x", []string{"x", "$A;"}, s); once.Path != "/bin/x" || once.Argv[1] != "$$A;" {
		t.Errorf("a command that runs once: %+v", once)
	}
}

func TestExplain(t *testing.T) {
	p := &prepared{spec: specOf("web", 1, nil), path: "/bin/sh", dir: "/x"}
	for status, want := range map[int32]string{200: "/x", 203: "/bin/sh", 217: "user", 226: "status 226"} {
		if err := explain(p, status); !strings.Contains(err.Error(), want) {
			t.Errorf("status %d: %v", status, err)
		}
	}
	if _, ok := explain(p, 226).(*workload.StartError); ok {
		t.Error("a fault of PID 1's is told as one of the app")
	}
}

func TestConfigRefuses(t *testing.T) {
	for _, cfg := range []Config{{}, {Dir: "relative", Host: "h"}, {Dir: "/x"}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		if _, err := New(Config{Dir: t.TempDir(), Host: "h"}); err == nil {
			t.Error("opened without systemd")
		}
	}
}

// A start that PID 1 calls failed was one if its program has run, also when PID 1
// has gone on to the next by the time it says so.
func TestFailedStartThatRan(t *testing.T) {
	for _, c := range []struct {
		name string
		svc  service
		want bool
	}{
		{"nothing", service{}, false},
		{"not ended", service{mainPID: 5, lastPID: 5, startUSec: 1}, false},
		{"ended at once", service{lastPID: 5, startUSec: 1, exitUSec: 2, code: 2, status: 9}, true},
		{"not set up", service{lastPID: 5, startUSec: 1, exitUSec: 2, code: cldExited, status: firstSetupStatus}, false},
		{"started again", service{mainPID: 6, lastPID: 6, startUSec: 3, restarts: 1}, true},
		{"about to be started again", service{lastPID: 5, startUSec: 1, exitUSec: 2, code: 2, status: 9, restarts: 1}, true},
	} {
		if got := c.svc.ran(); got != c.want {
			t.Errorf("%s: ran %v, want %v", c.name, got, c.want)
		}
	}
}
