//go:build linux

package keeper

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
)

// Client speaks to the keeper behind a socket. The zero value is not usable; its
// methods may be called from any goroutine.
type Client struct {
	path string
}

// NewClient returns a client of the keeper that listens at path. It connects
// with each request.
func NewClient(path string) *Client { return &Client{path: path} }

// Listen makes the socket of a keeper that is to be started with it as its
// standard input. Its directory must be open to nobody else. The caller closes
// the file when the keeper has been started; the socket lives as long as that.
func Listen(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var l *net.UnixListener
	err := at(path, func(addr *net.UnixAddr) (err error) {
		l, err = net.ListenUnix("unix", addr)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	return l.File()
}

// at calls f with an address for path. The kernel takes some 100 bytes of name;
// what is longer goes by a descriptor of its directory.
func at(path string, f func(*net.UnixAddr) error) error {
	if len(path) < len(unix.RawSockaddrUnix{}.Path) {
		return f(&net.UnixAddr{Net: "unix", Name: path})
	}
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return f(&net.UnixAddr{Net: "unix", Name: "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path)})
}

// StartError is an exec that failed, and how.
type StartError struct {
	Errno syscall.Errno
	Msg   string
}

func (e *StartError) Error() string { return e.Msg }

func (e *StartError) Unwrap() error { return e.Errno }

// Start gives a new keeper its program and its lease, and returns once the exec
// of start number n has succeeded.
func (c *Client) Start(ctx context.Context, p Program, lease workload.Lease, n int) (Status, error) {
	return c.ask(ctx, request{Op: opStart, Program: &p, Lease: &lease, Start: n})
}

// Extend moves the deadline. An older one than the present, another token or a
// deadline after the end is refused.
func (c *Client) Extend(ctx context.Context, token uint64, deadline time.Duration) (Status, error) {
	return c.ask(ctx, request{Op: opExtend, Token: token, Deadline: deadline})
}

// Stop begins to end the copy for good, by a signal and, after the grace, a kill
// of all of it. It does not wait for the end, which is the keeper's own.
func (c *Client) Stop(ctx context.Context, sig syscall.Signal, grace time.Duration) (Status, error) {
	return c.ask(ctx, request{Op: opStop, Signal: sig, Grace: grace})
}

// Signal signals the copy's first process.
func (c *Client) Signal(ctx context.Context, sig syscall.Signal) (Status, error) {
	return c.ask(ctx, request{Op: opSignal, Signal: sig})
}

// Hold says whether the keeper leaves an end of the copy to the agent to answer.
func (c *Client) Hold(ctx context.Context, hold bool) (Status, error) {
	return c.ask(ctx, request{Op: opHold, Hold: hold})
}

// Status asks how the keeper stands.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return c.ask(ctx, request{Op: opStatus})
}

func (c *Client) dial(ctx context.Context) (conn net.Conn, err error) {
	err = at(c.path, func(addr *net.UnixAddr) error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "unix", addr.Name)
		return err
	})
	return conn, err
}

// ask sends one request and reads its reply.
func (c *Client) ask(ctx context.Context, req request) (Status, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return Status{}, fmt.Errorf("reach keeper: %w", err)
	}
	defer conn.Close()
	defer interrupt(ctx, conn)()
	if err := write(conn, req); err != nil {
		return Status{}, fmt.Errorf("reach keeper: %w", errors.Join(ctx.Err(), err))
	}
	lines := newLines(conn, replyBytes)
	r, err := readReply(lines)
	if err != nil {
		return Status{}, fmt.Errorf("hear keeper: %w", errors.Join(ctx.Err(), err))
	}
	if r.Errno != 0 {
		return r.Status, &StartError{Errno: r.Errno, Msg: r.Err}
	}
	if r.Err != "" {
		return r.Status, errors.New(r.Err)
	}
	return r.Status, nil
}

func readReply(lines *bufio.Scanner) (r reply, err error) {
	if !lines.Scan() {
		if err = lines.Err(); err == nil {
			err = errors.New("it has ended")
		}
		return r, err
	}
	return r, json.Unmarshal(lines.Bytes(), &r)
}

// Watch is a connection on which a keeper tells how it stands. It is used by one
// goroutine.
type Watch struct {
	conn  net.Conn
	lines *bufio.Scanner
	first Status
}

// Watch connects, and returns once the keeper has told how it stands. From then
// on it tells each change, and its end, whether somebody reads yet or not. The
// caller closes it.
func (c *Client) Watch(ctx context.Context) (*Watch, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("watch keeper: %w", err)
	}
	w := &Watch{conn: conn, lines: newLines(conn, replyBytes)}
	inTime := interrupt(ctx, conn)
	err = write(conn, request{Op: opWatch})
	if err == nil {
		w.first, err = w.next()
	}
	if !inTime() {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("watch keeper: %w", err)
	}
	_ = conn.SetDeadline(time.Time{})
	return w, nil
}

// interrupt has reads and writes on conn fail when ctx ends. The function it
// returns ends that, and tells whether ctx has not.
func interrupt(ctx context.Context, conn net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}

// Begin is Start under a watch that was begun before, so that nothing of what
// comes of it can be missed. Lease is asked when the keeper is up: on a busy host
// that takes its time, and the lease is renewed meanwhile. The caller closes the
// watch, which is nil with an error.
func (c *Client) Begin(ctx context.Context, p Program, lease func() workload.Lease, n int) (*Watch, Status, error) {
	w, err := c.Watch(ctx)
	if err != nil {
		return nil, Status{}, err
	}
	st, err := c.Start(ctx, p, lease(), n)
	if err != nil {
		w.Close()
		return nil, st, err
	}
	return w, st, nil
}

// First is how the keeper stood when the watch began.
func (w *Watch) First() Status { return w.first }

// Close ends the watching.
func (w *Watch) Close() { w.conn.Close() }

// Follow calls f with how the keeper stood when the watch began and after each
// change, until the keeper ends, the connection breaks or ctx ends. What lies
// between two changes may be left out if f is slow. If f returns true, the agent
// takes over the restart that the keeper is waiting with.
func (w *Watch) Follow(ctx context.Context, f func(Status) (take bool)) error {
	defer interrupt(ctx, w.conn)()
	for st := w.first; ; {
		if f(st) {
			if err := write(w.conn, request{Op: opTake, Start: st.Start}); err != nil {
				return fmt.Errorf("watch keeper: %w", err)
			}
		}
		var err error
		if st, err = w.next(); err != nil {
			return fmt.Errorf("watch keeper: %w", errors.Join(ctx.Err(), err))
		}
	}
}

func (w *Watch) next() (Status, error) {
	r, err := readReply(w.lines)
	return r.Status, err
}
