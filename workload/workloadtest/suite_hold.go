package workloadtest

import (
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// testLeaseHold: a keeper that is held leaves each end of its copy to the agent,
// also the first; one that is let go of restarts it as before.
func testLeaseHold(t *testing.T, b *bench) {
	s := b.leased(b.p.Sleep, time.Minute, time.Second)
	hold := func(h workload.Handle, hold bool) {
		t.Helper()
		if err := h.(workload.Holdable).Hold(b.ctx(), hold); err != nil {
			t.Fatal(err)
		}
	}
	h, _ := b.startLeased(s, 1)
	hold(h, true)
	if err := h.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := b.exit(h); !e.Known || e.Signal != syscall.SIGKILL || e.Fenced || e.Successor != nil {
		t.Fatalf("held: exit %+v", e)
	}
	hold(h, false) // it is over: nothing to be told, and no error
	h, _ = b.startLeased(s, 1)
	hold(h, true)
	hold(h, false)
	if err := h.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e, ok := b.receive(h); !ok || e.Successor == nil {
		t.Fatalf("let go of: exit %+v, %v", e, ok)
	}
	b.stop(h, 0)
}
