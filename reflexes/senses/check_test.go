package senses

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ganglion-mesh/ganglion/intent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers on loopback and returns the target that names it.
func server(t *testing.T, h http.HandlerFunc) Target {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return Target{Addrs: []string{"127.0.0.1"}, Ports: map[string]int{"http": s.Listener.Addr().(*net.TCPAddr).Port}}
}

func probe(t *testing.T, c intent.Check, target Target, timeout time.Duration) error {
	t.Helper()
	p, err := NewProbe(c, target)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return p(ctx)
}

func TestHTTPJudgesTheStatus(t *testing.T) {
	target := server(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path + "?" + r.URL.RawQuery {
		case "/ok?deep=1":
			w.WriteHeader(http.StatusNoContent)
		case "/moved?":
			http.Redirect(w, r, "http://192.0.2.1/elsewhere", http.StatusFound)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	for path, want := range map[string]string{
		"/ok?deep=1": "", "ok?deep=1": "", "/moved": "",
		"/": "GET / answered 503 Service Unavailable", "": "GET / answered 503 Service Unavailable",
	} {
		err := probe(t, intent.Check{Type: intent.CheckHTTP, Path: path}, target, 5*time.Second)
		if (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%q: %v, want %q", path, err, want)
		}
	}
}

func TestHTTPThatNeverAnswersEndsInTime(t *testing.T) {
	stop := make(chan struct{})
	target := server(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	})
	defer close(stop)
	start := time.Now()
	err := probe(t, intent.Check{Type: intent.CheckHTTP}, target, 50*time.Millisecond)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second {
		t.Fatalf("%v after %s", err, time.Since(start))
	}
}

func TestHTTPEndlessBodyAndHugeHeader(t *testing.T) {
	target := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/header" {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
			return
		}
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	if err := probe(t, intent.Check{Type: intent.CheckHTTP}, target, 10*time.Second); err != nil {
		t.Errorf("an endless body with status 200: %v", err)
	}
	if err := probe(t, intent.Check{Type: intent.CheckHTTP, Path: "/header"}, target, 10*time.Second); err == nil {
		t.Error("a header of 1 MiB was taken in")
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	target := Target{Addrs: []string{"127.0.0.2", "127.0.0.1"}, Ports: map[string]int{"a": port, "b": 1}}
	if err := probe(t, intent.Check{Type: intent.CheckTCP, Port: "a"}, target, 5*time.Second); err != nil {
		t.Errorf("bound to the second address only: %v", err)
	}
	l.Close()
	err = probe(t, intent.Check{Type: intent.CheckTCP, Port: "a"}, target, 5*time.Second)
	if err == nil || !strings.Contains(err.Error(), "127.0.0.2") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestExec(t *testing.T) {
	target := Target{Exec: func(_ context.Context, argv []string) ([]byte, error) {
		if argv[0] == "good" {
			return []byte("noise"), nil
		}
		return []byte("\n \x1b[31mno database\x07\nmore"), errors.New("exit status 3")
	}}
	if err := probe(t, intent.Check{Type: intent.CheckExec, Command: []string{"good"}}, target, time.Second); err != nil {
		t.Error(err)
	}
	err := probe(t, intent.Check{Type: intent.CheckExec, Command: []string{"bad"}}, target, time.Second)
	if err == nil || err.Error() != "exit status 3: [31mno database" {
		t.Errorf("%q", err)
	}
}

func TestNewProbeRefuses(t *testing.T) {
	two := Target{Addrs: []string{"127.0.0.1"}, Ports: map[string]int{"a": 1, "b": 2}}
	for name, c := range map[string]intent.Check{
		"no port named of two": {Type: intent.CheckTCP},
		"unknown port":         {Type: intent.CheckHTTP, Port: "c"},
		"bad path":             {Type: intent.CheckHTTP, Port: "a", Path: "/%zz"},
		"no command":           {Type: intent.CheckExec},
		"process":              {Type: intent.CheckProcess},
		"unknown":              {Type: "ping"},
	} {
		if _, err := NewProbe(c, two); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := NewProbe(intent.Check{Type: intent.CheckTCP, Port: "a"}, Target{Ports: two.Ports}); err == nil {
		t.Error("no address: accepted")
	}
}
