package trust

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mesh is a mesh's trust as a test holds it.
type mesh struct {
	id, name string
	auth     Authority
}

func newMesh(t testing.TB, id string) mesh {
	t.Helper()
	auth, err := NewAuthority(id, "main")
	if err != nil {
		t.Fatal(err)
	}
	return mesh{id: id, name: "main", auth: auth}
}

// credentials enrols host as of now.
func (m mesh) credentials(t testing.TB, host, role string, now time.Time) Credentials {
	t.Helper()
	csr, key, err := NewCSR(host)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := m.auth.sign(csr, host, role, now)
	if err != nil {
		t.Fatal(err)
	}
	return Credentials{MeshID: m.id, MeshName: m.name, Host: host, HostID: "id-" + host, Role: role,
		CertPEM: cert, KeyPEM: key, CAPEM: m.auth.CertPEM, GossipKey: []byte("0123456789abcdef")}
}

func (m mesh) identity(t testing.TB, host, role string) *Identity {
	t.Helper()
	return m.identityAt(t, host, role, time.Now())
}

func (m mesh) identityAt(t testing.TB, host, role string, now time.Time) *Identity {
	t.Helper()
	i, err := NewIdentity(m.credentials(t, host, role, now))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// startMux runs a Mux on loopback until the test ends; cfg may set its limits.
func startMux(t testing.TB, i *Identity, cfg MuxConfig) *Mux {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listener, cfg.TLS = ln, i.ServerTLS(ALPNRaft, ALPNH2, ALPNJoin)
	m, err := NewMux(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return m
}

// serveEach accepts from l until it is closed, each connection in a goroutine
// of its own; all are joined before the test ends.
func serveEach(t testing.TB, l net.Listener, serve func(net.Conn)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		inner := make(chan struct{})
		n := 0
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			n++
			go func() {
				defer func() { inner <- struct{}{} }()
				defer c.Close()
				serve(c)
			}()
		}
		for range n {
			<-inner
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
}

// eventually polls cond until it holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 5 s: %s", what)
		}
		<-tick.C
	}
}

// resigned gives i a changed certificate.
func resigned(t testing.TB, leaf *x509.Certificate, i *Identity, ca *x509.Certificate, key crypto.Signer) *Identity {
	t.Helper()
	leaf.ExtraExtensions, leaf.Extensions = nil, nil
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, leaf.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	changed := *i
	changed.chain = tls.Certificate{Certificate: [][]byte{der, ca.Raw}, PrivateKey: i.chain.PrivateKey, Leaf: parsed}
	return &changed
}
