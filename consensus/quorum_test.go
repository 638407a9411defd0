package consensus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

func TestThreeServersElectAndFailOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		leader := r.mesh(3)
		mustPut(t, leader.node, "k", "before")
		for _, h := range r.hosts {
			eventually(t, time.Second, h.name+" has it", func() bool { return get(h.node, "k") == "before" })
		}
		term := leader.node.Term()

		r.net.Isolate(addrOf(leader.name))
		cut := time.Now()
		var next *rigHost
		eventually(t, 5*time.Second, "another leader", func() bool {
			for _, h := range r.hosts {
				if h != leader && h.node.Status().Leader {
					next = h
				}
			}
			return next != nil
		})
		mustPut(t, next.node, "k", "after")
		if took := time.Since(cut); took > 5*time.Second {
			t.Errorf("a write went through only after %v", took)
		}
		if next.node.Term() <= term {
			t.Errorf("term %d did not rise above %d", next.node.Term(), term)
		}

		r.net.Heal()
		eventually(t, 5*time.Second, "the old leader follows", func() bool {
			st := leader.node.Status()
			return !st.Leader && st.LeaderID == next.node.ServerID() && get(leader.node, "k") == "after"
		})
	})
}

func TestReadsAndWritesFailWithoutQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		leader := r.mesh(3)
		r.net.Isolate(addrOf(leader.name))

		began := time.Now()
		err := within(t, 3*time.Second, func(ctx context.Context) error { return put(ctx, leader.node, "k", "lost") })
		if !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("a write that was proposed without a majority: %v; want an unknown outcome", err)
		}
		err = within(t, 3*time.Second, leader.node.Barrier)
		var notLeader *NotLeaderError
		if !errors.As(err, &notLeader) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a read without a majority: %v", err)
		}
		if took := time.Since(began); took > 7*time.Second {
			t.Errorf("both took %v, beyond their deadlines", took)
		}
		// By now it knows that it lost: the next write is refused, not unknown.
		err = within(t, 3*time.Second, func(ctx context.Context) error { return put(ctx, leader.node, "k", "refused") })
		if !errors.As(err, &notLeader) {
			t.Errorf("a write on a deposed leader: %v", err)
		}
	})
}

func TestFollowerNamesTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		leader := r.mesh(3)
		for _, h := range r.hosts {
			if h == leader {
				continue
			}
			for what, do := range map[string]func(context.Context) error{
				"apply":    func(ctx context.Context) error { return put(ctx, h.node, "k", "v") },
				"barrier":  h.node.Barrier,
				"transfer": h.node.Transfer,
				"tend":     func(ctx context.Context) error { _, err := h.node.Tend(ctx, r.candidates()); return err },
			} {
				var notLeader *NotLeaderError
				if err := within(t, time.Second, do); !errors.As(err, &notLeader) || notLeader.Leader != addrOf(leader.name) {
					t.Errorf("%s on a follower: %v; want to be sent to %s", what, err, addrOf(leader.name))
				}
			}
		}
	})
}

func TestLeadershipIsHandedOverAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		leader := r.mesh(3)
		if err := leader.end(); err != nil {
			t.Fatal(err)
		}
		// An election would take a second at least.
		eventually(t, 300*time.Millisecond, "another leader at once", func() bool {
			return slices.ContainsFunc(slicesOf(r), func(h *rigHost) bool { return h.node != nil && h.node.Status().Leader })
		})
	})
}

func slicesOf(r *rig) (out []*rigHost) {
	for _, h := range r.hosts {
		out = append(out, h)
	}
	return out
}

func TestLeadershipSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		leader := r.mesh(3)
		signal := leader.node.Leadership()
		select {
		case <-signal:
			t.Fatal("it fired with nothing changed")
		default:
		}
		if err := within(t, 5*time.Second, leader.node.Transfer); err != nil {
			t.Fatal(err)
		}
		select {
		case <-signal:
		case <-time.After(time.Second):
			t.Fatal("leadership went, and nothing was said")
		}
		eventually(t, time.Second, "it says so", func() bool { return !leader.node.Status().Leader })
	})
}

func TestChangedIsLevelTriggered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		n := r.found("h1").node
		rev := n.State().Revision()
		before := n.Changed(rev)
		mustPut(t, n, "k", "v")
		for what, ch := range map[string]<-chan struct{}{"taken before": before, "taken after": n.Changed(rev)} {
			select {
			case <-ch:
			default:
				t.Errorf("the channel %s the change is not closed", what)
			}
		}
		// Heartbeats and barriers wake nobody.
		quiet := n.Changed(n.State().Revision())
		index := n.Status().Index
		time.Sleep(30 * time.Second)
		select {
		case <-quiet:
			t.Error("it woke with nothing changed")
		default:
		}
		if n.Status().Index <= index {
			t.Error("no heartbeat was committed in 30 s")
		}
	})
}

func TestReadersShareABarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		n := r.found("h1").node
		last := n.raft.Load().LastIndex()
		const readers = 200
		errs := make(chan error, readers)
		for range readers {
			go func() { errs <- n.Barrier(t.Context()) }()
		}
		for range readers {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		if used := n.raft.Load().LastIndex() - last; used > 3 {
			t.Errorf("%d readers at once used %d entries", readers, used)
		}
	})
}

func TestVotersGrowWithTheMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.found("h1")
		r.start("h2")
		r.tendUntil(20*time.Second, "one voter for two hosts", func(p VoterPlan) bool {
			return p.Target == 1 && p.Voters == 1 && p.Step.Kind == StepNone && slices.Equal(p.Stop, []string{"h2"})
		})
		began := time.Now()
		r.start("h3")
		r.tendUntil(5*time.Second, "three voters at once", func(p VoterPlan) bool { return p.Voters == 3 })
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("three voters took %v", took)
		}
		for i := 4; i <= 7; i++ {
			r.start(fmt.Sprintf("h%d", i))
		}
		r.tendUntil(5*time.Second, "five voters", func(p VoterPlan) bool { return p.Target == 5 && p.Voters == 5 })
		peers := r.leader().node.Status().Peers
		if len(peers) != 5 || slices.ContainsFunc(peers, func(p Peer) bool { return !p.Voter || !p.Healthy }) {
			t.Errorf("peers: %+v", peers)
		}
	})
}

func TestDeadVoterIsReplacedByASpare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		leader := r.mesh(3)
		spare := r.start("h4")
		var dead *rigHost
		for _, h := range r.hosts {
			if h != leader && h != spare {
				dead = h
			}
		}
		id := dead.node.ServerID()
		if err := dead.end(); err != nil {
			t.Fatal(err)
		}
		died := time.Now()
		r.tendUntil(60*time.Second, "it is replaced", func(p VoterPlan) bool {
			out := !slices.ContainsFunc(leader.node.Status().Peers, func(p Peer) bool { return p.ID == id })
			if out && time.Since(died) < leader.node.cfg.Stability {
				t.Errorf("it was given up after %v", time.Since(died))
			}
			return out
		})
		peers := leader.node.Status().Peers
		if !slices.ContainsFunc(peers, func(p Peer) bool { return p.ID == spare.node.ServerID() && p.Voter }) {
			t.Errorf("the spare does not vote: %+v", peers)
		}
		// The dead one comes back with the log it had. It was removed while it was
		// away, so only the others can tell it; meanwhile it disturbs nobody.
		term := leader.node.Term()
		r.start(dead.name)
		time.Sleep(20 * time.Second)
		if got := r.leader(); got != leader || leader.node.Term() != term {
			t.Errorf("a removed server moved leadership from term %d to %d", term, leader.node.Term())
		}
	})
}

func TestDeadVoterStaysWithoutAReplacement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		leader := r.mesh(3)
		for _, h := range r.hosts {
			if h != leader {
				if err := h.end(); err != nil {
					t.Fatal(err)
				}
				break
			}
		}
		for range 60 {
			plan, err := leader.node.Tend(t.Context(), r.candidates())
			if err != nil || plan.Step.Kind != StepNone || plan.Voters != 3 {
				t.Fatalf("plan %+v, %v; want it to wait", plan, err)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestRemovedServerSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		leader := r.mesh(3)
		// Two hosts leave the roster for good: one voter is enough for one host.
		var gone []*rigHost
		for _, h := range r.hosts {
			if h != leader {
				gone = append(gone, h)
			}
		}
		only := []Candidate{{ID: leader.node.ServerID(), Addr: addrOf(leader.name), Host: leader.name, Alive: true, Since: leader.since}}
		eventually(t, 2*time.Minute, "one voter", func() bool {
			plan, err := leader.node.Tend(t.Context(), only)
			return err == nil && plan.Voters == 1 && plan.Step.Kind == StepNone && len(leader.node.Status().Peers) == 1
		})
		mustPut(t, leader.node, "k", "alone")
		for _, h := range gone {
			eventually(t, 10*time.Second, h.name+" sees that it is out", func() bool { return h.node.Status().Removed })
		}
		if leader.node.Status().Removed {
			t.Error("the one that stays says that it was removed")
		}
		// It is wiped, and may come again as another server, but never found a mesh.
		h, old := gone[0], gone[0].node.ServerID()
		if err := h.end(); err != nil {
			t.Fatal(err)
		}
		if err := Wipe(h.dir); err != nil {
			t.Fatal(err)
		}
		h.store = nil
		delete(r.hosts, h.name)
		node, err := New(Config{Dir: h.dir, Addr: addrOf(h.name), Transport: r.net.Transport(addrOf(h.name)), LowSpace: -1, Reserve: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer node.Close()
		if node.ServerID() == old {
			t.Error("it kept its id without its log")
		}
		if err := node.Bootstrap(); !errors.Is(err, ErrBootstrapped) {
			t.Errorf("a wiped host founded a mesh: %v", err)
		}
	})
}

// A host that lost its disk comes back at its old address with a new id. The
// leader must not take it for the server it was.
func TestWipedVoterComesBackAsAnotherServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		leader := r.mesh(3)
		var h *rigHost
		for _, other := range r.hosts {
			if other != leader {
				h = other
			}
		}
		old := h.node.ServerID()
		if err := h.end(); err != nil {
			t.Fatal(err)
		}
		if err := Wipe(h.dir); err != nil {
			t.Fatal(err)
		}
		delete(r.hosts, h.name)
		again := r.start(h.name)
		time.Sleep(5 * time.Second)
		if got := again.node.raft.Load().LastIndex(); got != 0 {
			t.Errorf("the empty server took %d entries that were meant for the one before it", got)
		}
		r.tendUntil(60*time.Second, "three voters again", func(p VoterPlan) bool {
			peers := leader.node.Status().Peers
			return p.Step.Kind == StepNone && p.Voters == 3 && !slices.ContainsFunc(peers, func(p Peer) bool { return p.ID == old })
		})
	})
}

func TestServerMovesToAnotherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		leader := r.mesh(3)
		var h *rigHost
		for _, other := range r.hosts {
			if other != leader {
				h = other
			}
		}
		id := h.node.ServerID()
		if err := h.end(); err != nil {
			t.Fatal(err)
		}
		r.tune = func(c *Config) { c.Addr, c.Transport = "elsewhere:1", r.net.Transport("elsewhere:1") }
		r.start(h.name)
		moved := func() []Candidate {
			cs := r.candidates()
			for i := range cs {
				if cs[i].ID == id {
					cs[i].Addr = "elsewhere:1"
				}
			}
			return cs
		}
		eventually(t, 20*time.Second, "the new address is known", func() bool {
			_, err := leader.node.Tend(t.Context(), moved())
			peers := leader.node.Status().Peers
			return err == nil && slices.ContainsFunc(peers, func(p Peer) bool { return p.ID == id && p.Addr == "elsewhere:1" && p.Healthy })
		})
	})
}

func TestLatecomerIsCaughtUpBySnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		leader := r.found("h1")
		for i := range 50 {
			mustPut(t, leader.node, fmt.Sprintf("k%d", i), "v")
		}
		rf := leader.node.raft.Load()
		if err := rf.ReloadConfig(raft.ReloadableConfig{TrailingLogs: 1, SnapshotInterval: time.Hour, SnapshotThreshold: 1 << 30, HeartbeatTimeout: time.Second, ElectionTimeout: time.Second}); err != nil {
			t.Fatal(err)
		}
		if err := rf.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		if first, _ := leader.store.FirstIndex(); first < 40 {
			t.Fatalf("the log still begins at %d: no snapshot would be needed", first)
		}
		r.start("h2")
		r.start("h3")
		r.tendUntil(20*time.Second, "three voters", func(p VoterPlan) bool { return p.Voters == 3 })
		for _, h := range r.hosts {
			eventually(t, 5*time.Second, h.name+" has everything", func() bool {
				return get(h.node, "k0") == "v" && get(h.node, "k49") == "v"
			})
			if got, want := h.node.State().Revision(), leader.node.State().Revision(); got != want {
				t.Errorf("%s is at revision %d, the leader at %d", h.name, got, want)
			}
		}
	})
}
