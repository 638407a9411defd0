package workload

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func (w *world) wantOnce(generation uint64) {
	p := testPolicy()
	p.Once = true
	w.target = &Target{Version: "v1", Generation: generation, Policy: p}
	w.step(Want{Target: w.target})
}

func TestOneShotIsDoneAtItsFirstSuccess(t *testing.T) {
	w := newWorld(t, half)
	w.program = func(n int) (time.Duration, Exit) {
		return 3 * time.Second, Exit{Known: true, Code: max(0, 3-n)} // two failures first
	}
	w.wantOnce(7)
	w.run(time.Hour)
	if len(w.starts) != 3 || w.fast != 1 {
		t.Fatalf("%d starts, %d fast: want three, the second at once", len(w.starts), w.fast)
	}
	st := w.s.Status()
	if st.State != StateStopped || st.Completed != 7 || st.Failed || !strings.HasPrefix(st.Why, "exited with code 0") {
		t.Fatalf("status %+v", st)
	}
	if got := w.kinds(); got != "started ready exited restarted ready exited restarted ready exited" {
		t.Fatalf("told %q", got)
	}
	// The same again is done; a later generation is another run.
	w.wantOnce(7)
	w.step(RestartAsked{})
	w.run(time.Hour)
	if len(w.starts) != 3 {
		t.Fatal("what was done was done again")
	}
	w.wantOnce(8)
	w.run(time.Hour)
	if len(w.starts) != 6 || w.s.Status().Completed != 8 {
		t.Fatalf("%d starts, %+v", len(w.starts), w.s.Status())
	}
}

func TestOneShotGivesUpAfterItsLimit(t *testing.T) {
	for name, exit := range map[string]Exit{"code": {Known: true, Code: 1}, "signal": {Known: true, Signal: syscall.SIGKILL}, "unknown": {}} {
		w := newWorld(t, half)
		w.program = func(int) (time.Duration, Exit) { return 20 * time.Minute, exit } // longer than the window
		w.wantOnce(7)
		w.run(24 * time.Hour)
		st := w.s.Status()
		if len(w.starts) != 6 || st.State != StateFailed || !st.Failed || st.Completed != 0 || !strings.Contains(st.Why, "tried 6 times") {
			t.Fatalf("%s: %d starts, %+v", name, len(w.starts), st)
		}
		if w.count(NoteNeedsHuman) != 1 || !w.wake.IsZero() {
			t.Fatalf("%s: needs_human told %d times, wakes at %s", name, w.count(NoteNeedsHuman), w.wake)
		}
	}
}

func TestOneShotThatCannotStartFailsAtOnce(t *testing.T) {
	w := newWorld(t, half)
	w.refuse = func(int) *StartFailed { return &StartFailed{Kind: FailedForGood, Why: "exec format error"} }
	w.wantOnce(7)
	w.run(time.Hour)
	if st := w.s.Status(); w.refused != 1 || st.State != StateFailed || !st.Failed {
		t.Fatalf("refused %d times, %+v", w.refused, st)
	}
	w.refuse = func(int) *StartFailed { return nil }
	w.program = exitsAfter(time.Second, 0)
	w.step(RestartAsked{}) // somebody has mended it and asks on this host
	w.run(time.Minute)
	if st := w.s.Status(); st.Completed != 7 || st.Failed {
		t.Fatalf("after a restart that was asked for: %+v", st)
	}
}

func TestStoppedOneShotIsNotDone(t *testing.T) {
	w := newWorld(t, half)
	w.wantOnce(7)
	w.run(time.Second)
	stopped := *w.target
	stopped.Stopped = "stopped"
	w.step(Want{Target: &stopped})
	w.run(time.Hour)
	if st := w.s.Status(); st.Completed != 0 || st.State != StateStopped || len(w.starts) != 1 {
		t.Fatalf("%d starts, %+v", len(w.starts), st)
	}
}

// reborn is the next life of the agent: what ran is adopted if it is found.
func (w *world) reborn(found bool) {
	m := w.s.Memory()
	w.s = NewSupervisor(w.s.jitter)
	w.step(Recalled{Memory: m})
	if !found {
		w.inst = nil
	}
	if w.inst != nil {
		w.step(Adopted{Instance: *w.inst})
	}
	w.step(Want{Target: w.target})
}

// An agent that restarts at any moment, as often as it likes, changes neither
// how often a one-shot is tried nor how a crash loop is paced.
func TestMemoryKeepsThePace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		once := rapid.Bool().Draw(t, "once")
		lives := rapid.SliceOfN(rapid.Int64Range(0, int64(9*time.Second)), 1, 5).Draw(t, "lives")
		reborn := rapid.SliceOfN(rapid.Int64Range(1, int64(5*time.Minute)), 1, 8).Draw(t, "reborn")
		play := func(restarts bool) *world {
			w := newWorld(t, half)
			w.program = func(n int) (time.Duration, Exit) {
				return time.Duration(lives[n%len(lives)]), Exit{Known: true, Code: 1}
			}
			if once {
				w.wantOnce(7)
			} else {
				w.want("v1", 7)
			}
			for _, after := range reborn {
				w.run(time.Duration(after))
				if restarts {
					w.reborn(true)
				}
			}
			w.run(10 * time.Minute)
			return w
		}
		with, without := play(true), play(false)
		if once {
			if n := len(with.starts); n != 6 || with.s.Status().State != StateFailed {
				t.Fatalf("%d starts, %+v", n, with.s.Status())
			}
			return
		}
		// An adopted copy counts as ready a little sooner, which may start its
		// back-off afresh; the limit in the window is the same.
		if got, want := len(with.starts), len(without.starts); got > want+6 || got < want-6 {
			t.Fatalf("%d starts with restarts of the agent, %d without", got, want)
		}
		if !slices.Equal(with.starts[:1], without.starts[:1]) {
			t.Fatal("the first starts differ")
		}
	})
}

func TestMemoryOfWhatEndedUnwatched(t *testing.T) {
	w := newWorld(t, half)
	w.wantOnce(7)
	w.run(time.Minute)
	w.reborn(false)
	w.run(time.Minute)
	if got := w.kinds(); got != "started ready exited restarted ready" || len(w.starts) != 2 {
		t.Fatalf("told %q, %d starts", got, len(w.starts))
	}
	if n := w.notes[2]; n.Exit.Known || n.Instance.Start != 1 || w.inst.Start != 2 {
		t.Fatalf("exited note %+v, start %d", n, w.inst.Start)
	}
}

func TestMemoryOfADoneOneShot(t *testing.T) {
	w := newWorld(t, half)
	w.program = exitsAfter(time.Second, 0)
	w.wantOnce(7)
	w.run(time.Minute)
	w.reborn(true)
	w.run(time.Hour)
	if st := w.s.Status(); len(w.starts) != 1 || st.Completed != 7 || st.State != StateStopped {
		t.Fatalf("%d starts, %+v", len(w.starts), st)
	}
	// What is remembered of another generation paces nothing.
	w.program = exitsAfter(time.Second, 1)
	w.wantOnce(8)
	w.run(2 * time.Second)
	m := w.s.Memory()
	w.target.Generation = 9
	w.reborn(true)
	if m.Tries == 0 || w.s.Memory().Tries != 0 || w.s.Memory().Generation != 9 {
		t.Fatalf("before %+v, after %+v", m, w.s.Memory())
	}
}
