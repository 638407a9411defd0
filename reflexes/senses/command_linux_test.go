package senses

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses/procfs"
)

// script is a sense that runs a shell script, with a directory to write in as $1.
func script(t testing.TB, cfg CommandConfig, text string) (c *Command, dir string) {
	t.Helper()
	dir = t.TempDir()
	cfg.Target, cfg.Now = "x", bootNow
	cfg.Command = []string{"/bin/sh", "-c", text, "sh", dir}
	if cfg.Interval == 0 {
		cfg.Interval = 100 * time.Millisecond
	}
	return must[*Command](t)(NewCommand(cfg)), dir
}

// runs tells whether a process runs: one that has ended may wait for long until
// init asks for its status.
func runs(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	p, err := procfs.ParseProcess(b)
	return err == nil && p.Running()
}

// pidIn returns the process that has written its number into a file.
func pidIn(t testing.TB, path string) (pid int) {
	t.Helper()
	eventually(t, "a number in "+path, func() bool {
		b, _ := os.ReadFile(path)
		n, err := strconv.Atoi(strings.TrimSuffix(string(b), "\n"))
		pid = n
		return err == nil && strings.HasSuffix(string(b), "\n")
	})
	return pid
}

func TestCommandTellsWhatItSays(t *testing.T) {
	c, dir := script(t, CommandConfig{Timeout: patience}, `if test -e $1/fail; then echo 9; exit 3; elif test -e $1/word; then echo; echo " warm  "; echo 5; else echo 21.5; fi`)
	e := listen(t, c)
	e.waitFor(reflexes.SenseValue, "x", is(reflexes.Float(21.5)))
	e.waitFor(reflexes.SenseText, "x", is(reflexes.Text("21.5")))
	e.waitFor(reflexes.SenseOK, "x", is(reflexes.Bool(true)))
	put(t, dir, "word", "")
	e.waitFor(reflexes.SenseText, "x", is(reflexes.Text("warm")))
	e.waitFor(reflexes.SenseValue, "x", unknown)
	put(t, dir, "fail", "")
	f := e.waitFor(reflexes.SenseOK, "x", is(reflexes.Bool(false)))
	e.waitFor(reflexes.SenseText, "x", unknown)
	if f.Target != c.Target() || f.At > bootNow() {
		t.Errorf("%v", f)
	}
	for _, f := range e.all() {
		if f.Value == reflexes.Float(9) {
			t.Errorf("a command that failed is believed: %v", f)
		}
	}
}

func TestCommandThatHangs(t *testing.T) {
	c, dir := script(t, CommandConfig{Timeout: 300 * time.Millisecond}, `echo $$ >$1/pid; echo 5; trap "" TERM; sleep 1000; sleep 1000`)
	e := listen(t, c)
	e.waitFor(reflexes.SenseOK, "x", is(reflexes.Bool(false)))
	from := e.heard()
	pid := pidIn(t, filepath.Join(dir, "pid"))
	e.wait("another try", from, func(f reflexes.Fact) bool { return f.Var == reflexes.SenseOK })
	eventually(t, "its end", func() bool { return !runs(pid) })
	if v, _ := last(e.all(), reflexes.SenseValue, "x"); v.Known() {
		t.Errorf("a command that was killed is believed: %v", v)
	}
}

func TestCommandThatFloods(t *testing.T) {
	c, dir := script(t, CommandConfig{Timeout: patience, MaxOutput: 100}, `echo $$ >$1/pid; exec yes`)
	out, err := c.once(t.Context())
	if err != errTooMuch || len(out) != 100 {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	if pid := pidIn(t, filepath.Join(dir, "pid")); runs(pid) {
		t.Errorf("process %d is still there", pid)
	}
}

// TestCommandThatLeavesChildren: those in its process group end with it, and
// those that have left that where there are control groups.
func TestCommandThatLeavesChildren(t *testing.T) {
	const text = `sleep 1000 & echo $! >$1/near; setsid sh -c 'echo $$ >'$1'/far; exec sleep 1000' & until test -s $1/far; do sleep 0.01; done; echo 7`
	c, dir := script(t, CommandConfig{Timeout: patience}, text)
	group := makeCommandGroup("ganglion-sense-test")
	group.remove()
	out, err := c.once(t.Context())
	near, far := pidIn(t, filepath.Join(dir, "near")), pidIn(t, filepath.Join(dir, "far"))
	eventually(t, "the end of its child", func() bool { return !runs(near) })
	if group == nil {
		t.Log("no control groups can be made: those that left live on")
		if p, err := os.FindProcess(far); err == nil {
			_ = p.Kill()
		}
		return
	}
	if err != nil || string(out) != "7\n" {
		t.Errorf("%q, %v", out, err)
	}
	eventually(t, "the end of the child that had left", func() bool { return !runs(far) })
	if left, err := filepath.Glob(filepath.Dir(group.dir) + fmt.Sprintf("/ganglion-sense-x-%d-*", os.Getpid())); err != nil || len(left) > 0 {
		t.Errorf("its control group is left: %v, %v", left, err)
	}
}

func TestCommandEndsWithItsSense(t *testing.T) {
	c, dir := script(t, CommandConfig{Interval: time.Minute, Timeout: time.Minute}, `echo $$ >$1/pid; sleep 1000; sleep 1000`)
	e := listen(t, c)
	pid := pidIn(t, filepath.Join(dir, "pid"))
	e.stop()
	if runs(pid) || e.heard() != 0 {
		t.Errorf("it runs: %t; told: %v", runs(pid), e.all())
	}
}

func TestCommandThatIsNotThere(t *testing.T) {
	c := must[*Command](t)(NewCommand(CommandConfig{Target: "x", Command: []string{"/nowhere/to be found"}, Now: bootNow}))
	err := c.Run(t.Context(), func([]reflexes.Fact) { t.Error("told something") })
	if err == nil || !strings.Contains(err.Error(), "/nowhere/to be found") {
		t.Error(err)
	}
}

func TestCommandOutputs(t *testing.T) {
	c := must[*Command](t)(NewCommand(CommandConfig{Target: "x", Command: []string{"/bin/true"}, Now: bootNow}))
	long := strings.Repeat("ä", 500)
	for out, want := range map[string]struct {
		text  string
		value reflexes.Value
	}{
		"":            {"", reflexes.Value{}},
		"\n \n":       {"", reflexes.Value{}},
		"-1e3":        {"-1e3", reflexes.Float(-1000)},
		"NaN":         {"NaN", reflexes.Value{}},
		"+Inf\n":      {"+Inf", reflexes.Value{}},
		"\x1b[31m5\n": {"[31m5", reflexes.Value{}},
	} {
		facts := c.facts([]byte(out), nil)
		if text, _ := last(facts, reflexes.SenseText, "x"); text.Known() != (want.text != "") || text.Known() && text.AsString() != want.text {
			t.Errorf("%q: text %v", out, text)
		}
		if v, ok := last(facts, reflexes.SenseValue, "x"); !ok || v != want.value {
			t.Errorf("%q: value %v", out, v)
		}
	}
	if text, _ := last(c.facts([]byte(long), nil), reflexes.SenseText, "x"); len(text.AsString()) > 256 || !strings.HasPrefix(long, strings.TrimSuffix(text.AsString(), "…")) {
		t.Errorf("%d bytes: %v", len(text.AsString()), text)
	}
}

func TestNewCommandRefuses(t *testing.T) {
	good := CommandConfig{Target: "x", Command: []string{"/bin/true"}, Now: bootNow}
	if _, err := NewCommand(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(c *CommandConfig){
		"no clock":       func(c *CommandConfig) { c.Now = nil },
		"no name":        func(c *CommandConfig) { c.Target = "" },
		"a bad name":     func(c *CommandConfig) { c.Target = "../x" },
		"no command":     func(c *CommandConfig) { c.Command = nil },
		"a relative one": func(c *CommandConfig) { c.Command = []string{"true"} },
		"too often":      func(c *CommandConfig) { c.Interval = time.Millisecond },
		"too slow":       func(c *CommandConfig) { c.Timeout = time.Hour },
		"too much":       func(c *CommandConfig) { c.MaxOutput = 1 << 30 },
	} {
		cfg := good
		change(&cfg)
		if _, err := NewCommand(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
