package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/intent"
)

// sense declares senses, and a rule about each that says so when it holds.
func (h *host) sense(t *testing.T, when string, list ...intent.Sense) {
	t.Helper()
	in := intent.Intents{Senses: list}
	for _, s := range list {
		in.Reflexes = append(in.Reflexes, intent.Reflex{
			Name: "of-" + s.Name, Scope: "sense:" + s.Name, When: when, Act: []intent.Action{{Op: "emit", Target: "so"}},
		})
	}
	if err := h.Post(t.Context(), "/v1/apply", nil, api.ApplyRequest{Intents: in}, nil); err != nil {
		t.Fatal(err)
	}
}

// anybodysDir is a directory that others may read.
func anybodysDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sense")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestSensesOfUsers: what a command says, and that a file has changed, is what
// conditions are about; and both go when they are deleted.
func TestSensesOfUsers(t *testing.T) {
	h := startHost(t, "h1", func(c *Config) { c.AllowRun = true })
	h.init(t)
	dir := anybodysDir(t)
	number, watched := filepath.Join(dir, "number"), filepath.Join(dir, "watched")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write(number, "20.5\n")
	h.sense(t, "sense.value > 30.0 && sense.ok", intent.Sense{Name: "warm", Command: []string{"/bin/cat", number}, Every: intent.Second})
	h.sense(t, "sense.count > 0", intent.Sense{Name: "conf", Files: []string{watched}})
	awaitValue(t, h, "sense.value", "sense:warm", "20.5")
	awaitValue(t, h, "sense.text", "sense:warm", `"20.5"`)
	if list := h.told(t, "reflex.*.*.fired"); len(list) > 0 {
		t.Errorf("fired already: %s", texts(list))
	}
	write(number, "31\n")
	if fired := h.fired(t, "of-warm"); fired.Target != "sense:warm" || string(fired.Facts["sense.value"]) != "31.0" {
		t.Errorf("fired: %+v", fired)
	}
	awaitRules(t, h, 2) // so that the files are watched
	write(watched, "x")
	if fired := h.fired(t, "of-conf"); fired.Target != "sense:conf" || string(fired.Facts["sense.count"]) == "0" {
		t.Errorf("fired: %+v", fired)
	}
	if err := os.Remove(number); err != nil {
		t.Fatal(err)
	}
	awaitValue(t, h, "sense.ok", "sense:warm", "false")
	awaitValue(t, h, "sense.value", "sense:warm", "")
	for _, name := range []string{"warm", "conf"} {
		if err := h.Delete(t.Context(), "/v1/senses/"+name, nil); err != nil {
			t.Fatal(err)
		}
	}
	awaitValue(t, h, "sense.ok", "sense:warm", "")
}

// awaitValue waits until a variable of a target is known to have a value; "": it
// is not known.
func awaitValue(t *testing.T, h *host, name, target, want string) {
	t.Helper()
	await(t, 40*time.Second, name+" of "+target, func() error {
		var list []api.ReflexVar
		if err := h.Get(t.Context(), "/v1/local/reflexes/vars", nil, &list); err != nil {
			return err
		}
		got := ""
		for _, v := range list {
			for _, x := range v.Values {
				if v.Name == name && x.Target == target && x.Value.Known() {
					got = x.Value.String()
				}
			}
		}
		if got != want {
			return fmt.Errorf("it is %q, want %q", got, want)
		}
		return nil
	})
}

// TestCommandsOfUsersAreOff unless the host's configuration lets them be; files
// are looked at everywhere.
func TestCommandsOfUsersAreOff(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	dir := anybodysDir(t)
	h.sense(t, "sense.ok || sense.count > 0",
		intent.Sense{Name: "warm", Command: []string{"/usr/bin/touch", filepath.Join(dir, "ran")}, Every: intent.Second})
	h.sense(t, "sense.count > 0", intent.Sense{Name: "conf", Files: []string{filepath.Join(dir, "watched")}})
	awaitRules(t, h, 1) // that of the files, of which something is known
	if err := os.WriteFile(filepath.Join(dir, "watched"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	h.fired(t, "of-conf")
	if _, err := os.Stat(filepath.Join(dir, "ran")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the command ran: %v", err)
	}
}
