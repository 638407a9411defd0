package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus"
	"github.com/ganglion-mesh/ganglion/trust"
)

const (
	// leaderPatience is how long a request waits for a leader before it is
	// answered with no_leader: longer than an election takes.
	leaderPatience = 12 * time.Second
	// maxHops bounds how often a request is handed on: agent to a Raft server,
	// that one to the leader, and once more if leadership moved meanwhile.
	maxHops = 3
)

// answer is what a handler returns: a value to send as JSON.
type answer func(r *http.Request, body []byte) (any, error)

// server is the API of a member, on the mesh port or on the socket.
type server struct {
	*member
	local bool // on the socket: who can open it is root, or as good
	mux   *http.ServeMux
}

func newServer(m *member, local bool) *server {
	s := &server{member: m, local: local, mux: http.NewServeMux()}
	s.routes()
	return s
}

func (s *server) routes() {
	s.mux.HandleFunc("GET /v1/mesh", s.atLeader(s.getMesh))
	s.mux.HandleFunc("POST /v1/mesh", s.atLeader(s.postMesh))
	s.mux.HandleFunc("GET /v1/hosts", s.atLeader(s.getHosts))
	s.mux.HandleFunc("GET /v1/peers", s.atLeader(s.getPeers))
	s.mux.HandleFunc("GET /v1/status", s.atLeader(s.getStatus))
	s.mux.HandleFunc("GET /v1/endpoints/{app}", s.atLeader(s.getEndpoints))
	s.mux.HandleFunc("POST /v1/apply", s.atLeader(s.postApply))
	s.mux.HandleFunc("POST /v1/plan", s.atLeader(s.postPlan))
	s.mux.HandleFunc("DELETE /v1/apps/{app}", s.atLeader(s.deleteApp))
	s.mux.HandleFunc("GET /v1/reflexes", s.atLeader(s.getReflexes))
	s.mux.HandleFunc("DELETE /v1/reflexes/{name}", s.atLeader(s.deleteReflex))
	s.mux.HandleFunc("GET /v1/apps/{app}/history", s.atLeader(s.getHistory))
	s.mux.HandleFunc("POST /v1/apps/{app}/rollback", s.atLeader(s.postRollback))
	s.mux.HandleFunc("POST /v1/apps/{app}/{verb}", s.atLeader(s.postAppVerb))
	s.mux.HandleFunc("POST /v1/hosts/{host}/drain", s.atLeader(s.postDrain))
	s.mux.HandleFunc("POST /v1/hosts/{host}/undrain", s.atLeader(s.postDrain))
	s.mux.HandleFunc("POST /v1/hosts/{host}/remove", s.atLeader(s.postRemove))
	s.mux.HandleFunc("POST /v1/hosts/{host}/retire", s.here(s.postRetire))
	s.mux.HandleFunc("GET /v1/snapshot", s.atLeader(s.getSnapshot))
	s.mux.HandleFunc("GET /v1/snapshot/keys", s.here(s.getKeys))
	s.mux.HandleFunc("POST /v1/restore", s.atLeader(s.postRestore))
	s.mux.HandleFunc("POST /v1/thaw", s.atLeader(s.postThaw))
	s.mux.HandleFunc("POST /v1/tokens", s.atLeader(s.postToken))
	s.mux.HandleFunc("POST /v1/enrol", s.atLeader(s.postEnrol))

	s.mux.HandleFunc("POST /v1/init", s.here(s.refuseMesh))
	s.mux.HandleFunc("POST /v1/join", s.here(s.refuseMesh))
	s.mux.HandleFunc("GET /v1/version", s.here(s.getVersion))
	s.mux.HandleFunc("GET /v1/nats", s.here(s.getNATS))
	s.mux.HandleFunc("POST /v1/leave", s.here(s.postLeave))
	s.mux.HandleFunc("GET /v1/local/status", s.here(s.getLocalStatus))
	s.mux.HandleFunc("POST /v1/freeze", s.here(s.postFreeze))
	s.mux.HandleFunc("GET /v1/local/freeze", s.here(s.getLocalFreeze))
	s.mux.HandleFunc("POST /v1/local/apps/{app}/{verb}", s.here(s.postLocalVerb))

	s.mux.HandleFunc("DELETE /v1/senses/{name}", s.atLeader(s.deleteSense))
	s.mux.HandleFunc("GET /v1/local/reflexes", s.here(s.getLocalReflexes))
	s.mux.HandleFunc("GET /v1/local/reflexes/vars", s.here(s.getLocalVars))

	s.mux.HandleFunc("GET /v1/events", s.getEvents)
	s.mux.HandleFunc("GET /v1/local/events", s.getLocalEvents)
	s.mux.HandleFunc("GET /v1/logs/{app}", s.getLogs)
	s.mux.HandleFunc("GET /v1/local/logs/{app}/{n}", s.getLocalLogs)

	s.mux.HandleFunc("GET /v1/artifacts", s.atLeader(s.getArtifacts))
	s.mux.HandleFunc("PUT /v1/artifacts/{digest}", s.putArtifact)
	s.mux.HandleFunc("GET /v1/artifacts/{digest}", s.getArtifact)
	s.mux.HandleFunc("DELETE /v1/artifacts/{digest}", s.atLeader(s.deleteArtifact))
	s.mux.HandleFunc("POST /v1/artifacts/{digest}/spread", s.here(s.postSpread))
	s.mux.HandleFunc("POST /v1/artifacts/{digest}/signatures", s.atLeader(s.postSignature))
	s.mux.HandleFunc("GET /v1/signing", s.atLeader(s.getSigning))
	s.mux.HandleFunc("POST /v1/signing", s.atLeader(s.governed(s.postSigning)))
	s.mux.HandleFunc("POST /v1/signing/keys", s.atLeader(s.governed(s.postSigningKey)))
	s.mux.HandleFunc("DELETE /v1/signing/keys/{name}", s.atLeader(s.governed(s.deleteSigningKey)))
	s.mux.HandleFunc("GET /v1/local/artifacts", s.here(s.getLocalArtifacts))
	s.mux.HandleFunc("GET /v1/local/artifacts/{digest}", s.here(s.getLocalArtifact))
	s.mux.HandleFunc("DELETE /v1/local/artifacts/{digest}", s.here(s.deleteLocalArtifact))
	s.mux.HandleFunc("POST /v1/local/artifacts/{digest}/fetch", s.here(s.postFetch))

	s.mux.HandleFunc("POST /v1/report", s.here(s.postReport))
	s.mux.HandleFunc("POST /v1/lease", s.atLeader(s.postLease))
	s.mux.HandleFunc("POST /v1/loan", s.atLeader(s.postLoan))
	s.mux.HandleFunc("POST /v1/act", s.atLeader(s.postAct))
	s.mux.HandleFunc("GET /v1/slice", s.here(s.getSlice))
	s.mux.HandleFunc("POST /v1/voter", s.here(s.postVoter))
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(api.HeaderHost, s.cfg.Name)
	if err := s.authorize(r); err != nil {
		api.WriteError(w, err)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// here serves a request that any agent answers by itself.
func (s *server) here(h answer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := readBody(r)
		if err != nil {
			api.WriteError(w, err)
			return
		}
		v, err := h(r, body)
		s.respond(w, r, v, err)
	}
}

// atLeader serves a request at the leader, wherever that is: here if this host
// leads, else handed on. It waits for an election to end. A request that a
// leader has begun to execute is never repeated.
func (s *server) atLeader(h answer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := readBody(r)
		if err != nil {
			api.WriteError(w, err)
			return
		}
		hops := s.hops(r)
		ctx, cancel := context.WithTimeout(r.Context(), leaderPatience)
		defer cancel()
		for {
			if done := s.tryLeader(w, r, body, hops, h); done {
				return
			}
			if hops > 0 { // who handed it on waits, and may know better whom to ask
				cancel()
			}
			select {
			case <-ctx.Done():
				api.WriteError(w, s.noLeader())
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

// tryLeader answers r if a leader can be reached now.
func (s *server) tryLeader(w http.ResponseWriter, r *http.Request, body []byte, hops int, h answer) bool {
	if node := s.raft.node(); node != nil && node.Status().Leader {
		v, err := h(r, body)
		var moved *consensus.NotLeaderError
		if errors.As(err, &moved) {
			return false // nothing was proposed: look for the new leader
		}
		s.respond(w, r, v, err)
		return true
	}
	if hops >= maxHops {
		api.WriteError(w, s.noLeader())
		return true
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	answered := func() {}
	if repeatable(r) {
		answered = s.whenElected(cancel) // before it is looked whom to ask
		defer answered()
	}
	addrs := s.leaderAddrs()
	if hops == 0 { // the leader may be cut off from this host alone: others hand on
		addrs = s.sliceAddrs()
	}
	for _, addr := range addrs {
		if ctx.Err() != nil {
			return false // another leads: it is asked first
		}
		resp, err := s.ask(ctx, r, body, addr, hops+1)
		if err != nil {
			api.WriteError(w, err)
			return true
		}
		if resp != nil {
			answered()
			passBack(w, resp)
			return true
		}
	}
	return false
}

// hops is how often r was handed on, by agents.
func (s *server) hops(r *http.Request) int {
	c, err := s.callerOf(r)
	if err != nil || c.local || c.peer.Role != trust.RoleAgent {
		return 0
	}
	hops, _ := strconv.Atoi(r.Header.Get(api.HeaderHops))
	return max(hops, 0)
}

// repeatable tells of a request that it changes nothing, or is taken only once.
func repeatable(r *http.Request) bool {
	return r.Method == http.MethodGet || r.Header.Get(api.HeaderRequest) != ""
}

// ask hands the request on to addr and returns the answer. It returns neither
// answer nor error if that agent could not be asked or knows no leader: then
// nothing was executed, or may be again.
func (s *server) ask(ctx context.Context, r *http.Request, body []byte, addr string, hops int) (*http.Response, error) {
	req, err := s.outgoing(r, body, addr, hops)
	if err != nil {
		return nil, err
	}
	resp, err := s.links.http.RoundTrip(req.WithContext(ctx))
	if err == nil && resp.StatusCode != http.StatusServiceUnavailable {
		s.compass.set(addr)
		return resp, nil
	}
	s.compass.wrong(addr)
	switch {
	case err == nil:
		_ = resp.Body.Close()
		return nil, nil
	case repeatable(r), isDialError(err):
		return nil, nil
	default:
		return nil, api.Errorf(api.CodeUnknown, "%s at the leader %s: %v: it may or may not have happened; look before you try again", r.URL.Path, addr, err)
	}
}

// passBack answers with what another agent answered.
func passBack(w http.ResponseWriter, resp *http.Response) {
	defer resp.Body.Close()
	for _, k := range []string{"Content-Type", api.HeaderHost, headerCursor} {
		if v := resp.Header.Get(k); v != "" {
			w.Header().Set(k, v)
		}
	}
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body) //nolint:errcheck // the client has gone, or sees a short answer
}

func (s *server) outgoing(r *http.Request, body []byte, addr string, hops int) (*http.Request, error) {
	c, err := s.callerOf(r)
	if err != nil {
		return nil, err
	}
	u := *r.URL
	u.Scheme, u.Host = "https", addr
	req, err := http.NewRequestWithContext(r.Context(), r.Method, u.String(), newBody(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set(api.HeaderHops, strconv.Itoa(hops))
	req.Header.Set(api.HeaderCaller, c.handedOn())
	if id := r.Header.Get(api.HeaderRequest); id != "" {
		req.Header.Set(api.HeaderRequest, id)
	}
	return req, nil
}

func (s *server) noLeader() error {
	return api.Errorf(api.CodeNoLeader, "find leader of mesh %s: none was elected within %s: too few voters are reachable from %s; nothing was changed, try again (ganglion peers, ganglion hosts)", s.meshName(), leaderPatience, s.cfg.Name)
}

// respond sends v or err.
func (s *server) respond(w http.ResponseWriter, r *http.Request, v any, err error) {
	switch {
	case err == nil && v == nil:
		w.WriteHeader(http.StatusNoContent)
	case err == nil:
		if c, ok := v.(cursored); ok {
			w.Header().Set(headerCursor, c.cursor)
			v = c.value
		}
		api.WriteJSON(w, http.StatusOK, v)
	default:
		err = apiError(err)
		if api.CodeOf(err) == api.CodeInternal && r.Context().Err() == nil {
			s.log.Log(r.Context(), slog.LevelWarn, "request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		}
		api.WriteError(w, err)
	}
}

// apiError sorts an error of the layers below for the one who called.
func apiError(err error) error {
	var already *api.Error
	var moved *consensus.NotLeaderError
	switch {
	case errors.As(err, &already):
		return err
	case errors.As(err, &moved):
		return api.Errorf(api.CodeNoLeader, "%v", err)
	case errors.Is(err, consensus.ErrUnknownOutcome):
		return api.Errorf(api.CodeUnknown, "commit change: the leader changed or lost its quorum meanwhile: it may or may not have happened; look before you try again")
	case errors.Is(err, consensus.ErrStopped):
		return api.Errorf(api.CodeNoLeader, "this agent is stopping; ask another host")
	case errors.Is(err, context.DeadlineExceeded):
		return api.Errorf(api.CodeNoLeader, "reach a majority of voters: no answer in time; nothing was changed")
	}
	return err
}

func readBody(r *http.Request) ([]byte, error) {
	limit := int64(api.MaxBody)
	switch r.URL.Path {
	case "/v1/report":
		limit = api.MaxReport
	case "/v1/restore":
		limit = api.MaxRestore
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return nil, api.Errorf(api.CodeInvalid, "read request: %v", err)
	}
	if int64(len(body)) > limit {
		return nil, api.Errorf(api.CodeInvalid, "read request: larger than %d bytes", limit)
	}
	return body, nil
}

// decode reads a request body; unknown fields are refused, so that a misspelt
// one is not silently ignored.
func decode(body []byte, v any) error {
	dec := json.NewDecoder(newReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return api.Errorf(api.CodeInvalid, "read request: %v", err)
	}
	if dec.More() {
		return api.Errorf(api.CodeInvalid, "read request: more than one JSON value")
	}
	return nil
}

func isDialError(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// serveHTTP serves h on l until ctx ends, then lets open requests finish for a
// moment.
func serveHTTP(ctx context.Context, l net.Listener, srv *http.Server) error {
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve API: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		srv.Close()
	}
	<-done
	return nil
}
