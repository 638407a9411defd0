package workload

import (
	"strings"
	"testing"
	"time"
)

// Frozen, a copy that has ended is restarted where it is; frozen hard it is not,
// until it is thawed or somebody asks, and the next life of the agent knows that.
func TestHardFreezeHoldsRestarts(t *testing.T) {
	w := newWorld(t, half)
	w.program = func(int) (time.Duration, Exit) { return 20 * time.Second, Exit{Known: true, Code: 1} }
	w.want("v1", 7)
	w.s.Hold(Brake{Frozen: true})
	w.run(2 * time.Minute)
	starts := len(w.starts)
	if starts < 4 {
		t.Fatalf("frozen, %d starts in 2 min", starts)
	}
	w.s.Hold(Brake{Frozen: true, Hard: true})
	w.run(10 * time.Minute)
	if got := len(w.starts); got > starts+1 { // one may have been under way
		t.Fatalf("frozen hard, and %d starts more", got-starts)
	}
	starts = len(w.starts)
	st, mem := w.s.Status(), w.s.Memory()
	if st.Instance != nil || !strings.Contains(st.Why, "ganglion thaw") || !mem.Held {
		t.Fatalf("held: %+v, %+v", st, mem)
	}
	next := NewSupervisor(half) // the agent was restarted
	next.Hold(Brake{Frozen: true, Hard: true})
	next.Step(w.now, Recalled{Memory: mem})
	if out := next.Step(w.now, Want{Target: w.s.want}); len(out.Actions) > 0 || !out.Wake.IsZero() {
		t.Fatalf("a restart of the agent restarts the copy: %+v", out)
	}
	out := next.Step(w.now, RestartAsked{})
	if len(out.Actions) != 1 {
		t.Fatalf("asked for a restart: %+v", out)
	}
	w.s.Hold(Brake{})
	w.step(Tick{})
	w.run(time.Minute)
	if len(w.starts) == starts {
		t.Error("thawed, and it is not restarted")
	}
}

// Frozen, a copy whose live check fails is left alone, and looked at further.
func TestFreezeHoldsUnhealthy(t *testing.T) {
	w := newWorld(t, half)
	sick := true
	w.probe = func(int, time.Duration) Outcome {
		if sick {
			return Failed
		}
		return Passed
	}
	p := testPolicy()
	p.Checks = []CheckPolicy{{Name: "http /", Every: 5 * time.Second, Grace: 10 * time.Second, Failures: 3, Live: true}}
	w.target = &Target{Version: "v1", Generation: 7, Policy: p}
	w.step(Want{Target: w.target})
	w.s.Hold(Brake{Frozen: true})
	w.run(5 * time.Minute)
	if len(w.starts) != 1 || w.s.Status().Ready {
		t.Fatalf("%d starts, %+v", len(w.starts), w.s.Status())
	}
	sick = false
	w.run(30 * time.Second)
	if !w.s.Status().Ready {
		t.Errorf("it is well again, and not ready: %+v", w.s.Status())
	}
	sick = true
	w.s.Hold(Brake{})
	w.run(time.Minute)
	if len(w.starts) < 2 {
		t.Error("thawed, and the sick copy is not restarted")
	}
}
