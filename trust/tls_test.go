package trust

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// credential is one way to call the mesh port.
type credential struct {
	name string
	cfg  func(proto string) *tls.Config
}

// anonymous calls with no certificate and believes any server.
func anonymous(proto string) *tls.Config {
	return &tls.Config{NextProtos: []string{proto}, InsecureSkipVerify: true}
}

// as calls with i's certificate, whatever the server wishes to see, and believes
// any server, so that only the server can refuse.
func as(i *Identity) func(string) *tls.Config {
	return func(proto string) *tls.Config {
		cfg := anonymous(proto)
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &i.chain, nil }
		return cfg
	}
}

// echoes calls addr and reports whether a byte of payload came back.
func echoes(t *testing.T, addr string, cfg *tls.Config) bool {
	t.Helper()
	conn, err := (&tls.Dialer{Config: cfg}).Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
	if _, err := conn.Write([]byte("x")); err != nil {
		return false
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err == nil
}

// TestCredentialMatrix tries every credential on every protocol: who gets a byte
// of payload through is exactly what is published.
func TestCredentialMatrix(t *testing.T) {
	a, b := newMesh(t, "mesh-a"), newMesh(t, "mesh-b")
	twin := newMesh(t, "mesh-a") // same id and names, another authority
	m := startMux(t, a.identity(t, "h1", RoleAgent), MuxConfig{})
	protos := []string{ALPNRaft, ALPNH2, ALPNJoin}
	for _, proto := range protos {
		serveEach(t, m.Listener(proto), func(c net.Conn) { _, _ = io.Copy(c, c) })
	}
	selfMade := a.identity(t, "h2", RoleAgent)
	stolen := *selfMade // a certificate without its key
	stolen.chain.PrivateKey = b.identity(t, "h2", RoleAgent).chain.PrivateKey
	old := func(proto string) *tls.Config {
		cfg := as(a.identity(t, "h2", RoleAgent))(proto)
		cfg.MaxVersion = tls.VersionTLS12
		return cfg
	}
	// A certificate of ours under the authority's key, yet of another mesh's id:
	// the URI alone must stop it.
	crossed := crossMesh(t, a, "mesh-b")
	all := map[string]bool{ALPNRaft: true, ALPNH2: true}
	for _, c := range []struct {
		credential
		want map[string]bool
	}{
		{credential{"agent", as(a.identity(t, "h2", RoleAgent))}, all},
		{credential{"operator", as(a.identity(t, "ann", RoleOperator))}, map[string]bool{ALPNH2: true}},
		{credential{"nobody", anonymous}, map[string]bool{ALPNJoin: true}},
		{credential{"agent of another mesh", as(b.identity(t, "h2", RoleAgent))}, nil},
		{credential{"agent of a twin mesh", as(twin.identity(t, "h1", RoleAgent))}, nil},
		{credential{"agent, other mesh's id, our authority", as(crossed)}, nil},
		{credential{"expired agent", as(a.identityAt(t, "h2", RoleAgent, time.Now().Add(-validity-time.Minute)))}, nil},
		{credential{"agent of the future", as(a.identityAt(t, "h2", RoleAgent, time.Now().Add(48*time.Hour)))}, all},
		{credential{"stolen certificate", as(&stolen)}, nil},
		{credential{"the authority itself", as(authorityAsHost(t, a))}, nil},
		{credential{"agent with TLS 1.2", old}, nil},
	} {
		for _, proto := range append(protos, "http/1.1", "") {
			cfg := c.cfg(proto)
			if proto == "" {
				cfg.NextProtos = nil
			}
			if got := echoes(t, m.Addr().String(), cfg); got != c.want[proto] {
				t.Errorf("%s by %q: served %v, want %v", c.name, proto, got, c.want[proto])
			}
		}
	}
}

// crossMesh signs a host of another mesh id with m's authority key.
func crossMesh(t *testing.T, m mesh, otherID string) *Identity {
	t.Helper()
	i := m.identity(t, "h1", RoleAgent)
	ca, key, err := m.auth.parse()
	must(t, err)
	leaf := *i.chain.Leaf
	leaf.URIs = []*url.URL{(Peer{MeshID: otherID, Role: RoleAgent, Host: "h1"}).URI()}
	return resigned(t, &leaf, i, ca, key)
}

// authorityAsHost presents the authority's own certificate and key.
func authorityAsHost(t *testing.T, m mesh) *Identity {
	t.Helper()
	ca, key, err := m.auth.parse()
	must(t, err)
	return &Identity{chain: tls.Certificate{Certificate: [][]byte{ca.Raw}, PrivateKey: key}}
}

// TestClientChecksServer: an agent believes only agents of its own mesh.
func TestClientChecksServer(t *testing.T) {
	a, b, twin := newMesh(t, "mesh-a"), newMesh(t, "mesh-b"), newMesh(t, "mesh-a")
	caller := a.identity(t, "h2", RoleAgent)
	for _, c := range []struct {
		name   string
		server *Identity
		want   bool
	}{
		{"agent", a.identity(t, "h1", RoleAgent), true},
		{"operator", a.identity(t, "ann", RoleOperator), false},
		{"other mesh", b.identity(t, "h1", RoleAgent), false},
		{"twin mesh", twin.identity(t, "h1", RoleAgent), false},
		{"crossed mesh", crossMesh(t, a, "mesh-b"), false},
		{"expired", a.identityAt(t, "h1", RoleAgent, time.Now().Add(-validity-time.Minute)), false},
	} {
		m := startMux(t, c.server, MuxConfig{})
		conn, err := caller.Dial(context.Background(), m.Addr().String(), ALPNRaft)
		if (err == nil) != c.want {
			t.Errorf("%s: Dial = %v, want success %v", c.name, err, c.want)
		}
		if err == nil {
			peer, err := PeerOf(conn.ConnectionState())
			if err != nil || peer.Host != "h1" {
				t.Errorf("%s: PeerOf = %v, %v", c.name, peer, err)
			}
			_ = conn.Close()
		}
	}
}

// TestDialInsistsOnTheProtocol: a server that ignores ALPN is refused.
func TestDialInsistsOnTheProtocol(t *testing.T) {
	a := newMesh(t, "mesh-a")
	ln, err := tls.Listen("tcp", "127.0.0.1:0", a.identity(t, "h1", RoleAgent).ServerTLS())
	must(t, err)
	serveEach(t, ln, func(c net.Conn) { _ = c.(*tls.Conn).Handshake() })
	conn, err := a.identity(t, "h2", RoleAgent).Dial(context.Background(), ln.Addr().String(), ALPNRaft)
	if err == nil {
		_ = conn.Close()
		t.Fatal("connected")
	}
}

// TestPeerTLSServesBothEnds runs one configuration as listener and as dialler.
func TestPeerTLSServesBothEnds(t *testing.T) {
	a, b := newMesh(t, "mesh-a"), newMesh(t, "mesh-b")
	ln, err := tls.Listen("tcp", "127.0.0.1:0", a.identity(t, "h1", RoleAgent).PeerTLS())
	must(t, err)
	serveEach(t, ln, func(c net.Conn) { _, _ = io.Copy(c, c) })
	for _, c := range []struct {
		name string
		cfg  *tls.Config
		want bool
	}{
		{"agent", a.identity(t, "h2", RoleAgent).PeerTLS(), true},
		{"operator", a.identity(t, "ann", RoleOperator).PeerTLS(), false},
		{"other mesh", b.identity(t, "h2", RoleAgent).PeerTLS(), false},
		{"nobody", &tls.Config{InsecureSkipVerify: true}, false},
	} {
		if got := echoes(t, ln.Addr().String(), c.cfg); got != c.want {
			t.Errorf("%s: served %v, want %v", c.name, got, c.want)
		}
	}
}

// TestHTTP2OverMux is the recipe of the package's documentation: http.Server on
// the mux, HTTPTransport as client, HTTP/2 both ways, streams included.
func TestHTTP2OverMux(t *testing.T) {
	a := newMesh(t, "mesh-a")
	m := startMux(t, a.identity(t, "h1", RoleAgent), MuxConfig{})
	release := make(chan struct{})
	srv := &http.Server{
		TLSConfig: &tls.Config{NextProtos: []string{ALPNH2}, MinVersion: tls.VersionTLS13},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			peer, err := PeerOf(*r.TLS)
			if err != nil {
				http.Error(w, err.Error(), http.StatusForbidden)
				return
			}
			_, _ = io.WriteString(w, r.Proto+" "+peer.String())
			if r.URL.Path == "/stream" {
				w.(http.Flusher).Flush()
				<-release
				_, _ = io.WriteString(w, " end")
			}
		}),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(m.Listener(ALPNH2)) }()
	transport := a.identity(t, "h2", RoleAgent).HTTPTransport()
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		must(t, srv.Shutdown(context.Background()))
		if err := <-served; err != http.ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}
	})
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}

	get := func(path string) *http.Response {
		resp, err := client.Get("https://" + m.Addr().String() + path)
		must(t, err)
		return resp
	}
	stream := get("/stream") // headers are here, the body is not at its end
	resp := get("/")         // a second request while the first streams
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	must(t, resp.Body.Close())
	if want := "HTTP/2.0 spiffe://mesh-a/agent/h2"; string(body) != want || resp.ProtoMajor != 2 {
		t.Errorf("got %q over %s, want %q over HTTP/2", body, resp.Proto, want)
	}
	close(release)
	body, err = io.ReadAll(stream.Body)
	must(t, err)
	must(t, stream.Body.Close())
	if !strings.HasSuffix(string(body), " end") {
		t.Errorf("stream ended with %q", body)
	}
	if _, err := client.Get("http://" + m.Addr().String() + "/"); err == nil {
		t.Error("plain http: answered")
	}
}
