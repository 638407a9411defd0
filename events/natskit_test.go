package events

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// testCA issues certificates that name a host, as a mesh's trust would.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newTestCA(t testing.TB) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		Subject: pkix.Name{CommonName: "test mesh"}, NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &testCA{cert: cert, key: key, pool: pool}
}

// tls is the server and the client side of a host's TLS.
func (ca *testCA) tls(t testing.TB, host string) (srv, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	chain := []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	srv = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: chain, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool}
	client = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: chain, InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: ca.pool})
			return err
		}}
	return srv, client
}

func commonName(cs tls.ConnectionState) (string, bool) {
	return cs.PeerCertificates[0].Subject.CommonName, true
}

func serverConfig(t testing.TB, ca *testCA, host string) ServerConfig {
	t.Helper()
	srv, client := ca.tls(t, host)
	return ServerConfig{Name: host, Mesh: "main", Host: "127.0.0.1", ClusterName: "mesh-id", ClusterPort: -1,
		TLS: srv, RouteTLS: client, Authorize: commonName}
}

// startServer runs a server until the test ends or stop is called.
func startServer(t testing.TB, cfg ServerConfig) (s *Server, stop func()) {
	t.Helper()
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop = running(t, s.Run)
	<-s.Ready()
	return s, stop
}

// freePorts are ports that were free a moment ago, for servers that come back.
func freePorts(t testing.TB, n int) (ports []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// client connects as any program would, and collects what the server refuses.
func client(t testing.TB, url string, opts ...nats.Option) (*nats.Conn, chan error) {
	t.Helper()
	refused := make(chan error, 100)
	opts = append(opts, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }),
		nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc, refused
}

func subscribe(t testing.TB, nc *nats.Conn, subject string) chan *nats.Msg {
	t.Helper()
	c := make(chan *nats.Msg, 100000)
	if _, err := nc.ChanSubscribe(subject, c); err != nil {
		t.Fatal(err)
	}
	// Not Flush: its timer comes from a pool, where one of a virtual-time bubble
	// is fatal to whoever takes it outside.
	if err := flush(t.Context(), nc); err != nil {
		t.Fatal(err)
	}
	return c
}

func receive(t testing.TB, c <-chan *nats.Msg) *nats.Msg {
	t.Helper()
	select {
	case m := <-c:
		return m
	case <-time.After(20 * time.Second):
		t.Fatal("no message within 20 s")
		return nil
	}
}

// refusal is the next thing a server refused.
func refusal(refused <-chan error) error {
	select {
	case err := <-refused:
		return err
	case <-time.After(10 * time.Second):
		return errors.New("nothing was refused within 10 s")
	}
}
