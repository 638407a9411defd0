// Package workloadtest holds the conformance suite that every workload driver
// passes, and a driver in memory, with faults, for tests of what uses drivers.
package workloadtest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// Harness is a driver under test.
type Harness struct {
	// Host is the name the driver was given: GANGLION_HOST.
	Host string
	// New returns a driver on which nothing runs. It is closed, and all its
	// copies are ended, by t.Cleanup.
	New func(t *testing.T) workload.Driver
	// Restart ends the agent's life without a word to its copies and returns the
	// driver of the next one.
	Restart  func(t *testing.T, old workload.Driver) workload.Driver
	Programs Programs
	// Now is the host's CLOCK_BOOTTIME, and Runs tells whether the process of an
	// instance runs on it. Without them, nothing of leases is tested.
	Now  func() time.Duration
	Runs func(workload.Instance) bool
	// Virtual says that leases can be tested in virtual time.
	Virtual bool
	// Extra tells which variables a driver may add to the environment.
	Extra func(name string) bool
}

// patience bounds every wait: long enough for a starved machine.
const patience = 20 * time.Second

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for _, c := range []struct {
		name string
		f    func(*testing.T, *bench)
	}{
		{"StartStop", testStartStop}, {"ExitStatus", testExitStatus}, {"StartAgain", testStartAgain},
		{"StartTwice", testStartTwice}, {"StartMissing", testStartMissing}, {"BadNames", testBadNames},
		{"StopStubborn", testStopStubborn}, {"StopAtOnce", testStopAtOnce}, {"StopAgain", testStopAgain},
		{"StartAfterKill", testStartAfterKill},
		{"StopCancelled", testStopCancelled}, {"StopOldHandle", testStopOldHandle}, {"Signal", testSignal},
		{"Environment", testEnvironment}, {"Exec", testExec}, {"ExecEnds", testExecEnds},
		{"StateSurvives", testState}, {"PurgeRunning", testPurgeRunning},
		{"Adopt", testAdopt}, {"AdoptNothing", testAdoptNothing}, {"AdoptThenStart", testAdoptThenStart},
		{"Many", testMany},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.f(t, &bench{Harness: h, t: t, d: h.New(t), p: h.Programs})
		})
	}
	if h.Now != nil {
		t.Run("Lease", func(t *testing.T) { runLeases(t, h) })
	}
}

type bench struct {
	Harness
	t *testing.T
	d workload.Driver
	p Programs
}

func (b *bench) spec(app string, n int, command []string) workload.Spec {
	return workload.Spec{ID: workload.CopyID{App: app, N: n}, Version: "0123456789ab", Generation: 1, Command: command}
}

func (b *bench) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	b.t.Cleanup(cancel)
	return ctx
}

func (b *bench) start(s workload.Spec, n int) workload.Handle {
	b.t.Helper()
	h, err := b.d.Start(b.ctx(), s, n)
	if err != nil {
		b.t.Fatalf("start: %v", err)
	}
	return h
}

func (b *bench) stop(h workload.Handle, grace time.Duration) {
	b.t.Helper()
	if err := h.Stop(b.ctx(), syscall.SIGTERM, grace); err != nil {
		b.t.Fatalf("stop: %v", err)
	}
}

// exit waits for the exit, and for the channel's end after it.
func (b *bench) exit(h workload.Handle) workload.Exit {
	b.t.Helper()
	e, ok := b.receive(h)
	if !ok {
		b.t.Fatal("the channel of exits ended without an exit")
	}
	if again, ok := b.receive(h); ok {
		b.t.Fatalf("a second exit: %+v", again)
	}
	return e
}

func (b *bench) receive(h workload.Handle) (workload.Exit, bool) {
	b.t.Helper()
	select {
	case e, ok := <-h.Exited():
		return e, ok
	case <-b.ctx().Done():
		b.t.Fatal("no exit")
		return workload.Exit{}, false
	}
}

// eventually runs a check until it succeeds.
func (b *bench) eventually(s workload.Spec, argv []string) {
	b.t.Helper()
	ctx := b.ctx()
	for {
		_, err := b.d.Exec(ctx, s, argv)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			b.t.Fatalf("%q never succeeded: %v", argv, err)
		}
	}
}

func testStartStop(t *testing.T, b *bench) {
	s := b.spec("web", 1, b.p.Sleep)
	before := time.Now()
	h := b.start(s, 3)
	in := h.Instance()
	if in.Pid <= 0 || in.StartTime == 0 || in.Start != 3 || in.Spec.ID != s.ID || in.Spec.Version != s.Version {
		t.Errorf("instance %+v", in)
	}
	if in.Since.Before(before.Add(-2*time.Second)) || in.Since.After(time.Now().Add(2*time.Second)) {
		t.Errorf("since %v, started after %v", in.Since, before)
	}
	b.stop(h, patience)
	select {
	case e := <-h.Exited():
		if !e.Known || e.Signal != syscall.SIGTERM {
			t.Errorf("exit %+v, want SIGTERM", e)
		}
		if e.Ran < 0 || e.Ran > patience || e.At.Before(before) {
			t.Errorf("ran %v until %v", e.Ran, e.At)
		}
	default:
		t.Error("Stop returned before the exit was there")
	}
}

func testExitStatus(t *testing.T, b *bench) {
	for _, code := range []int{0, 3, 255} {
		if e := b.exit(b.start(b.spec("web", code, b.p.Exit(code)), 1)); !e.Known || e.Code != code || e.Signal != 0 {
			t.Errorf("exit %d is told as %+v", code, e)
		}
	}
}

func testStartAgain(t *testing.T, b *bench) {
	s := b.spec("web", 1, b.p.Sleep)
	seen := map[int]bool{}
	for n := 1; n <= 5; n++ {
		h := b.start(s, n)
		in := h.Instance()
		if in.Start != n || seen[in.Pid] {
			t.Errorf("start %d: %+v", n, in)
		}
		seen[in.Pid] = true
		if err := h.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if e := b.exit(h); e.Signal != syscall.SIGKILL {
			t.Errorf("exit %+v", e)
		}
	}
}

func testStartTwice(t *testing.T, b *bench) {
	s := b.spec("web", 1, b.p.Sleep)
	h := b.start(s, 1)
	if _, err := b.d.Start(b.ctx(), s, 2); err == nil {
		t.Fatal("a copy was started twice")
	}
	select {
	case e := <-h.Exited():
		t.Fatalf("the refused start ended the copy: %+v", e)
	default:
	}
	b.stop(h, 0)
}

func testStartMissing(t *testing.T, b *bench) {
	s := b.spec("web", 1, b.p.Missing)
	_, err := b.d.Start(b.ctx(), s, 1)
	var start *workload.StartError
	if !errors.As(err, &start) || start.ID != s.ID {
		t.Fatalf("error %v, want a StartError of web/1", err)
	}
	s.Command = nil
	if _, err := b.d.Start(b.ctx(), s, 1); !errors.As(err, &start) {
		t.Errorf("no command: error %v, want a StartError", err)
	}
	s.Command, s.Generation = b.p.Sleep, 2
	b.stop(b.start(s, 1), 0) // the failure has left nothing behind
}

func testBadNames(t *testing.T, b *bench) {
	for _, app := range []string{"", "..", "../web", "a/b"} {
		if _, err := b.d.Start(b.ctx(), b.spec(app, 1, b.p.Sleep), 1); err == nil {
			t.Errorf("app %q was started", app)
		}
	}
	if _, err := b.d.Start(b.ctx(), b.spec("web", -1, b.p.Sleep), 1); err == nil {
		t.Error("copy -1 was started")
	}
}

func testSignal(t *testing.T, b *bench) {
	h := b.start(b.spec("web", 1, b.p.Sleep), 1)
	if err := h.Signal(0); err == nil {
		t.Error("signal 0 was sent")
	}
	if err := h.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e := b.exit(h); e.Signal != syscall.SIGTERM {
		t.Errorf("exit %+v", e)
	}
	if err := h.Signal(syscall.SIGTERM); err == nil {
		t.Error("a dead copy was signalled")
	}
}

func testEnvironment(t *testing.T, b *bench) {
	s := b.spec("web", 2, b.p.Sleep)
	s.Env = map[string]string{"PORT_HTTP": "20001", "MODE": "a b=c", "GANGLION_APP": "other", "STATE_DIR": "/etc"}
	h := b.start(s, 7)
	defer b.stop(h, 0)
	out, err := b.d.Exec(b.ctx(), s, b.p.Environ)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	state := ""
	for _, l := range lines {
		if v, ok := strings.CutPrefix(l, "STATE_DIR="); ok {
			state = v
		}
	}
	if state == "" || state == "/etc" {
		t.Fatalf("STATE_DIR is %q in %q", state, lines)
	}
	want := s.Environ(b.Host, 7, state)
	for _, l := range lines {
		name, _, _ := strings.Cut(l, "=")
		if !slices.Contains(want, l) && (b.Extra == nil || !b.Extra(name)) {
			t.Errorf("the environment has %q", l)
		}
	}
	for _, w := range want {
		if !slices.Contains(lines, w) {
			t.Errorf("the environment lacks %q", w)
		}
	}
}
