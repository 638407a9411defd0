package keeper

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

const testFence = 300 * time.Millisecond

// world is a copy of a made-up nature under a machine, in virtual time.
type world struct {
	t       *testing.T
	r       *rand.Rand
	m       machine
	now     time.Duration
	wake    time.Duration
	first   bool // the first process runs
	rest    int  // kills that the rest of the group takes; 0: nothing runs
	exitAt  time.Duration
	heeds   bool // ends on a signal
	starts  int
	renewed time.Duration // the deadline as last moved
	asked   bool
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 1)), m: machine{phase: phaseIdle}, now: time.Hour}
	w.renewed = w.now + time.Second
	l := workload.Lease{Token: 7, Deadline: w.renewed, Fence: testFence, Signal: syscall.SIGTERM}
	if err := w.m.begin(w.now, l, 1); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("at %s: %s\n%+v", w.now, fmt.Sprintf(format, args...), w.m)
}

func (w *world) runs() bool { return w.first || w.rest > 0 }

// turn does what the machine says, as the keeper's loop does.
func (w *world) turn() {
	for range 1000 {
		late := w.runs() && w.now >= w.m.lease.Deadline
		do, wake := w.m.next(w.now)
		if late && !w.m.killed && do != actKill {
			w.fail("the lease is over and something runs, and it says %d", do)
		}
		switch do {
		case actNone:
			w.wake = wake
			w.settled()
			return
		case actStart:
			w.start()
		case actSignal:
			if w.heeds && w.first {
				w.exitAt = w.now + time.Duration(w.r.IntN(200))*time.Millisecond
			}
		case actKill:
			w.kill()
		case actLook:
			w.cleared()
		}
	}
	w.fail("it never comes to rest")
}

func (w *world) start() {
	if w.runs() {
		w.fail("a second copy is started")
	}
	if w.now >= w.m.lease.Deadline-testFence {
		w.fail("started with no time left")
	}
	if w.m.held {
		w.fail("started though it is held")
	}
	w.starts++
	if w.m.start != w.starts {
		w.fail("start %d bears number %d", w.starts, w.m.start)
	}
	ok := w.r.IntN(10) > 0
	if ok {
		w.first, w.rest, w.heeds = true, w.r.IntN(4), w.r.IntN(2) == 0
		w.exitAt = w.now + time.Duration(w.r.IntN(3000))*time.Millisecond
	}
	w.m.started(w.now, ok)
}

func (w *world) kill() {
	if w.first {
		w.first = false
		w.m.ended(w.now, Ended{Signal: syscall.SIGKILL})
	}
	w.rest = max(0, w.rest-1)
	w.cleared()
}

func (w *world) cleared() {
	if !w.runs() {
		w.m.cleared(w.now)
	}
}

// settled checks what holds whenever the machine has said all.
func (w *world) settled() {
	switch {
	case w.m.phase == phaseOver && w.runs():
		w.fail("it is over, and something runs")
	case w.m.phase == phaseOver:
		return
	case w.wake == 0:
		w.fail("it never wakes again in phase %s", w.m.phase)
	case w.wake <= w.now:
		w.fail("it wakes in the past, at %s", w.wake)
	case w.runs() && !w.m.killed && w.wake > w.m.lease.Deadline:
		w.fail("it sleeps over the deadline, until %s", w.wake)
	case w.runs() && !w.m.killed && w.m.deadman() != w.m.lease.Deadline+Allowance:
		w.fail("the kernel's timer stands at %s", w.m.deadman())
	case !w.runs() && w.m.deadman() != 0:
		w.fail("the kernel's timer stands at %s for nothing", w.m.deadman())
	}
}

// step lets something happen.
func (w *world) step() {
	next := w.wake
	if w.first {
		next = min(next, w.exitAt)
	}
	switch w.r.IntN(20) {
	case 0: // late: the keeper was stopped, or the host
		next += time.Duration(w.r.IntN(2000)) * time.Millisecond
	case 1, 2, 3, 4:
		next = min(next, w.now+time.Duration(w.r.IntN(300))*time.Millisecond)
	}
	w.now = max(w.now, next)
	if w.first && w.now >= w.exitAt && w.r.IntN(4) > 0 {
		w.first = false
		w.m.ended(w.now, Ended{})
		w.cleared()
	}
	w.order()
	w.turn()
}

// order is what an agent may say.
func (w *world) order() {
	switch w.r.IntN(12) {
	case 0, 1, 2, 3, 4:
		old, deadline := w.m.lease.Deadline, w.now+time.Duration(w.r.IntN(1500))*time.Millisecond
		err := w.m.extend(w.now, 7, deadline)
		switch {
		case err == nil && (deadline < old || w.now >= old || w.m.lease.Deadline != deadline):
			w.fail("extended from %s to %s", old, deadline)
		case err != nil && w.m.lease.Deadline != old:
			w.fail("refused, and moved: %v", err)
		}
	case 5:
		old := w.m.lease
		if err := w.m.extend(w.now, uint64(w.r.IntN(7)), w.now+time.Hour); err == nil || w.m.lease != old {
			w.fail("another token was taken")
		}
	case 6:
		if w.r.IntN(10) == 0 {
			w.m.stop(w.now, syscall.SIGTERM, time.Duration(w.r.IntN(500))*time.Millisecond)
			w.asked = true
		}
	case 7:
		if w.r.IntN(10) == 0 {
			w.m.handOver(w.m.start)
		}
	case 8:
		w.m.hold(w.r.IntN(3) == 0)
	}
}

// Whatever the copy and the agent do and however late the keeper is: nothing is
// started without a lease, one copy at a time, all of it is killed at the
// deadline, and the machine comes to an end.
func TestMachineKeepsTheLease(t *testing.T) {
	fenced, restarted, stopped := 0, 0, 0
	for seed := range uint64(3000) {
		w := newWorld(t, seed)
		w.turn()
		for n := 0; w.m.phase != phaseOver; n++ {
			if n > 20_000 {
				w.fail("seed %d: it does not end", seed)
			}
			w.step()
		}
		if w.runs() {
			w.fail("seed %d: something runs at the end", seed)
		}
		if w.m.exit.Fenced {
			fenced++
		}
		if w.starts > 1 {
			restarted++
		}
		if w.asked {
			stopped++
		}
	}
	if fenced < 100 || restarted < 100 || stopped < 100 {
		t.Errorf("the faults did not bite: %d fenced, %d restarted, %d stopped", fenced, restarted, stopped)
	}
}

// leased returns a machine whose copy runs.
func leased(t *testing.T, deadline time.Duration) *machine {
	t.Helper()
	m := &machine{phase: phaseIdle}
	l := workload.Lease{Token: 7, Deadline: deadline, Fence: time.Second, Signal: syscall.SIGINT}
	if err := m.begin(0, l, 1); err != nil {
		t.Fatal(err)
	}
	if do, _ := m.next(0); do != actStart {
		t.Fatalf("it says %d, not to start", do)
	}
	m.started(0, true)
	return m
}

func expect(t *testing.T, m *machine, now time.Duration, do act, wake time.Duration) {
	t.Helper()
	if gotDo, gotWake := m.next(now); gotDo != do || (do == actNone && gotWake != wake) {
		t.Fatalf("at %s: does %d and wakes at %s, want %d and %s", now, gotDo, gotWake, do, wake)
	}
}

func TestFenceThenKill(t *testing.T) {
	m := leased(t, 10*time.Second)
	expect(t, m, 0, actNone, 9*time.Second)
	expect(t, m, 9*time.Second, actSignal, 0)
	if m.signal != syscall.SIGINT {
		t.Errorf("signal %v", m.signal)
	}
	expect(t, m, 9*time.Second, actNone, 10*time.Second)
	expect(t, m, 10*time.Second, actKill, 0)
	if m.deadman() != 0 {
		t.Error("it has killed, and the kernel's timer is not off")
	}
	m.ended(10*time.Second, Ended{Signal: syscall.SIGKILL})
	m.cleared(10 * time.Second)
	expect(t, m, 10*time.Second, actNone, 0)
	if m.phase != phaseOver || !m.exit.Fenced {
		t.Errorf("%+v", m)
	}
}

// A keeper that wakes after the deadline kills, and asks nobody first.
func TestLateKeeperKillsFirst(t *testing.T) {
	m := leased(t, 10*time.Second)
	if err := m.extend(10*time.Second, 7, time.Hour); err == nil {
		t.Error("a lease that is over was extended")
	}
	expect(t, m, time.Minute, actKill, 0)
}

func TestExtendTakesTheFenceBack(t *testing.T) {
	m := leased(t, 10*time.Second)
	expect(t, m, 9*time.Second, actSignal, 0)
	if err := m.extend(9500*time.Millisecond, 7, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	expect(t, m, 9500*time.Millisecond, actNone, 19*time.Second)
	m.ended(9600*time.Millisecond, Ended{}) // it has heeded the signal after all
	expect(t, m, 9600*time.Millisecond, actKill, 0)
	m.cleared(9600 * time.Millisecond)
	expect(t, m, 9600*time.Millisecond, actStart, 0)
	if m.start != 2 || !m.exit.Fenced || m.failures != 0 {
		t.Errorf("an end by the lease's signal was taken for the copy's own: %+v", m)
	}
	m.started(9600*time.Millisecond, true)
	m.ended(9700*time.Millisecond, Ended{})
	if m.exit.Fenced {
		t.Errorf("an end of the next start was taken for the lease's: %+v", m)
	}
}

func TestBackOff(t *testing.T) {
	m := leased(t, time.Hour)
	now := time.Second
	for _, want := range []time.Duration{0, 1, 2, 4, 8, 16, 32, 60, 60} {
		m.ended(now, Ended{Code: 1})
		expect(t, m, now, actKill, 0)
		m.cleared(now)
		if want > 0 {
			expect(t, m, now, actNone, now+want*time.Second)
		}
		if m.delayed != (want > 0) {
			t.Errorf("delayed is %v before a wait of %d s", m.delayed, want)
		}
		now += want * time.Second
		expect(t, m, now, actStart, 0)
		m.started(now, true)
	}
	now += stable
	m.ended(now, Ended{})
	expect(t, m, now, actKill, 0)
	m.cleared(now)
	expect(t, m, now, actStart, 0) // at once, after a stable time
}

// A start that the agent asked for with a number above 1 is one of its own
// restarts: the next end is not answered at once.
func TestAgentsRestartIsCounted(t *testing.T) {
	m := &machine{phase: phaseIdle}
	if err := m.begin(0, workload.Lease{Deadline: time.Hour}, 5); err != nil {
		t.Fatal(err)
	}
	expect(t, m, 0, actStart, 0)
	m.started(0, true)
	m.ended(0, Ended{})
	expect(t, m, 0, actKill, 0)
	m.cleared(0)
	if !m.delayed || m.start != 5 {
		t.Errorf("%+v", m)
	}
	m.handOver(4)
	expect(t, m, 0, actNone, time.Second)
	m.handOver(5)
	expect(t, m, 0, actNone, 0)
	if m.phase != phaseOver {
		t.Errorf("phase %s after the agent took over", m.phase)
	}
}

func TestStopGivesTheGroupItsGrace(t *testing.T) {
	m := leased(t, time.Hour)
	m.stop(0, syscall.SIGTERM, 10*time.Second)
	expect(t, m, 0, actSignal, 0)
	expect(t, m, 0, actNone, 10*time.Second)
	m.ended(time.Second, Ended{})
	expect(t, m, time.Second, actLook, 0) // not a kill: the rest has the grace
	m.stop(2*time.Second, syscall.SIGTERM, time.Second)
	expect(t, m, 3*time.Second, actKill, 0)
	m.cleared(3 * time.Second)
	if m.phase != phaseOver || m.exit.Fenced {
		t.Errorf("%+v", m)
	}
}

func TestRefusals(t *testing.T) {
	m := &machine{phase: phaseIdle}
	if err := m.begin(10*time.Second, workload.Lease{Deadline: 11 * time.Second, Fence: time.Second}, 1); err == nil {
		t.Error("started with no time to run")
	}
	if err := m.extend(0, 0, time.Hour); err == nil {
		t.Error("extended with nothing to extend")
	}
	m = leased(t, 10*time.Second)
	if err := m.begin(0, m.lease, 1); err == nil {
		t.Error("started twice")
	}
	if err := m.extend(0, 7, 9*time.Second); err == nil {
		t.Error("taken an older deadline")
	}
	if err := m.extend(0, 8, 20*time.Second); err == nil {
		t.Error("taken another token")
	}
	if err := m.extend(0, 7, 10*time.Second); err != nil {
		t.Errorf("the same deadline again: %v", err)
	}
}

// A keeper that is held restarts nothing, and its agent may take over at once; let
// go of, it goes on; with neither it ends with the lease.
func TestMachineHolds(t *testing.T) {
	ended := func(held bool) *machine {
		m := leased(t, 10*time.Second)
		m.hold(held)
		m.ended(time.Second, Ended{})
		m.next(time.Second)
		m.cleared(time.Second)
		return m
	}
	m := ended(true)
	if do, wake := m.next(time.Second); do != actNone || wake != 9*time.Second || !m.delayed {
		t.Fatalf("held: it says %d and wakes at %s; to be taken over: %v", do, wake, m.delayed)
	}
	m.hold(false)
	if do, _ := m.next(2 * time.Second); do != actStart {
		t.Fatalf("let go of: it says %d", do)
	}
	m = ended(false)
	m.hold(true) // it was about to start
	if do, _ := m.next(time.Second); do != actNone {
		t.Fatalf("held while it waits: it says %d", do)
	}
	m.handOver(1)
	if m.phase != phaseOver {
		t.Fatalf("taken over: %s", m.phase)
	}
	m = ended(true)
	if do, _ := m.next(9 * time.Second); do != actNone || m.phase != phaseOver {
		t.Fatalf("at the end of the lease: it says %d, %s", do, m.phase)
	}
}
