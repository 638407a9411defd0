package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// clear checks that a command failed with the code and one line that says all
// of want, and nothing on stdout that looks like success.
func clear(t *testing.T, what, errs string, code, wantCode int, want ...string) {
	t.Helper()
	first, _, _ := strings.Cut(strings.TrimSpace(errs), "\n")
	if code != wantCode {
		t.Errorf("%s: exit %d, want %d (%s)", what, code, wantCode, first)
	}
	for _, w := range want {
		if !strings.Contains(first, w) {
			t.Errorf("%s: the first line does not say %q: %q", what, w, first)
		}
	}
	if len(first) > 500 {
		t.Errorf("%s: the first line has %d characters", what, len(first))
	}
}

func TestWrongInput(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 1)
	h := r.Hosts[0]
	h.StartAgent()
	_, errs, code := h.CLI("status")
	clear(t, "no mesh", errs, code, 1, "no mesh", "ganglion init")
	h.Must("init")

	const run = "run {\n command = [\"/bin/sleep\", \"1000\"]\n }\n"
	for _, c := range []struct {
		what, hcl string
		code      int
		want      []string
	}{
		{"bad syntax", "app \"web\" {", 2, []string{"bad syntax.hcl:1"}},
		{"unknown field", "app \"web\" {\n" + run + " cuont = 3\n}", 2, []string{"unknown field.hcl:5", "cuont"}},
		{"long name", "app \"" + strings.Repeat("x", 300) + "\" {\n" + run + "}", 2, []string{"name"}},
		{"units by a pattern", "reflex \"r\" {\n scope = \"unit:nginx*\"\n when = \"unit.state == 'failed'\"\n act = [throttle({ cpu = \"50%\" })]\n cooldown = \"1m\"\n limit = \"3/10m\"\n}", 2, []string{"act[0]", "needs its name"}},
		{"binary missing", "app \"nobin\" {\n run {\n command = [\"/no/such/binary\"]\n }\n}", 1, []string{"/no/such/binary"}},
		{"artifact missing", "app \"noart\" {\n run {\n command = [\"./x\"]\n artifact = \"/no/such/dir\"\n }\n}", 2, []string{"/no/such/dir"}},
		{"no host fits", "app \"nofit\" {\n" + run + " place {\n require = [\"zone == 'mars'\"]\n }\n}", 1, []string{"zone == 'mars'"}},
	} {
		begun, timeout := time.Now(), "20s"
		if c.what == "no host fits" { // it waits for one that does
			timeout = "4s"
		}
		_, errs, code := h.CLI("apply", "--timeout", timeout, h.File(c.what+".hcl", c.hcl))
		clear(t, c.what, errs, code, c.code, c.want...)
		if took := time.Since(begun); strings.HasSuffix(c.what, "missing") && took > 10*time.Second {
			t.Errorf("%s: told after %s, want at once", c.what, took)
		}
	}
	_, errs, code = h.CLI("status", "nosuchapp")
	clear(t, "unknown app", errs, code, 1, "nosuchapp")
	_, errs, code = h.CLI("delete", "nosuchapp", "--yes")
	clear(t, "delete unknown app", errs, code, 1, "nosuchapp")
	_, errs, code = h.CLI("delete", "web")
	clear(t, "delete without --yes", errs, code, 2, "--yes")
	_, errs, code = h.CLI("status", "--nonsense")
	clear(t, "unknown flag", errs, code, 2, "nonsense")
	_, errs, code = h.CLI("drain", "h9")
	clear(t, "drain unknown host", errs, code, 1, "h9")
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 1)
	h := r.Hosts[0]
	h.StartAgent()
	h.Must("init")
	// An app with a static port that the agent itself holds: the copy cannot have
	// it, and says so.
	_, errs, code := h.CLI("apply", "--timeout", "15s", h.File("p.hcl", "app \"p\" {\n run {\n command = [\"/bin/sleep\", \"1000\"]\n }\n port \"http\" {\n static = 7947\n }\n}"))
	clear(t, "static port taken", errs, code, 1, "7947")
	// A second agent on the same ports ends with a line, and touches nothing.
	_, errs, code = h.CLI("agent", "--name", "other", "--data-dir", filepath.Join(h.Dir, "other"), "--socket", h.Socket())
	clear(t, "socket taken", errs, code, 1, "socket")
	_, errs, code = h.CLI("agent", "--name", "other", "--data-dir", h.DataDir(), "--socket", filepath.Join(h.Dir, "o.sock"))
	clear(t, "data_dir taken", errs, code, 1, "data_dir", "another agent")
	_, errs, code = h.CLI("agent", "--name", "other", "--init", "--advertise", h.Addr, "--data-dir", filepath.Join(h.Dir, "other"), "--socket", filepath.Join(h.Dir, "o.sock"))
	clear(t, "mesh port taken", errs, code, 1, "7947", "in use")
}

func TestTwoHostsOfOneName(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 2)
	first, second := r.Hosts[0], r.Hosts[1]
	first.StartAgent()
	first.Must("init")
	first.Must("apply", first.File("web.hcl", sleepers("web", 2)))
	token := r.Token()
	second.StartAgent("--name", first.Name)
	_, errs, code := second.CLI("join", first.Addr, "--token", token)
	clear(t, "join under a taken name", errs, code, 1, first.Name, "name")
	st, err := status(first, "web")
	if err != nil || st.Ready != 2 {
		t.Errorf("the first host's work was touched: %+v, %v", st, err)
	}
}

func TestSeedThatNeverAnswers(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 2)
	first, second := r.Hosts[0], r.Hosts[1]
	first.StartAgent()
	first.Must("init")
	token := r.Token()
	second.StartAgent()
	begun := time.Now()
	_, errs, code := second.CLI("join", "10.88.0.99", "--token", token)
	clear(t, "silent seed", errs, code, 1, "10.88.0.99")
	if took := time.Since(begun); took > 40*time.Second {
		t.Errorf("a silent seed was given up after %s", took)
	}
	_, errs, code = second.CLI("join", first.Addr, "--token", "mesh1.rubbish")
	clear(t, "bad token", errs, code, 2, "token")
	wrong := token[:len(token)-4] + "aaaa"
	_, errs, code = second.CLI("join", first.Addr, "--token", wrong)
	clear(t, "wrong secret", errs, code, 1, "token")
	// By configuration it is tried for ever, and works once the seed does.
	second.StopAgent()
	file := second.File("token", token)
	second.StartAgent("--seeds", "10.88.0.99,"+first.Addr, "--token-file", file)
	r.AwaitHosts(2, 40*time.Second)
}

func TestNoLeader(t *testing.T) {
	t.Parallel()
	r := startMesh(t, 3, 3)
	h := r.Hosts[2]
	h.Must("apply", h.File("web.hcl", sleepers("web", 3)))
	before, _ := awaitReady(t, h, "web", 3, 20*time.Second)
	r.Hosts[0].Kill()
	r.Hosts[1].Kill()
	intents := h.File("more.hcl", sleepers("more", 1))
	rig.Await(t, 20*time.Second, func() error { // until it has noticed
		if _, _, code := h.CLI("mesh"); code == 0 {
			return errors.New("still has a leader")
		}
		return nil
	})
	_, errs, code := h.CLI("apply", intents)
	clear(t, "apply without a leader", errs, code, 1, "leader", "nothing was changed")

	// What runs here goes on, is restarted, and can be told about and stopped.
	mine := pids(before, h.Name)
	for id, pid := range mine {
		if !alive(pid) {
			t.Errorf("copy %s ended when the leader was lost", id)
		}
	}
	if out := h.Must("status", "--local"); !strings.Contains(out, "web") {
		t.Errorf("status --local: %s", out)
	}
	h.Must("stop", "web", "--local")
	rig.Await(t, 20*time.Second, func() error {
		for id, pid := range mine {
			if alive(pid) {
				return fmt.Errorf("copy %s still runs", id)
			}
		}
		return nil
	})
	h.Must("start", "web", "--local")
	// The agent restarted with no leader starts its work again.
	h.Kill()
	h.KillCopies()
	h.StartAgent()
	rig.Await(t, 30*time.Second, func() error {
		if out, _, _ := h.CLI("status", "--local", "-o", "json"); !strings.Contains(out, "\"running\"") {
			return fmt.Errorf("not running alone: %s", out)
		}
		return nil
	})
}

func TestDrainAndLeave(t *testing.T) {
	t.Parallel()
	r := startMesh(t, 4, 3)
	h := r.Hosts[0]
	web := strings.Replace(sleepers("web", 8), "{\n", "{\n  update {\n    healthy_for = \"500ms\"\n  }\n", 1)
	h.Must("apply", h.File("web.hcl", web))
	awaitReady(t, h, "web", 8, 20*time.Second)
	h.Must("drain", "h4")
	awaitReady(t, h, "web", 8, 30*time.Second, "h4")
	told := h.Must("events", "--since", "1h", "-o", "json", "host.h4.>")
	for _, want := range []string{"dev.ganglion.host.draining", "dev.ganglion.host.drained"} {
		if !strings.Contains(told, want) {
			t.Errorf("%s was not told: %s", want, told)
		}
	}
	startedFirst(t, h, "web", "h4")
	h.Must("undrain", "h4")
	h.Must("drain", "h3")
	st, _ := awaitReady(t, h, "web", 8, 30*time.Second, "h3")
	if len(pids(st, "h4")) == 0 {
		t.Error("nothing came to a host that was taken back")
	}
	r.Hosts[2].Must("leave", "--yes")
	rig.Await(t, 30*time.Second, func() error {
		var hosts []api.Host
		if err := h.Get("/v1/hosts", &hosts); err != nil {
			return err
		}
		if i := slices.IndexFunc(hosts, func(x api.Host) bool { return x.Name == "h3" }); i >= 0 {
			return fmt.Errorf("h3 is still there: %+v", hosts[i])
		}
		return nil
	})
	if _, err := os.Stat(filepath.Join(r.Hosts[2].DataDir(), "identity", "identity.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a host that left still has its identity: %v", err)
	}
	// It can join again.
	r.Hosts[2].Must("join", h.Addr, "--token", r.Token())
	r.AwaitHosts(4, 30*time.Second)
}

// startedFirst holds the moves of an app off a host against the events: whoever took
// over was ready before the copy that it took over from was stopped.
func startedFirst(t *testing.T, h *rig.Host, app, from string) {
	t.Helper()
	type event struct {
		Type, Subject string
		Time          time.Time
		Data          struct{ From, As string }
	}
	when, moves := map[string]time.Time{}, []event{}
	for line := range strings.Lines(h.Must("events", "--since", "1h", "-o", "json", "app."+app+".>")) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("event %q: %v", line, err)
		}
		when[strings.TrimPrefix(e.Type, "dev.ganglion.app.")+" "+e.Subject] = e.Time
		if strings.HasSuffix(e.Type, ".moved") && e.Data.From == from {
			moves = append(moves, e)
		}
	}
	for _, m := range moves {
		ready, stopped := when["ready app/"+m.Data.As], when["stopped "+m.Subject]
		if ready.IsZero() || stopped.IsZero() || !ready.Before(stopped) {
			t.Errorf("%s moved off %s as %q: that was ready at %s, the other stopped at %s", m.Subject, from, m.Data.As, ready, stopped)
		}
	}
	if len(moves) == 0 {
		t.Errorf("nothing moved off %s", from)
	}
}

// A copy that daemonises out of its session is still stopped whole.
func TestDaemonIsStoppedWhole(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 1)
	h := r.Hosts[0]
	h.StartAgent()
	h.Must("init")
	script := `setsid sh -c 'sleep 98765 & sleep 98765' & exec sleep 98765`
	h.Must("apply", h.File("d.hcl", fmt.Sprintf("app \"d\" {\n stop {\n grace = \"2s\"\n }\n run {\n command = [\"/bin/sh\", \"-c\", %q]\n }\n}", script)))
	before := len(h.Pids())
	if before < 5 {
		t.Fatalf("%d processes on the host, want the agent and four of the copy", before)
	}
	h.Must("delete", "d", "--yes")
	rig.Await(t, 15*time.Second, func() error {
		if left := h.Pids(); len(left) != 1 {
			return fmt.Errorf("processes left on the host: %v", left)
		}
		return nil
	})
}
