package agent

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/gossip"
	"github.com/ganglion-mesh/ganglion/trust"
)

// maxSeeds bounds how many members a joiner is told.
const maxSeeds = 16

// newID makes an id that no two meshes or hosts share.
func newID() string {
	b := make([]byte, 10)
	rand.Read(b) //nolint:errcheck // never fails
	return hex.EncodeToString(b)
}

// found makes the trust of a new mesh and the identity of its first host. The
// state that the first Raft server will hold comes back as commands.
func found(name, host string) (*trust.Identity, []topology.Command, error) {
	meshID := newID()
	authority, err := trust.NewAuthority(meshID, name)
	if err != nil {
		return nil, nil, err
	}
	gossipKey := make([]byte, 32)
	rand.Read(gossipKey) //nolint:errcheck // never fails
	key, err := newJoinKey(host)
	if err != nil {
		return nil, nil, err
	}
	hostID, err := key.hostID()
	if err != nil {
		return nil, nil, err
	}
	cert, err := authority.Sign(key.CSR, host, trust.RoleAgent)
	if err != nil {
		return nil, nil, err
	}
	id, err := trust.NewIdentity(trust.Credentials{
		MeshID: meshID, MeshName: name, Host: host, HostID: hostID, Role: trust.RoleAgent,
		CertPEM: cert, KeyPEM: key.Key, CAPEM: authority.CertPEM, GossipKey: gossipKey,
	})
	if err != nil {
		return nil, nil, err
	}
	return id, []topology.Command{
		{Found: &topology.Found{MeshID: meshID, Name: name, CACert: authority.CertPEM, CAKey: authority.KeyPEM, GossipKey: gossipKey}},
		{EnrolHost: &topology.EnrolHost{Name: host, ID: hostID}},
	}, nil
}

// enrol trades a token for an identity through the first seed that answers. A
// seed that refuses for good ends it; one that cannot be reached does not.
func enrol(ctx context.Context, cfg *Config, key joinKey, seeds []string, token string) (*trust.Identity, []string, error) {
	t, err := trust.ParseToken(token)
	if err != nil {
		return nil, nil, api.Errorf(api.CodeInvalid, "%v", err)
	}
	hostID, err := key.hostID()
	if err != nil {
		return nil, nil, err
	}
	req := trust.JoinRequest{TokenID: t.ID, Secret: t.Secret, Host: cfg.Name, HostID: hostID, CSR: key.CSR}
	var failures []error
	for _, seed := range seeds {
		resp, err := trust.JoinVia(ctx, cfg.network().Dial, withPort(seed, DefaultPorts().Mesh), t, req)
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", seed, err))
			var refused *trust.JoinRefused
			if errors.As(err, &refused) && !refused.Retry || errors.Is(err, trust.ErrOtherMesh) {
				break
			}
			continue
		}
		id, err := trust.NewIdentity(trust.Credentials{
			MeshID: resp.MeshID, MeshName: resp.MeshName, Host: cfg.Name, HostID: req.HostID, Role: resp.Role,
			CertPEM: resp.Cert, KeyPEM: key.Key, CAPEM: resp.CA, GossipKey: resp.GossipKey,
		})
		return id, resp.Seeds, err
	}
	return nil, nil, fmt.Errorf("join mesh as %s: %w", cfg.Name, errors.Join(failures...))
}

// withPort adds the port to an address that names none.
func withPort(addr string, port int) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(strings.Trim(addr, "[]"), strconv.Itoa(port))
}

// serveJoins answers the one door without a client certificate until ctx ends.
func (m *member) serveJoins(ctx context.Context) error {
	l := m.mux.Listener(trust.ALPNJoin)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept join: %w", err)
		}
		m.joins.Go(func() {
			err := trust.ServeJoin(conn.(*tls.Conn), func(req trust.JoinRequest) (trust.JoinResponse, error) {
				return m.admit(ctx, req)
			})
			if err != nil {
				m.log.Warn("a host did not join", "from", conn.RemoteAddr(), "error", err)
			}
		})
	}
}

// admit carries a join request to the leader, over the API as this host.
func (m *member) admit(ctx context.Context, req trust.JoinRequest) (trust.JoinResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var resp trust.JoinResponse
	err := m.links.client(m.addr).Post(ctx, "/v1/enrol", nil, req, &resp)
	if err != nil {
		code := api.CodeOf(err)
		return resp, &trust.JoinRefused{Why: err.Error(), Retry: code == api.CodeNoLeader || code == api.CodeUnknown || code == api.CodeInternal}
	}
	return resp, nil
}

// postEnrol checks a token and makes its bearer a host of the mesh.
func (s *server) postEnrol(r *http.Request, body []byte) (any, error) {
	var req trust.JoinRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	c, err := s.callerOf(r)
	if err != nil {
		return nil, err
	}
	if !c.isAgent() {
		return nil, api.Errorf(api.CodeDenied, "enrol host: only agents carry joins")
	}
	state, err := s.settled(r.Context())
	if err != nil {
		return nil, err
	}
	stored, ok := state.Token(req.TokenID)
	if !ok || !req.Token().Verify(stored.Hash) {
		return nil, api.Errorf(api.CodeDenied, "the token is not known in mesh %s, or was revoked; make one with ganglion token create", state.MeshName())
	}
	// Ids are no secret: without this any bearer of a token could have itself
	// certified as a host that is enrolled.
	if id, err := (joinKey{CSR: req.CSR}).hostID(); err != nil || id != req.HostID {
		return nil, api.Errorf(api.CodeInvalid, "enrol host %s: its id is not that of its key", req.Host)
	}
	if err := s.nameTaken(state, req); err != nil {
		return nil, err
	}
	tr := state.Trust()
	cert, err := (trust.Authority{CertPEM: tr.CACert, KeyPEM: tr.CAKey}).Sign(req.CSR, req.Host, stored.Role)
	if err != nil {
		return nil, api.Errorf(api.CodeInvalid, "%v", err)
	}
	if _, err := s.commit(r, topology.Command{EnrolHost: &topology.EnrolHost{Name: req.Host, ID: req.HostID}}); err != nil {
		return nil, err
	}
	return trust.JoinResponse{
		MeshID: state.MeshID(), MeshName: state.MeshName(), Role: stored.Role,
		Cert: cert, CA: tr.CACert, GossipKey: tr.GossipKey, Seeds: s.gossipSeeds(),
	}, nil
}

// nameTaken refuses a second host of one name with a line that helps.
func (s *server) nameTaken(state *topology.State, req trust.JoinRequest) error {
	h, ok := state.Host(req.Host)
	if !ok || h.ID == req.HostID {
		return nil
	}
	return api.Errorf(api.CodeRejected, "mesh %s has a host named %s already; set another name, or run ganglion leave there first", state.MeshName(), req.Host)
}

// gossipSeeds lists living members for a joiner.
func (s *server) gossipSeeds() []string {
	var out []string
	for _, m := range s.pool.Members() {
		if m.Status == gossip.StatusAlive && len(out) < maxSeeds {
			out = append(out, net.JoinHostPort(m.Addr, strconv.Itoa(m.Port)))
		}
	}
	return out
}

// readToken reads a token file.
func readToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read token_file: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
