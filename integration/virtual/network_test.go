package virtual

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// inNet runs f in a bubble, with a connection from h1 to h2.
func inNet(t *testing.T, f func(t *testing.T, n *Network, c, far net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(1, time.Millisecond)
		l, err := (&port{net: n, host: "h2", ip: "10.0.0.2"}).Listen("10.0.0.2:1")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := (&port{net: n, host: "h1", ip: "10.0.0.1"}).Dial(t.Context(), "10.0.0.2:1")
		if err != nil {
			t.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		f(t, n, c, far)
		c.Close()
		far.Close()
	})
}

func cutAll(string, string) bool { return true }

func read(t *testing.T, c net.Conn, want string) {
	t.Helper()
	buf := make([]byte, len(want))
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != want {
		t.Errorf("read %q, %v; want %q", buf, err, want)
	}
}

func TestConnectionsCarryInOrder(t *testing.T) {
	inNet(t, func(t *testing.T, _ *Network, c, far net.Conn) {
		begun := time.Now()
		for _, s := range []string{"one", "two", "three"} {
			if _, err := c.Write([]byte(s)); err != nil {
				t.Fatal(err)
			}
		}
		read(t, far, "onetwothree")
		if took := time.Since(begun); took < time.Millisecond/2 || took > 2*time.Millisecond {
			t.Errorf("took %s", took)
		}
		c.Close()
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("after the close: %v", err)
		}
		if _, err := far.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write to a closed end: %v", err)
		}
	})
}

func TestDeadlinesHold(t *testing.T) {
	inNet(t, func(t *testing.T, _ *Network, c, far net.Conn) {
		_ = far.SetReadDeadline(time.Now().Add(time.Second))
		begun := time.Now()
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != time.Second {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		_ = far.SetDeadline(time.Time{})
		blocked := make(chan error, 1)
		go func() {
			_, err := far.Read(make([]byte, 1))
			blocked <- err
		}()
		synctest.Wait()
		_ = far.SetDeadline(time.Unix(1, 0)) // wakes who reads already
		if err := <-blocked; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a deadline in the past: %v", err)
		}
		_ = c.SetWriteDeadline(time.Unix(1, 0))
		if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %v", err)
		}
	})
}

func TestACutDelaysAndLosesNothing(t *testing.T) {
	inNet(t, func(t *testing.T, n *Network, c, far net.Conn) {
		n.Cut(cutAll)
		if _, err := c.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
		_ = far.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := far.Read(make([]byte, 9)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read over a cut: %v", err)
		}
		_ = far.SetReadDeadline(time.Time{})
		time.AfterFunc(time.Second, func() { n.Cut(nil) })
		begun := time.Now()
		read(t, far, "late")
		if time.Since(begun) != time.Second {
			t.Errorf("arrived %s after the cut was mended", time.Since(begun))
		}
		if n.Stopped() == 0 {
			t.Error("the cut was not counted")
		}
	})
}

func TestDialTowardsSilenceTakesItsTime(t *testing.T) {
	inNet(t, func(t *testing.T, n *Network, _, _ net.Conn) {
		p := &port{net: n, host: "h1", ip: "10.0.0.1"}
		dial := func(want error, least time.Duration) {
			t.Helper()
			begun := time.Now()
			_, err := p.Dial(context.Background(), "10.0.0.2:1")
			var op *net.OpError
			if !errors.As(err, &op) || op.Op != "dial" || !errors.Is(err, want) || time.Since(begun) != least {
				t.Errorf("%v after %s, want %v after %s", err, time.Since(begun), want, least)
			}
		}
		n.Cut(cutAll)
		dial(os.ErrDeadlineExceeded, dialPatience)
		n.Cut(nil)
		n.setPower("h2", agentOff)
		dial(syscall.ECONNREFUSED, 0)
		n.setPower("h2", powerOff)
		dial(os.ErrDeadlineExceeded, dialPatience)
	})
}

func TestAKilledAgentsPeersAreTold(t *testing.T) {
	inNet(t, func(t *testing.T, n *Network, c, far net.Conn) {
		n.setPower("h2", agentOff)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("its peer: %v", err)
		}
		if _, err := far.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("itself: %v", err)
		}
	})
}

func TestADeadHostsPeersAreNotTold(t *testing.T) {
	inNet(t, func(t *testing.T, n *Network, c, _ net.Conn) {
		n.setPower("h2", powerOff)
		_ = c.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Errorf("write: %v", err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		_ = c.SetReadDeadline(time.Time{})
		n.setPower("h2", powerOn) // it boots, and knows of no connection
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after its boot: %v", err)
		}
	})
}
