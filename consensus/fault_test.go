package consensus

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

func TestLeaderWithHungDiskGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		leader := r.mesh(3)
		hung := time.Now()
		resume := leader.store.Hang()
		defer resume()
		err := <-leader.done
		leader.done <- nil
		if !errors.Is(err, ErrStuckDisk) || !errors.Is(err, ErrFatal) {
			t.Fatalf("run said %v", err)
		}
		if took := time.Since(hung); took > 13*time.Second {
			t.Errorf("it took %v to notice", took)
		}
		old := leader.node
		leader.node = nil
		next := r.leader()
		mustPut(t, next.node, "k", "v")
		if took := time.Since(hung); took > 15*time.Second {
			t.Errorf("changes went on only after %v", took)
		}
		if err := within(t, time.Second, old.Barrier); !errors.Is(err, ErrStopped) {
			t.Errorf("a read on the one that gave up: %v", err)
		}
	})
}

func TestHeartbeatsKeepAHealthyLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		leader := r.mesh(3)
		term := leader.node.Term()
		time.Sleep(10 * time.Minute)
		if st := leader.node.Status(); !st.Leader || st.Term != term {
			t.Errorf("leadership moved in ten quiet minutes: %+v", st)
		}
	})
}

func TestFailedWriteEndsTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		leader := r.mesh(3)
		leader.store.Fail(unix.EIO)
		err := within(t, 5*time.Second, func(ctx context.Context) error { return put(ctx, leader.node, "k", "v") })
		if !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("a write that the disk refused: %v", err)
		}
		err = <-leader.done
		leader.done <- nil
		if !errors.Is(err, ErrStore) || !errors.Is(err, ErrFatal) || !errors.Is(err, unix.EIO) {
			t.Fatalf("run said %v", err)
		}
		leader.node = nil
		mustPut(t, r.leader().node, "k", "w")

		// Restarted on a disk that works, it takes part again.
		leader.store.Fail(nil)
		r.start(leader.name)
		eventually(t, 10*time.Second, "it has caught up", func() bool { return get(leader.node, "k") == "w" })
	})
}

// Raft panics when it cannot save a term; the process must survive that.
func TestFailedSaveOfATermDoesNotPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		leader := r.mesh(3)
		for _, h := range r.hosts {
			if h != leader {
				h.store.Fail(unix.EIO)
			}
		}
		// The others try to elect, which saves a term.
		if err := leader.end(); err != nil {
			t.Fatal(err)
		}
		failed := 0
		for _, h := range r.hosts {
			if h == leader {
				continue
			}
			select {
			case err := <-h.done:
				h.done <- nil
				if !errors.Is(err, ErrStore) {
					t.Errorf("%s: run said %v", h.name, err)
				}
				h.node = nil
				failed++
			case <-time.After(time.Minute):
			}
		}
		if failed == 0 {
			t.Error("nobody noticed its disk")
		}
	})
}

func TestUnknownEntryHalts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		h := r.found("h1")
		mustPut(t, h.node, "k", "v")
		rf := h.node.raft.Load()
		var fed raft.ApplyFuture = rf.Apply([]byte("from a future version"), time.Second)
		if err := fed.Error(); err != nil {
			t.Fatal(err)
		}
		if out := fed.Response().(outcome); !errors.Is(out.err, ErrHalted) {
			t.Errorf("the proposer was told %v", out.err)
		}
		err := <-h.done
		h.done <- nil
		if !errors.Is(err, ErrHalted) || !errors.Is(err, ErrFatal) {
			t.Errorf("run said %v", err)
		}
		if got := get(h.node, "k"); got != "v" {
			t.Errorf("the state before it is gone: %q", got)
		}
		h.node = nil
	})
}

func TestHaltedMachineAppliesAndSnapshotsNothing(t *testing.T) {
	halts := 0
	f := &fsm{published: newPublished(), halt: func(error) { halts++ }}
	f.Apply(&raft.Log{Index: 1, Data: []byte("?")})
	good := encoded(t, "k", "v")
	if out := f.Apply(&raft.Log{Index: 2, Data: good}).(outcome); !errors.Is(out.err, ErrHalted) {
		t.Errorf("an entry after the unknown one: %v", out.err)
	}
	if _, ok := f.state.Load().Token("k"); ok {
		t.Error("it was applied")
	}
	if _, err := f.Snapshot(); !errors.Is(err, ErrHalted) {
		t.Errorf("a snapshot would hide entries that were never applied: %v", err)
	}
	if halts != 1 {
		t.Errorf("it halted %d times", halts)
	}
}

func TestLowDiskGivesLeadershipAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		leader := r.mesh(3)
		leader.node.disk.mark = 64 << 20
		leader.node.disk.free = func(string) (int64, error) { return 1 << 20, nil }
		eventually(t, 10*time.Second, "it leads no more", func() bool { return !leader.node.Status().Leader })
		if !leader.node.Status().LowSpace {
			t.Error("it does not say why")
		}
		mustPut(t, r.leader().node, "k", "v")
	})
}

func TestSingleServerStaysLeaderOnALowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.tune = func(c *Config) { c.LowSpace = 1 << 62 }
		h := r.found("h1")
		time.Sleep(time.Minute)
		mustPut(t, h.node, "k", "v")
	})
}
