package consensus

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestRaftLogging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := newRaftLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
		for range 100 {
			l.Error("failed to heartbeat to", "peer", hclog.Fmt("%s:%d", "h2", 1))
		}
		l.Info("of no interest")
		l.Named("net").With("local", "h1").Warn("heard")
		got := out.String()
		if n := strings.Count(got, "failed to heartbeat"); n != 1 {
			t.Errorf("said %d times", n)
		}
		for _, want := range []string{`level=WARN msg="raft: failed to heartbeat to" peer=h2:1`, `level=INFO msg="raft.net: heard" local=h1`} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not in\n%s", want, got)
			}
		}
		if strings.Contains(got, "of no interest") {
			t.Error("raft's info is not for info")
		}
		time.Sleep(repeatAfter)
		l.Error("failed to heartbeat to")
		if n := strings.Count(out.String(), "failed to heartbeat"); n != 2 {
			t.Errorf("after a while it was said %d times", n)
		}
	})
}
