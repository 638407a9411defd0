package integration

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// others returns the hosts of r without h.
func others(r *rig.Rig, h ...*rig.Host) []*rig.Host {
	return slices.DeleteFunc(slices.Clone(r.Hosts), func(x *rig.Host) bool { return slices.Contains(h, x) })
}

func TestFiveHostsFindEachOther(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 5)
	r.Hosts[0].StartAgent()
	r.Hosts[0].Must("init", "--name", "test")
	token := r.Token()
	for _, h := range r.Hosts[1:] {
		h.StartAgent()
		h.Must("join", r.Hosts[0].Addr, "--token", token)
	}
	begun := time.Now()
	r.AwaitHosts(5, 5*time.Second)
	t.Logf("all hosts saw all %s after the last join", time.Since(begun).Round(time.Millisecond))
	rig.Await(t, 30*time.Second, func() error {
		var m api.Mesh
		if err := r.Hosts[4].Get("/v1/mesh", &m); err != nil {
			return err
		}
		if len(m.Voters) != 3 {
			return fmt.Errorf("voters %v, want 3", m.Voters)
		}
		return nil
	})
}

func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 5)
	w := newWitness(t)
	r.Start()
	awaitVoters(t, r, 3)
	intents := r.Hosts[0].File("web.hcl", w.app("web", 10))
	r.Hosts[0].Must("apply", intents)
	before, _ := awaitReady(t, r.Hosts[0], "web", 10, 20*time.Second)

	leader := r.Leader()
	rest := others(r, leader)
	more := rest[0].File("more.hcl", w.app("more", 3))
	leader.Kill()
	begun := time.Now()
	rest[0].Must("apply", "--detach", more)
	took := time.Since(begun)
	t.Logf("after kill -9 of the leader, a new one accepted an intent in %s", took.Round(time.Millisecond))
	if took > 5*time.Second {
		t.Errorf("a new leader accepted an intent after %s, want at most 5s", took)
	}
	// Its copies run on, and the agent takes them up again.
	mine := pids(before, leader.Name)
	for id, pid := range mine {
		if !alive(pid) {
			t.Errorf("copy %s (pid %d) ended with its agent", id, pid)
		}
	}
	leader.StartAgent()
	after, _ := awaitReady(t, leader, "web", 10, 30*time.Second)
	if got := pids(after, leader.Name); !maps.Equal(got, mine) {
		t.Errorf("copies on %s: %v before the kill, %v after the agent came back", leader.Name, mine, got)
	}
	awaitReady(t, leader, "more", 3, 30*time.Second)
	w.check(t)
}

// startMesh starts a mesh of hosts in which so many of them have come to vote.
func startMesh(t *testing.T, hosts, voters int) *rig.Rig {
	t.Helper()
	r := rig.New(t, hosts)
	r.Start()
	awaitVoters(t, r, voters)
	return r
}

// votersOf tells which hosts vote, as one of them knows it now.
func votersOf(t *testing.T, h *rig.Host) func(*rig.Host) bool {
	t.Helper()
	var peers []api.Peer
	if err := h.Get("/v1/peers", &peers); err != nil {
		t.Fatal(err)
	}
	return func(h *rig.Host) bool {
		return slices.ContainsFunc(peers, func(p api.Peer) bool { return p.Name == h.Name && p.Voter })
	}
}

func awaitVoters(t *testing.T, r *rig.Rig, n int) {
	t.Helper()
	rig.Await(t, 40*time.Second, func() error {
		var peers []api.Peer
		if err := r.Hosts[0].Get("/v1/peers", &peers); err != nil {
			return err
		}
		voters := 0
		for _, p := range peers {
			if p.Voter && p.Healthy {
				voters++
			}
		}
		if voters != n {
			return fmt.Errorf("peers %+v, want %d healthy voters", peers, n)
		}
		return nil
	})
}

func TestAgentKilledCopiesLive(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 3)
	r.Start()
	h := r.Hosts[2]
	h.Must("apply", h.File("web.hcl", sleepers("web", 6)))
	before, _ := awaitReady(t, h, "web", 6, 20*time.Second)
	mine := pids(before, h.Name)
	if len(mine) == 0 {
		t.Fatal("no copy on the host under test")
	}
	for range 3 {
		h.Kill()
		h.StartAgent()
	}
	after, _ := awaitReady(t, h, "web", 6, 20*time.Second)
	if got := pids(after, h.Name); !maps.Equal(got, mine) {
		t.Errorf("pids %v before three kills of the agent, %v after", mine, got)
	}
}

func TestHostLostItsWorkMoves(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 5)
	w := newWitness(t)
	r.Start()
	awaitVoters(t, r, 3)
	r.Hosts[0].Must("apply", r.Hosts[0].File("web.hcl", w.app("web", 10)))
	before, _ := awaitReady(t, r.Hosts[0], "web", 10, 20*time.Second)

	lost := others(r, r.Leader())[3]
	rest := others(r, lost)
	lost.Crash()
	after, took := awaitReady(t, rest[0], "web", 10, 30*time.Second, lost.Name)
	t.Logf("the lost host's copies ran elsewhere after %s", took.Round(time.Millisecond))
	if took > 15*time.Second {
		t.Errorf("moved after %s, want at most 15s", took)
	}
	for _, h := range rest {
		got := pids(after, h.Name)
		for id, pid := range pids(before, h.Name) {
			if got[id] != pid {
				t.Errorf("copy %s on %s was touched: pid %d, now %d", id, h.Name, pid, got[id])
			}
		}
	}
	// The host comes back, with nothing doubled and nothing moved.
	lost.Reboot()
	lost.StartAgent()
	r.AwaitHosts(5, 30*time.Second)
	awaitReady(t, lost, "web", 10, 30*time.Second)
	w.check(t)
}

func TestLeaderAndLostHostAtOnce(t *testing.T) {
	t.Parallel()
	r := startMesh(t, 5, 3)
	r.Hosts[0].Must("apply", r.Hosts[0].File("web.hcl", sleepers("web", 10)))
	awaitReady(t, r.Hosts[0], "web", 10, 20*time.Second)
	leader := r.Leader()
	rest := others(r, leader)
	leader.Crash()
	_, took := awaitReady(t, rest[0], "web", 10, 40*time.Second, leader.Name)
	t.Logf("the lost leader's copies ran elsewhere after %s", took.Round(time.Millisecond))
}

// A leader that is cut off alone stops leading; its copies are replaced, and
// when it is back there are as many as declared.
func TestLeaderCutOff(t *testing.T) {
	t.Parallel()
	r := startMesh(t, 5, 3)
	r.Hosts[0].Must("apply", r.Hosts[0].File("web.hcl", sleepers("web", 10)))
	before, _ := awaitReady(t, r.Hosts[0], "web", 10, 20*time.Second)
	leader := r.Leader()
	rest := others(r, leader)
	r.Partition([]*rig.Host{leader}, rest)
	awaitReady(t, rest[0], "web", 10, 40*time.Second, leader.Name)
	for id, pid := range pids(before, leader.Name) {
		if !alive(pid) {
			t.Errorf("copy %s on the cut-off host was stopped: only a lease may stop work", id)
		}
	}
	// No leader there: reads of the mesh fail clearly, local ones work.
	if _, errs, code := leader.CLI("status"); code != 1 || errs == "" {
		t.Errorf("status on a cut-off host: exit %d, %q", code, errs)
	}
	leader.Must("status", "--local")
	r.Heal()
	awaitReady(t, leader, "web", 10, 60*time.Second)
	rig.Await(t, 60*time.Second, func() error {
		for id, pid := range pids(before, leader.Name) {
			if alive(pid) {
				return fmt.Errorf("copy %s still runs on %s besides its replacement", id, leader.Name)
			}
		}
		return nil
	})
}

// While too many hosts look dead, nothing moves.
func TestPopulationGate(t *testing.T) {
	t.Parallel()
	r := startMesh(t, 5, 3)
	r.Hosts[0].Must("apply", r.Hosts[0].File("web.hcl", sleepers("web", 10)))
	before, _ := awaitReady(t, r.Hosts[0], "web", 10, 20*time.Second)
	leader := r.Leader()
	dead := slices.DeleteFunc(others(r, leader), votersOf(t, leader))
	if len(dead) != 2 {
		t.Fatalf("%d hosts without a vote, want 2", len(dead))
	}
	for _, h := range dead {
		h.Crash()
	}
	// Both are known to be dead, and well past every grace.
	rig.Await(t, 30*time.Second, func() error {
		var hosts []api.Host
		if err := leader.Get("/v1/hosts", &hosts); err != nil {
			return err
		}
		failed := 0
		for _, h := range hosts {
			if h.Status == "failed" {
				failed++
			}
		}
		if failed != 2 {
			return errors.New("not yet seen dead")
		}
		return nil
	})
	for begun := time.Now(); time.Since(begun) < 12*time.Second; time.Sleep(500 * time.Millisecond) {
		st, err := status(leader, "web")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range st.Copies {
			for _, b := range before.Copies {
				if c.ID == b.ID && c.Host != b.Host && c.Host != "" {
					t.Fatalf("copy %s moved from %s to %s while 2 of 5 hosts looked dead", c.ID, b.Host, c.Host)
				}
			}
		}
	}
}

// A leader that was paused does not act on, or tell, what it knew before.
func TestLeaderPaused(t *testing.T) {
	t.Parallel()
	r := rig.New(t, 3)
	w := newWitness(t)
	r.Start()
	awaitVoters(t, r, 3)
	r.Hosts[0].Must("apply", r.Hosts[0].File("web.hcl", w.app("web", 6)))
	awaitReady(t, r.Hosts[0], "web", 6, 20*time.Second)
	leader := r.Leader()
	rest := others(r, leader)
	leader.Signal(syscall.SIGSTOP)
	rest[0].Must("apply", "--detach", rest[0].File("more.hcl", w.app("more", 2)))
	var now api.Mesh
	if err := rest[0].Get("/v1/mesh", &now); err != nil {
		t.Fatal(err)
	}
	leader.Signal(syscall.SIGCONT)
	var told api.Mesh
	rig.Await(t, 15*time.Second, func() error { return leader.Get("/v1/mesh", &told) })
	if told.Revision < now.Revision {
		t.Errorf("the paused leader told revision %d after %d was committed", told.Revision, now.Revision)
	}
	awaitReady(t, leader, "more", 2, 30*time.Second)
	awaitReady(t, leader, "web", 6, 30*time.Second)
	w.check(t)
}
