package virtual

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// link is a connection with its two ends, which behave as TCP does: what is
// written is on its way at once, arrives in order, and waits for as long as the
// link is cut. Writing never blocks, however much is on the way: a writer that
// waits inside a bubble while it holds a lock would stop virtual time.
type link struct {
	net  *Network
	ends [2]*conn
}

// conn is one end of a link.
type conn struct {
	link *link
	peer *conn
	host string // whose end it is
	addr net.Addr

	mu      sync.Mutex
	inbox   []parcel  // on their way to this end
	ended   time.Time // when the other end's close arrives; zero: it is open
	reset   bool
	closed  bool
	dlRead  time.Time
	dlWrite time.Time
	news    chan struct{} // closed and replaced when any of it changes
}

// parcel is one write on its way.
type parcel struct {
	at   time.Time // of its arrival, if the link is whole then
	data []byte
}

// newLink connects two hosts; from dialled.
func newLink(n *Network, from, to string, fromAddr, toAddr net.Addr) *link {
	l := &link{net: n}
	for i, c := range []struct {
		host string
		addr net.Addr
	}{{from, fromAddr}, {to, toAddr}} {
		l.ends[i] = &conn{link: l, host: c.host, addr: c.addr, news: make(chan struct{})}
	}
	l.ends[0].peer, l.ends[1].peer = l.ends[1], l.ends[0]
	return l
}

// tell wakes a reader to look again. It is called with mu held.
func (c *conn) tell() {
	close(c.news)
	c.news = make(chan struct{})
}

func (c *conn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: c.addr.Network(), Source: c.addr, Addr: c.peer.addr, Err: err}
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	for {
		n, wait, news, err := c.take(b)
		if n > 0 || err != nil {
			return n, err
		}
		if wait < 0 {
			<-news
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-news:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// take reads what has arrived. With nothing there it returns how long to wait
// at most, negative if there is no end to it, and what to wait for.
func (c *conn) take(b []byte) (n int, wait time.Duration, news <-chan struct{}, err error) {
	cut := c.link.net.blocked(c.peer.host, c.host)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	next := c.dlRead
	switch {
	case c.closed:
		return 0, 0, nil, c.fail("read", net.ErrClosed)
	case c.reset:
		return 0, 0, nil, c.fail("read", syscall.ECONNRESET)
	case !c.dlRead.IsZero() && !now.Before(c.dlRead):
		return 0, 0, nil, c.fail("read", os.ErrDeadlineExceeded)
	case cut: // wait for the deadline, or to be told that it is not any more
	case len(c.inbox) > 0 && !now.Before(c.inbox[0].at):
		return c.fill(b), 0, nil, nil
	case len(c.inbox) > 0:
		next = earlier(next, c.inbox[0].at)
	case !c.ended.IsZero() && !now.Before(c.ended):
		return 0, 0, nil, io.EOF
	case !c.ended.IsZero():
		next = earlier(next, c.ended)
	}
	if next.IsZero() {
		return 0, -1, c.news, nil
	}
	return 0, next.Sub(now), c.news, nil
}

// fill moves arrived bytes into b. It is called with mu held.
func (c *conn) fill(b []byte) int {
	n, now := 0, time.Now()
	for len(c.inbox) > 0 && n < len(b) && !now.Before(c.inbox[0].at) {
		k := copy(b[n:], c.inbox[0].data)
		n += k
		if c.inbox[0].data = c.inbox[0].data[k:]; len(c.inbox[0].data) == 0 {
			c.inbox = c.inbox[1:]
		}
	}
	return n
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// Write implements net.Conn. It never blocks.
func (c *conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	closed, reset, dl := c.closed, c.reset, c.dlWrite
	c.mu.Unlock()
	switch {
	case closed:
		return 0, c.fail("write", net.ErrClosed)
	case reset:
		return 0, c.fail("write", syscall.ECONNRESET)
	case !dl.IsZero() && !time.Now().Before(dl):
		return 0, c.fail("write", os.ErrDeadlineExceeded)
	}
	at := c.link.net.arrival(c.host, c.peer.host)
	p := c.peer
	p.mu.Lock()
	defer p.mu.Unlock()
	if cut := c.link.net.holdUp(c.host, p.host); p.closed && !cut {
		return 0, c.fail("write", syscall.EPIPE)
	}
	if k := len(p.inbox); k > 0 && at.Before(p.inbox[k-1].at) {
		at = p.inbox[k-1].at
	}
	p.inbox = append(p.inbox, parcel{at, append([]byte(nil), b...)})
	p.tell()
	return len(b), nil
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return c.fail("close", net.ErrClosed)
	}
	c.closed, c.inbox = true, nil
	c.tell()
	c.mu.Unlock()

	at := c.link.net.arrival(c.host, c.peer.host)
	p := c.peer
	p.mu.Lock()
	if k := len(p.inbox); k > 0 && at.Before(p.inbox[k-1].at) {
		at = p.inbox[k-1].at
	}
	p.ended = at
	p.tell()
	over := p.closed || p.reset
	p.mu.Unlock()
	if over {
		c.link.net.forget(c.link)
	}
	return nil
}

// breakOff resets this end, as a host does that knows nothing of it.
func (c *conn) breakOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset, c.inbox = true, nil
	c.tell()
}

// look makes a reader look again, after the network has changed.
func (c *conn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tell()
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.addr }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.peer.addr }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error { return c.deadlines(&t, &t) }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { return c.deadlines(&t, nil) }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.deadlines(nil, &t) }

func (c *conn) deadlines(read, write *time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.fail("set", net.ErrClosed)
	}
	if read != nil {
		c.dlRead = *read
	}
	if write != nil {
		c.dlWrite = *write
	}
	c.tell()
	return nil
}
