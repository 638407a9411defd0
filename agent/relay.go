package agent

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus"
	"github.com/ganglion-mesh/ganglion/trust"
)

// relayReport hands the report of a host that cannot reach the leader on to it.
// This host has seen the other's certificate, and says so; the leader believes
// that of voters alone.
func (s *server) relayReport(r *http.Request, rep api.Report) (any, error) {
	deaf := api.Errorf(api.CodeNoLeader, "report to %s: it does not lead", s.cfg.Name)
	node := s.raft.node()
	if node == nil || s.hops(r) > 0 {
		return nil, deaf
	}
	st := node.Status()
	if !s.freshVoter(st) || st.LeaderAddr == "" || st.LeaderAddr == s.addr {
		return nil, deaf
	}
	body, err := json.Marshal(rep)
	if err != nil {
		return nil, err
	}
	req, err := s.outgoing(r, body, st.LeaderAddr, 1)
	if err != nil {
		return nil, err
	}
	resp, err := s.links.http.RoundTrip(req)
	if err != nil {
		return nil, deaf
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, api.MaxBody)) //nolint:errcheck // so that the connection is used again
	if resp.StatusCode >= http.StatusMultipleChoices {
		return nil, deaf
	}
	return api.ReportAck{Relayed: true}, nil
}

// onlyFor admits a request that only the named host's own agent may make, by itself
// or through a voter that hands it on, and returns its caller.
func (s *server) onlyFor(r *http.Request, host, what string) (caller, error) {
	c, err := s.callerOf(r)
	if err == nil && !c.isHost(host) && !s.vouched(r, c, host) {
		err = api.Errorf(api.CodeDenied, "%s for host %s: only its own agent may", what, shorten(host))
	}
	return c, err
}

// vouched tells whether a voter hands on what the named host sent it. A voter is
// known by its server in the committed quorum, and by where it calls from: a host
// that is none does not call from a voter's address.
func (s *server) vouched(r *http.Request, c caller, host string) bool {
	node := s.raft.node()
	if node == nil || c.local || c.peer.Role != trust.RoleAgent || c.via != trust.RoleAgent+"/"+host || s.hops(r) != 1 {
		return false
	}
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	id := byName(s.pool.Members())[c.peer.Host].Tags[tagRaftID]
	peers := node.Status().Peers
	i := slices.IndexFunc(peers, func(p consensus.Peer) bool { return p.Voter && p.ID == id })
	if i < 0 {
		return false
	}
	at, _, err := net.SplitHostPort(peers[i].Addr)
	return err == nil && at == from
}
