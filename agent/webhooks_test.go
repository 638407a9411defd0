package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/agent/reflexer"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// receiver is a server that answers by path, and keeps what it got.
type receiver struct {
	mu  sync.Mutex
	got map[string][]*http.Request
	in  map[string][]string
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	path := req.URL.Path
	r.got[path], r.in[path] = append(r.got[path], req), append(r.in[path], string(body))
	switch n := len(r.got[path]); {
	case path == "/moved":
		http.Redirect(w, req, "/ok", http.StatusTemporaryRedirect)
	case path == "/bad":
		w.WriteHeader(http.StatusBadRequest)
	case path == "/never", path == "/later" && n < 3:
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

func (r *receiver) bodies(path string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.in[path]
}

func newReceiver() *receiver {
	return &receiver{got: map[string][]*http.Request{}, in: map[string][]string{}}
}

// TestReflexCallsAWebhook: the event of a firing comes to a server on the host,
// and one that cannot be delivered is told of.
func TestReflexCallsAWebhook(t *testing.T) {
	got := newReceiver()
	server := httptest.NewServer(got)
	defer server.Close()
	h := startHost(t, "h1", nil)
	h.init(t)
	rule := func(name, path string) intent.Reflex {
		return intent.Reflex{Name: name, When: "host.load.per_core >= 0.0 && host.cpu.count < 4096", Cooldown: intent.Hour, Limit: "1/1h", Act: []intent.Action{
			{Op: "emit", Target: "said", Args: map[string]string{"severity": "warning"}}, {Op: "webhook", Target: server.URL + path},
		}}
	}
	h.declare(t, rule("calls", "/ok"), rule("strays", "/moved"))
	h.fired(t, "calls")
	await(t, 30*time.Second, "the event, and the failure", func() error {
		if len(got.bodies("/ok")) == 0 {
			return errors.New("nothing came")
		}
		for _, e := range h.told(t, "reflex.strays.*.suppressed") {
			if strings.Contains(string(e.Data), "not delivered: it answers with a redirect") {
				return nil
			}
		}
		return errors.New(texts(h.told(t, "reflex.>")))
	})
	for _, e := range h.told(t, "reflex.>") {
		if rule := strings.Split(e.Subject, "/")[1]; e.Chain != rule {
			t.Errorf("%s of %s has the chain %q: it could answer itself", e.Type, rule, e.Chain)
		}
	}
	fired := h.told(t, "reflex.calls.*.fired")[0]
	var came events.Event
	if err := json.Unmarshal([]byte(got.bodies("/ok")[0]), &came); err != nil || came.ID != fired.ID || came.Type != "dev.ganglion.reflex.fired" || string(came.Data) != string(fired.Data) {
		t.Errorf("came: %+v, %v; fired: %+v", came, err, fired)
	}
	if n := len(got.bodies("/ok")); n != 1 {
		t.Errorf("%d came: a redirect was followed", n)
	}
	for want, target := range map[string]string{
		"http is for the host itself": "http://example.org/x", "is not an address": "example.org/x", "a user or a password": "https://a:b@example.org/",
		"has a fragment": "https://example.org/#x", "is not over https": "ftp://127.0.0.1/x",
	} {
		r := intent.Reflex{Name: "x", When: "host.load.per_core > 99.0", Act: []intent.Action{{Op: "webhook", Target: target}}}
		err := h.Post(t.Context(), "/v1/apply", nil, api.ApplyRequest{Intents: intent.Intents{Reflexes: []intent.Reflex{r}}}, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", target, err, want)
		}
	}
}

// undelivered collects what failed.
type undelivered struct {
	mu   sync.Mutex
	list map[string]string // reason by URL
}

func (u *undelivered) add(h webhook, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.list[h.url] = err.Error()
}

// TestWebhookTries: what may pass is tried again under the same id, what may not
// is not, and whom nobody vouches for gets nothing.
func TestWebhookTries(t *testing.T) {
	got := newReceiver()
	server := httptest.NewUnstartedServer(got)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of who hangs up on it
	server.StartTLS()
	defer server.Close()
	failed := undelivered{list: map[string]string{}}
	w := newWebhooks(failed.add)
	w.pause = time.Millisecond
	trusted := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	trusted.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer trusted.CloseIdleConnections()
	strict := w.send
	w.send = trusted.Do
	for path, want := range map[string]struct {
		tries int
		why   string
	}{
		"/ok": {1, ""}, "/later": {3, ""}, "/never": {3, "503 Service Unavailable; tried 3 times"}, "/bad": {1, "400"}, "/moved": {1, "redirect"},
	} {
		err := w.deliver(t.Context(), webhook{url: server.URL + path, id: "7", body: []byte("{}")})
		if n := len(got.bodies(path)); n != want.tries || (err == nil) != (want.why == "") || err != nil && !strings.Contains(err.Error(), want.why) {
			t.Errorf("%s: %d tries, %v", path, n, err)
		}
		for _, req := range got.got[path] {
			if req.Header.Get("Idempotency-Key") != "7" || !strings.HasPrefix(req.Header.Get("Content-Type"), "application/cloudevents+json") || req.Method != http.MethodPost {
				t.Errorf("%s: %s %v", path, req.Method, req.Header)
			}
		}
	}
	w.send = strict
	if err := w.deliver(t.Context(), webhook{url: server.URL + "/secret", body: []byte("{}")}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server that nobody vouches for: %v", err)
	}
	if len(got.bodies("/secret")) > 0 {
		t.Error("it got the event")
	}
}

// TestWebhooksNeverWait: nobody who posts waits for a server that does not answer,
// and what is too much is said.
func TestWebhooksNeverWait(t *testing.T) {
	failed := undelivered{list: map[string]string{}}
	w := newWebhooks(failed.add)
	w.send = func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	told := reflexer.Told{Outcome: reflexes.Outcome{Rule: "x"}, Tells: []intent.Action{{Op: "emit", Target: "e"}, {Op: "webhook", Target: "https://h"}}}
	for range webhooksWait {
		w.post(events.Event{ID: "1"}, told)
	}
	if len(failed.list) > 0 || len(w.queue) != webhooksWait {
		t.Errorf("%d wait; %v", len(w.queue), failed.list)
	}
	w.post(events.Event{ID: "2"}, told)
	if len(failed.list) != 1 {
		t.Error("one too many was not told of")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.run(ctx)
	}()
	cancel()
	<-ended // though nothing was delivered
}
