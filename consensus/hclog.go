package consensus

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// repeatAfter is how long the same message of raft is not repeated: it would
// report a dead peer at every attempt, several times a second.
const repeatAfter = 10 * time.Second

// raftLogger is hclog's interface over slog. Raft's levels sink by one: what
// it calls an error (a peer did not answer) is for this project a warning.
type raftLogger struct {
	to   *slog.Logger
	name string
	args []any
	mute *mute
}

var _ hclog.Logger = (*raftLogger)(nil)

func newRaftLogger(to *slog.Logger) *raftLogger {
	return &raftLogger{to: to, name: "raft", mute: &mute{last: map[string]time.Time{}}}
}

// mute remembers when a message was last let through. Raft's messages are
// constants, so it stays small.
type mute struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (m *mute) pass(msg string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if last, ok := m.last[msg]; ok && now.Sub(last) < repeatAfter {
		return false
	}
	m.last[msg] = now
	return true
}

func slogLevel(l hclog.Level) slog.Level {
	switch l {
	case hclog.Error:
		return slog.LevelWarn
	case hclog.Warn:
		return slog.LevelInfo
	default:
		return slog.LevelDebug
	}
}

// Log writes one message.
func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	to := slogLevel(level)
	if !l.to.Enabled(context.Background(), to) {
		return
	}
	if to > slog.LevelDebug && !l.mute.pass(msg) {
		to = slog.LevelDebug
	}
	l.to.Log(context.Background(), to, l.name+": "+msg, plain(args)...)
}

// plain turns hclog's lazily formatted values into strings.
func plain(args []any) []any {
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	return args
}

func (l *raftLogger) Trace(string, ...any)          {}
func (l *raftLogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLogger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLogger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }
func (l *raftLogger) enabled(level hclog.Level) bool {
	return l.to.Enabled(context.Background(), slogLevel(level))
}
func (l *raftLogger) IsTrace() bool                    { return false }
func (l *raftLogger) IsDebug() bool                    { return l.enabled(hclog.Debug) }
func (l *raftLogger) IsInfo() bool                     { return l.enabled(hclog.Info) }
func (l *raftLogger) IsWarn() bool                     { return l.enabled(hclog.Warn) }
func (l *raftLogger) IsError() bool                    { return l.enabled(hclog.Error) }
func (l *raftLogger) ImpliedArgs() []any               { return l.args }
func (l *raftLogger) Name() string                     { return l.name }
func (l *raftLogger) ResetNamed(n string) hclog.Logger { return l.derive(n, nil) }
func (l *raftLogger) Named(n string) hclog.Logger      { return l.derive(l.name+"."+n, nil) }
func (l *raftLogger) With(args ...any) hclog.Logger    { return l.derive(l.name, args) }
func (l *raftLogger) SetLevel(hclog.Level)             {}
func (l *raftLogger) GetLevel() hclog.Level            { return hclog.NoLevel }

func (l *raftLogger) derive(name string, args []any) hclog.Logger {
	return &raftLogger{to: l.to.With(plain(args)...), name: name, args: append(l.args[:len(l.args):len(l.args)], args...), mute: l.mute}
}

// StandardLogger is for code that knows only package log.
func (l *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l.StandardWriter(nil), "", 0)
}

// StandardWriter takes lines.
func (l *raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return lineWriter{l}
}

type lineWriter struct{ l *raftLogger }

func (w lineWriter) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		w.l.Info(strings.TrimSpace(string(line)))
	}
	return len(p), nil
}
