package senses

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// script is a sense that runs a shell script, with a directory to write in as $1.
func script(t testing.TB, text string) (c *Command, dir string) {
	t.Helper()
	dir = t.TempDir()
	return must[*Command](t)(NewCommand(CommandConfig{
		Target: "x", Now: bootNow, Interval: 100 * time.Millisecond,
		Run: func(ctx context.Context) ([]byte, error) {
			return exec.CommandContext(ctx, "/bin/sh", "-c", text, "sh", dir).Output()
		},
	})), dir
}

func TestCommandTellsWhatItSays(t *testing.T) {
	c, dir := script(t, `if test -e $1/fail; then echo 9; exit 3; elif test -e $1/word; then echo; echo " warm  "; echo 5; else echo 21.5; fi`)
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

// TestCommandEndsWithItsSense: what runs is told to end, and nothing is told of it.
func TestCommandEndsWithItsSense(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	c := must[*Command](t)(NewCommand(CommandConfig{Target: "x", Now: bootNow, Run: func(ctx context.Context) ([]byte, error) {
		close(begun)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}}))
	e := listen(t, c)
	<-begun
	e.stop()
	<-ended
	if e.heard() != 0 {
		t.Errorf("told: %v", e.all())
	}
}

func TestCommandThatIsNotThere(t *testing.T) {
	c := must[*Command](t)(NewCommand(CommandConfig{Target: "x", Now: bootNow, Run: func(ctx context.Context) ([]byte, error) {
		return exec.CommandContext(ctx, "/nowhere/to be found").Output()
	}}))
	err := c.Run(t.Context(), func([]reflexes.Fact) { t.Error("told something") })
	if err == nil || !strings.Contains(err.Error(), "/nowhere/to be found") {
		t.Error(err)
	}
}

func TestCommandOutputs(t *testing.T) {
	c := must[*Command](t)(NewCommand(CommandConfig{Target: "x", Now: bootNow, Run: says("")}))
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

// says is a command that does nothing but say something.
func says(text string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return []byte(text), nil }
}

func TestNewCommandRefuses(t *testing.T) {
	good := CommandConfig{Target: "x", Now: bootNow, Run: says("")}
	if _, err := NewCommand(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(c *CommandConfig){
		"no clock":   func(c *CommandConfig) { c.Now = nil },
		"no name":    func(c *CommandConfig) { c.Target = "" },
		"a bad name": func(c *CommandConfig) { c.Target = "../x" },
		"no command": func(c *CommandConfig) { c.Run = nil },
		"too often":  func(c *CommandConfig) { c.Interval = time.Millisecond },
	} {
		cfg := good
		change(&cfg)
		if _, err := NewCommand(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
