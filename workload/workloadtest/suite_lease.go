package workloadtest

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// runLeases tests what a driver does for copies under a lease.
func runLeases(t *testing.T, h Harness) {
	for _, c := range []struct {
		name string
		f    func(*testing.T, *bench)
	}{
		{"NoStartWithoutOne", testLeaseNeeded}, {"KillsAtTheDeadline", testLeaseKills}, {"AsksBefore", testLeaseAsks},
		{"Extend", testLeaseExtend}, {"ExtendEnded", testLeaseExtendEnded}, {"NoAgent", testLeaseNoAgent},
		{"Adopt", testLeaseAdopt}, {"AdoptExtends", testLeaseAdoptExtends}, {"Restart", testLeaseRestart},
		{"RestartUnseen", testLeaseRestartUnseen}, {"Stop", testLeaseStop}, {"StopInTwo", testLeaseStopInTwo},
		{"Hold", testLeaseHold}, {"StartAgain", testLeaseStartAgain}, {"StartMissing", testLeaseMissing}, {"Token", testLeaseToken},
	} {
		t.Run(c.name, func(t *testing.T) {
			test := func(t *testing.T) { c.f(t, &bench{Harness: h, t: t, d: h.New(t), p: h.Programs}) }
			if h.Virtual {
				synctest.Test(t, test)
			} else {
				t.Parallel() // they wait for deadlines, most of the time
				test(t)
			}
		})
	}
}

const leaseToken = 1<<40 + 7

// late is how long after a deadline a copy may run on a starved machine: far
// more than the kill allowance, since this is about what happens, not how fast.
const late = 5 * time.Second

// leased is a spec whose lease ends in a while.
func (b *bench) leased(command []string, in, fence time.Duration) workload.Spec {
	s := b.spec("db", 1, command)
	s.Lease = &workload.Lease{Token: leaseToken, Deadline: b.Now() + in, Fence: fence, Signal: syscall.SIGTERM}
	return s
}

func (b *bench) startLeased(s workload.Spec, n int) (workload.Handle, workload.Leased) {
	b.t.Helper()
	h := b.start(s, n)
	l, ok := h.(workload.Leased)
	if !ok {
		b.t.Fatalf("%T is no workload.Leased", h)
	}
	if got := l.Lease(); got != *s.Lease {
		b.t.Errorf("the keeper holds %+v, want %+v", got, *s.Lease)
	}
	return h, l
}

// shortest is how long after its start a short lease comes to its fence, where
// nothing starves the machine.
const shortest = 500 * time.Millisecond

// startShort starts a copy whose lease comes to its fence within the test: in a
// while, or later where the machine takes that long to start anything.
func (b *bench) startShort(command []string, in, fence time.Duration) (workload.Spec, workload.Handle, workload.Leased) {
	b.t.Helper()
	for ; ; in *= 2 {
		s := b.leased(command, in+fence, fence)
		h, err := b.d.Start(b.ctx(), s, 1)
		if err != nil && in < patience && !s.Lease.Live(b.Now()) {
			continue
		}
		if err != nil {
			b.t.Fatalf("start: %v", err)
		}
		return s, h, h.(workload.Leased)
	}
}

// inTime does what has to be done before a lease comes to its fence, with longer
// leases where the machine is starved for so long that it was not.
func (b *bench) inTime(f func(in time.Duration) bool) {
	b.t.Helper()
	for in := shortest; !f(in); in *= 2 {
		if in > patience {
			b.t.Fatal("no lease is long enough")
		}
	}
}

// fenced tells whether a lease has come to its fence.
func (b *bench) fenced(l workload.Lease) bool { return b.Now() >= l.Deadline-l.Fence }

// gone waits until an instance runs no more and returns when that was.
func (b *bench) gone(in workload.Instance) time.Duration {
	b.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for ctx := b.ctx(); b.Runs(in); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.t.Fatalf("process %d runs on", in.Pid)
		}
	}
	return b.Now()
}

func testLeaseNeeded(t *testing.T, b *bench) {
	for _, in := range []time.Duration{-time.Minute, 0, 500 * time.Millisecond} {
		s := b.leased(b.p.Sleep, in, time.Second)
		_, err := b.d.Start(b.ctx(), s, 1)
		var forever *workload.StartError
		if err == nil || errors.As(err, &forever) {
			t.Errorf("a lease that ends in %s: error %v, want one that may pass", in, err)
		}
	}
	s := b.leased(b.p.Sleep, time.Minute, time.Second)
	h, _ := b.startLeased(s, 1) // the refusals have left nothing behind
	b.stop(h, 0)
}

func testLeaseKills(t *testing.T, b *bench) {
	s, h, _ := b.startShort(b.p.Stubborn, shortest, 0)
	in := h.Instance()
	e := b.exit(h)
	now := b.Now()
	if now < s.Lease.Deadline || now > s.Lease.Deadline+late {
		t.Errorf("ended %s after the deadline", now-s.Lease.Deadline)
	}
	if !e.Known || e.Signal != syscall.SIGKILL || !e.Fenced || e.Successor != nil {
		t.Errorf("exit %+v", e)
	}
	if b.Runs(in) {
		t.Error("the exit is told, and the copy runs")
	}
}

func testLeaseAsks(t *testing.T, b *bench) {
	s, h, _ := b.startShort(b.p.Sleep, shortest, patience)
	e := b.exit(h)
	if !e.Known || e.Signal != syscall.SIGTERM || !e.Fenced || e.Successor != nil {
		t.Errorf("exit %+v", e)
	}
	if now := b.Now(); now < s.Lease.Deadline-s.Lease.Fence || now >= s.Lease.Deadline {
		t.Errorf("ended %s before the deadline, to be asked %s before", s.Lease.Deadline-now, s.Lease.Fence)
	}
}

func testLeaseExtend(t *testing.T, b *bench) {
	b.inTime(func(in time.Duration) bool {
		s, h, l := b.startShort(b.p.Sleep, in, 100*time.Millisecond)
		first := h.Instance()
		later := b.refuseThenExtend(l)
		if later == 0 {
			b.exit(h)
			return false
		}
		if in := h.Instance(); in.Pid != first.Pid || in.Start != 1 {
			t.Errorf("instance %+v after the extension, was process %d", in, first.Pid)
		}
		e := b.exit(h)
		if now := b.Now(); now < later-s.Lease.Fence || !e.Fenced {
			t.Errorf("exit %+v, %s before the later deadline", e, later-now)
		}
		return true
	})
}

// refuseThenExtend extends a lease by a second, and by nothing else. It returns
// the later deadline; 0 if the lease came to its fence before it was asked.
func (b *bench) refuseThenExtend(l workload.Leased) (later time.Duration) {
	b.t.Helper()
	short := l.Lease()
	first := short.Deadline
	for _, bad := range []struct {
		token    uint64
		deadline time.Duration
	}{{leaseToken + 1, first + time.Hour}, {leaseToken - 1, first + time.Hour}, {0, first + time.Hour}, {leaseToken, first - 1}} {
		if err := l.Extend(b.ctx(), bad.token, bad.deadline); err == nil || l.Lease().Deadline != first {
			b.t.Errorf("token %d, deadline %s: error %v, lease %+v", bad.token, bad.deadline, err, l.Lease())
		}
	}
	later = first + time.Second
	err := l.Extend(b.ctx(), leaseToken, later)
	switch {
	case b.fenced(short):
		return 0
	case err != nil || l.Lease().Deadline != later:
		b.t.Fatalf("error %v, lease %+v", err, l.Lease())
	}
	if err := l.Extend(b.ctx(), leaseToken, first); err == nil {
		b.t.Error("an older deadline was taken")
	}
	return later
}

func testLeaseExtendEnded(t *testing.T, b *bench) {
	s := b.leased(b.p.Sleep, time.Minute, time.Second)
	h, l := b.startLeased(s, 1)
	b.stop(h, 0)
	if err := l.Extend(b.ctx(), leaseToken, s.Lease.Deadline+time.Minute); err == nil {
		t.Error("the lease of an ended copy was extended")
	}
}

// With no agent at all, a copy ends with its lease.
func testLeaseNoAgent(t *testing.T, b *bench) {
	s, h, _ := b.startShort(b.p.Stubborn, shortest, 0)
	in := h.Instance()
	b.d = b.Restart(t, b.d)
	if now := b.gone(in); now < s.Lease.Deadline || now > s.Lease.Deadline+late {
		t.Errorf("ended %s after the deadline", now-s.Lease.Deadline)
	}
	hs, err := b.d.Adopt(b.ctx())
	if err != nil || len(hs) != 0 {
		t.Errorf("adopted %v, %v after the lease", hs, err)
	}
	again := b.leased(b.p.Sleep, time.Minute, time.Second)
	h, _ = b.startLeased(again, 1)
	b.stop(h, 0)
}

func testLeaseAdopt(t *testing.T, b *bench) {
	s := b.leased(b.p.Sleep, time.Minute, time.Second)
	h, _ := b.startLeased(s, 3)
	want := h.Instance()
	for range 2 {
		hs := b.restart()
		if len(hs) != 1 {
			t.Fatalf("adopted %d copies, want 1", len(hs))
		}
		h = hs[0]
		if in := h.Instance(); in.Pid != want.Pid || in.StartTime != want.StartTime || in.Start != 3 || in.Spec.Lease == nil || *in.Spec.Lease != *s.Lease {
			t.Fatalf("adopted %+v, want %+v", in, want)
		}
	}
	if _, err := b.d.Start(b.ctx(), s, 4); err == nil {
		t.Error("an adopted copy was doubled")
	}
	b.stop(h, patience)
	if e := b.exit(h); !e.Known || e.Signal != syscall.SIGTERM || e.Fenced {
		t.Errorf("exit %+v", e)
	}
	if hs := b.restart(); len(hs) != 0 {
		t.Errorf("adopted %d copies after all were stopped", len(hs))
	}
}

func testLeaseAdoptExtends(t *testing.T, b *bench) {
	b.inTime(func(in time.Duration) bool {
		s, _, _ := b.startShort(b.p.Sleep, in, patience)
		hs := b.restart()
		if b.fenced(*s.Lease) {
			return b.endAdopted(hs)
		}
		if len(hs) != 1 {
			t.Fatalf("adopted %d copies, want 1", len(hs))
		}
		l, ok := hs[0].(workload.Leased)
		if !ok {
			t.Fatalf("%T is no workload.Leased", hs[0])
		}
		later := s.Lease.Deadline + 500*time.Millisecond
		err := l.Extend(b.ctx(), leaseToken, later)
		if b.fenced(*s.Lease) {
			return b.endAdopted(hs)
		}
		if err != nil {
			t.Fatal(err)
		}
		if e := b.exit(hs[0]); !e.Fenced || b.Now() < later-s.Lease.Fence {
			t.Errorf("exit %+v, %s before the later deadline", e, later-b.Now())
		}
		return true
	})
}

// endAdopted ends the copies of a try that came too late for their leases.
func (b *bench) endAdopted(hs []workload.Handle) (inTime bool) {
	b.t.Helper()
	for _, h := range hs {
		b.stop(h, 0)
	}
	return false
}

// The keeper restarts at once; what has to wait is the agent's to decide.
func testLeaseRestart(t *testing.T, b *bench) {
	s := b.leased(b.p.Sleep, time.Minute, time.Second)
	h, l := b.startLeased(s, 1)
	first := h.Instance()
	if err := h.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e, ok := b.receive(h)
	if !ok || !e.Known || e.Signal != syscall.SIGKILL || e.Fenced || e.Successor == nil {
		t.Fatalf("exit %+v, %v, want one with a successor", e, ok)
	}
	next := *e.Successor
	if in := h.Instance(); next.Start != 2 || next.Pid == first.Pid || in.Pid != next.Pid || in.Start != 2 || l.Lease() != *s.Lease {
		t.Errorf("successor %+v, instance %+v, lease %+v", next, in, l.Lease())
	}
	if !b.Runs(next) || b.Runs(first) {
		t.Error("it is not the successor that runs")
	}
	out, err := b.d.Exec(b.ctx(), s, b.p.Environ)
	if err != nil || !strings.Contains(string(out), "GANGLION_START=2") {
		t.Errorf("environment %q, %v", out, err)
	}
	n := b.killForGood(h)
	h, _ = b.startLeased(s, n+1)
	b.stop(h, 0)
}

// killForGood kills a copy until its keeper leaves the restart to the agent, and
// returns the number of that start: the present one, unless the agent is starved
// for the second that the keeper waits for it.
func (b *bench) killForGood(h workload.Handle) int {
	b.t.Helper()
	for {
		in := h.Instance()
		if err := h.Signal(syscall.SIGKILL); err != nil {
			b.t.Fatal(err)
		}
		e, ok := b.receive(h)
		if !ok || e.Fenced || e.Signal != syscall.SIGKILL {
			b.t.Fatalf("exit %+v, %v", e, ok)
		}
		if e.Successor == nil {
			if again, ok := b.receive(h); ok {
				b.t.Fatalf("a second exit: %+v", again)
			}
			return in.Start
		}
		if waited := e.Successor.Since.Sub(in.Since.Add(e.Ran)); waited < 900*time.Millisecond {
			b.t.Fatalf("the second restart came after %s, no agent could have taken it over", waited)
		}
	}
}

// What a keeper has done while no agent was there shows in the number.
func testLeaseRestartUnseen(t *testing.T, b *bench) {
	s := b.leased(b.p.Sleep, time.Minute, time.Second)
	h, _ := b.startLeased(s, 1)
	if err := h.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e, ok := b.receive(h); !ok || e.Successor == nil {
		t.Fatalf("exit %+v, %v", e, ok)
	}
	hs := b.restart()
	if len(hs) != 1 || hs[0].Instance().Start != 2 || hs[0].Instance().Spec.Lease.Token != leaseToken {
		t.Fatalf("adopted %v", hs)
	}
	b.stop(hs[0], 0)
}

func testLeaseStop(t *testing.T, b *bench) {
	s := b.leased(b.p.Stubborn, time.Minute, 100*time.Millisecond)
	h, _ := b.startLeased(s, 1)
	b.eventually(s, b.p.Ready)
	const grace = 200 * time.Millisecond
	begun := time.Now()
	b.stop(h, grace)
	if took := time.Since(begun); took < grace {
		t.Errorf("stopped after %v, the grace is %v", took, grace)
	}
	if e := b.exit(h); e.Signal != syscall.SIGKILL || e.Fenced || e.Successor != nil {
		t.Errorf("exit %+v", e)
	}
	b.stop(h, 0)
	if err := b.d.Purge(b.ctx(), s.ID); err != nil {
		t.Error(err)
	}
}

func testLeaseStopInTwo(t *testing.T, b *bench) {
	s := b.leased(b.p.Stubborn, time.Minute, 100*time.Millisecond)
	h, _ := b.startLeased(s, 1)
	b.eventually(s, b.p.Ready)
	long, ctx := make(chan error, 1), b.ctx()
	go func() { long <- h.Stop(ctx, syscall.SIGTERM, patience) }()
	b.stop(h, 0)
	if err := <-long; err != nil {
		t.Errorf("first stop: %v", err)
	}
	if e := b.exit(h); e.Signal != syscall.SIGKILL || e.Fenced {
		t.Errorf("exit %+v", e)
	}
}

func testLeaseStartAgain(t *testing.T, b *bench) {
	for token := uint64(1); token <= 3; token++ {
		s := b.leased(b.p.Sleep, time.Minute, time.Second)
		s.Lease.Token = token
		h, l := b.startLeased(s, 1)
		if err := l.Extend(b.ctx(), token-1, s.Lease.Deadline+time.Minute); err == nil {
			t.Error("the token before was taken")
		}
		if err := b.d.Purge(b.ctx(), s.ID); err == nil {
			t.Error("a running copy was purged")
		}
		b.stop(h, 0)
	}
}

func testLeaseMissing(t *testing.T, b *bench) {
	s := b.leased(b.p.Missing, time.Minute, time.Second)
	_, err := b.d.Start(b.ctx(), s, 1)
	var start *workload.StartError
	if !errors.As(err, &start) || start.ID != s.ID {
		t.Fatalf("error %v, want a StartError of db/1", err)
	}
}

func testLeaseToken(t *testing.T, b *bench) {
	s := b.leased(b.p.Sleep, time.Minute, time.Second)
	h, _ := b.startLeased(s, 1)
	defer b.stop(h, 0)
	out, err := b.d.Exec(b.ctx(), s, b.p.Environ)
	if err != nil || !strings.Contains(string(out), "GANGLION_TOKEN=1099511627783\n") {
		t.Errorf("environment %q, %v", out, err)
	}
}
