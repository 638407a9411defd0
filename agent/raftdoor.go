package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus"
	"github.com/ganglion-mesh/ganglion/trust"
)

// raftDoor is the Raft side of the mesh port. A host's Raft server may end and
// another begin while the port stays open, so each server gets a stream layer of
// its own, which it may close.
type raftDoor struct {
	port  net.Listener // yields connections that are checked to be of this mesh
	links *links
	admit func(tls.ConnectionState) error // refuses hosts that were removed
	cur   atomic.Pointer[streamLayer]
}

// next returns the stream layer of a new Raft server.
func (d *raftDoor) next() consensus.StreamLayer {
	l := &streamLayer{door: d, conns: make(chan net.Conn), closed: make(chan struct{})}
	d.cur.Store(l)
	return l
}

// run hands connections to the present Raft server until ctx ends. With none,
// they are closed: the caller tries again.
func (d *raftDoor) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { d.port.Close() })
	defer stop()
	for {
		conn, err := d.port.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept raft connection: %w", err)
		}
		l := d.cur.Load()
		if l == nil || d.admit(conn.(*tls.Conn).ConnectionState()) != nil || !l.offer(ctx, conn) {
			conn.Close()
		}
	}
}

// streamLayer implements consensus.StreamLayer.
type streamLayer struct {
	door   *raftDoor
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *streamLayer) offer(ctx context.Context, conn net.Conn) bool {
	select {
	case l.conns <- conn:
		return true
	case <-l.closed:
	case <-ctx.Done():
	case <-time.After(time.Second): // the server is starting or ending
	}
	return false
}

// Accept implements net.Listener.
func (l *streamLayer) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept; the port stays open.
func (l *streamLayer) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *streamLayer) Addr() net.Addr { return l.door.port.Addr() }

// Dial opens a Raft connection to the server at addr.
func (l *streamLayer) Dial(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	go func() { // its server ends without waiting for an answer
		select {
		case <-l.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	return l.door.links.dial(ctx, addr, trust.ALPNRaft)
}
