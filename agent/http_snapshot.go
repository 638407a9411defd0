package agent

import (
	"bytes"
	"net/http"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/trust"
)

// getSnapshot answers the mesh at one instant, with what the leader observes. It
// holds no keys: on its way it may pass hosts that must not have them.
func (s *server) getSnapshot(r *http.Request, _ []byte) (any, error) {
	state, obs, err := s.instant(r.Context())
	if err != nil {
		return nil, err
	}
	var file bytes.Buffer
	b := topology.Backup{State: state.WithoutSecrets(), Seen: obs, Voters: s.voterNames(), Saved: time.Now(), By: s.cfg.Version}
	if err := b.Write(&file); err != nil {
		return nil, err
	}
	return api.Snapshot{Data: file.Bytes()}, nil
}

// getKeys answers the keys of the mesh on a host that has them on its disk
// anyway, to who could read that disk, or is trusted with the mesh. They are
// never asked of another host, since who may have them could not be known there.
func (s *server) getKeys(r *http.Request, _ []byte) (any, error) {
	c, err := s.callerOf(r)
	if err != nil {
		return nil, err
	}
	if !c.local && (c.peer.Role != trust.RoleOperator || c.via != "") {
		return nil, api.Errorf(api.CodeDenied, "read the keys of the mesh: only through the socket of a voter, or as an operator")
	}
	node := s.raft.node()
	if node == nil || !inQuorum(node.Status()) {
		return nil, api.Errorf(api.CodeRejected, "read the keys of mesh %s: host %s is no voter and has none; ask on a voter (ganglion peers)", s.meshName(), s.cfg.Name)
	}
	keys := node.State().Trust()
	if len(keys.CAKey) == 0 {
		return nil, api.Errorf(api.CodeNoLeader, "read the keys of mesh %s: host %s has not caught up with the leader yet", s.meshName(), s.cfg.Name)
	}
	s.log.Warn("the keys of the mesh were read for a snapshot", "local", c.local, "operator", c.peer.Host)
	return api.Keys{Keys: keys}, nil
}

// postRestore takes the mesh back to what a backup declares, or tells what that
// would change.
func (s *server) postRestore(r *http.Request, body []byte) (any, error) {
	var req api.RestoreRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	if err := checkSaved(req.Restore); err != nil {
		return nil, err
	}
	state, obs, err := s.instant(r.Context())
	if err != nil {
		return nil, err
	}
	cmd := topology.Command{Restore: new(req.Restore.Trimmed(state, obs))}
	resp := api.ApplyResponse{Revision: state.Revision(), Changes: topology.RestoreChanges(state, req.Restore), Versions: map[string]string{}}
	if resp.Changes == nil {
		resp.Changes = []intent.Change{}
	}
	for _, a := range req.Restore.Apps {
		resp.Versions[a.Spec.Name] = a.Spec.Version()
	}
	if req.Check {
		if _, res := state.Apply(state.Revision()+1, cmd); res.Err != nil {
			return nil, api.Errorf(rejectionCode(res.Err), "%v", res.Err)
		}
		return resp, nil
	}
	cmd.Restore.Differs = topology.DiffersIn(resp.Changes)
	res, err := s.commit(r, cmd)
	if err != nil {
		return nil, err
	}
	s.log.Warn("the mesh was restored", "from_era", req.Restore.Era, "from_revision", req.Restore.Revision, "revision", res.Revision)
	resp.Revision = res.Revision
	return resp, nil
}

// checkSaved refuses a backup that declares what this release would refuse at
// apply.
func checkSaved(c topology.Restore) error {
	var in intent.Intents
	for _, a := range c.Apps {
		in.Apps = append(in.Apps, a.Spec)
	}
	if _, err := api.CheckIntents(in); err != nil {
		return api.Errorf(api.CodeOf(err), "restore: the snapshot declares what this version does not take: %s", strings.TrimSpace(err.Error()))
	}
	return nil
}
