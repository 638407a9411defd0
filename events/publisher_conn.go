package events

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const connectTimeout = 5 * time.Second

// errNoServer is a session's end when there is nowhere to connect to.
var errNoServer = errors.New("no NATS server is known yet")

// connect makes one connection, to the server of this process if there is one.
// The connection never reconnects by itself: the client's own buffer and
// server list would then outlive what the ring and the mesh know. When it
// breaks it calls cancel, when ctx ends it breaks.
func (p *Publisher) connect(ctx context.Context, cancel context.CancelCauseFunc) (*nats.Conn, error) {
	dialer := &ctxDialer{ctx: ctx}
	opts := []nats.Option{
		nats.Name("ganglion " + p.cfg.Recorder.host),
		nats.NoReconnect(),
		nats.ReconnectBufSize(-1),
		nats.Timeout(connectTimeout),
		nats.PingInterval(15 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.SetCustomDialer(dialer),
		nats.ClosedHandler(func(nc *nats.Conn) { cancel(closedErr(nc)) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			p.cfg.Logger.Warn("events: NATS refuses an event", "err", err)
		}),
	}
	urls, more := p.target()
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
func (p *Publisher) target() (urls string, opts []nats.Option) {
	if p.cfg.Local != nil {
		if local := p.cfg.Local(); local != nil {
			return "", []nats.Option{nats.InProcessServer(local)}
		}
	}
	if p.cfg.Servers == nil {
		return "", nil
	}
	list := p.cfg.Servers()
	if len(list) == 0 {
		return "", nil
	}
	opts = []nats.Option{nats.IgnoreDiscoveredServers()}
	if p.cfg.TLS != nil {
		opts = append(opts, nats.Secure(p.cfg.TLS.Clone()))
	}
	if p.cfg.Creds != "" {
		opts = append(opts, nats.UserCredentials(p.cfg.Creds))
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
