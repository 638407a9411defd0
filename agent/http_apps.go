package agent

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
)

// settled returns the leader's state at a linearizable point. It fails anywhere
// but at the leader.
func (m *member) settled(ctx context.Context) (*topology.State, error) {
	node := m.raft.node()
	if node == nil {
		return nil, &consensus.NotLeaderError{}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := node.Barrier(ctx); err != nil {
		return nil, err
	}
	return node.State(), nil
}

// commit proposes cmd and turns a rejection into an error of the API. The
// caller runs at the leader.
func (s *server) commit(r *http.Request, cmd topology.Command) (topology.Result, error) {
	node := s.raft.node()
	if node == nil {
		return topology.Result{}, &consensus.NotLeaderError{}
	}
	cmd.RequestID = r.Header.Get(api.HeaderRequest)
	if who, err := s.callerOf(r); err == nil { // a host that joins is nobody yet
		cmd.By = strings.ToValidUTF8(shorten(who.handedOn()), "")
	}
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	res, err := node.Apply(ctx, cmd)
	if err != nil {
		return res, err
	}
	if res.Err != nil {
		return res, api.Errorf(rejectionCode(res.Err), "%s", res.Err.Error())
	}
	return res, nil
}

func rejectionCode(r *topology.Rejected) api.Code {
	switch r.Kind {
	case topology.RejectUnknown:
		return api.CodeNotFound
	case topology.RejectInvalid:
		return api.CodeInvalid
	}
	return api.CodeRejected
}

// observations puts together what the leader sees now.
func (m *member) observations(state *topology.State) topology.Observations {
	now := time.Now()
	obs := m.obs.observe(state.Hosts(), m.pool.Members(), now)
	m.lessor.observe(&obs, state, m.obs)
	m.leader.steady.observe(&obs, state, now)
	obs.Freeze, obs.Leader = freezeOf(m.brake.View()), m.cfg.Name
	if d := m.leader.last.Load(); d != nil {
		obs.GateShut = d.GateShut // so that status says why nothing moves
	}
	return obs
}

// postApply declares intents. What is compared and what is committed are tied
// together by the Modified index of every app and reflex that the comparison looked at.
func (s *server) postApply(r *http.Request, body []byte) (any, error) {
	var req api.ApplyRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	in, err := api.CheckIntents(req.Intents)
	if err != nil {
		return nil, err
	}
	state, err := s.settled(r.Context())
	if err != nil {
		return nil, err
	}
	warnings, err := api.Warnings(in, declaredIn(state))
	if err != nil {
		return nil, err
	}
	far, err := api.Far(in)
	if err != nil {
		return nil, err
	}
	put := topology.PutIntents{Intents: in, Set: req.Set, Prune: req.Prune, Expect: map[string]uint64{}, At: time.Now().Unix(), Far: far}
	changes := append([]intent.Change{}, topology.Changes(state, put)...)
	resp := api.ApplyResponse{Revision: state.Revision(), Changes: changes, Versions: map[string]string{}, Warnings: warnings}
	for _, app := range in.Apps {
		put.Expect[app.Name] = 0
		if old, ok := state.App(app.Name); ok {
			put.Expect[app.Name] = old.Modified
		}
		resp.Versions[app.Name] = app.Version()
	}
	for _, r := range in.Reflexes {
		old, _ := state.Reflex(r.Name)
		put.Expect[topology.ReflexKey(r.Name)] = old.Modified
	}
	for _, x := range in.Senses {
		old, _ := state.Sense(x.Name)
		put.Expect[topology.SenseKey(x.Name)] = old.Modified
	}
	if len(changes) == 0 && !haltedBefore(state, in) && !state.Reverted(in) {
		return resp, nil // nothing to commit
	}
	put.Differs = topology.DiffersIn(changes)
	res, err := s.commit(r, topology.Command{PutIntents: &put})
	if err != nil {
		return nil, err
	}
	resp.Revision = res.Revision
	s.stagedBy(res.Revision, &resp)
	return resp, nil
}

// stagedBy says which reflexes an apply has staged.
func (s *server) stagedBy(index uint64, resp *api.ApplyResponse) {
	node := s.raft.node()
	if node == nil {
		return
	}
	state := node.State()
	for _, st := range state.Stages() {
		if st.Begun == index {
			resp.Staged, resp.Stage = append(resp.Staged, st.Rule), state.ReflexStage().String()
		}
	}
}

// declaredIn is what users have declared.
func declaredIn(state *topology.State) (in intent.Intents) {
	for _, a := range state.Apps() {
		in.Apps = append(in.Apps, a.Spec)
	}
	for _, r := range state.Reflexes() {
		in.Reflexes = append(in.Reflexes, r.Spec)
	}
	return in
}

// haltedBefore tells whether an app of in has a halted rollout: applying it
// again unchanged is how a user says to try again.
func haltedBefore(state *topology.State, in intent.Intents) bool {
	return slices.ContainsFunc(in.Apps, func(a intent.App) bool {
		old, ok := state.App(a.Name)
		return ok && old.TriesAgain()
	})
}

// deleteApp removes an app. That its copies are gone shows in its status.
func (s *server) deleteApp(r *http.Request, _ []byte) (any, error) {
	name := r.PathValue("app")
	res, err := s.commit(r, topology.Command{DeleteApp: &topology.DeleteApp{Name: name}})
	if err != nil {
		return nil, err
	}
	gone := intent.Change{Op: intent.OpRemove, Kind: intent.ChangeApp, Name: name}
	return api.ApplyResponse{Revision: res.Revision, Changes: []intent.Change{gone}}, nil
}

// postAppVerb stops, starts or restarts an app or, with ?copy=N, one copy.
func (s *server) postAppVerb(r *http.Request, _ []byte) (any, error) {
	app := r.PathValue("app")
	n, err := copyNumber(r)
	if err != nil {
		return nil, err
	}
	var cmd topology.Command
	switch r.PathValue("verb") {
	case "stop":
		cmd.SetRunning = &topology.SetRunning{App: app, N: n, Stopped: true}
	case "start":
		cmd.SetRunning = &topology.SetRunning{App: app, N: n}
	case "restart":
		cmd.RestartApp = &topology.RestartApp{App: app, N: n}
	default:
		return nil, api.Errorf(api.CodeNotFound, "act on app %s: no such action %q", app, r.PathValue("verb"))
	}
	res, err := s.commit(r, cmd)
	return api.ApplyResponse{Revision: res.Revision}, err
}

func copyNumber(r *http.Request) (*int, error) {
	s := r.URL.Query().Get("copy")
	if s == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return nil, api.Errorf(api.CodeInvalid, "copy %q: want a number", s)
	}
	return &n, nil
}

// getEndpoints lists where the ready copies of an app are reached.
func (s *server) getEndpoints(r *http.Request, _ []byte) (any, error) {
	st, err := s.appStatus(r.Context(), r.PathValue("app"))
	if err != nil {
		return nil, err
	}
	out := []api.Endpoint{}
	for _, c := range st.Copies {
		if c.Ready && c.Role != topology.RoleStandby {
			out = append(out, api.Endpoint{Copy: c.ID, Host: c.Host, Addr: c.Addr, Ports: c.Ports})
		}
	}
	return out, nil
}
