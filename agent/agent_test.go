package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
)

// host is an agent of a test, in this process, on loopback.
type host struct {
	*api.Client
	cfg    Config
	agent  *Agent
	cancel context.CancelFunc
	done   chan error
}

// startHost starts an agent on loopback with free ports. Its directories are
// short, because socket paths are.
func startHost(t *testing.T, name string, edit func(*Config)) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "gan")
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o755)
	t.Cleanup(func() {
		endCopies(t, dir)
		os.RemoveAll(dir)
	})
	cfg := Config{
		Name: name, DataDir: filepath.Join(dir, "data"), Socket: filepath.Join(dir, "s"),
		Bind: "127.0.0.1", Advertise: "127.0.0.1", Driver: "process",
		Logger: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo})).With("host", name),
	}
	if edit != nil {
		edit(&cfg)
	}
	h := &host{cfg: cfg}
	h.run(t)
	return h
}

// endCopies kills what outlives the agent of a host, as it is to: its copies.
func endCopies(t *testing.T, dir string) {
	t.Helper()
	mark := []byte("STATE_DIR=" + dir + "/")
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range environs {
		env, err := os.ReadFile(file)
		if pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil && pid > 1 && bytes.Contains(env, mark) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// run starts the agent of h, again if it has ended.
func (h *host) run(t *testing.T) {
	t.Helper()
	a, err := New(h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.agent, h.cancel, h.done = a, cancel, make(chan error, 1)
	go func() { h.done <- a.Run(ctx) }()
	<-a.Ready()
	if h.Client, err = api.Dial("unix:"+h.cfg.Socket, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.stop(t) })
}

func (h *host) stop(t *testing.T) {
	h.CloseIdle()
	h.cancel()
	select {
	case err := <-h.done:
		h.done <- err
		if err != nil && !errors.Is(err, ErrLeft) {
			t.Errorf("agent %s ended: %v", h.cfg.Name, err)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("agent %s does not end", h.cfg.Name)
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

func await(t *testing.T, within time.Duration, what string, cond func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, within, err)
		}
		time.Sleep(10 * time.Millisecond) // the poll's pace
	}
}

func (h *host) init(t *testing.T) string {
	t.Helper()
	var r api.InitResponse
	if err := h.Post(t.Context(), "/v1/init", nil, api.InitRequest{Name: "test"}, &r); err != nil {
		t.Fatal(err)
	}
	return r.Token
}

func sleeper(name string, count int) intent.App {
	return intent.App{Name: name, Count: &count, Run: intent.Run{Command: []string{"sleep", "1000"}}}
}

func (h *host) apply(t *testing.T, apps ...intent.App) api.ApplyResponse {
	t.Helper()
	var r api.ApplyResponse
	if err := h.Post(t.Context(), "/v1/apply", nil, api.ApplyRequest{Intents: intent.Intents{Apps: apps}}, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func (h *host) awaitReady(t *testing.T, app string, ready int) topology.AppStatus {
	t.Helper()
	var st topology.AppStatus
	await(t, 20*time.Second, app+" ready", func() error {
		if err := h.Get(t.Context(), "/v1/status", url.Values{"app": {app}}, &st); err != nil {
			return err
		}
		if st.Ready != ready {
			return fmt.Errorf("%d of %d ready: %+v", st.Ready, ready, st)
		}
		return nil
	})
	return st
}

func TestOneHostRunsAnApp(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	h.apply(t, sleeper("web", 3))
	before := h.awaitReady(t, "web", 3)

	h.stop(t)
	h.run(t)
	after := h.awaitReady(t, "web", 3)
	for i, c := range before.Copies {
		if after.Copies[i].Pid != c.Pid || c.Pid == 0 {
			t.Errorf("copy %s: pid %d before the agent's restart, %d after", c.ID, c.Pid, after.Copies[i].Pid)
		}
	}
	if err := h.Delete(t.Context(), "/v1/apps/web", nil); err != nil {
		t.Fatal(err)
	}
	await(t, 20*time.Second, "web gone", func() error {
		err := h.Get(t.Context(), "/v1/status", url.Values{"app": {"web"}}, nil)
		if err == nil {
			return errors.New("still there")
		}
		if api.CodeOf(err) != api.CodeNotFound {
			return err
		}
		return nil
	})
}

// An agent that begins anew is asked before it is a member again: it answers as
// one, and does not say that it has no mesh.
func TestAskedAtOnceAfterARestart(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	for range 3 {
		h.stop(t)
		h.run(t)
		var st api.FreezeState
		if err := h.Get(t.Context(), "/v1/local/freeze", nil, &st); err != nil {
			t.Fatal(err)
		}
	}
}
