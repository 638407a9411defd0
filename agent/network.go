package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/gossip"
	"github.com/ganglion-mesh/ganglion/trust"
)

// Network is how the mesh port is opened and reached. Tests replace it to run
// whole meshes in virtual time.
type Network interface {
	// Listen opens a TCP address of this host; port 0 is any free one.
	Listen(addr string) (net.Listener, error)
	// Dial connects to the mesh port of another host.
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

// GossipTransport is what gossip runs over in such tests.
type GossipTransport = gossip.Transport

// tcp is the Network of a real host.
type tcp struct{}

func (tcp) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

func (tcp) Dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	return d.DialContext(ctx, "tcp", addr)
}

// links reaches the mesh ports of other hosts with this host's identity. It is
// safe for concurrent use; connections are kept and shared.
type links struct {
	id   *trust.Identity
	net  Network
	http *http.Transport
	bulk *http.Transport // for packages: on connections of their own, so that nothing urgent queues behind them
	// refuse tells why not to speak with who answers; nil: speak with any member.
	refuse func(tls.ConnectionState) error
}

func newLinks(id *trust.Identity, network Network) *links {
	l := &links{id: id, net: network}
	l.http, l.bulk = l.transport(), l.transport()
	l.bulk.IdleConnTimeout = 10 * time.Second
	// Reads of a megabyte are answered in more than one ping's time where the
	// network is slow.
	l.bulk.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second}
	return l
}

func (l *links) transport() *http.Transport {
	t := l.id.HTTPTransport()
	t.DialTLSContext = func(ctx context.Context, _, addr string) (net.Conn, error) {
		return l.dial(ctx, addr, trust.ALPNH2)
	}
	// A peer that stopped answering must not hold requests until TCP gives up.
	t.ResponseHeaderTimeout = 45 * time.Second
	// One that nobody needs is pinged, and wakes both sides, until it is closed.
	t.IdleConnTimeout = 15 * time.Second
	// Answers to reports say as much as a ping, so there is none between them.
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: reportEvery + 300*time.Millisecond, PingTimeout: 1500 * time.Millisecond}
	return t
}

// dial opens a connection to the mesh port at addr that speaks proto, checked
// to be a member of this mesh.
func (l *links) dial(ctx context.Context, addr, proto string) (net.Conn, error) {
	conn, err := l.net.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tc := tls.Client(conn, l.id.ClientTLS(proto))
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if l.refuse != nil {
		if err := l.refuse(tc.ConnectionState()); err != nil {
			return nil, errors.Join(err, tc.Close())
		}
	}
	return tc, nil
}

// client returns a client of the agent whose mesh port is at addr.
func (l *links) client(addr string) *api.Client {
	return api.New("https://"+addr, l.http, addr)
}

// bulkClient is client for what is large and not urgent.
func (l *links) bulkClient(addr string) *api.Client {
	return api.New("https://"+addr, l.bulk, addr)
}

func (l *links) close() {
	l.http.CloseIdleConnections()
	l.bulk.CloseIdleConnections()
}
