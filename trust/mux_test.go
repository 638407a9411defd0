package trust

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// counts reads the mux's bookkeeping.
func (m *Mux) counts() (conns, pending, addrs int) {
	m.slots.mu.Lock()
	defer m.slots.mu.Unlock()
	return m.slots.conns, m.slots.pending, len(m.slots.perIP)
}

// closedByPeer waits until the other side has closed c.
func closedByPeer(t *testing.T, c net.Conn, within time.Duration) bool {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(within)))
	_, err := io.Copy(io.Discard, c)
	var timeout net.Error
	return !errors.As(err, &timeout) || !timeout.Timeout()
}

func rawDial(t *testing.T, m *Mux) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", m.Addr().String())
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestSlowlorisIsCutOff opens connections that never finish a handshake: each
// dies by the timeout, and its slot is free again.
func TestSlowlorisIsCutOff(t *testing.T) {
	a := newMesh(t, "mesh-a")
	m := startMux(t, a.identity(t, "h1", RoleAgent), MuxConfig{HandshakeTimeout: 100 * time.Millisecond, MaxPendingPerIP: 4})
	var slow []net.Conn
	for range 4 {
		c := rawDial(t, m)
		_, err := c.Write([]byte{22, 3, 1, 2, 0}) // the head of a ClientHello that never comes
		must(t, err)
		slow = append(slow, c)
	}
	for i, c := range slow {
		if !closedByPeer(t, c, 5*time.Second) {
			t.Errorf("slow connection %d is still open", i)
		}
	}
	eventually(t, "all slots free", func() bool { conns, pending, addrs := m.counts(); return conns+pending+addrs == 0 })
}

// TestPendingCapPerAddress: one address that holds its share of handshakes is
// refused more at once, while members who are through are not counted.
func TestPendingCapPerAddress(t *testing.T) {
	a := newMesh(t, "mesh-a")
	m := startMux(t, a.identity(t, "h1", RoleAgent), MuxConfig{HandshakeTimeout: time.Minute, MaxPendingPerIP: 3})
	serveEach(t, m.Listener(ALPNRaft), func(c net.Conn) { _, _ = io.Copy(c, c) })
	peer := a.identity(t, "h2", RoleAgent)
	for range 5 { // more than the cap: authenticated ones free their place
		conn, err := peer.Dial(context.Background(), m.Addr().String(), ALPNRaft)
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		eventually(t, "authenticated", func() bool { _, pending, _ := m.counts(); return pending == 0 })
	}
	var held []net.Conn
	for range 3 {
		held = append(held, rawDial(t, m))
	}
	eventually(t, "three pending", func() bool { _, pending, _ := m.counts(); return pending == 3 })
	if !closedByPeer(t, rawDial(t, m), 5*time.Second) {
		t.Fatal("a fourth pending connection of one address is held")
	}
	must(t, held[0].Close())
	eventually(t, "a free place", func() bool { _, pending, _ := m.counts(); return pending == 2 })
	conn, err := peer.Dial(context.Background(), m.Addr().String(), ALPNRaft)
	must(t, err)
	_ = conn.Close() // the mesh speaks nothing there, so the peer may have closed first
	for _, c := range held {
		_ = c.Close()
	}
}

// TestJoinsStayPending: a finished handshake of a join authenticates nobody.
func TestJoinsStayPending(t *testing.T) {
	a := newMesh(t, "mesh-a")
	m := startMux(t, a.identity(t, "h1", RoleAgent), MuxConfig{MaxPendingPerIP: 2})
	serveEach(t, m.Listener(ALPNJoin), func(c net.Conn) { _, _ = io.Copy(c, c) })
	var conns []net.Conn
	for range 2 {
		c, err := tls.Dial("tcp", m.Addr().String(), anonymous(ALPNJoin))
		must(t, err)
		conns = append(conns, c)
	}
	if !closedByPeer(t, rawDial(t, m), 5*time.Second) {
		t.Error("a third unauthenticated connection is held")
	}
	for _, c := range conns {
		must(t, c.Close())
	}
	eventually(t, "all slots free", func() bool { n, p, _ := m.counts(); return n+p == 0 })
}

func TestCapsInAll(t *testing.T) {
	ip := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }
	s := newSlots(MuxConfig{MaxPending: 2, MaxPendingPerIP: 2, MaxConns: 3})
	one, _ := s.take(ip(1))
	two, _ := s.take(ip(2))
	if got, why := s.take(ip(3)); got != nil || why == "" {
		t.Error("a third unauthenticated connection was taken")
	}
	one.authenticated()
	three, _ := s.take(ip(3))
	if three == nil {
		t.Fatal("no place after one authenticated")
	}
	two.authenticated()
	if got, _ := s.take(ip(4)); got != nil {
		t.Error("a fourth connection was taken")
	}
	for range 2 { // closing twice gives one place back
		one.release()
		two.release()
		three.release()
	}
	if s.conns != 0 || s.pending != 0 || len(s.perIP) != 0 {
		t.Errorf("left: %d connections, %d pending, %d addresses", s.conns, s.pending, len(s.perIP))
	}
}

func TestIPOfCountsIPv6BySubnet(t *testing.T) {
	addr := func(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	if ipOf(addr("[2001:db8::1]:1")) != ipOf(addr("[2001:db8::ffff:2]:2")) {
		t.Error("two addresses of one /64 are counted apart")
	}
	if ipOf(addr("[2001:db8::1]:1")) == ipOf(addr("[2001:db8:0:1::1]:1")) {
		t.Error("two /64 are counted together")
	}
	if ipOf(addr("[::ffff:10.0.0.1]:1")) != ipOf(addr("10.0.0.1:2")) {
		t.Error("a mapped IPv4 address is counted apart")
	}
}

// TestAdmitRefuses: the agent can turn away a verified host, before payload.
func TestAdmitRefuses(t *testing.T) {
	a := newMesh(t, "mesh-a")
	m := startMux(t, a.identity(t, "h1", RoleAgent), MuxConfig{Admit: func(proto string, p Peer) error {
		if proto == ALPNRaft && p.Host == "removed" {
			return errors.New("it was removed")
		}
		return nil
	}})
	for _, proto := range []string{ALPNRaft, ALPNH2} {
		serveEach(t, m.Listener(proto), func(c net.Conn) { _, _ = io.Copy(c, c) })
	}
	for _, c := range []struct {
		host, proto string
		want        bool
	}{{"removed", ALPNRaft, false}, {"removed", ALPNH2, true}, {"h2", ALPNRaft, true}} {
		if got := echoes(t, m.Addr().String(), as(a.identity(t, c.host, RoleAgent))(c.proto)); got != c.want {
			t.Errorf("%s by %s: served %v, want %v", c.host, c.proto, got, c.want)
		}
	}
}

// TestRunEndsWhole: the end closes the port, pending handshakes and connections
// that nobody accepted; goleak sees to the goroutines.
func TestRunEndsWhole(t *testing.T) {
	a := newMesh(t, "mesh-a")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	m, err := NewMux(MuxConfig{Listener: ln, TLS: a.identity(t, "h1", RoleAgent).ServerTLS(ALPNRaft)})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	pending := rawDial(t, m)
	waiting, err := a.identity(t, "h2", RoleAgent).Dial(context.Background(), m.Addr().String(), ALPNRaft)
	must(t, err)
	defer waiting.Close()
	eventually(t, "both known", func() bool { conns, p, _ := m.counts(); return conns == 2 && p == 1 })
	accepting := make(chan error, 1)
	must(t, m.Listener(ALPNRaft).Close()) // closed by itself: refuses, and Run goes on
	go func() { _, err := m.Listener(ALPNRaft).Accept(); accepting <- err }()
	if err := <-accepting; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept on a closed listener: %v", err)
	}
	cancel()
	must(t, <-done)
	if !closedByPeer(t, pending, 5*time.Second) || !closedByPeer(t, waiting, 5*time.Second) {
		t.Error("a connection outlived Run")
	}
	if conns, _, _ := m.counts(); conns != 0 {
		t.Errorf("%d slots held after Run", conns)
	}
	if c, err := net.DialTimeout("tcp", m.Addr().String(), time.Second); err == nil {
		_ = c.Close()
		t.Error("the port is still open")
	}
}

func TestRunReportsALostListener(t *testing.T) {
	a := newMesh(t, "mesh-a")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	m, err := NewMux(MuxConfig{Listener: ln, TLS: a.identity(t, "h1", RoleAgent).ServerTLS(ALPNRaft)})
	must(t, err)
	must(t, ln.Close())
	if err := m.Run(context.Background()); err == nil {
		t.Error("Run on a closed listener: no error")
	}
}

func TestNewMuxRefuses(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	good := newMesh(t, "mesh-a").identity(t, "h1", RoleAgent).ServerTLS(ALPNRaft)
	for name, cfg := range map[string]MuxConfig{
		"no listener":    {TLS: good},
		"no TLS":         {Listener: ln},
		"unverified TLS": {Listener: ln, TLS: &tls.Config{NextProtos: []string{ALPNRaft}}},
		"no protocols":   {Listener: ln, TLS: newMesh(t, "mesh-a").identity(t, "h1", RoleAgent).ServerTLS()},
		"negative limit": {Listener: ln, TLS: good, MaxPending: -1},
	} {
		if _, err := NewMux(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
