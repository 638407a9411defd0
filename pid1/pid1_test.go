package pid1

import (
	"bytes"
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Real systemd is greeted in the tests of who uses this; here is what else may listen.
func TestWhatIsNotPID1(t *testing.T) {
	if _, err := Dial(t.Context(), filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "connect to PID 1") || !errors.Is(err, unix.ENOENT) {
		t.Errorf("nobody listens: %v", err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			c.Close()
		}
	}()
	if _, err := Dial(t.Context(), socket); err == nil || !strings.Contains(err.Error(), "connect to PID 1") {
		t.Errorf("one that hangs up: %v", err)
	}
}

// One that lets us in and says nothing is given up when ctx ends.
func TestSilentPID1(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	again := make(chan struct{})
	twice := sync.OnceFunc(func() { close(again) })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 4096)
		for _, answer := range []string{"REJECTED EXTERNAL\r\n", "OK 0123456789abcdef0123456789abcdef\r\n", "AGREE_UNIX_FD\r\n"} {
			if _, err := c.Read(buf); err != nil {
				return
			}
			if _, err := c.Write([]byte(answer)); err != nil {
				return
			}
		}
		var heard []byte
		for n, err := c.Read(buf); err == nil; n, err = c.Read(buf) {
			if heard = append(heard, buf[:n]...); bytes.Count(heard, []byte("Ping")) == 2 {
				twice()
			}
		}
	}()
	conn, err := Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-again
		cancel()
	}()
	if err := conn.Greet(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("greeted: %v", err)
	}
}
