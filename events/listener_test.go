package events

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// listening has l listen until stop is called or it fails; then err has why.
func listening(t testing.TB, l *Listener, patterns ...string) (heard chan Heard, err chan error, stop func()) {
	t.Helper()
	var filters []Filter
	for _, p := range patterns {
		f, err := CompileFilter(p)
		if err != nil {
			t.Fatal(err)
		}
		filters = append(filters, f)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	heard, err = make(chan Heard, 1000), make(chan error, 1)
	ready := make(chan struct{})
	go func() { err <- l.Listen(ctx, filters, func() { close(ready) }, func(h Heard) { heard <- h }) }()
	select {
	case <-ready:
	case e := <-err:
		t.Fatalf("not listening: %v", e)
	}
	return heard, err, cancel
}

func hear(t testing.TB, c <-chan Heard) Heard {
	t.Helper()
	select {
	case h := <-c:
		return h
	case <-time.After(20 * time.Second):
		t.Fatal("nothing heard within 20 s")
		return Heard{}
	}
}

func listenerTo(t testing.TB, u Upstream) *Listener {
	t.Helper()
	l, err := NewListener(ListenerConfig{Upstream: u, Mesh: "main", Host: "h2"})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Who listens hears what was asked for, with what led to it and how old it is, over
// one connection for all; nobody listens, and there is none.
func TestListenerHearsTheStory(t *testing.T) {
	s, _ := startServer(t, serverConfig(t, newTestCA(t), "h1"))
	l := listenerTo(t, Upstream{Servers: func() []string { return []string{s.ClientURL()} }})
	web, webErr, stopWeb := listening(t, l, "app.web.*.started", "app.other.>")
	story, storyErr, stopAll := listening(t, l, "")
	if n := s.nats.NumClients(); n != 1 {
		t.Errorf("%d connections", n)
	}
	r := open(t, t.TempDir())
	old := mustAppend(t, r, New(HostSubject("h1"), HostPaused{}))
	time.Sleep(20 * time.Millisecond) // what is old is older than that
	chained := mustAppend(t, r, started(1).Along("evict-hot,web/shed"))
	running(t, r.Run)
	p := publisherFor(t, r, func(c *PublisherConfig) { c.Local = func() InProcess { return s } })
	running(t, p.Run)
	if h := hear(t, web); h.Event.ID != chained.ID || h.Subject != "app.web.2.started" || h.Event.Chain != "evict-hot,web/shed" {
		t.Errorf("heard %+v", h)
	}
	if h := hear(t, story); h.Event.ID != old.ID || h.Age < 20*time.Millisecond || h.Age > 20*time.Second {
		t.Errorf("heard %+v", h)
	}
	if h := hear(t, story); h.Event.ID != chained.ID {
		t.Errorf("heard %+v", h)
	}
	stopWeb()
	if err := <-webErr; err != nil {
		t.Error(err)
	}
	live := mustAppend(t, r, started(2))
	if h := hear(t, story); h.Event.ID != live.ID {
		t.Errorf("heard %+v", h)
	}
	stopAll()
	if err := <-storyErr; err != nil {
		t.Error(err)
	}
	eventually(t, "the connection is closed", func() bool { return s.nats.NumClients() == 1 }) // the publisher's
	if len(web) > 0 {
		t.Errorf("heard %+v without being asked", <-web)
	}
}

// What is no event, or another than its subject says, is not heard.
func TestListenerBelievesNoForgery(t *testing.T) {
	s, _ := startServer(t, serverConfig(t, newTestCA(t), "h1"))
	l := listenerTo(t, Upstream{Local: func() InProcess { return s }})
	heard, _, _ := listening(t, l, "app.>")
	nc, _ := client(t, "", nats.InProcessServer(s))
	r := open(t, t.TempDir())
	e := mustAppend(t, r, started(1).Along("a,web/b"))
	text := string(e.appendJSON(nil))
	const web = "ganglion.main.app.web.2.started"
	for _, m := range []*nats.Msg{
		{Subject: web}, {Subject: web, Data: []byte("{}")}, {Subject: web, Data: []byte(text[:len(text)-1])},
		{Subject: "ganglion.main.app.web.3.started", Data: []byte(text)}, {Subject: "ganglion.main.app.web.2.exited", Data: []byte(text)},
		{Subject: web, Data: []byte(strings.Replace(text, "a,web/b", "a,,b", 1))}, {Subject: web, Data: []byte(strings.Replace(text, "a,web/b", "A", 1))},
		{Subject: web, Data: []byte(strings.Replace(text, "a,web/b", strings.Repeat("a,", 8)+"a", 1))},
		{Subject: web, Data: []byte(strings.Replace(text, e.ID, strings.Repeat("x", 1000), 1))}, {Subject: web, Data: []byte(strings.Replace(text, e.ID, "", 1))},
		{Subject: "ganglion.main.app.web.2.blessed", Data: []byte(strings.Replace(text, "app.started", "app.blessed", 1))},
		{Subject: "ganglion.main.app.WEB.2.started", Data: []byte(strings.Replace(text, "app/web/2", "app/WEB/2", 1))},
		{Subject: web, Data: []byte(text), Header: nats.Header{headerAge: {"long"}}},
	} {
		if err := nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	if h := hear(t, heard); h.Event.ID != e.ID || h.Age != 0 {
		t.Errorf("heard %+v", h)
	}
	if len(heard) > 0 {
		t.Errorf("heard %+v", <-heard)
	}
}

// When the server goes, all who listen are told, and may listen again when it is
// back. With no server there is nothing to listen to.
func TestListenerLosesItsServer(t *testing.T) {
	cfg := serverConfig(t, newTestCA(t), "h1")
	cfg.Port = freePorts(t, 1)[0]
	s, stop := startServer(t, cfg)
	url := s.ClientURL()
	l := listenerTo(t, Upstream{Servers: func() []string { return []string{url} }})
	_, err1, _ := listening(t, l, "app.>")
	_, err2, _ := listening(t, l, "host.>")
	stop()
	for _, e := range []chan error{err1, err2} {
		if err := <-e; err == nil || !strings.Contains(err.Error(), "listen on NATS: ") {
			t.Errorf("ended: %v", err)
		}
	}
	if err := l.Listen(t.Context(), []Filter{{}}, func() { t.Error("ready") }, nil); err == nil || !strings.Contains(err.Error(), "connect") {
		t.Errorf("with no server: %v", err)
	}
	none := listenerTo(t, Upstream{Servers: func() []string { return nil }})
	if err := none.Listen(t.Context(), []Filter{{}}, func() { t.Error("ready") }, nil); err == nil || !strings.Contains(err.Error(), errNoServer.Error()) {
		t.Errorf("with nowhere to go: %v", err)
	}
	s, _ = startServer(t, cfg)
	_, _, stopAgain := listening(t, l, "app.>")
	_, _, stopToo := listening(t, l, "app.>")
	if n := s.nats.NumClients(); n != 1 {
		t.Errorf("%d connections", n)
	}
	stopAgain()
	stopToo()
	eventually(t, "the connection is closed", func() bool { return s.nats.NumClients() == 0 })
}

func TestListenerConfigIsChecked(t *testing.T) {
	for want, cfg := range map[string]ListenerConfig{
		"mesh name": {Mesh: "Main", Upstream: Upstream{Servers: func() []string { return nil }}},
		"nowhere":   {Mesh: "main"},
	} {
		if _, err := NewListener(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
