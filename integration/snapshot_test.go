package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// TestSnapshotRestored saves a mesh, changes all that can be changed, and takes
// it back: to what was declared, not to who is in it, with no process restarted
// that is as it was.
func TestSnapshotRestored(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 5)
	first, late := r.Hosts[:4], r.Hosts[4]
	h := r.Hosts[0]
	h.StartAgent()
	h.Must("init", "--name", "test")
	token := r.Token()
	for _, x := range first[1:] {
		x.StartAgent()
		x.Must("join", h.Addr, "--token", token)
	}
	r.AwaitHosts(4, 30*time.Second)
	awaitVoters(t, r, 3)
	all := h.File("all.hcl", quick("same", 4, "1")+quick("scaled", 2, "1")+quick("deleted", 2, "1")+quick("stopped", 1, "1")+quick("changed", 2, "1"))
	h.Must("apply", all)
	pidsOf := func(app string) map[string]int {
		st, _ := awaitReady(t, h, app, map[string]int{"same": 4, "stopped": 1}[app], 30*time.Second)
		out := map[string]int{}
		for _, x := range r.Hosts {
			maps.Copy(out, pids(st, x.Name))
		}
		return out
	}
	same := pidsOf("same")
	was := placesOf(t, h, "deleted")

	file := filepath.Join(h.Dir, "mesh.snap")
	voter, plain := voterAndNot(t, r)
	voter.Must("snapshot", "save", file)
	if out := voter.Must("snapshot", "inspect", file); !strings.Contains(out, "with the mesh's keys") {
		t.Errorf("saved on a voter: %s", out)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if _, errs, code := plain.CLI("snapshot", "save", file+".plain"); code != 0 || !strings.Contains(errs, "without the keys") {
		t.Errorf("saved on a host that is no voter: exit %d, %s", code, errs)
	}
	planFromFile(t, plain, file+".plain")

	h.Must("delete", "deleted", "--yes")
	h.Must("stop", "stopped")
	h.Must("apply", h.File("more.hcl", quick("added", 2, "1")+quick("scaled", 5, "1")+quick("changed", 2, "2")))
	late.StartAgent()
	late.Must("join", h.Addr, "--token", token)
	r.AwaitHosts(5, 30*time.Second)

	if _, errs, code := plain.CLI("snapshot", "restore", file); code != 2 || !strings.Contains(errs, "--yes") {
		t.Errorf("restore without --yes: exit %d, %s", code, errs)
	}
	plain.Must("snapshot", "restore", file, "--yes")
	awaitRestored(t, h, map[string]int{"same": 4, "scaled": 2, "deleted": 2, "stopped": 1, "changed": 2})
	if got := pidsOf("same"); !maps.Equal(got, same) {
		t.Errorf("the copies of an app that nobody touched have pids %v, had %v", got, same)
	}
	if got := placesOf(t, h, "deleted"); !maps.Equal(got, was) {
		t.Errorf("a deleted app came back to %v, was on %v", got, was)
	}
	if !strings.Contains(late.Must("hosts"), late.Name) {
		t.Error("the host that joined after the snapshot is locked out")
	}
	// What follows is told to everyone: nobody waits for an index of before.
	late.Must("apply", late.File("after.hcl", quick("after", 5, "1")))
	refuseForeign(t, file)
}

// quick is an app that is soon proved; another n makes another version.
func quick(name string, count int, n string) string {
	return fmt.Sprintf("app %q {\n  count = %d\n  run {\n    command = [\"/bin/sleep\", \"%s00000\"]\n  }\n  update {\n    healthy_for = \"200ms\"\n  }\n}\n", name, count, n)
}

func placesOf(t *testing.T, h *rig.Host, app string) map[string]string {
	t.Helper()
	st, _ := awaitReady(t, h, app, 2, 30*time.Second)
	out := map[string]string{}
	for _, c := range st.Copies {
		out[c.ID] = c.Host
	}
	return out
}

func voterAndNot(t *testing.T, r *rig.Rig) (voter, plain *rig.Host) {
	t.Helper()
	var m api.Mesh
	if err := r.Hosts[0].Get("/v1/mesh", &m); err != nil {
		t.Fatal(err)
	}
	for _, h := range r.Hosts[:4] {
		if slices.Contains(m.Voters, h.Name) {
			voter = h
		} else {
			plain = h
		}
	}
	return voter, plain
}

// planFromFile holds that a plan from a file is the one that the leader makes. A
// host that is late at one of the two moments is looked at again.
func planFromFile(t *testing.T, h *rig.Host, file string) {
	t.Helper()
	plan := func(args ...string) (p topology.Preview, err error) {
		out, errs, code := h.CLI(append([]string{"plan", "--lose", "h2", "-o", "json"}, args...)...)
		if err = json.Unmarshal([]byte(out), &p); err != nil || code != 2 || len(p.Moves) == 0 {
			err = fmt.Errorf("plan %v: exit %d, %w\n%s%s", args, code, err, out, errs)
		}
		return p, err
	}
	rig.Await(t, 30*time.Second, func() error {
		h.Must("snapshot", "save", file)
		paper, err := plan("--from", file)
		if err != nil {
			return err
		}
		live, err := plan()
		if err == nil && fmt.Sprint(live.Moves) != fmt.Sprint(paper.Moves) {
			err = fmt.Errorf("the leader says %v, the file %v", live.Moves, paper.Moves)
		}
		return err
	})
}

// awaitRestored waits until exactly these apps are steady with so many copies.
func awaitRestored(t *testing.T, h *rig.Host, want map[string]int) {
	t.Helper()
	rig.Await(t, 60*time.Second, func() error {
		var list []topology.AppStatus
		if err := h.Get("/v1/status", &list); err != nil {
			return err
		}
		for _, st := range list {
			if n, ok := want[st.App]; !ok || st.State != topology.AppSteady || st.Ready != n || len(st.Copies) != n {
				return fmt.Errorf("%s is %s, %d ready, %d copies, want %d", st.App, st.State, st.Ready, len(st.Copies), n)
			}
		}
		if len(list) != len(want) {
			return fmt.Errorf("%d apps, want %d", len(list), len(want))
		}
		return nil
	})
}

// refuseForeign offers the snapshot to another mesh.
func refuseForeign(t *testing.T, file string) {
	t.Helper()
	other := rig.New(t, 1)
	other.Start()
	_, errs, code := other.Hosts[0].CLI("snapshot", "restore", file, "--yes")
	if code != 1 || !strings.Contains(errs, "of another mesh") {
		t.Errorf("another mesh took it: exit %d, %s", code, errs)
	}
}
