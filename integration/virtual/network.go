package virtual

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/ganglion-mesh/ganglion/gossip/gossiptest"
)

// dialPatience is how long a connection is tried for, as agents do.
const dialPatience = 5 * time.Second

// power is what becomes of what is sent to a host.
type power int

const (
	powerOn  power = iota
	agentOff       // the host answers that nobody listens
	powerOff       // silence
)

// Network carries everything between the hosts of a mesh: gossip, and the
// connections of the mesh ports and of local clients. It can be cut between any
// two hosts and for any host as a whole. Its methods may be called from any
// goroutine.
type Network struct {
	gossip  *gossiptest.Network
	latency time.Duration

	mu        sync.Mutex
	rng       *rand.Rand
	cut       func(from, to string) bool
	power     map[string]power
	listeners map[string]*listener // by address
	links     map[*link]bool
	stopped   int // messages, and attempts to connect, that a fault held up
}

// newNetwork makes a network without faults. Each message takes between half
// and one and a half of latency.
func newNetwork(seed uint64, latency time.Duration) *Network {
	n := &Network{
		gossip: gossiptest.NewNetwork(seed), latency: latency,
		rng:   rand.New(rand.NewPCG(seed, 7)),
		power: map[string]power{}, listeners: map[string]*listener{}, links: map[*link]bool{},
	}
	n.gossip.Cut(n.holdUp)
	return n
}

// Cut stops everything from one host to another while the predicate says so;
// nil mends. What a connection has under way waits; it is lost only if someone
// gives the connection up. The predicate must not call the network.
func (n *Network) Cut(f func(from, to string) bool) {
	n.mu.Lock()
	n.cut = f
	n.mu.Unlock()
	n.lookAgain()
}

// Stopped is how many messages and attempts to connect faults have held up so
// far, to tell whether a fault bit.
func (n *Network) Stopped() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stopped
}

// blocked tells whether nothing gets from one host to another now.
func (n *Network) blocked(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.power[from] != powerOn || n.power[to] != powerOn || from != to && n.cut != nil && n.cut(from, to)
}

// holdUp is blocked for a message that is sent now, which counts.
func (n *Network) holdUp(from, to string) bool {
	b := n.blocked(from, to)
	if b {
		n.mu.Lock()
		n.stopped++
		n.mu.Unlock()
	}
	return b
}

// arrival is when a message that is sent now arrives.
func (n *Network) arrival(from, to string) time.Time {
	now := time.Now()
	if from == to || n.latency == 0 {
		return now
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return now.Add(n.latency/2 + time.Duration(n.rng.Int64N(int64(n.latency))))
}

// setPower changes what a host answers. When its agent or the host itself goes,
// so do its ends of all connections; the other ends are told, if the host can
// still tell them, or when it is back.
func (n *Network) setPower(host string, p power) {
	n.mu.Lock()
	n.power[host] = p
	var lost []*link
	for l := range n.links {
		if l.ends[0].host == host || l.ends[1].host == host {
			lost = append(lost, l)
		}
	}
	n.mu.Unlock()
	for _, l := range lost {
		for _, c := range l.ends {
			if c.host == host || p != powerOff {
				c.breakOff()
			}
		}
		if p != powerOff {
			n.forget(l)
		}
	}
	n.lookAgain()
}

func (n *Network) isOff(host string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.power[host] == powerOff
}

func (n *Network) forget(l *link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.links, l)
}

// lookAgain lets every reader find out what has changed.
func (n *Network) lookAgain() {
	n.mu.Lock()
	all := make([]*link, 0, len(n.links))
	for l := range n.links {
		all = append(all, l)
	}
	n.mu.Unlock()
	for _, l := range all {
		l.ends[0].look()
		l.ends[1].look()
	}
}

// port is one host's way to the network. It implements agent.Network.
type port struct {
	net  *Network
	host string
	ip   string
}

// Listen implements agent.Network.
func (p *port) Listen(addr string) (net.Listener, error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	return p.net.listen(p.host, addr, tcp)
}

// listen opens an address; every host has its own, so a name will do too.
func (n *Network) listen(host, key string, addr net.Addr) (*listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[key] != nil {
		return nil, &net.OpError{Op: "listen", Net: addr.Network(), Addr: addr, Err: syscall.EADDRINUSE}
	}
	l := &listener{net: n, host: host, key: key, addr: addr, conns: make(chan *conn, 128), closed: make(chan struct{})}
	n.listeners[key] = l
	return l, nil
}

// Dial implements agent.Network.
func (p *port) Dial(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err == nil {
		var c *conn
		from := &net.TCPAddr{IP: net.ParseIP(p.ip), Port: 40000}
		if c, err = p.net.connect(ctx, p.host, addr, from); err == nil {
			return c, nil
		}
	}
	return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: tcp, Err: err}
}

// connect reaches who listens at key. Towards silence it tries every second,
// until ctx ends.
func (n *Network) connect(ctx context.Context, from, key string, fromAddr net.Addr) (*conn, error) {
	for {
		l, refused := n.find(from, key)
		if refused != nil {
			return nil, refused
		}
		if l != nil {
			return l.offer(from, fromAddr)
		}
		select {
		case <-ctx.Done():
			return nil, os.ErrDeadlineExceeded
		case <-time.After(time.Second):
		}
	}
}

// find returns who listens at key; nothing at all if there is only silence.
func (n *Network) find(from, key string) (*listener, error) {
	n.mu.Lock()
	l := n.listeners[key]
	gone := l == nil || n.power[l.host] == agentOff || n.power[from] == agentOff
	n.mu.Unlock()
	switch {
	case l == nil && n.silent(key):
		return nil, nil
	case gone:
		return nil, syscall.ECONNREFUSED
	case n.holdUp(from, l.host):
		return nil, nil
	}
	return l, nil
}

// silent tells whether the host of an address is switched off.
func (n *Network) silent(key string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	ip, _, err := net.SplitHostPort(key)
	return err == nil && n.power[hostOf(ip)] == powerOff
}

// hostOf is the name of the host with an address, and addrOf the other way.
func hostOf(ip string) string {
	i := 0
	fmt.Sscanf(ip, "10.0.0.%d", &i) //nolint:errcheck // then it is nobody's
	return hostName(i)
}

func addrOf(i int) string { return fmt.Sprintf("10.0.0.%d", i) }

func hostName(i int) string { return fmt.Sprintf("h%d", i) }

// listener is an open address of a host.
type listener struct {
	net    *Network
	host   string
	key    string
	addr   net.Addr
	conns  chan *conn
	once   sync.Once
	closed chan struct{}
}

func (l *listener) offer(from string, fromAddr net.Addr) (*conn, error) {
	k := newLink(l.net, from, l.host, fromAddr, l.addr)
	select {
	case <-l.closed:
		return nil, syscall.ECONNREFUSED
	default:
	}
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	select {
	case l.conns <- k.ends[1]:
		l.net.links[k] = true
		return k.ends[0], nil
	default:
		return nil, syscall.ECONNREFUSED // its backlog is full
	}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: l.addr.Network(), Addr: l.addr, Err: net.ErrClosed}
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.net.mu.Lock()
		if l.net.listeners[l.key] == l {
			delete(l.net.listeners, l.key)
		}
		l.net.mu.Unlock()
		for {
			select {
			case c := <-l.conns: // nobody will accept it
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.addr }
