package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
)

// fakeAgent is an HTTP server on a unix socket that answers as a test says.
type fakeAgent struct {
	t    *testing.T
	mux  *http.ServeMux
	addr string

	mu   sync.Mutex
	seen []*http.Request
	body [][]byte
}

func newFakeAgent(t *testing.T) *fakeAgent {
	t.Helper()
	f := &fakeAgent{t: t, mux: http.NewServeMux()}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(f.serve)}
	done := make(chan struct{})
	go func() { srv.Serve(l); close(done) }()
	t.Cleanup(func() { srv.Close(); <-done })
	f.addr = "unix:" + path
	return f
}

func (f *fakeAgent) serve(w http.ResponseWriter, r *http.Request) {
	var buf bytes.Buffer
	buf.ReadFrom(r.Body)
	f.mu.Lock()
	f.seen, f.body = append(f.seen, r), append(f.body, buf.Bytes())
	f.mu.Unlock()
	f.mux.ServeHTTP(w, r)
}

// answer makes the agent answer a pattern with v, or with an error.
func (f *fakeAgent) answer(pattern string, v any) {
	f.answers(pattern, v)
}

// answers makes the agent answer a pattern with each of the values in turn, the
// last for ever.
func (f *fakeAgent) answers(pattern string, values ...any) {
	n := 0
	f.mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		v := values[min(n, len(values)-1)]
		n++
		f.mu.Unlock()
		w.Header().Set(api.HeaderCursor, time.Now().String())
		switch v := v.(type) {
		case nil:
			w.WriteHeader(http.StatusNoContent)
		case hangUp:
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.Close()
		case error:
			api.WriteError(w, v)
		case lines:
			for key, value := range v.header {
				w.Header().Add(key, value)
			}
			w.Write([]byte(strings.Join(v.text, "\n") + "\n"))
		default:
			api.WriteJSON(w, http.StatusOK, v)
		}
	})
}

// hangUp is an answer that breaks off the connection.
type hangUp struct{}

// lines is an NDJSON answer.
type lines struct {
	text   []string
	header map[string]string
}

// request returns the last request to a path and its body.
func (f *fakeAgent) request(path string) (*http.Request, []byte) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := len(f.seen) - 1; i >= 0; i-- {
		if f.seen[i].URL.Path == path {
			return f.seen[i], f.body[i]
		}
	}
	f.t.Fatalf("no request to %s", path)
	return nil, nil
}

func (f *fakeAgent) count(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.seen {
		if r.URL.Path == path {
			n++
		}
	}
	return n
}

// result is what an invocation came to.
type result struct {
	code      int
	out, errs string
}

// firstLine is the line that must say it all.
func (r result) firstLine() string {
	line, _, _ := strings.Cut(r.errs, "\n")
	return line
}

// invocation is a command line with its surroundings.
type invocation struct {
	env   map[string]string
	stdin string
	asks  bool
	limit time.Duration
}

func (i invocation) run(t *testing.T, args ...string) result {
	t.Helper()
	if i.limit == 0 {
		i.limit = 20 * time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), i.limit)
	defer cancel()
	var out, errs bytes.Buffer
	c := &cli{
		in: strings.NewReader(i.stdin), out: &out, errs: &errs, asks: i.asks,
		env: func(k string) (string, bool) { v, ok := i.env[k]; return v, ok },
	}
	code := c.run(ctx, args)
	return result{code, out.String(), errs.String()}
}

// run runs a command line against the agent.
func (f *fakeAgent) run(args ...string) result {
	f.t.Helper()
	return invocation{env: map[string]string{"GANGLION_ADDR": f.addr}}.run(f.t, args...)
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// want compares texts and shows both if they differ.
func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n--- got\n%s\n--- want\n%s", what, got, want)
	}
}
