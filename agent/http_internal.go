package agent

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// postReport takes a host's report at the leader. Only the host itself may
// report for it.
func (s *server) postReport(r *http.Request, body []byte) (any, error) {
	var rep api.Report
	if err := decode(body, &rep); err != nil {
		return nil, err
	}
	c, err := s.onlyFor(r, rep.Host, "report")
	if err != nil {
		return nil, err
	}
	if c.isHost(rep.Host) {
		rep.HostID = certID(r.TLS.PeerCertificates[0])
	}
	if !s.leader.leading() {
		return s.relayReport(r, rep)
	}
	s.hearFreeze(rep.Freezes)
	rep.Freezes = nil
	s.obs.report(rep, time.Now())
	return api.ReportAck{Freeze: s.brake.Digest(), Freezes: s.freezeNews(rep.Freeze)}, nil
}

// getSlice is the blocking read of a host's slice, served by any voter in
// contact with the leader.
func (s *server) getSlice(r *http.Request, _ []byte) (any, error) {
	host := r.URL.Query().Get("host")
	c, err := s.callerOf(r)
	if err != nil {
		return nil, err
	}
	if !c.isHost(host) {
		return nil, api.Errorf(api.CodeDenied, "read slice of host %s: only its own agent may", host)
	}
	if serve := s.cfg.Seams.Serve; serve != nil {
		if sl, ok := serve(host); ok {
			return sl, nil
		}
	}
	if gone, ok := s.farewell(r); ok {
		return gone, nil
	}
	after, err := markOf(r.URL.Query())
	if err != nil {
		return nil, err
	}
	if r.URL.Query().Get("confirm") == "true" {
		return s.settledSlice(r.Context(), host)
	}
	node := s.raft.node()
	if node == nil || !s.freshVoter(node.Status()) {
		return nil, api.Errorf(api.CodeNoLeader, "read slice at %s: it is not in contact with the leader", s.cfg.Name)
	}
	return s.serveSlice(r.Context(), node, certID(r.TLS.PeerCertificates[0]), host, after)
}

// farewell is what a host that was removed hears when it asks for its slice, from
// any Raft server that knows of it: that is for good, so it may come from one that
// has fallen behind.
func (s *server) farewell(r *http.Request) (topology.Slice, bool) {
	node := s.raft.node()
	if node == nil || r.TLS == nil || r.Method != http.MethodGet || r.URL.Path != "/v1/slice" {
		return topology.Slice{}, false
	}
	sl, ok := node.State().Farewell(certID(r.TLS.PeerCertificates[0]))
	sl.Term = node.Status().Term
	return sl, ok && sl.Host == r.URL.Query().Get("host") && r.Header.Get(api.HeaderCaller) == ""
}

// settledSlice is host's slice at a linearizable point.
func (m *member) settledSlice(ctx context.Context, host string) (topology.Slice, error) {
	state, err := m.settled(ctx)
	node := m.raft.node()
	if err == nil && node == nil { // ended meanwhile
		err = &consensus.NotLeaderError{}
	}
	if err != nil {
		return topology.Slice{}, err
	}
	sl := state.Slice(host)
	sl.Term = node.Term()
	return sl, nil
}

// freshVoter tells whether a Raft server knows the present well enough to serve
// slices.
func (m *member) freshVoter(st consensus.Status) bool {
	return inQuorum(st) && (st.Leader || st.LeaderAddr != "" && st.LastContact < staleVoter)
}

// mark is how far a host has come in what it was told: within an era, indexes
// rise; a later era begins anew, at whatever index.
type mark struct{ era, index uint64 }

func markOf(q url.Values) (mark, error) {
	var m mark
	for name, n := range map[string]*uint64{"era": &m.era, "index": &m.index} {
		var err error
		if *n, err = strconv.ParseUint(q.Get(name), 10, 64); err != nil {
			return m, api.Errorf(api.CodeInvalid, "read slice: %s %q is not a number", name, q.Get(name))
		}
	}
	return m, nil
}

// before tells whether m is less far than n.
func (m mark) before(n mark) bool {
	return m.era < n.era || m.era == n.era && m.index < n.index
}

// serveSlice waits until the slice of host, by name and id, is newer than after,
// or for some time. It never answers with an older one.
func (m *member) serveSlice(ctx context.Context, node *consensus.Node, id, host string, after mark) (topology.Slice, error) {
	timeout := time.NewTimer(sliceWait)
	defer timeout.Stop()
	for {
		moved := node.Leadership()
		st := node.Status()
		state := node.State()
		sl := state.Slice(host)
		if gone, ok := state.Farewell(id); ok {
			sl = gone
		}
		sl.Term = st.Term
		at := mark{sl.Era, sl.Index}
		if sl.Index > 0 && after.before(at) { // 0: the host is not on the roster, or not yet
			return sl, nil
		}
		if !m.freshVoter(st) {
			return sl, api.Errorf(api.CodeNoLeader, "read slice at %s: it lost contact with the leader", m.cfg.Name)
		}
		select {
		case <-ctx.Done():
			return sl, ctx.Err()
		case <-timeout.C:
			if at.before(after) || !m.freshVoter(node.Status()) {
				return sl, api.Errorf(api.CodeNoLeader, "read slice at %s: it has fallen behind", m.cfg.Name)
			}
			return sl, nil
		case <-node.Changed(state.Revision()):
		case <-moved:
		}
	}
}

// postVoter starts or ends this host's Raft server at the leader's wish.
func (s *server) postVoter(r *http.Request, body []byte) (any, error) {
	var req api.VoterRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	c, err := s.callerOf(r)
	if err != nil {
		return nil, err
	}
	if !c.isAgent() {
		return nil, api.Errorf(api.CodeDenied, "start or end a raft server: only the leader may")
	}
	if !req.Run {
		return nil, s.raft.end(r.Context(), req.Term)
	}
	if s.cfg.Voter == "never" {
		return nil, api.Errorf(api.CodeRejected, "start raft server: voter is set to never on host %s", s.cfg.Name)
	}
	_, err = s.raft.open()
	return nil, err
}
