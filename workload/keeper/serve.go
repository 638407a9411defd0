//go:build linux

package keeper

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// server speaks to agents. It holds no state of the copy: every request goes to
// the keeper's loop as a call, and every change comes from there by publish.
type server struct {
	l     *net.UnixListener
	calls chan call
	conns sync.WaitGroup
	slots chan struct{} // as many as there may be connections

	mu       sync.Mutex
	last     Status
	watchers map[chan Status]bool // each holds the newest status not yet written
}

// call is a request on its way to the loop.
type call struct {
	req   request
	reply chan reply // holds one
}

// newServer takes over the listening socket that the keeper was started with.
func newServer(f *os.File) (*server, error) {
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("standard input is no listening socket: %w; a keeper is started by a driver", err)
	}
	ul, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, errors.New("standard input is no unix socket; a keeper is started by a driver")
	}
	ul.SetUnlinkOnClose(false)
	return &server{
		l: ul, calls: make(chan call), slots: make(chan struct{}, maxConns),
		watchers: map[chan Status]bool{},
	}, nil
}

// serve accepts until close.
func (s *server) serve(end <-chan struct{}) {
	for {
		conn, err := s.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select { // out of descriptors or memory: try again, not at once
			case <-time.After(100 * time.Millisecond):
				continue
			case <-end:
				return
			}
		}
		select {
		case s.slots <- struct{}{}:
			s.conns.Go(func() {
				defer func() { conn.Close(); <-s.slots }()
				s.handle(conn, end)
			})
		default:
			conn.Close()
		}
	}
}

// close ends all connections once what they have to tell is written.
func (s *server) close() {
	s.l.Close()
	s.mu.Lock()
	for w := range s.watchers {
		close(w)
		delete(s.watchers, w)
	}
	s.watchers = nil
	s.mu.Unlock()
	s.conns.Wait()
}

// publish tells watchers how the keeper stands, and never waits for one: who is
// slow misses what is between two looks.
func (s *server) publish(st Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = st
	for w := range s.watchers {
		select {
		case <-w:
		default:
		}
		w <- st
	}
}

// mayControl tells whether the peer is root or runs as the keeper does, which is
// as the agent does. The directory of the socket says the same; this is for the
// case that somebody has opened it.
func mayControl(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || cerr != nil {
		return false
	}
	return cred.Uid == 0 || int(cred.Uid) == os.Geteuid()
}

func (s *server) handle(conn *net.UnixConn, end <-chan struct{}) {
	if !mayControl(conn) {
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(ioTimeout))
	lines := newLines(conn, startBytes)
	req, err := readRequest(lines)
	if err != nil {
		_ = write(conn, reply{Err: err.Error()})
		return
	}
	if req.Op == opWatch {
		s.watch(conn, lines, end)
		return
	}
	if r, ok := s.call(req, end); ok {
		_ = write(conn, r)
	}
}

// call has the loop answer a request, unless the keeper is at its end.
func (s *server) call(req request, end <-chan struct{}) (reply, bool) {
	c := call{req, make(chan reply, 1)}
	select {
	case s.calls <- c:
		return <-c.reply, true
	case <-end:
		s.mu.Lock()
		defer s.mu.Unlock()
		return reply{Status: s.last, Err: "the keeper has ended"}, true
	}
}

// watch writes the status now and at each change, and takes takes.
func (s *server) watch(conn *net.UnixConn, lines *bufio.Scanner, end <-chan struct{}) {
	w := make(chan Status, 1)
	s.mu.Lock()
	w <- s.last
	if s.watchers == nil { // at the end: the last status, and no more
		close(w)
	} else {
		s.watchers[w] = true
	}
	s.mu.Unlock()
	_ = conn.SetReadDeadline(time.Time{})
	gone := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(gone)
		for {
			req, err := readRequest(lines)
			if err != nil {
				return
			}
			if req.Op == opTake {
				s.call(req, end)
			}
		}
	})
	s.tell(conn, w, gone)
	s.mu.Lock()
	delete(s.watchers, w)
	s.mu.Unlock()
	conn.Close()
	reader.Wait()
}

func (s *server) tell(conn *net.UnixConn, w chan Status, gone chan struct{}) {
	for {
		select {
		case st, ok := <-w:
			if !ok || write(conn, reply{Status: st}) != nil {
				return
			}
		case <-gone:
			return
		}
	}
}

func newLines(conn net.Conn, limit int) *bufio.Scanner {
	sc := bufio.NewScanner(conn)
	sc.Buffer(make([]byte, 0, 512), limit)
	return sc
}

func readRequest(lines *bufio.Scanner) (req request, err error) {
	if !lines.Scan() {
		if err = lines.Err(); err == nil {
			err = errors.New("no request")
		}
		return req, err
	}
	// Fields that a younger agent may send are let be: it asks for nothing that
	// an older keeper could not leave out.
	if err := json.Unmarshal(lines.Bytes(), &req); err != nil {
		return req, fmt.Errorf("request: %w", err)
	}
	return req, nil
}

// write writes one line, within a time.
func write(conn net.Conn, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_ = conn.SetWriteDeadline(time.Now().Add(ioTimeout))
	_, err = conn.Write(append(b, '\n'))
	return err
}
