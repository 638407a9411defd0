package consensus

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// link is the transport that raft gets: the one below it, with the server's
// own address, and with a look at every answer of a follower.
//
// It never pipelines: a pipeline can wedge after a follower's disk stalls, and
// buys nothing on a LAN.
type link struct {
	raft.Transport
	preVote  raft.WithPreVote
	local    raft.ServerAddress
	route    func(raft.ServerID, raft.ServerAddress) raft.ServerAddress
	progress *progress
	beat     time.Duration // a follower hears from its leader at least so often
	closed   atomic.Bool
}

var (
	_ raft.WithPreVote = (*link)(nil)
	_ raft.WithClose   = (*link)(nil)
)

// identified is implemented by in-memory transports that check, like the
// streams do, that a call reaches the server it is meant for.
type identified interface{ Identify(raft.ServerID) }

// newLink builds the transport. A network transport starts to accept at once.
func (n *Node) newLink() (*link, error) {
	l := &link{local: raft.ServerAddress(n.cfg.Addr), progress: n.progress, route: n.resolve, beat: n.cfg.beat()}
	if n.cfg.Transport != nil {
		l.Transport = n.cfg.Transport
		if t, ok := n.cfg.Transport.(identified); ok {
			t.Identify(raft.ServerID(n.id))
		}
	} else {
		l.route = func(id raft.ServerID, addr raft.ServerAddress) raft.ServerAddress {
			return raft.ServerAddress(string(id) + targetMark + string(n.resolve(id, addr)))
		}
		l.Transport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream:          &streams{StreamLayer: n.cfg.Streams, self: n.id},
			MaxPool:         connectionsPooled,
			MaxRPCsInFlight: 1,
			Timeout:         ioTimeout,
			Logger:          newRaftLogger(n.log),
		})
	}
	var ok bool
	if l.preVote, ok = l.Transport.(raft.WithPreVote); !ok {
		return nil, errors.New("run consensus: the transport has no pre-vote, and a returning server would depose leaders")
	}
	return l, nil
}

// resolve prefers what the caller knows of a server's address.
func (n *Node) resolve(id raft.ServerID, addr raft.ServerAddress) raft.ServerAddress {
	if n.cfg.Resolve == nil {
		return addr
	}
	if known, ok := n.cfg.Resolve(string(id)); ok && known != "" {
		return raft.ServerAddress(known)
	}
	return addr
}

// LocalAddr is the address by which others reach this server, not the one it
// listens on.
func (l *link) LocalAddr() raft.ServerAddress { return l.local }

// AppendEntriesPipeline says no.
func (l *link) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries replicates or heartbeats, and notes the answer.
func (l *link) AppendEntries(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if l.closed.Load() {
		return raft.ErrTransportShutdown
	}
	if heartbeat(req) {
		l.pace(id)
	}
	err := l.Transport.AppendEntries(id, l.route(id, to), req, resp)
	if err == nil {
		l.progress.heard(id, req, resp)
	}
	return err
}

// heartbeat tells the beats that raft sends beside its replication.
func heartbeat(req *raft.AppendEntriesRequest) bool {
	return len(req.Entries) == 0 && req.PrevLogEntry == 0 && req.PrevLogTerm == 0 && req.LeaderCommitIndex == 0
}

// pace holds a heartbeat back while the follower has just answered anything at
// all: raft beats up to ten times in a follower's timeout, whatever else it
// sends, and beats are most of what an idle leader does.
func (l *link) pace(id raft.ServerID) {
	for !l.closed.Load() {
		wait := l.beat - l.progress.silence(id)
		if wait <= 0 {
			return
		}
		time.Sleep(wait) //nolint:forbidigo // holding back is its purpose; it ends by itself within a beat
	}
}

// InstallSnapshot sends a snapshot, and notes the answer.
func (l *link) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	err := l.Transport.InstallSnapshot(id, l.route(id, to), req, resp, data)
	if err == nil && resp.Success {
		l.progress.matched(id, req.Term, req.LastLogIndex)
	}
	return err
}

// RequestVote asks for a vote.
func (l *link) RequestVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return l.Transport.RequestVote(id, l.route(id, to), req, resp)
}

// RequestPreVote asks whether a vote would be given.
func (l *link) RequestPreVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return l.preVote.RequestPreVote(id, l.route(id, to), req, resp)
}

// TimeoutNow hands leadership over.
func (l *link) TimeoutNow(id raft.ServerID, to raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return l.Transport.TimeoutNow(id, l.route(id, to), req, resp)
}

// Close closes the transport below. From then on nothing is appended or
// heartbeaten: raft's own transport would go on to dial, and a leader whose
// loop hangs would go on to beat.
func (l *link) Close() error {
	l.closed.Store(true)
	if s, ok := l.Transport.(interface{ CloseStreams() }); ok {
		s.CloseStreams()
	}
	if c, ok := l.Transport.(raft.WithClose); ok {
		return c.Close()
	}
	return nil
}

// targetMark separates, in the addresses that raft's network transport sees,
// the id of the server that is meant from where it is reached.
const targetMark = "@"

// streams opens every connection with the id of the server that is meant, and
// refuses those meant for another. Raft itself sends by address alone: a host
// that came back empty at its old address would be taken for the server it
// was, and could vote away entries that this one had acknowledged.
type streams struct {
	StreamLayer
	self string

	mu     sync.Mutex
	open   map[*stream]bool
	closed bool
}

// stream is an open connection.
type stream struct {
	net.Conn
	of *streams
}

// Close closes the connection and forgets it.
func (c *stream) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// keep makes conn one that Close closes.
func (s *streams) keep(conn net.Conn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	c := &stream{conn, s}
	if s.open == nil {
		s.open = map[*stream]bool{}
	}
	s.open[c] = true
	return c, nil
}

// Close ends everything that is under way. Raft waits for its calls before it
// closes anything, and a call to a server that is silent takes ten seconds.
func (s *streams) Close() error {
	s.mu.Lock()
	s.closed = true
	open := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	err := s.StreamLayer.Close()
	for _, c := range open {
		err = errors.Join(err, c.Close())
	}
	return err
}

// Accept returns the next connection; it is checked by its first read, in the
// goroutine that serves it.
func (s *streams) Accept() (net.Conn, error) {
	conn, err := s.StreamLayer.Accept()
	if err != nil {
		return nil, err
	}
	if conn, err = s.keep(conn); err != nil {
		return nil, err
	}
	return &addressed{Conn: conn, self: s.self}, nil
}

// Dial connects to "id@host:port".
func (s *streams) Dial(target raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, addr, ok := strings.Cut(string(target), targetMark)
	if !ok {
		return nil, fmt.Errorf("dial server: %q names no server", target)
	}
	conn, err := s.StreamLayer.Dial(addr, timeout)
	if err == nil {
		conn, err = s.keep(conn)
	}
	if err != nil {
		return nil, err
	}
	err = conn.SetWriteDeadline(time.Now().Add(timeout))
	if err == nil {
		_, err = io.WriteString(conn, id)
	}
	if err = errors.Join(err, conn.SetWriteDeadline(time.Time{})); err != nil {
		return nil, errors.Join(fmt.Errorf("dial server: %w", err), conn.Close())
	}
	return conn, nil
}

// addressed is an accepted connection whose first bytes are the id of the
// server that is meant.
type addressed struct {
	net.Conn
	self string
	once sync.Once
	err  error
}

// Read checks the address before it returns anything.
func (a *addressed) Read(p []byte) (int, error) {
	a.once.Do(func() { a.err = a.check() })
	if a.err != nil {
		return 0, a.err
	}
	return a.Conn.Read(p)
}

func (a *addressed) check() error {
	meant := make([]byte, len(a.self))
	err := a.SetReadDeadline(time.Now().Add(ioTimeout))
	if err == nil {
		_, err = io.ReadFull(a.Conn, meant)
	}
	if err != nil {
		return fmt.Errorf("accept server: %w", err)
	}
	if string(meant) != a.self {
		return errors.Join(errors.New("accept server: the call is meant for another server"), a.Close())
	}
	return a.SetReadDeadline(time.Time{})
}
