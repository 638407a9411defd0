package trust

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"
)

// The protocols of the mesh port, as ALPN names them.
const (
	ALPNRaft = "ganglion-raft/1"
	ALPNH2   = "h2"
	ALPNJoin = "ganglion-join/1"
)

// dialTimeout bounds a connect and its handshake where the caller's context
// does not.
const dialTimeout = 5 * time.Second

// anchor is the one authority that an identity trusts.
type anchor struct {
	ca     *x509.Certificate
	pool   *x509.CertPool
	meshID string
}

func newAnchor(ca *x509.Certificate) (anchor, error) {
	meshID, err := meshOfCA(ca)
	if err != nil {
		return anchor{}, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return anchor{ca: ca, pool: pool, meshID: meshID}, nil
}

// verifyAt checks the chain from leaf to the authority, with no intermediates.
func (a anchor) verifyAt(leaf *x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	// Only the end of validity is enforced: a certificate "not yet valid" means
	// that our clock is behind, never that the authority was wrong to sign.
	for _, c := range []*x509.Certificate{leaf, a.ca} {
		if now.Before(c.NotBefore) {
			now = c.NotBefore
		}
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: a.pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

// verifyPeer is the gate of every connection but a join: the other side holds a
// certificate that the mesh's authority signed for this use, of this mesh, and
// in a role that may do this.
func (a anchor) verifyPeer(cs tls.ConnectionState, usage x509.ExtKeyUsage, roles []string) error {
	if cs.Version != tls.VersionTLS13 {
		return errors.New("verify peer: not TLS 1.3")
	}
	if len(cs.PeerCertificates) == 0 {
		return ErrNoPeer
	}
	leaf := cs.PeerCertificates[0]
	if leaf.IsCA {
		return errors.New("verify peer: it showed an authority's certificate as its own")
	}
	if err := a.verifyAt(leaf, usage, time.Now()); err != nil {
		return fmt.Errorf("verify peer: not of this mesh: %w", err)
	}
	peer, err := peerOfCert(leaf)
	if err != nil {
		return err
	}
	if peer.MeshID != a.meshID {
		return fmt.Errorf("verify peer: %s is of another mesh than %s", peer, a.meshID)
	}
	if !slices.Contains(roles, peer.Role) {
		return fmt.Errorf("verify peer: %s may not speak this protocol in its role", peer)
	}
	return nil
}

// callers lists who may call a protocol. What is not named is for hosts alone.
func callers(proto string) []string {
	if proto == ALPNH2 {
		return []string{RoleAgent, RoleOperator}
	}
	return []string{RoleAgent}
}

// ServerTLS returns the configuration of a listener that speaks protos: TLS 1.3
// only, and inside the handshake the caller's mesh and role are checked for the
// protocol that it picked. ALPNJoin alone takes callers with no certificate.
// With no protos ALPN is not used and callers must be agents.
func (i *Identity) ServerTLS(protos ...string) *tls.Config {
	protos = slices.Clone(protos)
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{i.chain},
		NextProtos:   protos,
		// The chain is verified in VerifyConnection, which runs always and knows
		// the protocol; ClientCAs is a hint to the client.
		ClientAuth:             tls.RequestClientCert,
		ClientCAs:              i.trust.pool,
		SessionTicketsDisabled: true, // a resumed session would be one more way in
		VerifyConnection: func(cs tls.ConnectionState) error {
			proto := cs.NegotiatedProtocol
			if len(protos) > 0 && !slices.Contains(protos, proto) {
				return errors.New("verify peer: it asked for no protocol of this port")
			}
			if proto == ALPNJoin && len(protos) > 0 {
				return verifyJoiner(cs)
			}
			return i.trust.verifyPeer(cs, x509.ExtKeyUsageClientAuth, callers(proto))
		},
	}
}

// verifyJoiner refuses a certificate on the one door that verifies none, so that
// PeerOf can never read an unverified one.
func verifyJoiner(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) > 0 {
		return errors.New("verify peer: a join shows no certificate")
	}
	return nil
}

// ClientTLS returns the configuration for calling an agent of the mesh by one of
// protos: TLS 1.3 only, and inside the handshake the server must prove to be an
// agent of the mesh. The address dialled is not compared with anything, since
// hosts move; a caller that means one host compares PeerOf. With no protos ALPN
// is not used.
func (i *Identity) ClientTLS(protos ...string) *tls.Config {
	protos = slices.Clone(protos)
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{i.chain},
		NextProtos:   protos,
		RootCAs:      i.trust.pool,
		// Host names are not what identifies a peer: VerifyConnection verifies the
		// chain itself, and the mesh and role.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(protos) > 0 && !slices.Contains(protos, cs.NegotiatedProtocol) {
				return fmt.Errorf("verify peer: it does not speak %v", protos)
			}
			return i.trust.verifyPeer(cs, x509.ExtKeyUsageServerAuth, []string{RoleAgent})
		},
	}
}

// PeerTLS returns one configuration for both ends of a connection between
// agents, for servers that take a single one for listening and dialling (NATS
// routes). It uses no ALPN, and either end must be an agent of the mesh.
func (i *Identity) PeerTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{i.chain},
		RootCAs:                i.trust.pool,
		ClientCAs:              i.trust.pool,
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true,
		InsecureSkipVerify:     true, // as in ClientTLS
		VerifyConnection: func(cs tls.ConnectionState) error {
			// Which end this is cannot be told here; agents' certificates are good
			// for both, so demanding both uses loses nothing.
			roles := []string{RoleAgent}
			return errors.Join(
				i.trust.verifyPeer(cs, x509.ExtKeyUsageServerAuth, roles),
				i.trust.verifyPeer(cs, x509.ExtKeyUsageClientAuth, roles))
		},
	}
}

// Dial connects to an agent's mesh port at addr (host:port) and returns when the
// handshake has verified it; within 5 s, or sooner if ctx ends. Tell who it is
// with PeerOf(conn.ConnectionState()).
func (i *Identity) Dial(ctx context.Context, addr, proto string) (*tls.Conn, error) {
	return dialTLS(ctx, addr, i.ClientTLS(proto))
}

func dialTLS(ctx context.Context, addr string, cfg *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	return conn.(*tls.Conn), nil
}

// HTTPTransport returns a transport that calls agents by HTTP/2 over mutual TLS,
// with https URLs whose host is the address of the mesh port. A peer that falls
// silent is found within 10 s by pings, also in the middle of a stream.
func (i *Identity) HTTPTransport() *http.Transport {
	return &http.Transport{
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return i.Dial(ctx, addr, ALPNH2)
		},
		// Plain http URLs would reach nobody; they must not leave the host.
		DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			return nil, fmt.Errorf("dial %s: the mesh port speaks https only", addr)
		},
		ForceAttemptHTTP2: true,
		IdleConnTimeout:   90 * time.Second,
		HTTP2:             &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second},
	}
}
