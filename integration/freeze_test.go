package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// frozenOn is what a host shows.
func frozenOn(h *rig.Host) (*api.Frozen, error) {
	var st api.FreezeState
	err := h.Get("/v1/local/freeze", &st)
	return st.Frozen, err
}

func awaitFrozen(t *testing.T, want bool, hosts ...*rig.Host) {
	t.Helper()
	rig.Await(t, 60*time.Second, func() error {
		for _, h := range hosts {
			if f, err := frozenOn(h); err != nil || (f != nil) != want {
				return fmt.Errorf("%s: frozen %v, %v", h.Name, f != nil, err)
			}
		}
		return nil
	})
}

// A host that is cut off is frozen by hand, with no leader; when the cut heals so is
// the mesh, over a change of leader and restarts of agents. What ends is restarted
// where it is, until the freeze is a hard one; a host that dies keeps its copies. A
// thaw lets all of it go on.
func TestFreezeMesh(t *testing.T) {
	t.Parallel()
	r := startMesh(t, 5, 3)
	first := r.Hosts[0]
	first.Must("apply", first.File("web.hcl", sleepers("web", 10)))
	awaitReady(t, first, "web", 10, 60*time.Second)
	island := siteWithoutQuorum(t, r)[0]
	island.Isolate()
	if out := island.Must("freeze"); !strings.Contains(out, "everything (epoch 1)") {
		t.Errorf("freeze with no leader: %s", out)
	}
	island.Rejoin()
	awaitFrozen(t, true, r.Hosts...)
	var m api.Mesh
	if err := json.Unmarshal([]byte(first.Must("mesh", "-o", "json")), &m); err != nil || m.Frozen == nil || m.Frozen.Epoch != 1 || m.Frozen.Hard {
		t.Fatalf("mesh: %+v, %v", m.Frozen, err)
	}
	old := r.Leader()
	old.StopAgent()
	old.StartAgent()
	r.AwaitHosts(5, 60*time.Second)
	awaitReady(t, first, "web", 10, 60*time.Second)
	victim := others(r, r.Leader())[0]
	held := holdRestart(t, victim)
	r.AwaitHosts(5, 60*time.Second) // one at a time, or it would be the gate that holds
	lost := loseOne(t, r, victim)
	victim.Must("thaw")
	awaitFrozen(t, false, others(r, lost)...)
	awaitReady(t, victim, "web", 10, 240*time.Second, lost.Name) // the gate shuts for two minutes should another look dead
	if out := victim.Must("events", "--since", "10m", "freeze.>"); !strings.Contains(out, "freeze."+victim.Name+".frozen") || !strings.Contains(out, "freeze."+victim.Name+".thawed") {
		t.Errorf("events of the freeze:\n%s", out)
	}
	t.Logf("%s was held, and began again with the thaw", held)
}

// loseOne has a host with copies die, and none of them go elsewhere.
func loseOne(t *testing.T, r *rig.Rig, keep *rig.Host) *rig.Host {
	t.Helper()
	before, err := status(keep, "web")
	if err != nil {
		t.Fatal(err)
	}
	leader := r.Leader()
	var lost *rig.Host
	for _, h := range others(r, keep, leader) {
		if len(pids(before, h.Name)) > 0 {
			lost = h
		}
	}
	if lost == nil {
		t.Fatalf("the copies are on two hosts: %v", where(before))
	}
	lost.Crash()
	rig.Await(t, 60*time.Second, func() error {
		st, err := status(keep, "web")
		if err != nil {
			return err
		}
		for _, c := range st.Copies {
			if c.Host == lost.Name && !c.Ready && strings.Contains(st.Why, "ganglion thaw") {
				return nil
			}
		}
		return fmt.Errorf("%s is not missed: %+v", lost.Name, st)
	})
	time.Sleep(10 * time.Second) // twice the grace after which its copies would be elsewhere
	if during, err := status(keep, "web"); err != nil || !maps.Equal(where(before), where(during)) {
		t.Errorf("copies moved: %v, then %v (%v)", where(before), where(during), err)
	}
	return lost
}

// holdRestart has a copy of a host end: once when only the mesh is frozen, and once
// when a file asks for a hard freeze.
func holdRestart(t *testing.T, h *rig.Host) string {
	t.Helper()
	st, err := status(h, "web")
	if err != nil {
		t.Fatal(err)
	}
	id, pid := "", 0
	for c, p := range pids(st, h.Name) {
		id, pid = c, p
	}
	kill := func(pid int) {
		t.Helper()
		if pid <= 1 { // never the group of this test
			t.Fatalf("%s has pid %d", id, pid)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatalf("end %s: %v", id, err)
		}
	}
	kill(pid)
	now := 0
	rig.Await(t, 60*time.Second, func() error {
		st, err := status(h, "web")
		if now = pids(st, h.Name)[id]; err == nil && (now == 0 || now == pid) {
			err = fmt.Errorf("%s has pid %d, had %d", id, now, pid)
		}
		return err
	})
	if err := os.WriteFile(filepath.Join(h.DataDir(), "freeze"), []byte("--hard\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rig.Await(t, 30*time.Second, func() error {
		if f, err := frozenOn(h); err != nil || f == nil || !f.Hard {
			return fmt.Errorf("%+v, %v", f, err)
		}
		return nil
	})
	kill(now)
	rig.Await(t, 30*time.Second, func() error {
		for _, c := range local(h) {
			if c.ID == id && c.Pid == 0 && strings.Contains(c.Why, "restarts are frozen too") {
				return nil
			}
		}
		return fmt.Errorf("%s is not held", id)
	})
	h.StopAgent()
	h.StartAgent()
	time.Sleep(7 * time.Second) // longer than it waits to hear that it is alone
	for _, c := range local(h) {
		if c.ID == id && c.Pid != 0 {
			t.Errorf("frozen hard, and %s runs again as %d", id, c.Pid)
		}
	}
	return id
}
