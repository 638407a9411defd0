package trust

import (
	"errors"
	"net"
	"net/netip"
	"sync"
)

// slots counts connections: all, unauthenticated ones, and those by address.
type slots struct {
	maxPending, maxPerIP, maxConns int

	mu      sync.Mutex // guards what is below, and the state of every slot
	conns   int
	pending int
	perIP   map[netip.Addr]int
}

func newSlots(cfg MuxConfig) *slots {
	return &slots{maxPending: cfg.MaxPending, maxPerIP: cfg.MaxPendingPerIP, maxConns: cfg.MaxConns, perIP: map[netip.Addr]int{}}
}

// slot is the place of one open connection.
type slot struct {
	all     *slots
	ip      netip.Addr
	pending bool
	open    bool
}

// take returns a slot, or nil and why there is none.
func (s *slots) take(ip netip.Addr) (*slot, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.conns >= s.maxConns:
		return nil, "too many connections"
	case s.pending >= s.maxPending:
		return nil, "too many unauthenticated connections"
	case s.perIP[ip] >= s.maxPerIP:
		return nil, "too many unauthenticated connections from this address"
	}
	s.conns++
	s.pending++
	s.perIP[ip]++
	return &slot{all: s, ip: ip, pending: true, open: true}, ""
}

// authenticated stops counting the connection against strangers' caps.
func (s *slot) authenticated() {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.settle()
}

// release gives the slot back. It may be called more than once.
func (s *slot) release() {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.settle()
	if s.open {
		s.open = false
		s.all.conns--
	}
}

// settle ends the pending state. The caller holds the lock.
func (s *slot) settle() {
	if !s.pending {
		return
	}
	s.pending = false
	s.all.pending--
	if s.all.perIP[s.ip]--; s.all.perIP[s.ip] == 0 {
		delete(s.all.perIP, s.ip)
	}
}

// slotConn gives its slot back when it is closed. It sits below TLS, so that the
// connections handed on are plain *tls.Conn, which net/http insists on for h2.
type slotConn struct {
	net.Conn
	slot *slot
}

// Close implements net.Conn.
func (c *slotConn) Close() error {
	defer c.slot.release()
	return c.Conn.Close()
}

// CloseWrite passes a half close on, where the connection has one.
func (c *slotConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// ipOf returns the address to count by; IPv6 by its /64, which one stranger
// commonly holds whole.
func ipOf(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}
