package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// shipped declares an app whose version is in what its copies execute, with an
// update rule.
func shipped(name string, count int, script, update string) string {
	return fmt.Sprintf("app %q {\n  count = %d\n  run {\n    command = [\"/bin/sh\", \"-c\", %q]\n  }\n  restart {\n    limit = 1\n  }\n  update {\n    %s\n  }\n}\n",
		name, count, script, update)
}

// look is what is seen of an app while a version is brought out.
type look struct {
	reached, bad int // copies that had another version than the first; those of them that were not ready, at the worst moment
	least        int // ready copies that serve, at the worst moment
}

// watchApply applies a file and looks at the app until that has ended.
func watchApply(t *testing.T, h *rig.Host, app, file, first string, meanwhile func(topology.AppStatus)) (seen look, errs string, code int) {
	t.Helper()
	done, begun := make(chan struct{}), time.Now()
	go func() {
		defer close(done)
		_, errs, code = h.CLI("apply", "--timeout", "90s", file)
	}()
	seen.least = 1 << 30
	for {
		if st, err := status(h, app); err == nil {
			reached, bad := 0, 0
			for _, c := range st.Copies {
				if c.Version != first && c.Version != "" {
					reached++
					if !c.Ready {
						bad++
					}
				}
			}
			seen.reached, seen.bad = max(seen.reached, reached), max(seen.bad, bad)
			if !slices.ContainsFunc(st.Copies, unknown) {
				seen.least = min(seen.least, st.Ready)
			}
			meanwhile(st)
		}
		select {
		case <-done:
			seen.reached = max(seen.reached, startedAs(t, h, app, first, begun))
			return seen, errs, code
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// startedAs counts the copies that have been started at another version than first since
// a time, by what their hosts told: one that ends at once is gone before it is looked at.
func startedAs(t *testing.T, h *rig.Host, app, first string, since time.Time) int {
	t.Helper()
	copies := map[string]bool{}
	for line := range strings.Lines(h.Must("events", "--since", "5m", "-o", "json", "app."+app+".*.started")) {
		var e events.Event
		var data events.AppStarted
		if err := errors.Join(json.Unmarshal([]byte(line), &e), json.Unmarshal(e.Data, &data)); err != nil {
			t.Fatal(err)
		}
		if e.Time.After(since) && data.Version != first {
			copies[e.Subject] = true
		}
	}
	return len(copies)
}

// unknown tells of a copy whose host the leader has yet to hear from.
func unknown(c topology.CopyStatus) bool {
	return strings.Contains(c.Why, "to take it up") || strings.Contains(c.Why, "has not reported") || strings.Contains(c.Why, "does not answer")
}

func allPids(st topology.AppStatus) map[string]int {
	out := map[string]int{}
	for _, c := range st.Copies {
		out[c.ID] = c.Pid
	}
	return out
}

// A version that cannot work, and one that works on some hosts only, on fifty
// real copies: few get it, all come back, and no copy that is well is lost (S5,
// S6).
func TestBadVersionOfFiftyCopies(t *testing.T) {
	t.Parallel()
	const count = 50
	r := rig.New(t, 3)
	r.Start()
	h := r.Hosts[0]
	h.Must("apply", h.File("web.hcl", shipped("web", count, "exec sleep 100000", "healthy_for = \"1s\"")))
	before, _ := awaitReady(t, h, "web", count, 60*time.Second)
	nothing := func(topology.AppStatus) {}

	seen, errs, code := watchApply(t, h, "web", h.File("bad.hcl", shipped("web", count, "echo no database; exit 1", "parallel = 3\n canary = 2\n healthy_for = \"1s\"")), before.Version, nothing)
	t.Logf("a version that ends at once: %+v", seen)
	if first, _, _ := strings.Cut(errs, "\n"); code != 1 || !strings.Contains(errs, "was rolled back") || !strings.Contains(errs, "no database") {
		t.Errorf("apply of a bad version: exit %d, %s", code, first)
	}
	if seen.reached > 3 || seen.reached == 0 || seen.least < count {
		t.Errorf("it reached %d copies (at most 3 may have it), %d of %d were ready at the worst moment", seen.reached, seen.least, count)
	}
	after, _ := awaitReady(t, h, "web", count, 30*time.Second)
	for id, pid := range allPids(before) {
		if now := allPids(after)[id]; now != pid {
			t.Errorf("%s was well and was touched: pid %d, now %d", id, pid, now)
		}
	}

	// Only where a copy of it comes to that host is it found wanting.
	script := fmt.Sprintf("test $GANGLION_HOST != %s || exit 1; exec sleep 100000", r.Hosts[2].Name)
	const parallel = 6
	seen, errs, code = watchApply(t, h, "web", h.File("half.hcl", shipped("web", count, script, fmt.Sprintf("parallel = %d\n healthy_for = \"1s\"", parallel))), before.Version, nothing)
	t.Logf("a version that fails on one host: %+v", seen)
	if code != 1 || !strings.Contains(errs, "was rolled back") {
		t.Errorf("apply of a version that fails on one host: exit %d, %s", code, errs)
	}
	if seen.bad > parallel || seen.least < count-parallel {
		t.Errorf("%d copies were bad at once, %d of %d ready at the worst moment, parallel is %d", seen.bad, seen.least, count, parallel)
	}
	after, _ = awaitReady(t, h, "web", count, 30*time.Second)
	if after.Version != before.Version || after.State != topology.AppSteady {
		t.Errorf("after it: %s at version %s, want steady at %s", after.State, after.Version, before.Version)
	}
	if out := h.Must("history", "web"); strings.Count(out, "rolledback") != 2 {
		t.Errorf("history:\n%s", out)
	}
}

// The leader is killed in the middle of a rollout, of a version that is good and
// of one that is not: the next one goes on where it was.
func TestLeaderKilledInMidRollout(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 3)
	w := newWitness(t)
	r.Start()
	awaitVoters(t, r, 3)
	version := func(v, update string) string {
		return strings.Replace(w.app("web", 6), "  run {", "  restart {\n    limit = 1\n  }\n  update {\n    "+update+"\n  }\n  run {\n    env = { V = \""+v+"\" }", 1)
	}
	leader := r.Leader()
	h := others(r, leader)[0]
	h.Must("apply", h.File("one.hcl", version("1", "healthy_for = \"1s\"")))
	before, _ := awaitReady(t, h, "web", 6, 30*time.Second)

	kill := func(changed int) func(topology.AppStatus) {
		killed := false
		return func(st topology.AppStatus) {
			n := 0
			for _, c := range st.Copies {
				if c.Version != before.Version {
					n++
				}
			}
			if !killed && n >= changed && st.State == topology.AppRolling {
				killed = true
				old := leader
				old.Kill()
				rig.Await(t, 20*time.Second, func() error {
					var m api.Mesh
					if err := h.Get("/v1/mesh", &m); err != nil || m.Leader == old.Name {
						return fmt.Errorf("leader %q, %v", m.Leader, err)
					}
					return nil
				})
				old.StartAgent()
			}
		}
	}
	seen, errs, code := watchApply(t, h, "web", h.File("two.hcl", version("2", "healthy_for = \"1s\"")), before.Version, kill(3))
	if code != 0 || seen.least < 6-1 {
		t.Errorf("a good version, the leader killed: exit %d, %d of 6 ready at the worst moment, %s", code, seen.least, errs)
	}
	before, _ = awaitReady(t, h, "web", 6, 30*time.Second)

	leader = r.Leader()
	h = others(r, leader)[0]
	bad := strings.Replace(version("3", "canary = 1\n healthy_for = \"5s\""), "exec sleep 100000", "sleep 2; exit 1", 1)
	seen, errs, code = watchApply(t, h, "web", h.File("three.hcl", bad), before.Version, kill(1))
	if code != 1 || !strings.Contains(errs, "was rolled back") || seen.reached > 1 {
		t.Errorf("a bad version, the leader killed: exit %d, it reached %d copies, %s", code, seen.reached, errs)
	}
	after, _ := awaitReady(t, h, "web", 6, 30*time.Second)
	for id, pid := range allPids(before) {
		if now := allPids(after)[id]; now != pid {
			t.Errorf("%s was well and was touched: pid %d, now %d", id, pid, now)
		}
	}
	w.check(t)
}
