package events

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// A voter's agent restarts, its server with it: subscribers on other hosts,
// whose connections never broke, have every event all the same, because the
// publisher lets the routes come back first.
func TestVoterRestartsUnderRemoteSubscribers(t *testing.T) {
	ca := newTestCA(t)
	ports := freePorts(t, 3)
	config := func(i int) ServerConfig {
		cfg := serverConfig(t, ca, fmt.Sprintf("h%d", i+1))
		cfg.ClusterPort = ports[i]
		for _, p := range ports {
			cfg.Routes = append(cfg.Routes, fmt.Sprintf("127.0.0.1:%d", p))
		}
		return cfg
	}
	s2, _ := startServer(t, config(1))
	s3, _ := startServer(t, config(2))
	heard := collect(t, s3.ClientURL())
	dir := t.TempDir()
	for round := range 2 {
		s1, stopServer := startServer(t, config(0))
		r, err := OpenRecorder(RecorderConfig{Dir: dir, Host: "h1", MaxBytes: MinMaxBytes})
		if err != nil {
			t.Fatal(err)
		}
		p := publisherFor(t, r, func(c *PublisherConfig) {
			c.Local = func() InProcess { return s1 }
			c.Settle = 4 * time.Second
		})
		stops := []func(){running(t, p.Run), running(t, r.Run), stopServer}
		for range 20 {
			mustAppend(t, r, started(round))
		}
		last := uint64(20 * (round + 1))
		eventually(t, "the round is confirmed", func() bool { return p.Confirmed() == last })
		eventually(t, "the round is heard on another host", func() bool { return heard.has(last) })
		for _, stop := range stops {
			stop()
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the others see it go", func() bool { return s2.Peers() == 1 && s3.Peers() == 1 })
	}
	heard.check(t, 40)
}

// An external NATS takes the place of the embedded one by URLs alone.
func TestExternalNATS(t *testing.T) {
	external, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true,
		Username: "ganglion", Password: "secret", MaxPayload: 4096, NoHeaderSupport: true})
	if err != nil {
		t.Fatal(err)
	}
	external.Start()
	defer func() { external.Shutdown(); external.WaitForShutdown() }()
	if !external.ReadyForConnections(10 * time.Second) {
		t.Fatal("the external server is not ready")
	}
	url := strings.Replace(external.ClientURL(), "nats://", "nats://ganglion:secret@", 1)
	nc, _ := client(t, url)
	heard := subscribe(t, nc, "ganglion.>")
	r := open(t, t.TempDir())
	running(t, r.Run)
	var out logs
	p := publisherFor(t, r, func(c *PublisherConfig) { to(url)(c); c.Logger = out.logger() })
	running(t, p.Run)
	mustAppend(t, r, New(AppSubject("web", "2"), AppNeedsHuman{Reason: strings.Repeat("x", 8000)})) // above its limit
	want := mustAppend(t, r, started(1))
	if e, err := Parse(receive(t, heard).Data); err != nil || e.ID != want.ID {
		t.Errorf("heard %+v, %v", e, err)
	}
	eventually(t, "both are dealt with", func() bool { return p.Confirmed() == 2 })
	if !out.has("cannot take an event") || out.has("secret") {
		t.Errorf("log: %s", out.b.String())
	}
}

// What keeps a publisher from publishing is in the one line it logs.
func TestErrorsNameTheCause(t *testing.T) {
	ca := newTestCA(t)
	s, _ := startServer(t, serverConfig(t, ca, "h1"))
	r := open(t, t.TempDir())
	_, stranger := newTestCA(t).tls(t, "h1")
	for want, change := range map[string]func(*PublisherConfig){
		"no NATS server is known": to(),
		"connection refused":      to("nats://127.0.0.1:1"),
		"certificate":             func(c *PublisherConfig) { to(s.ClientURL())(c); c.TLS = stranger },
		"no such file":            func(c *PublisherConfig) { to(s.ClientURL())(c); c.Creds = "/nonexistent.creds" },
	} {
		p := publisherFor(t, r, change)
		if err := p.session(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	p := publisherFor(t, r, func(c *PublisherConfig) { to(s.ClientURL())(c); c.TLS = &tls.Config{} })
	if err := p.session(t.Context()); err == nil || errors.Is(err, errNoServer) {
		t.Errorf("a server of an unknown authority: %v", err)
	}
}

// A server that accepts and never says a word ends with the agent, at once.
func TestSilentServerDoesNotHoldUpShutdown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
	}()
	r := open(t, t.TempDir())
	p := publisherFor(t, r, to("nats://"+l.Addr().String()))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	c := <-accepted
	defer c.Close()
	cancel()
	began := time.Now()
	if err := <-done; err != nil || time.Since(began) > connectTimeout/2 {
		t.Errorf("Run returned %v after %s", err, time.Since(began))
	}
}

// An event that the server refuses does not hold up what follows.
func TestRefusedEventsDoNotBlock(t *testing.T) {
	ca := newTestCA(t)
	cfg := serverConfig(t, ca, "h1")
	cfg.Voter = func(string) bool { return false }
	s, _ := startServer(t, cfg)
	heard := collect(t, s.ClientURL())
	r := open(t, t.TempDir())
	running(t, r.Run)
	var out logs
	_, clientTLS := ca.tls(t, "h1")
	p := publisherFor(t, r, func(c *PublisherConfig) {
		to(s.ClientURL())(c)
		c.TLS, c.Logger = clientTLS, out.logger()
	})
	running(t, p.Run)
	mustAppend(t, r, New(RolloutSubject("web"), RolloutDone{}))
	mustAppend(t, r, started(2))
	eventually(t, "the one after is heard", func() bool { return heard.has(1) && p.Confirmed() == 2 })
	eventually(t, "the refusal is logged", func() bool { return out.has("ermissions") })
	if heard.id(2) == "" {
		t.Error("the wrong one was heard")
	}
}

// A ring that has moved on while NATS was away is published from its first
// event, and damage in it is passed over.
func TestPublisherPassesOverWhatIsGone(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	draft := New(AppSubject("web", "2"), AppNeedsHuman{Reason: strings.Repeat("x", 8000)})
	for range 200 {
		mustAppend(t, r, draft)
	}
	if err := r.Sync(); err != nil {
		t.Fatal(err)
	}
	kept := all(t, r, 0)
	if kept[0].Seq == 1 {
		t.Fatal("nothing was evicted: the test does not bite")
	}
	s, _ := startServer(t, ServerConfig{Name: "h1", Mesh: "main", InProcessOnly: true})
	heard := collect(t, "", nats.InProcessServer(s))
	var out logs
	p := publisherFor(t, r, func(c *PublisherConfig) {
		c.Local = func() InProcess { return s }
		c.Logger = out.logger()
	})
	running(t, p.Run)
	eventually(t, "all that is left is confirmed", func() bool { return p.Confirmed() == 200 })
	eventually(t, "all that is left is heard", func() bool { return heard.count() == len(kept) })
	if !out.has("evicted") {
		t.Error("what was lost is not logged")
	}
}
