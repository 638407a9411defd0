package virtual

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
)

// logKept is how many of the last lines a failing test shows.
const logKept = 600

// logbook keeps the last lines that all agents logged. It may be used from any
// goroutine.
type logbook struct {
	begun time.Time
	level slog.Level

	mu    sync.Mutex
	lines []string
}

func newLogbook() *logbook {
	b := &logbook{begun: time.Now(), level: slog.LevelInfo}
	if os.Getenv("GANGLION_DEBUG") != "" {
		b.level = slog.LevelDebug
	}
	return b
}

// of returns the logger of a host. Times are since the mesh began.
func (b *logbook) of(host string) *slog.Logger {
	since := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
			return slog.Duration("at", a.Value.Time().Sub(b.begun))
		}
		return a
	}
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: b.level, ReplaceAttr: since})).With("host", host)
}

// note adds a line of the test itself.
func (b *logbook) note(msg string, args ...any) {
	b.of("-").Log(context.Background(), slog.LevelWarn, msg, args...)
}

// Write implements io.Writer for the handlers.
func (b *logbook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, string(bytes.TrimSpace(p)))
	if len(b.lines) > 2*logKept {
		b.lines = append([]string(nil), b.lines[logKept:]...)
	}
	return len(p), nil
}

// stacks adds what every goroutine does now, if debugging was asked for.
func (b *logbook) stacks() {
	if b.level > slog.LevelDebug {
		return
	}
	buf := make([]byte, 16<<20)
	b.Write(buf[:runtime.Stack(buf, true)]) //nolint:errcheck // it never fails
}

func (b *logbook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	lines := b.lines
	if b.level > slog.LevelDebug && len(lines) > logKept {
		lines = lines[len(lines)-logKept:]
	}
	return strings.Join(lines, "\n")
}
