package workload

import (
	"strings"
	"syscall"
	"time"

	"pgregory.net/rapid"
)

// world runs a Supervisor in virtual time against a scripted program.
type world struct {
	t      rapid.TB
	s      *Supervisor
	now    time.Time
	wake   time.Time
	target *Target

	// program says how start number n ends: after how long, or never (negative).
	program func(n int) (time.Duration, Exit)
	// refuse makes a start fail.
	refuse func(n int) *StartFailed
	// probe answers a check.
	probe func(check int, age time.Duration) Outcome
	// stopErr makes a stop fail.
	stopErr error

	inst    *Instance
	ends    time.Time
	exit    Exit
	begun   time.Time
	starts  []time.Time
	fast    int
	stops   int
	notes   []Note
	pid     int
	refused int
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld(t rapid.TB, jitter func() float64) *world {
	return &world{
		t: t, s: NewSupervisor(jitter), now: epoch, pid: 100,
		program: func(int) (time.Duration, Exit) { return -1, Exit{} },
		refuse:  func(int) *StartFailed { return nil },
		probe:   func(int, time.Duration) Outcome { return Passed },
	}
}

func half() float64 { return 0.5 }

func testPolicy() Policy {
	return Policy{
		Limit: 5, Window: 10 * time.Minute, BackoffMax: time.Minute, Stable: DefaultStable, Settle: DefaultSettle,
		Stop: StopRule{Signal: syscall.SIGTERM, Grace: 10 * time.Second},
	}
}

func (w *world) want(version string, generation uint64) {
	w.target = &Target{Version: version, Generation: generation, Policy: testPolicy()}
	w.step(Want{Target: w.target})
}

func (w *world) step(in Input) {
	w.t.Helper()
	for queue := []Input{in}; len(queue) > 0; queue = queue[1:] {
		out := w.s.Step(w.now, queue[0])
		w.wake = out.Wake
		for _, a := range out.Actions {
			if next := w.do(a); next != nil {
				queue = append(queue, next)
			}
		}
	}
}

func (w *world) do(a Action) Input {
	w.t.Helper()
	switch a := a.(type) {
	case Tell:
		w.notes = append(w.notes, a.Note)
	case Probe:
		return Probed{Check: a.Check, Outcome: w.probe(a.Check, w.now.Sub(w.begun)), Why: "refused"}
	case Stop:
		if w.inst == nil {
			w.t.Fatalf("stop of a copy that does not run")
		}
		w.stops++
		if w.stopErr != nil {
			return StopEnded{Err: w.stopErr}
		}
		w.inst = nil
		return StopEnded{Exit: Exit{Known: true, Signal: syscall.SIGTERM}}
	case Start:
		return w.start(a)
	}
	return nil
}

func (w *world) start(a Start) Input {
	w.t.Helper()
	if w.inst != nil {
		w.t.Fatalf("start %d beside a running copy", a.N)
	}
	if f := w.refuse(a.N); f != nil {
		w.refused++
		return *f
	}
	w.pid++
	w.starts = append(w.starts, w.now)
	if a.Fast {
		w.fast++
	}
	w.begun = w.now
	w.inst = &Instance{Pid: w.pid, Start: a.N, Spec: Spec{Version: w.target.Version, Generation: w.target.Generation}}
	ran, exit := w.program(a.N)
	exit.Ran, w.exit, w.ends = ran, exit, time.Time{}
	if ran >= 0 {
		w.ends = w.now.Add(ran)
	}
	return Started{Instance: *w.inst}
}

// run lets d pass, stepping only when something happens.
func (w *world) run(d time.Duration) {
	w.t.Helper()
	end := w.now.Add(d)
	for range 200_000 {
		next := end
		if w.inst != nil && !w.ends.IsZero() && w.ends.Before(next) {
			next = w.ends
		}
		if !w.wake.IsZero() && w.wake.Before(next) {
			next = w.wake
		}
		w.now = latest(w.now, next)
		switch {
		case w.inst != nil && !w.ends.IsZero() && !w.ends.After(w.now):
			exit := w.exit
			exit.At = w.now
			w.inst, w.ends = nil, time.Time{}
			if exit.Successor != nil {
				next := *exit.Successor
				w.inst = &next
			}
			w.step(Exited{Exit: exit})
		case !w.wake.IsZero() && !w.wake.After(w.now):
			w.step(Tick{})
		case !w.now.Before(end):
			return
		}
	}
	w.t.Fatalf("stepped 200,000 times in %s: it spins", d)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (w *world) kinds() string {
	var out []string
	for _, n := range w.notes {
		out = append(out, string(n.Kind))
	}
	return strings.Join(out, " ")
}

func (w *world) count(kind NoteKind) (n int) {
	for _, note := range w.notes {
		if note.Kind == kind {
			n++
		}
	}
	return n
}

func exitsAfter(d time.Duration, code int) func(int) (time.Duration, Exit) {
	return func(int) (time.Duration, Exit) { return d, Exit{Known: true, Code: code} }
}
