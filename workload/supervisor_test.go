package workload

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestFirstRestartIsAtOnceAndFast(t *testing.T) {
	w := newWorld(t, half)
	w.program = func(n int) (time.Duration, Exit) {
		if n == 1 {
			return 3 * time.Second, Exit{Known: true, Signal: syscall.SIGKILL}
		}
		return -1, Exit{}
	}
	w.want("v1", 7)
	w.run(time.Minute)
	if len(w.starts) != 2 || !w.starts[1].Equal(epoch.Add(3*time.Second)) || w.fast != 1 {
		t.Fatalf("starts %v, %d fast: want the second at the moment of the exit, and fast", w.starts, w.fast)
	}
	if got := w.kinds(); got != "started ready exited restarted ready" {
		t.Fatalf("told %q", got)
	}
	if n := w.notes[3]; n.Cause != NoteExited || n.By != "agent" || n.Instance.Start != 2 {
		t.Fatalf("restarted note: %+v", n)
	}
	if st := w.s.Status(); !st.Ready || st.Starts != 2 || st.Failed || st.Why != "" {
		t.Fatalf("status %+v", st)
	}
}

func TestBackoffGrowsThenStaysAtTheMaximum(t *testing.T) {
	w := newWorld(t, func() float64 { return 0 })
	w.program = exitsAfter(0, 1)
	w.want("v1", 1)
	w.run(4 * time.Minute)
	var waits []time.Duration
	for i := 1; i < len(w.starts); i++ {
		waits = append(waits, w.starts[i].Sub(w.starts[i-1]))
	}
	s := time.Second
	if want := []time.Duration{0, s, 2 * s, 4 * s, 8 * s, 60 * s, 60 * s, 60 * s}; !slices.Equal(waits, want) {
		t.Fatalf("waits %v, want %v", waits, want)
	}
	st := w.s.Status()
	if !st.Failed || st.State != StateBackoff || !strings.Contains(st.Why, "restarted 5 times within 10m") {
		t.Fatalf("over its limit: %+v", st)
	}
}

// An hour of crash loop costs at most 70 restarts however the program dies and
// the jitter falls, never stops, and shouts once a window.
func TestHourOfCrashLoop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		jitters := rapid.SliceOfN(rapid.Float64Range(0, 0.999), 1, 20).Draw(t, "jitter")
		lives := rapid.SliceOfN(rapid.Int64Range(0, int64(20*time.Second)), 1, 5).Draw(t, "lives")
		i := 0
		w := newWorld(t, func() float64 { i++; return jitters[i%len(jitters)] })
		w.program = func(n int) (time.Duration, Exit) {
			return time.Duration(lives[n%len(lives)]), Exit{Known: true, Code: 1}
		}
		w.want("v1", 1)
		w.run(time.Hour)
		if n := len(w.starts) - 1; n > 70 {
			t.Fatalf("%d restarts in an hour", n)
		}
		if last := w.starts[len(w.starts)-1]; epoch.Add(time.Hour).Sub(last) > 81*time.Second {
			t.Fatalf("last start at %s: it gave up", last.Sub(epoch))
		}
		if n := w.count(NoteNeedsHuman); n < 5 || n > 6 {
			t.Fatalf("needs_human told %d times in six windows", n)
		}
		if st := w.s.Status(); !st.Failed && !st.Ready { // ready at the end of the hour: it may be stable
			t.Fatal("a crash loop does not count as failed")
		}
	})
}

func TestStablePeriodStartsTheBackoffAfresh(t *testing.T) {
	w := newWorld(t, half)
	w.program = func(n int) (time.Duration, Exit) {
		switch n {
		case 1, 2, 3:
			return time.Millisecond, Exit{Known: true, Code: 1}
		case 4:
			return DefaultStable + DefaultSettle + time.Second, Exit{Known: true, Code: 1}
		}
		return -1, Exit{}
	}
	w.want("v1", 1)
	w.run(time.Minute)
	if w.fast != 2 {
		t.Fatalf("%d restarts at once, want the first and the one after the stable period", w.fast)
	}
	w.run(DefaultStable)
	if st := w.s.Status(); st.Failed || st.Starts != 5 {
		t.Fatalf("status %+v", st)
	}
}

func TestBadBinaryFailsAtOnceAndIsRetriedSlowly(t *testing.T) {
	w := newWorld(t, half)
	fixed := false
	w.refuse = func(int) *StartFailed {
		if fixed {
			return nil
		}
		return &StartFailed{Kind: FailedForGood, Why: "no such file"}
	}
	w.want("v1", 1)
	if st := w.s.Status(); st.State != StateFailed || !st.Failed || st.Why != "no such file" {
		t.Fatalf("at once: %+v", st)
	}
	w.run(9 * time.Minute)
	if w.refused < 9 || w.refused > 11 || w.count(NoteNeedsHuman) != 1 {
		t.Fatalf("tried %d times and told %d times in nine minutes", w.refused, w.count(NoteNeedsHuman))
	}
	fixed = true
	w.run(2 * time.Minute)
	if st := w.s.Status(); st.State != StateRunning || st.Failed || !st.Ready || st.Starts != 1 {
		t.Fatalf("once fixed: %+v", st)
	}
}

func TestPortTakenDoesNotBlameTheVersion(t *testing.T) {
	w := newWorld(t, half)
	w.refuse = func(int) *StartFailed { return &StartFailed{Kind: FailedPort, Why: "port 20001 is taken"} }
	w.want("v1", 1)
	if st := w.s.Status(); st.State != StatePending || st.Failed || !st.PortTaken || st.Why == "" {
		t.Fatalf("%+v", st)
	}
	w.refuse = func(int) *StartFailed { return nil }
	w.want("v1", 2)
	if st := w.s.Status(); st.State != StateRunning || st.PortTaken || st.Why != "" {
		t.Fatalf("with another port: %+v", st)
	}
}

func TestAdoptedCopyIsLeftAlone(t *testing.T) {
	inst := Instance{Pid: 42, Start: 3, Spec: Spec{Version: "v1", Generation: 9}}
	for _, c := range []struct {
		name       string
		version    string
		generation uint64
		stops      int
	}{
		{"equal", "v1", 9, 0},
		{"another version", "v2", 10, 1},
		{"asked to restart", "v1", 10, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, half)
			w.inst = &inst
			w.step(Adopted{Instance: inst})
			w.run(time.Hour)
			if w.stops+len(w.starts) != 0 {
				t.Fatal("acted before anybody said what should run")
			}
			w.want(c.version, c.generation)
			w.run(time.Second)
			if w.stops != c.stops || len(w.starts) != c.stops {
				t.Fatalf("%d stops, %d starts, want %d of each", w.stops, len(w.starts), c.stops)
			}
			if c.stops == 0 && (w.s.Status().Starts != 3 || !w.s.Status().Ready) {
				t.Fatalf("%+v", w.s.Status())
			}
			if c.stops == 1 && w.s.Status().Starts != 1 {
				t.Fatalf("a new generation counts its starts from 1: %+v", w.s.Status())
			}
		})
	}
}

func TestUnhealthyLiveCopyIsRestarted(t *testing.T) {
	w := newWorld(t, half)
	sick := false
	w.probe = func(_ int, age time.Duration) Outcome {
		if sick && age > 0 || age < 300*time.Millisecond {
			return Failed
		}
		return Passed
	}
	p := testPolicy()
	p.Checks = []CheckPolicy{{Name: "http /", Every: 5 * time.Second, Grace: 10 * time.Second, Failures: 3, Live: true}}
	w.target = &Target{Version: "v1", Generation: 1, Policy: p}
	w.step(Want{Target: w.target})
	w.run(400 * time.Millisecond)
	if !w.s.Status().Ready {
		t.Fatal("up after 300 ms and not ready after 400: probed too seldom at first")
	}
	w.run(time.Minute)
	sick = true
	w.run(16 * time.Second)
	if w.stops != 1 || len(w.starts) != 2 {
		t.Fatalf("%d stops, %d starts after three failures", w.stops, len(w.starts))
	}
	if got := w.kinds(); got != "started ready unhealthy stopped restarted" {
		t.Fatalf("told %q", got)
	}
	if w.notes[3].Cause != NoteUnhealthy || w.notes[4].Cause != NoteStopped {
		t.Fatalf("causes %q, %q", w.notes[3].Cause, w.notes[4].Cause)
	}
	if w.s.Status().Failed {
		t.Fatal("one bad spell of a proved version is not its failure")
	}
	w.run(time.Hour)
	if n := len(w.starts); n > 71 {
		t.Fatalf("%d starts in an hour of failing checks", n)
	}
	if !w.s.Status().Failed {
		t.Fatal("still not failed after an hour")
	}
}

func TestUnhealthyWithoutLiveKeepsRunning(t *testing.T) {
	w := newWorld(t, half)
	w.probe = func(int, time.Duration) Outcome { return Failed }
	p := testPolicy()
	p.Checks = []CheckPolicy{{Name: "tcp", Every: time.Second, Grace: 5 * time.Second, Failures: 2}}
	w.target = &Target{Version: "v1", Generation: 1, Policy: p}
	w.step(Want{Target: w.target})
	w.run(time.Minute)
	if st := w.s.Status(); w.stops != 0 || st.Ready || !st.Failed || w.count(NoteUnhealthy) != 1 || !strings.Contains(st.Why, "refused") {
		t.Fatalf("%d stops, told %q, %+v", w.stops, w.kinds(), st)
	}
	w.probe = func(int, time.Duration) Outcome { return Passed }
	w.run(time.Minute)
	if st := w.s.Status(); !st.Ready || st.Failed || st.Why != "" {
		t.Fatalf("recovered: %+v", st)
	}
}

func TestSuccessorOfPID1IsCountedNotStarted(t *testing.T) {
	w := newWorld(t, half)
	w.want("v1", 1)
	w.run(time.Second)
	for n := 2; n <= 9; n++ {
		next := Instance{Pid: 200 + n, Start: n, Spec: w.inst.Spec}
		w.inst = &next
		w.step(Exited{Exit: Exit{Known: true, Code: 1, At: w.now, Successor: &next}})
		w.run(10 * time.Millisecond)
	}
	if len(w.starts) != 1 || w.stops != 0 {
		t.Fatalf("%d starts, %d stops beside PID 1's own", len(w.starts), w.stops)
	}
	if st := w.s.Status(); st.Instance.Pid != 209 || st.Starts != 9 || w.count(NoteRestarted) != 8 || w.count(NoteNeedsHuman) != 1 {
		t.Fatalf("%+v, told %q", st, w.kinds())
	}
	w.inst = nil
	w.step(Exited{Exit: Exit{Known: true, Code: 1, At: w.now}}) // PID 1 gave up
	w.run(50 * time.Second)
	if len(w.starts) != 1 {
		t.Fatal("over the limit, yet restarted at once")
	}
	w.run(11 * time.Second)
	if len(w.starts) != 2 {
		t.Fatal("never started again")
	}
}

func TestFailedStopIsTriedAgain(t *testing.T) {
	w := newWorld(t, half)
	w.want("v1", 1)
	w.run(time.Second)
	w.stopErr = errors.New("busy")
	w.step(Want{})
	w.run(10 * time.Second)
	if w.s.Done() || w.stops < 9 || w.stops > 12 {
		t.Fatalf("done %v after %d stops", w.s.Done(), w.stops)
	}
	w.stopErr = nil
	w.run(time.Second)
	if !w.s.Done() || w.inst != nil {
		t.Fatal("not ended")
	}
}

// Whatever happens in whatever order, there is never a second instance (world
// checks each start), never a spin, and once the world is kind the copy ends up
// as wanted.
func TestAnyOrderConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, half)
		kind := false
		w.program = func(int) (time.Duration, Exit) {
			if kind || !rapid.Bool().Draw(t, "dies") {
				return -1, Exit{}
			}
			return time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "life")), Exit{Known: true, Code: 1}
		}
		w.refuse = func(int) *StartFailed {
			if kind || rapid.IntRange(0, 3).Draw(t, "refuse") > 0 {
				return nil
			}
			return &StartFailed{Kind: Failure(rapid.IntRange(0, 3).Draw(t, "failure")), Why: "no"}
		}
		generation := uint64(0)
		acts := map[string]func(*rapid.T){
			"": func(*rapid.T) {},
			"want": func(t *rapid.T) {
				generation += rapid.Uint64Range(0, 1).Draw(t, "rise")
				w.want(fmt.Sprint("v", generation), generation)
			},
			"stop": func(*rapid.T) {
				if w.target != nil {
					stopped := *w.target
					stopped.Stopped = "asked to stop"
					w.step(Want{Target: &stopped})
				}
			},
			"drop":    func(*rapid.T) { w.step(Want{}) },
			"restart": func(*rapid.T) { w.step(RestartAsked{}) },
			"pass":    func(t *rapid.T) { w.run(time.Duration(rapid.Int64Range(0, int64(3*time.Minute)).Draw(t, "pass"))) },
			"stopErr": func(t *rapid.T) {
				w.stopErr = nil
				if rapid.Bool().Draw(t, "fails") {
					w.stopErr = errors.New("busy")
				}
			},
		}
		t.Repeat(acts)
		kind, w.stopErr, w.ends = true, nil, time.Time{}
		w.want("last", generation+1)
		w.run(3 * time.Minute)
		if st := w.s.Status(); w.inst == nil || !st.Ready || st.Failed || st.Instance.Spec.Version != "last" {
			t.Fatalf("did not converge: %+v", st)
		}
		w.step(Want{})
		w.run(2 * time.Second)
		if w.inst != nil || !w.s.Done() {
			t.Fatal("did not end")
		}
	})
}

// A lapse is the copy's own doing, after it was ready; the longest one is told,
// also when the copy is well again, until there is another generation.
func TestLapses(t *testing.T) {
	ends := func(lives ...time.Duration) func(int) (time.Duration, Exit) {
		return func(n int) (time.Duration, Exit) {
			if n > len(lives) {
				return -1, Exit{}
			}
			return lives[n-1], Exit{Known: true, Code: 3}
		}
	}
	w := newWorld(t, half)
	w.program = ends(20*time.Millisecond, 7*time.Second, 3*time.Second)
	w.want("v1", 1)
	w.run(time.Second)
	if l := w.s.Status().Lapse; l != (Lapse{}) {
		t.Errorf("it had not been ready yet: %+v", l)
	}
	w.run(time.Minute)
	l := w.s.Status()
	if got := 7*time.Second - DefaultSettle; !l.Ready || l.Lapse.After != got || !strings.HasPrefix(l.Lapse.Why, "exited with code 3") {
		t.Errorf("%+v, want one after %s", l.Lapse, got)
	}
	w.program = ends()
	w.want("v2", 2)
	if l := w.s.Status().Lapse; l != (Lapse{}) {
		t.Errorf("of another generation: %+v", l)
	}
	w.run(time.Minute)
	w.step(RestartAsked{})
	w.run(time.Minute)
	if st := w.s.Status(); !st.Ready || st.Lapse != (Lapse{}) {
		t.Errorf("a restart that was asked for: %+v", st)
	}
	w.target = nil
	w.step(Want{})
	w.run(time.Minute)
	if st := w.s.Status(); st.Lapse != (Lapse{}) {
		t.Errorf("a stop: %+v", st)
	}
}

// Checks that fail are a lapse too, once; that a lease ended is none.
func TestLapsesOfChecksAndLeases(t *testing.T) {
	w := newWorld(t, half)
	sick := false
	w.probe = func(int, time.Duration) Outcome {
		if sick {
			return Failed
		}
		return Passed
	}
	policy := testPolicy()
	policy.Checks = []CheckPolicy{{Name: "http", Every: time.Second, Failures: 3}}
	w.target = &Target{Version: "v1", Generation: 1, Policy: policy}
	w.step(Want{Target: w.target})
	w.run(10 * time.Second)
	sick = true
	w.run(10 * time.Second)
	sick = false
	w.run(10 * time.Second)
	if st := w.s.Status(); !st.Ready || st.Lapse.After < 10*time.Second || st.Lapse.After > 14*time.Second || !strings.Contains(st.Lapse.Why, "http") {
		t.Errorf("%+v", st)
	}

	w = newWorld(t, half)
	w.program = func(n int) (time.Duration, Exit) {
		if n == 1 {
			return time.Minute, Exit{Known: true, Fenced: true}
		}
		return -1, Exit{}
	}
	w.want("v1", 1)
	w.run(2 * time.Minute)
	if st := w.s.Status(); st.Starts != 2 || st.Lapse != (Lapse{}) {
		t.Errorf("%+v", st)
	}
}

// What is asked for a moment after an end is as fast as the restart that nobody asks
// for; later, what may have changed meanwhile is looked at.
func TestRestartAskedAMomentAfterAnEndIsFast(t *testing.T) {
	for waited, fast := range map[time.Duration]int{10 * time.Millisecond: 1, 2 * time.Second: 0} {
		w := newWorld(t, half)
		w.program = func(n int) (time.Duration, Exit) {
			if n <= 2 {
				return time.Second, Exit{Known: true, Code: 1}
			}
			return -1, Exit{}
		}
		w.target = &Target{Version: "v1", Generation: 7, Policy: testPolicy()}
		w.target.Policy.Limit = 1 // only the first end is answered at once
		w.step(Want{Target: w.target})
		w.run(2*time.Second + waited)
		if len(w.starts) != 2 {
			t.Fatalf("%d starts before it was asked", len(w.starts))
		}
		w.fast = 0
		w.step(RestartAsked{Why: "a reflex"})
		if len(w.starts) != 3 || w.fast != fast {
			t.Errorf("asked %v after the end: %d starts, %d fast, want %d", waited, len(w.starts), w.fast, fast)
		}
	}
}
