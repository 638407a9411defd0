package events

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain runs the writer of the crash test where the environment asks for it.
func TestMain(m *testing.M) {
	if dir := os.Getenv("EVENTS_TEST_WRITER"); dir != "" {
		os.Exit(writeForEver(dir))
	}
	goleak.VerifyTestMain(m)
}

// eventually polls cond until it holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-tick.C
	}
}

// logs collects log lines.
type logs struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), s)
}

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// open opens a small ring in dir and closes it with the test.
func open(t testing.TB, dir string) *Recorder {
	t.Helper()
	r, err := OpenRecorder(RecorderConfig{Dir: dir, Host: "h1", MaxBytes: MinMaxBytes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

// running runs fn until the test ends, or until the returned stop is called.
func running(t testing.TB, fn func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func started(n int) Draft {
	return New(AppSubject("web", "2"), AppStarted{Pid: n, Version: "0123456789ab", Start: 1})
}

func mustAppend(t testing.TB, r *Recorder, d Draft) Event {
	t.Helper()
	e, err := r.Append(d)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func all(t testing.TB, r *Recorder, from uint64) (out []Event) {
	t.Helper()
	if err := r.Read(from, func(e Event) bool { out = append(out, e); return true }); err != nil {
		t.Fatal(err)
	}
	return out
}

// wantSeqs checks that events count from first to last without a gap.
func wantSeqs(t testing.TB, got []Event, first, last uint64) {
	t.Helper()
	if uint64(len(got)) != last+1-first {
		t.Fatalf("read %d events, want seqs %d to %d", len(got), first, last)
	}
	for i, e := range got {
		if e.Seq != first+uint64(i) {
			t.Fatalf("event %d has seq %d, want %d", i, e.Seq, first+uint64(i))
		}
	}
}
