package trust

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// MuxConfig configures a Mux. Listener and TLS are required.
type MuxConfig struct {
	// Listener yields raw TCP connections; the Mux closes it.
	Listener net.Listener
	// TLS is Identity.ServerTLS of the protocols to split.
	TLS *tls.Config
	// Admit, if set, is asked for each verified connection before it is handed
	// on, in the connection's own goroutine: for what a certificate alone cannot
	// tell, such as whether the host was removed. Joins are not asked.
	Admit func(proto string, p Peer) error
	// HandshakeTimeout bounds a handshake (default 5 s).
	HandshakeTimeout time.Duration
	// MaxPending caps unauthenticated connections: handshakes and joins
	// (default 256). Beyond it new connections are closed at once.
	MaxPending int
	// MaxPendingPerIP caps them for one address (default 32).
	MaxPendingPerIP int
	// MaxConns caps all open connections (default 8192).
	MaxConns int
	Logger   *slog.Logger
}

func (c MuxConfig) validate() (MuxConfig, error) {
	if c.Listener == nil {
		return c, errors.New("mux: no listener")
	}
	if c.TLS == nil || len(c.TLS.NextProtos) == 0 || c.TLS.VerifyConnection == nil {
		return c, errors.New("mux: TLS must be made by ServerTLS with the protocols to split")
	}
	if c.HandshakeTimeout < 0 || c.MaxPending < 0 || c.MaxPendingPerIP < 0 || c.MaxConns < 0 {
		return c, errors.New("mux: a limit is negative")
	}
	if c.HandshakeTimeout == 0 {
		c.HandshakeTimeout = 5 * time.Second
	}
	if c.MaxPending == 0 {
		c.MaxPending = 256
	}
	if c.MaxPendingPerIP == 0 {
		c.MaxPendingPerIP = 32
	}
	if c.MaxConns == 0 {
		c.MaxConns = 8192
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// backlog is how many verified connections wait for an Accept, per protocol.
const backlog = 64

// Mux splits one TCP listener into one listener a protocol, by ALPN. What a
// stranger can cost is bounded: the time of a handshake, and how many
// unauthenticated connections there are, in all and from one address.
type Mux struct {
	cfg       MuxConfig
	listeners map[string]*protoListener
	slots     *slots
	handshake sync.WaitGroup
}

// NewMux checks cfg and returns a Mux that accepts nothing until Run.
func NewMux(cfg MuxConfig) (*Mux, error) {
	cfg, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	m := &Mux{cfg: cfg, listeners: map[string]*protoListener{}, slots: newSlots(cfg)}
	for _, proto := range cfg.TLS.NextProtos {
		m.listeners[proto] = &protoListener{
			addr:   cfg.Listener.Addr(),
			conns:  make(chan *tls.Conn, backlog),
			closed: make(chan struct{}),
		}
	}
	return m, nil
}

// Listener returns the listener of one protocol: Accept yields verified
// connections, each a *tls.Conn whose handshake is done. It is there from NewMux
// on, works while Run does, and can be closed by itself; connections of a closed
// one are refused. For a protocol that the Mux does not split it returns nil.
func (m *Mux) Listener(proto string) net.Listener {
	if l := m.listeners[proto]; l != nil {
		return l
	}
	return nil
}

// Addr returns the address of the port.
func (m *Mux) Addr() net.Addr { return m.cfg.Listener.Addr() }

// Run accepts connections until ctx ends (it then returns nil) or the listener
// fails. When it returns, the port and the protocol listeners are closed, no
// handshake is left, and no connection that nobody accepted is open. Accepted
// connections belong to who accepted them.
func (m *Mux) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = m.cfg.Listener.Close() })
	err := m.accept(ctx)
	stopped := ctx.Err() != nil
	cancel()
	stop()
	closeErr := m.cfg.Listener.Close()
	m.handshake.Wait()
	for _, l := range m.listeners {
		_ = l.Close()
		l.drain()
	}
	if stopped {
		return nil
	}
	if errors.Is(closeErr, net.ErrClosed) {
		closeErr = nil
	}
	return errors.Join(err, closeErr)
}

// accept takes connections off the port. A transient failure (no file
// descriptors left) is waited out: the port outlives it.
func (m *Mux) accept(ctx context.Context) error {
	const maxPause = time.Second
	pause := 5 * time.Millisecond
	for {
		raw, err := m.cfg.Listener.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept on the mesh port: %w", err)
			}
			m.cfg.Logger.Warn("accept on the mesh port", "error", err, "retry_in", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, maxPause)
			continue
		}
		pause = 5 * time.Millisecond
		m.admitRaw(ctx, raw)
	}
}

// admitRaw starts the handshake of raw, if its address may have one more.
func (m *Mux) admitRaw(ctx context.Context, raw net.Conn) {
	slot, why := m.slots.take(ipOf(raw.RemoteAddr()))
	if slot == nil {
		_ = raw.Close()
		m.cfg.Logger.Debug("connection refused", "remote", raw.RemoteAddr().String(), "why", why)
		return
	}
	tracked := &slotConn{Conn: raw, slot: slot}
	m.handshake.Go(func() {
		if err := m.serve(ctx, tracked); err != nil {
			_ = tracked.Close()
			m.cfg.Logger.Debug("connection refused", "remote", raw.RemoteAddr().String(), "why", err)
		}
	})
}

// serve does one handshake and hands the connection on. On an error the caller
// closes it.
func (m *Mux) serve(ctx context.Context, raw *slotConn) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.HandshakeTimeout)
	defer cancel()
	conn := tls.Server(raw, m.cfg.TLS)
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	cs := conn.ConnectionState()
	l := m.listeners[cs.NegotiatedProtocol]
	if l == nil {
		return fmt.Errorf("no listener for protocol %q", cs.NegotiatedProtocol)
	}
	if cs.NegotiatedProtocol != ALPNJoin {
		peer, err := PeerOf(cs)
		if err != nil {
			return err
		}
		if m.cfg.Admit != nil {
			if err := m.cfg.Admit(cs.NegotiatedProtocol, peer); err != nil {
				return fmt.Errorf("refused %s: %w", peer, err)
			}
		}
		raw.slot.authenticated()
	}
	return l.deliver(ctx, conn)
}

// protoListener is the net.Listener of one protocol.
type protoListener struct {
	addr   net.Addr
	conns  chan *tls.Conn
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (l *protoListener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *protoListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *protoListener) Addr() net.Addr { return l.addr }

// deliver waits for room in the backlog until ctx ends.
func (l *protoListener) deliver(ctx context.Context, c *tls.Conn) error {
	select {
	case <-l.closed:
		return net.ErrClosed
	default:
	}
	select {
	case l.conns <- c:
		return nil
	case <-l.closed:
		return net.ErrClosed
	case <-ctx.Done():
		return errors.New("nobody accepts connections of this protocol in time")
	}
}

// drain closes what was delivered and never accepted. Called when nothing
// delivers any more.
func (l *protoListener) drain() {
	for {
		select {
		case c := <-l.conns:
			_ = c.Close()
		default:
			return
		}
	}
}

var _ net.Listener = (*protoListener)(nil)
