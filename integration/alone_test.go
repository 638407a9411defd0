package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// where maps each copy to its host.
func where(st topology.AppStatus) map[string]string {
	out := map[string]string{}
	for _, c := range st.Copies {
		out[c.ID] = c.Host
	}
	return out
}

// A leader that hangs for half a minute, while the mesh is worked with, restarts
// nothing and moves nothing: the copies beside it run, and its kernel says so.
func TestLeaderFrozen(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 5)
	w := newWitness(t)
	r.Start()
	awaitVoters(t, r, 3)
	r.Hosts[0].Must("apply", r.Hosts[0].File("web.hcl", w.app("web", 10)))
	before, _ := awaitReady(t, r.Hosts[0], "web", 10, 30*time.Second)
	leader := r.Leader()
	if len(pids(before, leader.Name)) == 0 {
		t.Fatal("no copy on the leader's host")
	}
	rest := others(r, leader)
	leader.Signal(syscall.SIGSTOP)
	applied := 0
	for begun := time.Now(); time.Since(begun) < 30*time.Second; time.Sleep(2 * time.Second) {
		name := fmt.Sprintf("load%d", applied%3)
		if _, _, code := rest[0].CLI("apply", "--detach", rest[0].File("load.hcl", sleepers(name, 1+applied%2))); code == 0 {
			applied++
		}
	}
	if applied < 5 {
		t.Errorf("%d changes were accepted while the old leader hung, want at least 5", applied)
	}
	during, err := status(rest[0], "web")
	if err != nil {
		t.Fatal(err)
	}
	leader.Signal(syscall.SIGCONT)
	after, _ := awaitReady(t, leader, "web", 10, 30*time.Second)
	if !maps.Equal(where(before), where(during)) || !maps.Equal(where(before), where(after)) {
		t.Errorf("copies moved: %v before, %v during, %v after", where(before), where(during), where(after))
	}
	for _, h := range r.Hosts {
		if was, is := pids(before, h.Name), pids(after, h.Name); !maps.Equal(was, is) {
			t.Errorf("copies on %s were restarted: %v before, %v after", h.Name, was, is)
		}
	}
	w.check(t)
}

// A whole site loses its power while it is cut off from the rest: its hosts start
// their work again with nobody to ask, and when the link is back they hear what
// became of it meanwhile.
func TestSiteReboot(t *testing.T) {
	t.Parallel()
	r := startMesh(t, 5, 3)
	first := r.Hosts[0]
	first.Must("apply", first.File("web.hcl", sleepers("web", 10)+sleepers("gone", 5)))
	awaitReady(t, first, "gone", 5, 30*time.Second)
	before, _ := awaitReady(t, first, "web", 10, 30*time.Second)
	site := siteWithoutQuorum(t, r)
	rest := others(r, site...)
	r.Partition(site, rest)
	for _, h := range site {
		h.Kill()
		h.KillCopies()
	}
	for _, h := range site {
		h.StartAgent()
	}
	begun := time.Now()
	for _, h := range site {
		rig.Await(t, 40*time.Second, func() error { return runsAlone(h, len(pids(before, h.Name))) })
	}
	t.Logf("a site that was cut off ran its work again %s after its agents", time.Since(begun).Round(100*time.Millisecond))
	h := site[0]
	if _, errs, code := h.CLI("logs", "--local", "web/"+localCopy(t, h, "web")); code != 0 {
		t.Errorf("logs with no leader: %s", errs)
	}
	if out := h.Must("restart", "web/"+localCopy(t, h, "web"), "--local"); !strings.Contains(out, "restarted") {
		t.Errorf("restart with no leader: %s", out)
	}
	// Late news: what was deleted meanwhile ends at the reunion.
	rest[0].Must("delete", "gone", "--detach", "--yes")
	r.Heal()
	r.AwaitHosts(5, 60*time.Second)
	rig.Await(t, 60*time.Second, func() error {
		for _, h := range site {
			for _, c := range local(h) {
				if strings.HasPrefix(c.ID, "gone/") {
					return fmt.Errorf("%s still has %s", h.Name, c.ID)
				}
			}
		}
		return nil
	})
	awaitReady(t, h, "web", 10, 60*time.Second)
}

// siteWithoutQuorum picks two hosts without which the others can decide, and
// does not pick the leader.
func siteWithoutQuorum(t *testing.T, r *rig.Rig) []*rig.Host {
	t.Helper()
	leader := r.Leader()
	votes := votersOf(t, leader)
	rest := others(r, leader)
	slices.SortStableFunc(rest, func(a, b *rig.Host) int {
		if votes(a) == votes(b) {
			return 0
		} else if votes(b) {
			return -1
		}
		return 1
	})
	return rest[:2]
}

// local is what a host's own agent says of the copies on it.
func local(h *rig.Host) []topology.CopyStatus {
	out, _, _ := h.CLI("status", "--local", "-o", "json")
	var list []topology.AppStatus
	if json.Unmarshal([]byte(out), &list) != nil {
		return nil
	}
	var all []topology.CopyStatus
	for _, st := range list {
		all = append(all, st.Copies...)
	}
	return all
}

func localCopy(t *testing.T, h *rig.Host, app string) string {
	t.Helper()
	for _, c := range local(h) {
		if n, ok := strings.CutPrefix(c.ID, app+"/"); ok {
			return n
		}
	}
	t.Fatalf("no copy of %s on %s", app, h.Name)
	return ""
}

func runsAlone(h *rig.Host, want int) error {
	running := 0
	for _, c := range local(h) {
		if strings.HasPrefix(c.ID, "web/") && c.Pid != 0 && alive(c.Pid) {
			running++
		}
	}
	if running != want {
		return fmt.Errorf("%s runs %d copies alone, want %d", h.Name, running, want)
	}
	return nil
}

// A host dies at the very moment of an election: whoever is elected moves its
// work as soon as any other leader would.
func TestHostLostInElection(t *testing.T) {
	t.Parallel()
	r := startMesh(t, 7, 5)
	r.Hosts[0].Must("apply", r.Hosts[0].File("web.hcl", sleepers("web", 14)))
	before, _ := awaitReady(t, r.Hosts[0], "web", 14, 40*time.Second)
	leader := r.Leader()
	lost := siteWithoutQuorum(t, r)[0]
	rest := others(r, leader, lost)
	leader.Kill() // its copies run on
	lost.Crash()
	begun := time.Now()
	rig.Await(t, 30*time.Second, func() error {
		st, err := status(rest[0], "web")
		if err != nil {
			return err
		}
		for _, c := range st.Copies {
			if before := where(before)[c.ID]; before == lost.Name && (c.Host == lost.Name || !c.Ready) {
				return fmt.Errorf("copy %s: %+v", c.ID, c)
			}
		}
		return nil
	})
	took := time.Since(begun)
	t.Logf("the work of a host lost in an election ran elsewhere after %s", took.Round(time.Millisecond))
	if took > 15*time.Second {
		t.Errorf("moved after %s, want at most 15s", took)
	}
}

// A host is decommissioned: nothing of it is left, there or in the mesh.
func TestRemoveHost(t *testing.T) {
	t.Parallel()
	r := startMesh(t, 4, 3)
	leader := r.Leader()
	gone, first := leader, others(r, leader)[0] // the hardest: it leads
	first.Must("apply", first.File("web.hcl", sleepers("web", 8)))
	awaitReady(t, first, "web", 8, 30*time.Second)
	clearly := func(out string) {
		if !strings.Contains(out, "gone for certain: its copies, what they kept there, its part in the quorum, its identity") {
			t.Errorf("remove said: %s", out)
		}
	}
	if _, _, code := first.CLI("remove", gone.Name); code != 2 {
		t.Errorf("remove without --yes: exit %d, want 2", code)
	}
	clearly(first.Must("remove", gone.Name, "--yes"))
	awaitReady(t, first, "web", 8, 30*time.Second, gone.Name)
	rig.Await(t, 30*time.Second, func() error {
		if n := len(gone.Pids()); n > 1 {
			return fmt.Errorf("%d processes on the removed host, want the agent alone", n)
		}
		for _, name := range []string{"identity/identity.json", "raft", "slice.json", "apps/web", "output/web"} {
			if _, err := os.Stat(filepath.Join(gone.DataDir(), name)); !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("%s is still there: %v", name, err)
			}
		}
		return nil
	})
	var peers []api.Peer
	if err := first.Get("/v1/peers", &peers); err != nil || slices.ContainsFunc(peers, func(p api.Peer) bool { return p.Name == gone.Name }) {
		t.Errorf("peers %+v, %v", peers, err)
	}
	if told := first.Must("events", "--since", "1h", "-o", "json", "host."+gone.Name+".removed"); !strings.Contains(told, `"identity"`) {
		t.Errorf("told: %s", told)
	}
	gone.Must("join", first.Addr, "--token", strings.TrimSpace(first.Must("token", "create")))
	r.AwaitHosts(4, 30*time.Second)
}

// A host that is cut off from the leader alone reports and changes things through
// another voter.
func TestCutOffFromTheLeaderAlone(t *testing.T) {
	t.Parallel()
	r := startMesh(t, 4, 3)
	leader := r.Leader()
	for _, h := range []*rig.Host{siteWithoutQuorum(t, r)[0], others(r, leader)[0]} { // with a vote, and without
		r.Partition([]*rig.Host{leader}, []*rig.Host{h})
		app := "by-" + h.Name
		rig.Await(t, 20*time.Second, func() error { // until connections that are cut have been given up
			if out, errs, code := h.CLI("apply", "--timeout", "15s", h.File(app+".hcl", sleepers(app, 8))); code != 0 {
				return fmt.Errorf("apply: %s %s", out, errs)
			}
			return nil
		})
		st, _ := awaitReady(t, h, app, 8, 20*time.Second)
		if len(pids(st, h.Name)) == 0 {
			t.Errorf("%s, which reports through others, gets no copies", h.Name)
		}
		r.Heal()
	}
}
