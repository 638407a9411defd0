package agent

import (
	"context"
	"net/http"
	"os"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/pause"
	"github.com/ganglion-mesh/ganglion/trust"
)

// localAPI is the API on the socket: that of the mesh this host is in, or the
// few things that can be done without one.
func (a *Agent) localAPI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/version", a.outside(a.getVersion))
	mux.HandleFunc("POST /v1/init", a.outside(a.postInit))
	mux.HandleFunc("POST /v1/join", a.outside(a.postJoin))
	mux.HandleFunc("/", a.outside(func(*http.Request, []byte) (any, error) {
		if a.known != nil {
			return nil, api.Errorf(api.CodeNoLeader, "the agent of this host (%s) is ending: nothing was done; ask again when it runs", a.cfg.Name)
		}
		return nil, api.Errorf(api.CodeNoMesh, "this host (%s) has no mesh yet: create one with ganglion init, or join one with ganglion join SEED --token T", a.cfg.Name)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := a.server.Load()
		if _, own := mux.Handler(r); s == nil && own == "/" && a.known != nil {
			select { // it has a mesh: in a moment it can say what it is asked
			case <-a.lives:
			case <-r.Context().Done():
			}
			s = a.server.Load()
		}
		if s != nil {
			s.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// outside serves a request of a host without a mesh.
func (a *Agent) outside(h answer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.HeaderHost, a.cfg.Name)
		body, err := readBody(r)
		var v any
		if err == nil {
			v, err = h(r, body)
		}
		if err != nil {
			api.WriteError(w, apiError(err))
			return
		}
		api.WriteJSON(w, http.StatusOK, v)
	}
}

func (a *Agent) getVersion(*http.Request, []byte) (any, error) {
	return api.Version{Version: a.cfg.Version, Host: a.cfg.Name, Driver: a.driver.name, Pid: os.Getpid()}, nil
}

// postInit creates a mesh with this host as its first voter, and a token for
// the next.
func (a *Agent) postInit(r *http.Request, body []byte) (any, error) {
	var req api.InitRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	if req.Name == "" {
		req.Name = a.cfg.MeshName
	}
	if !nameRE.MatchString(req.Name) {
		return nil, api.Errorf(api.CodeInvalid, "create mesh %q: want 1 to 63 of a-z, 0-9 and -, not starting with -", shorten(req.Name))
	}
	done := make(chan error, 1)
	id, err := a.found(req.Name, done)
	if err != nil {
		return nil, err
	}
	s, err := a.become(r.Context(), done)
	if err != nil {
		return nil, err
	}
	token, err := s.firstToken(r.Context())
	if err != nil {
		return nil, err
	}
	return api.InitResponse{MeshID: id.Peer().MeshID, Name: req.Name, Seed: s.addr, Token: token}, nil
}

// postJoin enrols this host.
func (a *Agent) postJoin(r *http.Request, body []byte) (any, error) {
	var req api.JoinRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	if len(req.Seeds) == 0 {
		return nil, api.Errorf(api.CodeInvalid, "join: no seed was named; want ganglion join HOST[:PORT] --token T")
	}
	ctx, cancel := context.WithTimeout(r.Context(), joinPatience)
	defer cancel()
	done := make(chan error, 1)
	id, err := a.join(ctx, req.Seeds, req.Token, done)
	if err != nil {
		return nil, err
	}
	s, err := a.become(r.Context(), done)
	if err != nil {
		return nil, err
	}
	return api.JoinResponse{MeshID: id.Peer().MeshID, Name: s.meshName(), Host: a.cfg.Name}, nil
}

// joinPatience bounds one join by hand. (With seeds in the configuration it is
// tried for ever.)
const joinPatience = 30 * time.Second

// become waits until the identity that was handed to the agent's life has made
// this host a member.
func (a *Agent) become(ctx context.Context, done <-chan error) (*server, error) {
	select {
	case err := <-done:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for {
		if s := a.server.Load(); s != nil {
			return s, nil
		}
		if !pause.For(ctx, 5*time.Millisecond) {
			return nil, ctx.Err()
		}
	}
}

// firstToken makes the token that init prints, once the new mesh can commit.
func (s *server) firstToken(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		node := s.raft.node()
		if node != nil && s.leader.leading() {
			if _, enrolled := node.State().Host(s.cfg.Name); enrolled {
				break
			}
		}
		if !pause.For(ctx, 20*time.Millisecond) {
			return "", api.Errorf(api.CodeUnknown, "create mesh: the first voter has not elected itself in time; look with ganglion mesh")
		}
	}
	t, err := trust.NewToken(s.id.Credentials().CAPEM, trust.RoleAgent)
	if err != nil {
		return "", err
	}
	put := topology.PutToken{ID: t.ID, Role: t.Role, Hash: t.Hash()}
	node := s.raft.node()
	if node == nil {
		return "", &consensus.NotLeaderError{}
	}
	res, err := node.Apply(ctx, topology.Command{PutToken: &put})
	if err == nil && res.Err != nil {
		err = res.Err
	}
	return t.String(), err
}
