package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"strings"
)

// logBridge turns the "[LEVEL] component: text" lines of serf and memberlist into
// slog records, a level lower than they rate themselves: to them each lost packet
// is an error, to a mesh it is Tuesday.
type logBridge struct{ log *slog.Logger }

func newLogBridge(l *slog.Logger) *log.Logger { return log.New(logBridge{l}, "", 0) }

func (b logBridge) Write(line []byte) (int, error) {
	level, rest := slog.LevelDebug, line
	for prefix, l := range map[string]slog.Level{"[ERR] ": slog.LevelWarn, "[WARN] ": slog.LevelInfo} {
		if after, ok := bytes.CutPrefix(line, []byte(prefix)); ok {
			level, rest = l, after
		}
	}
	if b.log.Enabled(context.Background(), level) {
		b.log.Log(context.Background(), level, strings.TrimSpace(string(rest)))
	}
	return len(line), nil
}
