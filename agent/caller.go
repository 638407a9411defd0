package agent

import (
	"crypto/tls"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/trust"
)

// callerLocal names the socket of the agent that handed a request on.
const callerLocal = "local"

// caller is who sent a request: local root through the socket, a host of the
// mesh, or an operator from afar.
type caller struct {
	local bool
	peer  trust.Peer // who is at the other end of the connection
	via   string     // for whom that host handed the request on; empty: for itself
}

// callerOf tells who sent r. Requests on the mesh port have been checked to be
// of this mesh before their first byte was read.
func (s *server) callerOf(r *http.Request) (caller, error) {
	if s.local {
		return caller{local: true}, nil
	}
	if r.TLS == nil {
		return caller{}, api.Errorf(api.CodeDenied, "identify caller: the connection is not encrypted")
	}
	peer, err := trust.PeerOf(*r.TLS)
	if err != nil {
		return caller{}, api.Errorf(api.CodeDenied, "identify caller: %v", err)
	}
	return caller{peer: peer, via: r.Header.Get(api.HeaderCaller)}, nil
}

// isHost tells whether the caller is the agent of the named host, the only one
// that may speak for it.
func (c caller) isHost(name string) bool {
	return c.isAgent() && c.peer.Host == name && (c.via == "" || c.via == roleAgent+"/"+name)
}

// isAgent tells whether the caller is an agent of the mesh, and so is the one it
// speaks for. What a host hands on it does not make its own.
func (c caller) isAgent() bool {
	return !c.local && c.peer.Role == trust.RoleAgent && (c.via == "" || strings.HasPrefix(c.via, trust.RoleAgent+"/"))
}

// handedOn is what HeaderCaller says when the caller's request is handed on: who
// asked the first agent.
func (c caller) handedOn() string {
	switch {
	case c.local:
		return callerLocal
	case c.via != "" && c.peer.Role == trust.RoleAgent:
		return c.via
	}
	return c.peer.Role + "/" + c.peer.Host
}

// authorize refuses hosts that are no longer of the mesh, though their
// certificates are good: those at the other end, and those for whom these hand
// requests on.
func (s *server) authorize(r *http.Request) error {
	c, err := s.callerOf(r)
	if err != nil || c.local {
		return err
	}
	if _, told := s.farewell(r); told {
		return nil
	}
	if why := s.stranger(*r.TLS); why != "" {
		return api.Errorf(api.CodeRemoved, "%s", why)
	}
	if name, ok := strings.CutPrefix(c.via, trust.RoleAgent+"/"); ok {
		if why := s.notEnrolled(name, ""); why != "" {
			return api.Errorf(api.CodeRemoved, "%s", why)
		}
	}
	return nil
}

// stranger tells why the holder of a certificate of this mesh is none of its
// hosts, empty if it is, or if this host cannot know.
func (m *member) stranger(cs tls.ConnectionState) string {
	peer, err := trust.PeerOf(cs)
	if err != nil {
		return err.Error()
	}
	if peer.Role != trust.RoleAgent {
		return ""
	}
	if m.revoked(certID(cs.PeerCertificates[0])) {
		return "host " + peer.Host + " is not in mesh " + m.meshName() + " any more: it left or was removed"
	}
	return m.notEnrolled(peer.Host, certID(cs.PeerCertificates[0]))
}

// revoked tells whether the host of that id was removed, as far as this host has
// heard: any host has.
func (m *member) revoked(id string) bool {
	_, found := slices.BinarySearch(m.slices.slice().Revoked, id)
	return found
}

// revokedPeer refuses to speak with a removed host, which could still pass for a
// voter.
func (m *member) revokedPeer(cs tls.ConnectionState) error {
	if m.revoked(certID(cs.PeerCertificates[0])) {
		return errors.New("the host at that address was removed from the mesh")
	}
	return nil
}

// admitRaft refuses the Raft connections of removed hosts.
func (m *member) admitRaft(cs tls.ConnectionState) error {
	why := m.stranger(cs)
	if why == "" {
		return nil
	}
	m.log.Debug("raft connection refused", "why", why)
	return errors.New(why)
}

// notEnrolled tells why a host, with that id if it is known, is not on the
// roster. Only a Raft server in contact with the leader knows the roster well
// enough: one that catches up must not refuse those it catches up from.
func (m *member) notEnrolled(name, id string) string {
	node := m.raft.node()
	if node == nil || !m.freshVoter(node.Status()) {
		return ""
	}
	state := node.State()
	h, ok := state.Host(name)
	switch {
	case state.MeshID() == "" || name == m.cfg.Name && ok:
		return ""
	case !ok:
		return "host " + name + " is not in mesh " + state.MeshName() + " any more: it left or was removed; run ganglion leave there, then join again"
	case id != "" && id != h.ID:
		return "another host is enrolled as " + name + " in mesh " + state.MeshName() + "; run ganglion leave on this one, then join under another name"
	}
	return ""
}
