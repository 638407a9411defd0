package events

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const connectTimeout = 5 * time.Second

// InProcess is a NATS server in this process; *Server is one.
type InProcess interface {
	InProcessConn() (net.Conn, error)
}

// Upstream is where NATS is.
type Upstream struct {
	// Local is asked before each connection for the server of this process,
	// which is preferred; nil, or returning nil, means there is none now.
	Local func() InProcess
	// Servers is asked before each connection for URLs, nats://host:port. It
	// may return none; then a connection is tried again later.
	Servers func() []string
	// TLS is the client side of a connection to Servers; nil means plain text.
	TLS *tls.Config
	// Creds is a NATS credentials file for an external NATS; empty means none.
	Creds string
}

// errNoServer is a session's end when there is nowhere to connect to.
var errNoServer = errors.New("no NATS server is known yet")

// connect makes one connection, to the server of this process if there is one.
// The connection never reconnects by itself: the client's own buffer and
// server list would then outlive what the ring and the mesh know. When it
// breaks it calls cancel, when ctx ends it breaks. What the server refuses later
// is said to refused.
func (u *Upstream) connect(ctx context.Context, cancel context.CancelCauseFunc, host string, refused func(error)) (*nats.Conn, error) {
	dialer := &ctxDialer{ctx: ctx}
	opts := []nats.Option{
		nats.Name("ganglion " + host),
		nats.NoReconnect(),
		nats.ReconnectBufSize(-1),
		nats.Timeout(connectTimeout),
		nats.PingInterval(15 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.SetCustomDialer(dialer),
		nats.ClosedHandler(func(nc *nats.Conn) { cancel(closedErr(nc)) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused(err) }),
	}
	urls, more := u.target()
	if more == nil {
		return nil, errNoServer
	}
	nc, err := nats.Connect(urls, append(opts, more...)...)
	if errors.Is(err, nats.ErrNoServers) && dialer.last != nil {
		err = dialer.last // says which, and why
	}
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	return nc, nil
}

// target is where to connect now; nil options if there is nowhere.
func (u *Upstream) target() (urls string, opts []nats.Option) {
	if u.Local != nil {
		if local := u.Local(); local != nil {
			return "", []nats.Option{nats.InProcessServer(local)}
		}
	}
	if u.Servers == nil {
		return "", nil
	}
	list := u.Servers()
	if len(list) == 0 {
		return "", nil
	}
	opts = []nats.Option{nats.IgnoreDiscoveredServers()}
	if u.TLS != nil {
		opts = append(opts, nats.Secure(u.TLS.Clone()))
	}
	if u.Creds != "" {
		opts = append(opts, nats.UserCredentials(u.Creds))
	}
	return strings.Join(list, ","), opts
}

func closedErr(nc *nats.Conn) error {
	if err := nc.LastError(); err != nil {
		return fmt.Errorf("connection to NATS closed: %w", err)
	}
	return errors.New("connection to NATS closed")
}

// ctxDialer dials for as long as ctx lives, and closes what it dialled when
// ctx ends, so that no handshake with a silent server outlasts a shutdown.
type ctxDialer struct {
	ctx  context.Context
	last error // of the last dial; nats.Connect dials one after the other
}

// Dial implements nats.CustomDialer.
func (d *ctxDialer) Dial(network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: connectTimeout}
	c, err := dialer.DialContext(d.ctx, network, address)
	d.last = err
	if err != nil {
		return nil, err
	}
	context.AfterFunc(d.ctx, func() { _ = c.Close() })
	return c, nil
}
