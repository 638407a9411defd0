package agent

import (
	"net/http"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// getHistory lists the versions of an app that are remembered, the newest first.
func (s *server) getHistory(r *http.Request, _ []byte) (any, error) {
	state, err := s.settled(r.Context())
	if err != nil {
		return nil, err
	}
	name := r.PathValue("app")
	app, ok := state.App(name)
	if !ok {
		return nil, api.Errorf(api.CodeNotFound, "find app %q: no such app in mesh %s (ganglion status)", name, s.meshName())
	}
	return history(app), nil
}

func history(app topology.App) []api.AppVersion {
	out := make([]api.AppVersion, 0, len(app.History))
	current := false
	for _, h := range slices.Backward(app.History) {
		v := api.AppVersion{Version: h.Version, Index: h.Index, Back: h.Back, Outcome: string(h.Outcome), Why: h.Reason}
		if h.Outcome == "" {
			v.Outcome = "under way"
		}
		if h.At > 0 {
			at := time.Unix(h.At, 0).UTC()
			v.Applied = &at
		}
		if v.Current = !current && h.Version == app.Version; v.Current {
			current = true
		}
		out = append(out, v)
	}
	return out
}

// postRollback takes an app back to an earlier version.
func (s *server) postRollback(r *http.Request, body []byte) (any, error) {
	var req api.RollbackRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	name := r.PathValue("app")
	cmd := topology.Rollback{App: name, To: req.To, At: time.Now().Unix()}
	res, err := s.commit(r, topology.Command{Rollback: &cmd})
	if err != nil {
		return nil, err
	}
	out := api.ApplyResponse{Revision: res.Revision, Versions: map[string]string{}}
	if app, ok := s.raft.node().State().App(name); ok {
		out.Versions[name] = app.Version
	}
	return out, nil
}
