package events

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func TestServerConfigIsChecked(t *testing.T) {
	ca := newTestCA(t)
	for want, change := range map[string]func(*ServerConfig){
		"name":                          func(c *ServerConfig) { c.Name = "h 1" },
		"mesh name":                     func(c *ServerConfig) { c.Mesh = "a.b" },
		"InProcessOnly":                 func(c *ServerConfig) { c.InProcessOnly = true },
		"ClusterPort is not":            func(c *ServerConfig) { c.ClusterPort, c.Routes = 0, []string{"a:1"} },
		"a cluster needs":               func(c *ServerConfig) { c.TLS = nil },
		"a cluster needs TLS":           func(c *ServerConfig) { c.RouteTLS = nil },
		"Authorize is not":              func(c *ServerConfig) { c.Authorize = nil },
		"does not verify":               func(c *ServerConfig) { c.TLS.ClientAuth = tls.NoClientCert },
		"not verify client":             func(c *ServerConfig) { c.TLS.ClientAuth = tls.RequestClientCert },
		`route "h2" is not host:port`:   func(c *ServerConfig) { c.Routes = []string{"h2"} },
		`route ":1" is not host:port`:   func(c *ServerConfig) { c.Routes = []string{":1"} },
		`"h:70000" is not host:port`:    func(c *ServerConfig) { c.Routes = []string{"h:70000"} },
		`"nats://h:1" is not host:port`: func(c *ServerConfig) { c.Routes = []string{"nats://h:1"} },
	} {
		cfg := serverConfig(t, ca, "h1")
		change(&cfg)
		if _, err := NewServer(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// A port that is taken is an error of Run: nats-server would end the process.
func TestTakenPortsAreErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	for _, change := range []func(*ServerConfig){
		func(c *ServerConfig) { c.Port = taken },
		func(c *ServerConfig) { c.ClusterPort = taken },
	} {
		cfg := serverConfig(t, newTestCA(t), "h1")
		change(&cfg)
		s, err := NewServer(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("Run with a taken port: %v", err)
		}
		select {
		case <-s.Ready():
			t.Error("ready all the same")
		default:
		}
		if err := s.Run(context.Background()); err == nil {
			t.Error("a second Run is accepted")
		}
		if _, err := s.InProcessConn(); err == nil || s.ClientURL() != "" {
			t.Errorf("a server that is not running gives connections: %v, %q", err, s.ClientURL())
		}
	}
}

// Plain `nats sub -s nats://127.0.0.1:4222 'ganglion.>'` works and publishing
// does not; from any other address there is no anonymous client at all.
func TestAnonymousClients(t *testing.T) {
	cfg := serverConfig(t, newTestCA(t), "h1")
	cfg.Host = "0.0.0.0"
	s, _ := startServer(t, cfg)
	if !strings.HasPrefix(s.ClientURL(), "nats://127.0.0.1:") {
		t.Fatalf("URL %q", s.ClientURL())
	}
	witness, _ := client(t, "", nats.InProcessServer(s))
	heard := subscribe(t, witness, "ganglion.>")
	for _, url := range []string{s.ClientURL(), strings.Replace(s.ClientURL(), "//", "//h1:secret@", 1)} {
		anon, refused := client(t, url)
		story := subscribe(t, anon, "ganglion.>")
		for _, subject := range []string{"ganglion.main.app.web.1.ready", "ganglion.main.host.h1.left", "x", "_INBOX.a", "$SYS.REQ.SERVER.PING"} {
			if err := anon.Publish(subject, []byte("forged")); err != nil {
				t.Fatal(err)
			}
			if err := refusal(refused); !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("publishing on %s: %v", subject, err)
			}
		}
		for _, subject := range []string{"$SYS.>", ">", "other.>"} {
			if _, err := anon.SubscribeSync(subject); err != nil {
				t.Fatal(err)
			}
			if err := refusal(refused); !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("subscribing to %s: %v", subject, err)
			}
		}
		if err := witness.Publish("ganglion.main.host.h1.left", []byte("true")); err != nil {
			t.Fatal(err)
		}
		if m := receive(t, story); string(m.Data) != "true" {
			t.Errorf("anonymous heard %q", m.Data)
		}
		if m := receive(t, heard); string(m.Data) != "true" {
			t.Errorf("a forged message arrived: %q on %s", m.Data, m.Subject)
		}
	}
	if addr := otherAddress(); addr != "" {
		url := strings.Replace(s.ClientURL(), "127.0.0.1", addr, 1)
		if nc, err := nats.Connect(url); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("anonymous from %s: %v", addr, err)
			if nc != nil {
				nc.Close()
			}
		}
	} else {
		t.Log("no address but loopback: that part is not tested")
	}
}

// otherAddress is an address of this machine that is not loopback.
func otherAddress() string {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
			return ip.IP.String()
		}
	}
	return ""
}

// The matrix of who may publish what.
func TestHostsPublishOnTheirOwnSubjects(t *testing.T) {
	ca := newTestCA(t)
	cfg := serverConfig(t, ca, "h1")
	cfg.Voter = func(host string) bool { return host != "agent" }
	s, _ := startServer(t, cfg)
	own := func(h string) []string {
		return []string{"host." + h + ".vitals", "host." + h + ".failed", "app.web.1.exited", "reflex.r." + h + ".fired", "freeze." + h + ".frozen"}
	}
	leaders := func(h string) []string {
		return []string{"leader." + h + ".elected", "host.other.failed", "host.other.removed", "rollout.web.done", "intent.web.applied", "mesh.rebalance.changed"}
	}
	never := []string{"host.other.vitals", "host.other.paused", "reflex.r.other.fired", "freeze.other.thawed", "leader.other.elected",
		"app.web.ready", "app.web.1.ready.x", "x"}
	for host, c := range map[string]struct {
		opt     nats.Option
		yes, no []string
	}{
		"agent": {opt: secure(t, ca, "agent"), yes: own("agent"), no: slices.Concat(leaders("agent"), never, own("h1")[:2])},
		"h2":    {opt: secure(t, ca, "h2"), yes: slices.Concat(own("h2"), leaders("h2")), no: never},
		"h1":    {opt: nats.InProcessServer(s), yes: slices.Concat(own("h1"), leaders("h1")), no: never},
	} {
		nc, refused := client(t, s.ClientURL(), c.opt)
		story := subscribe(t, nc, "ganglion.>")
		for _, subject := range c.yes {
			if err := nc.Publish("ganglion.main."+subject, nil); err != nil {
				t.Fatal(err)
			}
			if m := receive(t, story); m.Subject != "ganglion.main."+subject {
				t.Errorf("%s: published on %s, heard %s", host, subject, m.Subject)
			}
		}
		for _, subject := range append(c.no, "../ganglion.othermesh.host."+host+".vitals") {
			full := "ganglion.main." + subject
			if rest, ok := strings.CutPrefix(subject, "../"); ok {
				full = rest
			}
			if err := nc.Publish(full, nil); err != nil {
				t.Fatal(err)
			}
			if err := refusal(refused); !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("%s may publish on %s: %v", host, full, err)
			}
		}
		if len(story) > 0 {
			t.Errorf("%s was heard on %s", host, (<-story).Subject)
		}
	}
}

func secure(t testing.TB, ca *testCA, host string) nats.Option {
	t.Helper()
	_, c := ca.tls(t, host)
	return nats.Secure(c)
}

// Certificates of another mesh, none at all, or names that are none: refused.
func TestStrangersAreRefused(t *testing.T) {
	ca := newTestCA(t)
	cfg := serverConfig(t, ca, "h1")
	cfg.Authorize = func(cs tls.ConnectionState) (string, bool) {
		name, _ := commonName(cs)
		return name, name != "revoked"
	}
	s, _ := startServer(t, cfg)
	_, bare := ca.tls(t, "h2")
	bare.Certificates = nil
	for name, opt := range map[string]nats.Option{
		"other mesh": secure(t, newTestCA(t), "h2"), "no certificate": nats.Secure(bare),
		"revoked": secure(t, ca, "revoked"), "wildcard": secure(t, ca, "*"),
	} {
		if nc, err := nats.Connect(s.ClientURL(), opt, nats.Timeout(3*time.Second)); err == nil {
			t.Errorf("%s: connected", name)
			nc.Close()
		}
	}
}

// Three servers become one by routes that are set while they run, and what is
// told on one is heard on all, also after one was away.
func TestCluster(t *testing.T) {
	ca := newTestCA(t)
	ports := freePorts(t, 6)
	var servers []*Server
	var stops []func()
	config := func(i int) ServerConfig {
		cfg := serverConfig(t, ca, fmt.Sprintf("h%d", i+1))
		cfg.Port, cfg.ClusterPort = ports[i], ports[i+3]
		return cfg
	}
	for i := range 3 {
		s, stop := startServer(t, config(i))
		servers, stops = append(servers, s), append(stops, stop)
	}
	seed := []string{fmt.Sprintf("127.0.0.1:%d", servers[0].ClusterPort())}
	anon, _ := client(t, servers[2].ClientURL())
	story := subscribe(t, anon, "ganglion.>")
	for _, s := range servers { // the first gets its own address: harmless
		if err := s.SetRoutes(seed); err != nil {
			t.Fatal(err)
		}
	}
	meshed := func() bool {
		return !slices.ContainsFunc(servers, func(s *Server) bool { return s.Peers() != 2 })
	}
	eventually(t, "three servers are routed to each other", meshed)
	if !anon.IsConnected() || anon.Stats().Reconnects > 0 {
		t.Error("a change of routes disturbed a client")
	}
	publishAndHear(t, servers[1], story)

	stops[1]()
	back := config(1)
	back.Routes = []string{seed[0], fmt.Sprintf("127.0.0.1:%d", ports[5])}
	servers[1], _ = startServer(t, back)
	eventually(t, "the server that was away is routed again", meshed)
	publishAndHear(t, servers[1], story)
	if err := servers[1].SetRoutes([]string{"nonsense"}); err == nil {
		t.Error("a bad route is accepted")
	}
}

// publishAndHear publishes until it is heard: interest travels over new routes
// a moment after they are up.
func publishAndHear(t *testing.T, s *Server, story <-chan *nats.Msg) {
	t.Helper()
	nc, _ := client(t, "", nats.InProcessServer(s))
	eventually(t, "a message crosses the cluster", func() bool {
		if err := nc.Publish("ganglion.main.host.h2.vitals", nil); err != nil {
			t.Fatal(err)
		}
		select {
		case <-story:
			return true
		case <-time.After(50 * time.Millisecond):
			return false
		}
	})
}

// A host that stops being a voter loses a voter's rights at the next change of
// routes, without losing its connection; routes it opened are cut.
func TestRightsFollowTheVoters(t *testing.T) {
	ca := newTestCA(t)
	var voters atomic.Int32
	voters.Store(2)
	cfg := serverConfig(t, ca, "h1")
	cfg.Voter = func(host string) bool { return host <= fmt.Sprintf("h%d", voters.Load()) }
	s, _ := startServer(t, cfg)
	peer := serverConfig(t, ca, "h2")
	peer.Routes = []string{fmt.Sprintf("127.0.0.1:%d", s.ClusterPort())}
	startServer(t, peer)
	eventually(t, "the voter is routed", func() bool { return s.Peers() == 1 })

	nc, refused := client(t, s.ClientURL(), secure(t, ca, "h2"))
	story := subscribe(t, nc, "ganglion.>")
	tell := func() {
		t.Helper()
		if err := nc.Publish("ganglion.main.rollout.web.done", nil); err != nil {
			t.Fatal(err)
		}
	}
	tell()
	receive(t, story)
	voters.Store(1)
	if err := s.SetRoutes([]string{"127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	tell()
	if err := refusal(refused); !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("publishing after the loss of the vote: %v", err)
	}
	eventually(t, "its route is cut", func() bool { return s.Peers() == 0 })
	if nc.Stats().Reconnects > 0 {
		t.Error("the client lost its connection")
	}
}

// Only voters of this mesh can open a route.
func TestRoutesAreForVoters(t *testing.T) {
	ca := newTestCA(t)
	var out logs
	cfg := serverConfig(t, ca, "h1")
	cfg.Voter = func(host string) bool { return host == "h1" }
	cfg.Logger = out.logger()
	s, _ := startServer(t, cfg)
	route := []string{fmt.Sprintf("127.0.0.1:%d", s.ClusterPort())}
	for _, from := range []*testCA{ca, newTestCA(t)} {
		cfg := serverConfig(t, from, "h2")
		cfg.Routes = route
		startServer(t, cfg)
	}
	eventually(t, "both are refused", func() bool { return out.has("authentication error") && out.has("handshake error") })
	if s.Peers() != 0 {
		t.Errorf("%d routes", s.Peers())
	}
}

// nats-server's own words cannot end the process, and reach our log.
func TestFatalIsAnError(t *testing.T) {
	var out logs
	s, err := NewServer(ServerConfig{Name: "h1", Mesh: "main", InProcessOnly: true, Logger: out.logger()})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(context.Background()) }()
	<-s.Ready()
	s.nats.Fatalf("the sky is %s", "falling")
	if err := <-done; err == nil || !strings.Contains(err.Error(), "the sky is falling") || !out.has("sky is falling") {
		t.Errorf("Run: %v", err)
	}
	for level, log := range map[string]func(string, ...any){"WARN": s.log.Warnf, "DEBUG": s.log.Noticef} {
		var lines logs
		s.log.log = slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{Level: slog.LevelDebug}))
		log("said %d", 1)
		if !lines.has("level="+level) || !lines.has("said 1") {
			t.Errorf("%s: %s", level, lines.b.String())
		}
	}
}
