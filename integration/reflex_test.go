package integration

import (
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

// A link of a host goes down. Its reflex heals at once what depends on the link,
// though two of three hosts are lost and nobody leads; and an agent that is killed
// in the middle of the act, while the copy takes its time to end, neither does it
// again nor forgets that it was begun.
func TestReflexesAlone(t *testing.T) {
	t.Parallel()
	r := startMesh(t, 3, 3)
	for _, h := range r.Hosts {
		h.IP("link", "add", "wg0", "type", "veth", "peer", "name", "far0")
		h.IP("link", "set", "far0", "up")
		h.IP("link", "set", "wg0", "up")
	}
	first, w := r.Hosts[0], newWitness(t)
	first.Must("apply", first.File("tunnel.hcl", w.tunnel()))
	awaitReady(t, first, "tunnel", 3, 30*time.Second)
	rig.Await(t, 20*time.Second, func() error {
		for _, h := range r.Hosts {
			if err := ruleIs(h, "inactive", 2); err != nil {
				return err
			}
		}
		return nil
	})
	h := r.Hosts[2]
	for _, lost := range others(r, h) {
		lost.Crash()
	}

	h.IP("link", "set", "wg0", "down")
	healed := rig.Await(t, 20*time.Second, func() error { return w.counts(h, "end", 1, "begin", 2) })
	h.IP("link", "set", "wg0", "up") // or it would act again
	t.Logf("healed with no leader %s after its link went down", healed.Round(time.Millisecond))
	rig.Await(t, 20*time.Second, func() error {
		if out := h.Must("events", "--since", "10m", "reflex.>"); strings.Count(out, "reflex.nic-down."+h.Name+".fired") != 1 {
			return fmt.Errorf("fired once, and told:\n%s", out)
		}
		return nil
	})
	rig.Await(t, 20*time.Second, func() error { return ruleIs(h, "inactive", 1) })

	if err := os.WriteFile(filepath.Join(w.dir, "hold"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	before := local(h)
	h.IP("link", "set", "wg0", "down")
	rig.Await(t, 20*time.Second, func() error { return w.counts(h, "end", 2, "begin", 2) })
	h.Kill()
	h.StartAgent()
	rig.Await(t, 30*time.Second, func() error {
		if out := h.Must("events", "--since", "10m", "reflex.>"); !strings.Contains(out, "reflex.nic-down."+h.Name+".suppressed") || !strings.Contains(out, "limit is used up") {
			return fmt.Errorf("held back by its limit, and told:\n%s", out)
		}
		return nil
	})
	if err := w.counts(h, "end", 2, "begin", 2); err != nil {
		t.Errorf("after the agent was killed in the middle of an act: %v", err)
	}
	if after := local(h); len(after) != 1 || len(before) != 1 || after[0].Pid != before[0].Pid {
		t.Errorf("copies: %+v before, %+v after", before, after)
	}
	t.Logf("%s", h.Must("reflex", "history", "nic-down"))
}

// tunnel declares an app on every host that tells when it begins and when it is
// asked to end, which it does not do while there is a file called hold; and the
// reflex that restarts it.
func (w witness) tunnel() string {
	script := fmt.Sprintf(`umask 0; echo $$ >>%[1]s/begin.$GANGLION_HOST
trap 'echo $$ >>%[1]s/end.$GANGLION_HOST; test -e %[1]s/hold || exit 0' TERM
while :; do sleep 1 & wait; done`, w.dir)
	return fmt.Sprintf(`app "tunnel" {
  per_host = true
  run { command = ["/bin/sh", "-c", %q] }
  stop { grace = "5s" }
}
reflex "nic-down" {
  scope     = "link:wg0"
  when      = "!link.up"
  for       = "200ms"
  clear_for = "200ms"
  act       = [restart("tunnel")]
  cooldown  = "10s"
  limit     = "2/1h"
}
`, script)
}

// counts tells whether so many lines are in a host's files.
func (w witness) counts(h *rig.Host, file string, n int, other string, m int) error {
	for name, want := range map[string]int{file: n, other: m} {
		b, err := os.ReadFile(filepath.Join(w.dir, name+"."+h.Name))
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		if got := strings.Count(string(b), "\n"); got != want {
			return fmt.Errorf("%s of %s: %d, want %d", name, h.Name, got, want)
		}
	}
	return nil
}

// ruleIs tells whether the only rule of a host, about one thing, is in a state
// with so many acts left.
func ruleIs(h *rig.Host, state string, left int) error {
	var rules []api.LocalReflex
	if err := h.Get("/v1/local/reflexes", &rules); err != nil {
		return err
	}
	ok := func(t api.ReflexTarget) bool { return t.State == state && t.Left == left }
	if len(rules) != 1 || len(rules[0].Targets) != 1 || !slices.ContainsFunc(rules[0].Targets, ok) {
		return fmt.Errorf("the rule of %s is not %s with %d acts left: %+v", h.Name, state, left, rules)
	}
	return nil
}
