package gossiptest

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func TestPackets(t *testing.T) {
	n := NewNetwork(1)
	a, b := n.Transport("a", "10.0.0.1:1"), n.Transport("b", "10.0.0.2:1")
	send := func() int {
		buf := []byte("x")
		for range 100 {
			if _, err := a.WriteTo(buf, "10.0.0.2:1"); err != nil {
				t.Fatal(err)
			}
			buf[0] = 'y' // the network has its own copy
		}
		got := 0
		for {
			select {
			case p := <-b.PacketCh():
				if got == 0 && p.From.String() != "10.0.0.1:1" {
					t.Errorf("from %v", p.From)
				}
				got++
			default:
				return got
			}
		}
	}
	if got := send(); got != 100 {
		t.Errorf("%d arrived", got)
	}
	n.Loss(0.5)
	if got := send(); got < 25 || got > 75 {
		t.Errorf("%d arrived at half loss", got)
	}
	n.Loss(0)
	n.Cut(func(from, to string) bool { return from == "a" })
	if got := send(); got != 0 {
		t.Errorf("%d arrived over a cut", got)
	}
	if _, err := b.WriteTo([]byte("back"), "10.0.0.1:1"); err != nil || string((<-a.PacketCh()).Buf) != "back" {
		t.Errorf("a cut of one direction cut both: %v", err)
	}
	n.Cut(nil)
	for range 1000 { // nobody reads: it must not block
		_, _ = b.WriteTo([]byte("x"), "10.0.0.1:1")
	}
	_ = b.Shutdown()
	if got := send(); got != 0 {
		t.Errorf("%d reached a host that is down", got)
	}
}

func TestStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(1)
		a, b := n.Transport("a", "10.0.0.1:1"), n.Transport("b", "10.0.0.2:1")
		c, err := a.DialTimeout("10.0.0.2:1", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		far := <-b.StreamCh()
		if far.RemoteAddr().String() != "10.0.0.1:1" || c.RemoteAddr().String() != "10.0.0.2:1" {
			t.Errorf("addresses %v and %v", far.RemoteAddr(), c.RemoteAddr())
		}
		go func() { _, _ = c.Write([]byte("hello")) }()
		buf := make([]byte, 9)
		if k, err := far.Read(buf); err != nil || string(buf[:k]) != "hello" {
			t.Errorf("%q, %v", buf[:k], err)
		}

		n.Isolate("b")
		if _, err := c.Write([]byte("lost")); err != nil {
			t.Errorf("a cut is silent, not %v", err)
		}
		_ = far.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := far.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read over a cut: %v", err)
		}
		start := time.Now()
		var op *net.OpError
		if _, err := a.DialTimeout("10.0.0.2:1", 3*time.Second); !errors.As(err, &op) || time.Since(start) != 3*time.Second {
			t.Errorf("dial over a cut: %v after %v", err, time.Since(start))
		}
		n.Cut(nil)
		start = time.Now()
		if _, err := a.DialTimeout("10.0.0.9:1", time.Second); err == nil || time.Since(start) != 0 {
			t.Errorf("dial of nobody: %v after %v", err, time.Since(start))
		}
		for range 100 { // nobody accepts: it must not block
			if _, err = a.DialTimeout("10.0.0.2:1", time.Second); err != nil {
				break
			}
		}
		if err == nil {
			t.Error("a hundred streams wait")
		}
		waiting := n.Transport("c", "10.0.0.3:1")
		c, err = a.DialTimeout("10.0.0.3:1", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		_ = waiting.Shutdown()
		if _, err := c.Write([]byte("hello")); err == nil {
			t.Error("nobody will ever read it, and no error")
		}

		// A restarted host takes its address over; its old end cannot give it away.
		again := n.Transport("b", "10.0.0.2:1")
		_ = b.Shutdown()
		_, _ = a.WriteTo([]byte("x"), "10.0.0.2:1")
		if len(again.PacketCh()) != 1 {
			t.Error("the restarted host is not reached")
		}
	})
}
