package agent

import (
	"net/http"
	"os"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/gossip"
	"github.com/ganglion-mesh/ganglion/trust"
)

// The roles of a host as `hosts` shows them.
const (
	roleLeader = "leader"
	roleVoter  = "voter"
	roleAgent  = "agent"
)

// getMesh answers what the mesh is and who decides in it.
func (s *server) getMesh(r *http.Request, _ []byte) (any, error) {
	state, err := s.settled(r.Context())
	if err != nil {
		return nil, err
	}
	m := api.Mesh{
		ID: state.MeshID(), Name: state.MeshName(), Revision: state.Revision(), Voters: []string{},
		Rebalance: state.Rebalance().String(), ReflexStage: state.ReflexStage().String(),
	}
	for _, p := range s.quorum() {
		if p.Leader {
			m.Leader = p.Name
		}
		if p.Voter {
			m.Voters = append(m.Voters, p.Name)
		}
	}
	m.Frozen = frozenView(s.brake.View())
	m.Signing = meshSigning(state.Signing())
	if d := s.leader.last.Load(); d != nil {
		m.Held, m.Balance = heldWhy(*d), d.Balance
	}
	return m, nil
}

// getPeers lists the Raft side of the mesh.
func (s *server) getPeers(r *http.Request, _ []byte) (any, error) {
	if _, err := s.settled(r.Context()); err != nil {
		return nil, err
	}
	return s.quorum(), nil
}

// quorum lists the Raft servers by the names of their hosts.
func (s *server) quorum() []api.Peer {
	node := s.raft.node()
	if node == nil {
		return []api.Peer{}
	}
	hostOf := map[string]string{}
	for _, m := range s.pool.Members() {
		if id := m.Tags[tagRaftID]; id != "" {
			hostOf[id] = m.Name
		}
	}
	hostOf[node.ServerID()] = s.cfg.Name
	out := []api.Peer{}
	for _, p := range node.Status().Peers {
		name := hostOf[p.ID]
		if name == "" {
			name = p.ID // gossip has forgotten its host
		}
		out = append(out, api.Peer{Name: name, Addr: p.Addr, Voter: p.Voter, Leader: p.Leader, Healthy: p.Healthy})
	}
	return out
}

// heldWhy says why the copies of lost hosts stay where they are, or would.
func heldWhy(d topology.Decision) string {
	switch {
	case d.Held != "":
		return d.Held
	case d.GateShut && d.Calm:
		return "too many hosts looked unhealthy a moment ago: until it has been calm for a while, lost hosts would keep their copies"
	case d.GateShut:
		return "too many hosts look unhealthy to believe it: lost hosts would keep their copies"
	}
	return ""
}

// getHosts lists all hosts of the roster, and those that gossip knows besides.
func (s *server) getHosts(r *http.Request, _ []byte) (any, error) {
	state, err := s.settled(r.Context())
	if err != nil {
		return nil, err
	}
	now := time.Now()
	roles := map[string]string{}
	for _, p := range s.quorum() {
		switch {
		case p.Leader:
			roles[p.Name] = roleLeader
		case p.Voter:
			roles[p.Name] = roleVoter
		}
	}
	members, obs := byName(s.pool.Members()), s.observations(state)
	out := []api.Host{}
	for _, h := range state.Hosts() {
		line := s.hostLine(state, h, members[h.Name], roles[h.Name], now)
		if line.Status == string(gossip.StatusAlive) && doubtful(obs.Hosts[h.Name]) {
			line.Status = statusSuspect
		}
		out = append(out, line)
	}
	return out, nil
}

// statusSuspect is the status of a host that gossip calls alive and that does
// not report to the leader.
const statusSuspect = "suspect"

// copiesOn counts the copies that a host has, or is to have: what runs of jobs
// have left there is none.
func copiesOn(state *topology.State, host string) (n int) {
	for _, p := range state.PlacementsOn(host) {
		if !state.Spent(p) {
			n++
		}
	}
	return n
}

func (s *server) hostLine(state *topology.State, h topology.Host, m gossip.Member, role string, now time.Time) api.Host {
	line := api.Host{
		Name: h.Name, Addr: m.Addr, Status: string(m.Status), Drain: h.Drain, Role: role,
		Labels: map[string]string{}, Copies: copiesOn(state, h.Name), Vitals: s.vitalsOf(h.Name),
	}
	if role == "" {
		line.Role = roleAgent
	}
	for _, a := range state.HeldAddresses() {
		if a.Host == h.Name {
			line.Addresses = append(line.Addresses, api.HostAddress{Address: a.Address, Token: a.Token})
		}
	}
	if m.Name == "" {
		line.Status = string(gossip.StatusFailed)
	}
	r, age, ok := s.obs.last(h.Name, now)
	switch {
	case ok && r.HostID != h.ID:
		line.Note = "another host reports under this name"
	case ok && r.Labels != nil:
		line.Labels = r.Labels
	}
	if h.Removing {
		line.Note = "is being removed: ganglion remove " + h.Name + " goes on, ganglion undrain takes it back"
	}
	if m.Status == gossip.StatusAlive && (!ok || age > missedReport) {
		line.Note = "gossips, but does not report to the leader"
	}
	return line
}

func (s *server) vitalsOf(host string) api.Vitals {
	v, age, ok := s.pool.Vitals(host)
	if !ok {
		return api.Vitals{AgeMS: -1}
	}
	known := func(f float64) float64 { return max(f, 0) }
	return api.Vitals{
		CPU: known(v.CPU), Memory: known(v.Memory), Disk: known(v.Disk), Pressure: known(v.Pressure),
		AgeMS: age.Milliseconds(),
	}
}

// postDrain starts or ends the emptying of a host.
func (s *server) postDrain(r *http.Request, _ []byte) (any, error) {
	set := topology.SetDrain{Host: r.PathValue("host"), Drain: topology.DrainDraining}
	if r.URL.Path == "/v1/hosts/"+set.Host+"/undrain" {
		set.Drain = topology.DrainNone
	}
	return s.drain(r, set)
}

func (s *server) drain(r *http.Request, set topology.SetDrain) (any, error) {
	res, err := s.commit(r, topology.Command{SetDrain: &set})
	return api.ApplyResponse{Revision: res.Revision}, err
}

// postToken makes a join token. The mesh keeps only the hash of its secret.
func (s *server) postToken(r *http.Request, body []byte) (any, error) {
	req := api.TokenRequest{Role: trust.RoleAgent}
	if len(body) > 0 {
		if err := decode(body, &req); err != nil {
			return nil, err
		}
	}
	if req.Role == "" {
		req.Role = trust.RoleAgent
	}
	if req.Role != trust.RoleAgent {
		return nil, api.Errorf(api.CodeNotYet, "create token for role %q: not yet; this version makes tokens for the role %s alone", req.Role, trust.RoleAgent)
	}
	state, err := s.settled(r.Context())
	if err != nil {
		return nil, err
	}
	t, err := trust.NewToken(state.Trust().CACert, req.Role)
	if err != nil {
		return nil, err
	}
	// A key would make a repeat of this request store nothing and print a token
	// that opens no door.
	r.Header.Del(api.HeaderRequest)
	put := topology.PutToken{ID: t.ID, Role: t.Role, Hash: t.Hash()}
	if _, err := s.commit(r, topology.Command{PutToken: &put}); err != nil {
		return nil, err
	}
	return api.Token{Token: t.String(), Role: t.Role}, nil
}

// getVersion tells what this agent is.
func (s *server) getVersion(*http.Request, []byte) (any, error) {
	return api.Version{Version: s.cfg.Version, Host: s.cfg.Name, Mesh: s.meshName(), Driver: s.driverName, Pid: os.Getpid()}, nil
}

// refuseMesh answers init and join on a host that has a mesh.
func (s *server) refuseMesh(*http.Request, []byte) (any, error) {
	return nil, api.Errorf(api.CodeRejected, "host %s is in mesh %s already; run ganglion leave here first", s.cfg.Name, s.meshName())
}
