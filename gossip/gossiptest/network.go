// Package gossiptest is a network in memory for tests of meshes, made for virtual
// time: nothing in it blocks for ever, and its chances come from a seed.
package gossiptest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Network joins the transports made from it. Packets are lost when a receiver is
// full, gone or cut off, as UDP loses them; streams are pipes.
type Network struct {
	mu     sync.Mutex
	byAddr map[netip.AddrPort]*Transport
	cut    func(from, to string) bool
	loss   float64
	rng    *rand.Rand
}

// NewNetwork makes an empty network without faults.
func NewNetwork(seed uint64) *Network {
	return &Network{
		byAddr: make(map[netip.AddrPort]*Transport),
		rng:    rand.New(rand.NewPCG(seed, seed)),
	}
}

// Cut makes everything from one host to another vanish while the predicate says
// so; nil heals. Names are those given to Transport. It is asked with the
// network locked, and must not call it.
func (n *Network) Cut(f func(from, to string) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = f
}

// Isolate cuts the named hosts off from all others, and leaves them each other.
func (n *Network) Isolate(names ...string) {
	in := make(map[string]bool)
	for _, name := range names {
		in[name] = true
	}
	n.Cut(func(from, to string) bool { return in[from] != in[to] })
}

// Loss drops this share of packets; streams lose nothing.
func (n *Network) Loss(share float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = share
}

// Transport attaches a host at IP:PORT, in the place of what was there before:
// after its Shutdown, the same address may be taken again by a restarted host.
// It panics on an address that is none.
func (n *Network) Transport(name, addr string) memberlist.NodeAwareTransport {
	t := &Transport{
		net: n, name: name, addr: netip.MustParseAddrPort(addr),
		packets: make(chan *memberlist.Packet, 256),
		streams: make(chan net.Conn, 16),
		down:    make(chan struct{}),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.byAddr[t.addr] = t
	return t
}

// reach returns who listens at addr, or why nobody can be reached: lost means
// that the sender hears nothing at all.
func (n *Network) reach(from *Transport, addr string, packet bool) (to *Transport, lost bool, err error) {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, false, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	to = n.byAddr[a]
	if to == nil {
		return nil, packet, fmt.Errorf("nobody listens at %s", addr)
	}
	lost = n.cut != nil && n.cut(from.name, to.name) || packet && n.loss > 0 && n.rng.Float64() < n.loss
	return to, lost, nil
}

func (n *Network) isCut(from, to *Transport) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut != nil && n.cut(from.name, to.name)
}

// Transport is one host's end of a Network. It implements
// memberlist.NodeAwareTransport.
type Transport struct {
	net     *Network
	name    string
	addr    netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
	once    sync.Once
	down    chan struct{}
}

var _ memberlist.NodeAwareTransport = (*Transport)(nil)

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IP(t.addr.Addr().AsSlice()), int(t.addr.Port()), nil
}

// WriteTo implements memberlist.Transport. It never blocks.
func (t *Transport) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	to, lost, err := t.net.reach(t, addr, true)
	if lost {
		return now, nil
	}
	if err != nil {
		return now, err
	}
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(t.addr), Timestamp: now}
	select {
	case to.packets <- p:
	default:
	}
	return now, nil
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *Transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

// PacketCh implements memberlist.Transport.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// DialTimeout implements memberlist.Transport. Towards a host that is cut off it
// takes the whole timeout; where nobody listens, or too many wait, it fails at
// once.
func (t *Transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	to, lost, err := t.net.reach(t, addr, false)
	if lost {
		err = os.ErrDeadlineExceeded
		select {
		case <-time.After(timeout):
		case <-t.down:
		}
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	ours, theirs := net.Pipe()
	c := &conn{Conn: theirs, from: to, to: t}
	select {
	case to.streams <- c:
		select {
		case <-to.down: // perhaps after it refused what waited
			to.refuse()
		default:
		}
		return &conn{Conn: ours, from: t, to: to}, nil
	default:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("too many connections wait at %s", addr)}
	}
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *Transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// Shutdown detaches the host: from here on nobody listens at its address.
func (t *Transport) Shutdown() error {
	t.once.Do(func() {
		close(t.down)
		t.net.mu.Lock()
		defer t.net.mu.Unlock()
		if t.net.byAddr[t.addr] == t {
			delete(t.net.byAddr, t.addr)
		}
		t.refuse()
	})
	return nil
}

// refuse closes the streams that nobody will accept, so that no writer waits.
func (t *Transport) refuse() {
	for {
		select {
		case c := <-t.streams:
			_ = c.Close()
		default:
			return
		}
	}
}

// conn is one end of a stream. What is written while the link is cut vanishes,
// and the reader runs into its deadline.
type conn struct {
	net.Conn
	from, to *Transport
}

func (c *conn) Write(b []byte) (int, error) {
	if c.from.net.isCut(c.from, c.to) {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *conn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.from.addr) }
func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.to.addr) }
