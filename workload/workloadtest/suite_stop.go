package workloadtest

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

func (b *bench) stubborn() workload.Handle {
	b.t.Helper()
	s := b.spec("web", 1, b.p.Stubborn)
	h := b.start(s, 1)
	b.eventually(s, b.p.Ready)
	return h
}

func testStopStubborn(t *testing.T, b *bench) {
	h := b.stubborn()
	const grace = 200 * time.Millisecond
	begun := time.Now()
	b.stop(h, grace)
	if took := time.Since(begun); took < grace {
		t.Errorf("stopped after %v, the grace is %v", took, grace)
	}
	if e := b.exit(h); e.Signal != syscall.SIGKILL {
		t.Errorf("exit %+v, want SIGKILL", e)
	}
}

func testStopAtOnce(t *testing.T, b *bench) {
	h := b.stubborn()
	b.stop(h, 0)
	if e := b.exit(h); e.Signal != syscall.SIGKILL {
		t.Errorf("exit %+v, want SIGKILL", e)
	}
}

// That a copy was killed must not hang over the next.
func testStartAfterKill(t *testing.T, b *bench) {
	s := b.spec("web", 1, b.p.Sleep)
	for n := 1; n <= 3; n++ {
		h := b.start(s, n)
		if _, err := b.d.Exec(b.ctx(), s, b.p.Exit(0)); err != nil {
			t.Fatal(err)
		}
		if err := h.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if e := b.exit(h); e.Signal != syscall.SIGTERM {
			t.Fatalf("start %d ended by itself: %+v", n, e)
		}
		s.Generation++
		b.stop(b.start(s, n), 0)
		s.Generation++
		b.stop(b.start(s, n), 0)
	}
}

func testStopAgain(t *testing.T, b *bench) {
	h := b.stubborn()
	long := make(chan error, 1)
	ctx := b.ctx()
	go func() { long <- h.Stop(ctx, syscall.SIGTERM, patience) }()
	b.stop(h, 0) // the second one is in a hurry and does not wait for the first
	if err := <-long; err != nil {
		t.Errorf("first stop: %v", err)
	}
	b.stop(h, patience)
	b.stop(h, 0)
	if e := b.exit(h); e.Signal != syscall.SIGKILL {
		t.Errorf("exit %+v", e)
	}
}

func testStopCancelled(t *testing.T, b *bench) {
	h := b.stubborn()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := h.Stop(ctx, syscall.SIGTERM, patience); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the context's", err)
	}
	select {
	case e := <-h.Exited():
		t.Fatalf("the copy ended within its grace: %+v", e)
	default:
	}
	b.stop(h, 0)
}

// A handle whose copy has ended must not stop the one that came after it.
func testStopOldHandle(t *testing.T, b *bench) {
	s := b.spec("web", 1, b.p.Sleep)
	first := b.start(s, 1)
	if err := first.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.exit(first)
	second := b.start(s, 2)
	b.stop(first, 0)
	b.stop(first, patience)
	if _, err := b.d.Exec(b.ctx(), s, b.p.Exit(0)); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-second.Exited():
		t.Fatalf("the old handle ended the new copy: %+v", e)
	default:
	}
	b.stop(second, 0)
}

func testExec(t *testing.T, b *bench) {
	s := b.spec("web", 1, b.p.Sleep)
	h := b.start(s, 1)
	defer b.stop(h, 0)
	if _, err := b.d.Exec(b.ctx(), s, b.p.Exit(0)); err != nil {
		t.Errorf("exit 0: %v", err)
	}
	if _, err := b.d.Exec(b.ctx(), s, b.p.Exit(3)); err == nil {
		t.Error("exit 3 is no error")
	}
	if _, err := b.d.Exec(b.ctx(), s, b.p.Missing); err == nil {
		t.Error("a missing program is no error")
	}
	out, err := b.d.Exec(b.ctx(), s, b.p.Flood)
	if err != nil || len(out) != 4<<10 {
		t.Errorf("flood: %d bytes, %v; want 4096 and no error", len(out), err)
	}
}

func testExecEnds(t *testing.T, b *bench) {
	s := b.spec("web", 1, b.p.Sleep)
	h := b.start(s, 1)
	defer b.stop(h, 0)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := b.d.Exec(ctx, s, b.p.Sleep); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the context's", err)
	}
	if took := time.Since(begun); took > patience/2 {
		t.Errorf("the check was ended after %v", took)
	}
	if _, err := b.d.Exec(ctx, s, b.p.Exit(0)); err == nil {
		t.Error("a check was started under a context that has ended")
	}
	select {
	case e := <-h.Exited():
		t.Fatalf("the end of the check ended the copy: %+v", e)
	default:
	}
}

func testState(t *testing.T, b *bench) {
	s := b.spec("web", 1, b.p.Sleep)
	h := b.start(s, 1)
	if _, err := b.d.Exec(b.ctx(), s, b.p.Recall); err == nil {
		t.Fatal("Recall recalls what was never there")
	}
	if _, err := b.d.Exec(b.ctx(), s, b.p.Remember); err != nil {
		t.Fatal(err)
	}
	b.stop(h, 0)
	s.Version, s.Generation = "ba9876543210", 2
	h = b.start(s, 1)
	if _, err := b.d.Exec(b.ctx(), s, b.p.Recall); err != nil {
		t.Errorf("the state is gone with a new version: %v", err)
	}
	b.stop(h, 0)
	if err := b.d.Purge(b.ctx(), s.ID); err != nil {
		t.Fatal(err)
	}
	if err := b.d.Purge(b.ctx(), s.ID); err != nil {
		t.Errorf("second purge: %v", err)
	}
	h = b.start(s, 1)
	defer b.stop(h, 0)
	if _, err := b.d.Exec(b.ctx(), s, b.p.Recall); err == nil {
		t.Error("the state has survived the purge")
	}
}

func testPurgeRunning(t *testing.T, b *bench) {
	s := b.spec("web", 1, b.p.Sleep)
	h := b.start(s, 1)
	defer b.stop(h, 0)
	if err := b.d.Purge(b.ctx(), s.ID); err == nil {
		t.Error("a running copy was purged")
	}
}
