// Package consensustest holds what tests need to run whole quorums in one
// process and in virtual time: a network with cuts, and a store with faults.
// Nothing here opens a socket or a file, so all of it works inside a
// testing/synctest bubble.
package consensustest

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// callTimeout is how long a call may take, as on a real network: what is
// unreachable does not say so.
const callTimeout = 500 * time.Millisecond

// snapshotTimeout is the same for a snapshot.
const snapshotTimeout = 10 * time.Second

// Network connects transports by address. Links can be cut in one direction
// or both. The zero value is not usable: call NewNetwork.
type Network struct {
	mu    sync.Mutex
	ends  map[raft.ServerAddress]*Transport
	cut   map[[2]raft.ServerAddress]bool
	calls int
}

// NewNetwork makes a network without servers.
func NewNetwork() *Network {
	return &Network{ends: map[raft.ServerAddress]*Transport{}, cut: map[[2]raft.ServerAddress]bool{}}
}

// Transport makes the transport of the server at addr, for
// consensus.Config.Transport. A second one at the same address takes the place
// of the first, as after a restart.
func (n *Network) Transport(addr string) *Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := &Transport{net: n, addr: raft.ServerAddress(addr), rpcs: make(chan raft.RPC), closed: make(chan struct{})}
	n.ends[t.addr] = t
	return t
}

// CutOneWay stops what from sends to to: calls, and answers to to's calls.
func (n *Network) CutOneWay(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]raft.ServerAddress{raft.ServerAddress(from), raft.ServerAddress(to)}] = true
}

// Isolate cuts addr off from everyone, in both directions.
func (n *Network) Isolate(addr string) {
	for _, other := range n.addrs() {
		if other != addr {
			n.CutOneWay(addr, other)
			n.CutOneWay(other, addr)
		}
	}
}

// Heal mends all links.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
}

// Calls is how many calls have been made, to tell whether a test did anything.
func (n *Network) Calls() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls
}

func (n *Network) addrs() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for a := range n.ends {
		out = append(out, string(a))
	}
	slices.Sort(out)
	return out
}

// passes says whether a message gets from one to the other now.
func (n *Network) passes(from, to raft.ServerAddress) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.cut[[2]raft.ServerAddress{from, to}]
}

func (n *Network) find(addr raft.ServerAddress) *Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls++
	return n.ends[addr]
}

// Transport is one server's end of a Network.
type Transport struct {
	net    *Network
	addr   raft.ServerAddress
	rpcs   chan raft.RPC
	once   sync.Once
	closed chan struct{}

	mu        sync.Mutex
	id        raft.ServerID
	heartbeat func(raft.RPC)
}

var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
)

// Identify tells whose transport this is; calls meant for another server at
// the same address are refused from then on.
func (t *Transport) Identify(id raft.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.id = id
}

// Consumer is where raft takes calls from.
func (t *Transport) Consumer() <-chan raft.RPC { return t.rpcs }

// LocalAddr is the address.
func (t *Transport) LocalAddr() raft.ServerAddress { return t.addr }

// SetHeartbeatHandler sets what answers heartbeats beside the main loop.
func (t *Transport) SetHeartbeatHandler(h func(raft.RPC)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heartbeat = h
}

// Close ends it: calls to and from it fail.
func (t *Transport) Close() error {
	t.once.Do(func() { close(t.closed) })
	return nil
}

// EncodePeer is the address as bytes.
func (t *Transport) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// DecodePeer undoes EncodePeer.
func (t *Transport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// AppendEntriesPipeline is not supported.
func (t *Transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries replicates; entries are copied, as a wire would.
func (t *Transport) AppendEntries(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	sent := *req
	sent.Entries = make([]*raft.Log, len(req.Entries))
	for i, e := range req.Entries {
		entry := *e
		sent.Entries[i] = &entry
	}
	return call(t, id, to, &sent, resp, nil)
}

// RequestVote asks for a vote.
func (t *Transport) RequestVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	sent := *req
	return call(t, id, to, &sent, resp, nil)
}

// RequestPreVote asks whether a vote would be given.
func (t *Transport) RequestPreVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	sent := *req
	return call(t, id, to, &sent, resp, nil)
}

// InstallSnapshot sends a snapshot.
func (t *Transport) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	sent := *req
	return call(t, id, to, &sent, resp, data)
}

// TimeoutNow hands leadership over.
func (t *Transport) TimeoutNow(id raft.ServerID, to raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	sent := *req
	return call(t, id, to, &sent, resp, nil)
}

// call makes one call. The answer travels back over the link as it is then.
func call[R any](t *Transport, id raft.ServerID, to raft.ServerAddress, req any, resp *R, data io.Reader) error {
	select {
	case <-t.closed:
		return raft.ErrTransportShutdown
	default:
	}
	limit := callTimeout
	if data != nil {
		limit = snapshotTimeout
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()

	peer := t.net.find(to)
	if peer == nil {
		return fmt.Errorf("call %s: nobody is there", to)
	}
	answer := make(chan raft.RPCResponse, 1)
	if t.net.passes(t.addr, to) {
		if err := peer.serve(raft.RPC{Command: req, Reader: data, RespChan: answer}, id, timer, t.closed); err != nil {
			return fmt.Errorf("call %s: %w", to, err)
		}
	}
	select {
	case r := <-answer:
		if !t.net.passes(to, t.addr) {
			<-timer.C // lost on the way back
			return fmt.Errorf("call %s: %w", to, errTimeout)
		}
		if r.Error != nil {
			return r.Error
		}
		*resp = *r.Response.(*R)
		return nil
	case <-t.closed:
		return raft.ErrTransportShutdown
	case <-timer.C:
		return fmt.Errorf("call %s: %w", to, errTimeout)
	}
}

var errTimeout = errors.New("timed out")

// serve hands a call to raft: heartbeats beside the main loop, as the network
// transport does, so that a hung disk keeps a leader's heart beating here too.
func (t *Transport) serve(rpc raft.RPC, meant raft.ServerID, timer *time.Timer, callerGone <-chan struct{}) error {
	t.mu.Lock()
	id, heartbeat := t.id, t.heartbeat
	t.mu.Unlock()
	if id != "" && id != meant {
		return fmt.Errorf("it is %s, not %s", id, meant)
	}
	select {
	case <-t.closed:
		return errors.New("connection refused")
	default:
	}
	if heartbeat != nil && isHeartbeat(rpc.Command) {
		go heartbeat(rpc) // ends with its answer: RespChan has room
		return nil
	}
	select {
	case t.rpcs <- rpc:
		return nil
	case <-t.closed:
		return errors.New("connection reset")
	case <-callerGone:
		return raft.ErrTransportShutdown
	case <-timer.C:
		return errTimeout
	}
}

func isHeartbeat(cmd any) bool {
	req, ok := cmd.(*raft.AppendEntriesRequest)
	return ok && req.Term != 0 && req.PrevLogEntry == 0 && req.PrevLogTerm == 0 && len(req.Entries) == 0 && req.LeaderCommitIndex == 0
}
