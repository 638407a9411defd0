package workload

import (
	"syscall"
	"testing"
	"time"
)

// That its lease ended says nothing of a copy: however often it happens, and
// whoever started the copy again, it is not slowed down as one that crashes.
func TestFencedEndsAreNoFailures(t *testing.T) {
	w := newWorld(t, half)
	w.want("v1", 7)
	for i := range 20 {
		next := *w.inst
		next.Spec.Lease = &Lease{Token: 7}
		next.Start, next.Pid = next.Start+1, next.Pid+1
		w.inst = &next
		w.step(Exited{Exit: Exit{Known: true, Signal: syscall.SIGTERM, At: w.now, Fenced: true, Successor: &next}})
		w.run(100 * time.Millisecond)
		if m := w.s.Memory(); !m.Up || m.Streak != 0 || len(m.Restarts) != 0 || m.Failed {
			t.Fatalf("after end %d: %+v", i+1, m)
		}
	}
	if last := w.notes[len(w.notes)-1]; last.Kind != NoteRestarted || last.Cause != NoteFenced || last.By != "keeper" {
		t.Errorf("told %+v", last)
	}
}

// A singleton that ended while its agent was away has outlived its lease: the
// next life of the agent starts it as soon as it has one, at each time anew.
func TestFencedWhileNobodyWatched(t *testing.T) {
	w := newWorld(t, half)
	w.want("v1", 7)
	for i := range 20 {
		w.inst.Spec.Lease = &Lease{Token: 7}
		w.step(Adopted{Instance: *w.inst})
		starts := len(w.starts)
		w.reborn(false)
		if told := w.notes[len(w.notes)-2]; told.Kind != NoteFenced || told.Instance.Spec.Lease == nil || told.Instance.Spec.Lease.Token != 7 {
			t.Fatalf("told %+v", told)
		}
		if m := w.s.Memory(); len(w.starts) != starts+1 || !m.Up || m.Streak != 0 || len(m.Restarts) != 0 {
			t.Fatalf("life %d: %d starts after %d, %+v", i+1, len(w.starts), starts, m)
		}
	}
}
