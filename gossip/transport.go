package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	maxPacket  = 64 << 10
	maxStreams = 256 // from others at once; memberlist bounds exchanges at 128
	recvBuffer = 2 << 20
)

// netTransport carries gossip over UDP and TCP on one port. It differs from
// memberlist's own in what an idle host pays (that one allocates 64 KiB for each
// packet), in bounding streams, in that creating it starts nothing, and in that
// Shutdown ends what is under way.
type netTransport struct {
	tcp  *net.TCPListener
	udp  *net.UDPConn
	addr netip.AddrPort // as others reach it

	packets chan *memberlist.Packet
	streams chan net.Conn
	slots   chan struct{}

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// listen takes the port and finds the address to advertise.
func listen(bind string, port int, advertise string) (*netTransport, error) {
	t := &netTransport{
		packets: make(chan *memberlist.Packet, 256),
		streams: make(chan net.Conn),
		slots:   make(chan struct{}, maxStreams),
	}
	if err := t.bind(net.ParseIP(bind), port); err != nil {
		return nil, err
	}
	var err error
	if t.addr, err = t.advertised(advertise); err != nil {
		return nil, errors.Join(err, t.close())
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t, nil
}

// bind takes the same port for TCP and UDP. Any free TCP port may be taken for
// UDP, so port 0 is tried a few times.
func (t *netTransport) bind(ip net.IP, port int) (err error) {
	for range 16 {
		if t.tcp, err = net.ListenTCP("tcp", &net.TCPAddr{IP: ip, Port: port}); err != nil {
			break
		}
		got := t.tcp.Addr().(*net.TCPAddr).Port
		if t.udp, err = net.ListenUDP("udp", &net.UDPAddr{IP: ip, Port: got}); err == nil {
			_ = t.udp.SetReadBuffer(recvBuffer) // best effort: the system may allow less
			return nil
		}
		_ = t.tcp.Close()
		if port != 0 {
			break
		}
	}
	return fmt.Errorf("listen for gossip on %s: %w; free the port or configure another",
		net.JoinHostPort(ip.String(), strconv.Itoa(port)), err)
}

func (t *netTransport) advertised(want string) (netip.AddrPort, error) {
	bound := t.tcp.Addr().(*net.TCPAddr).AddrPort()
	bound = netip.AddrPortFrom(bound.Addr().Unmap(), bound.Port())
	if want != "" {
		if ip, err := netip.ParseAddr(want); err == nil {
			return netip.AddrPortFrom(ip.Unmap(), bound.Port()), nil
		}
		a, err := netip.ParseAddrPort(want)
		if err != nil {
			return a, fmt.Errorf("gossip advertise address %q: want IP or IP:PORT", want)
		}
		return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
	}
	if !bound.Addr().IsUnspecified() {
		return bound, nil
	}
	ip, err := outboundIP()
	return netip.AddrPortFrom(ip, bound.Port()), err
}

// outboundIP is the address this host uses towards others: the source address of
// its default route (choosing a route sends nothing), else the first of an
// interface that is up.
func outboundIP() (netip.Addr, error) {
	for _, far := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		if c, err := net.Dial("udp", far); err == nil {
			ip := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
			_ = c.Close()
			if ip.IsGlobalUnicast() {
				return ip, nil
			}
		}
	}
	addrs, err := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap().IsGlobalUnicast() {
				return ip.Unmap(), nil
			}
		}
	}
	return netip.Addr{}, errors.Join(errors.New(
		"find gossip address: no interface has one that others could reach; bind to or advertise one"), err)
}

// start begins to hear. It is called once, before memberlist reads.
func (t *netTransport) start() {
	t.wg.Add(2)
	go t.acceptLoop()
	go t.readLoop()
}

func (t *netTransport) acceptLoop() {
	defer t.wg.Done()
	for {
		select {
		case t.slots <- struct{}{}:
		case <-t.ctx.Done():
			return
		}
		c, err := t.tcp.Accept()
		if err != nil {
			<-t.slots
			if !t.pause() {
				return
			}
			continue
		}
		s := &stream{Conn: c, slots: t.slots}
		s.stop = context.AfterFunc(t.ctx, func() { _ = c.Close() })
		select {
		case t.streams <- s:
		case <-t.ctx.Done():
			_ = s.Close()
			return
		}
	}
}

func (t *netTransport) readLoop() {
	defer t.wg.Done()
	buf := make([]byte, maxPacket)
	for {
		n, from, err := t.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			if !t.pause() {
				return
			}
			continue
		}
		if n == 0 {
			continue
		}
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: net.UDPAddrFromAddrPort(from), Timestamp: time.Now()}
		select {
		case t.packets <- p:
		case <-t.ctx.Done():
			return
		}
	}
}

// pause keeps a failing socket from spinning; false says that it is over.
func (t *netTransport) pause() bool {
	select {
	case <-t.ctx.Done():
		return false
	case <-time.After(50 * time.Millisecond):
		return true
	}
}

// FinalAdvertiseAddr, and the rest, implement memberlist.NodeAwareTransport.
func (t *netTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IP(t.addr.Addr().AsSlice()), int(t.addr.Port()), nil
}

func (t *netTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("send gossip to %q: %w", addr, err)
	}
	_, err = t.udp.WriteToUDPAddrPort(b, to)
	return time.Now(), err
}

func (t *netTransport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

func (t *netTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &stream{Conn: c}
	s.stop = context.AfterFunc(t.ctx, func() { _ = c.Close() })
	return s, nil
}

func (t *netTransport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

func (t *netTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }

func (t *netTransport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown closes everything, dials and open streams too, and waits.
func (t *netTransport) Shutdown() error {
	t.stop()
	err := t.close()
	t.wg.Wait()
	return err
}

func (t *netTransport) close() error {
	err := errors.Join(t.tcp.Close(), t.udp.Close())
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// stream is a connection that ends with the transport and gives its slot back.
type stream struct {
	net.Conn
	slots chan struct{} // nil for streams of our own
	stop  func() bool
	once  sync.Once
}

func (s *stream) Close() error {
	err := s.Conn.Close()
	s.once.Do(func() {
		s.stop()
		if s.slots != nil {
			<-s.slots
		}
	})
	return err
}
