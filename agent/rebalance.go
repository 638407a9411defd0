package agent

import (
	"net/http"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// steadiness remembers, by this host's own clock, what decisions wait for: for how
// long nothing has been wrong with each host, since this host leads; how long ago
// each move for the sake of balance was begun that is spent of the budget, and for
// how long each rollout waits for room and each staged reflex is at its step. Every voter notes the latter ones while another
// leads; what it learns of late counts from then, so that a change of leader can make
// the budget come back, or a wait end, later, but never sooner. It is safe for
// concurrent use; the zero value is ready.
type steadiness struct {
	mu    sync.Mutex
	well  map[string]time.Time
	seen  map[uint64]time.Time // moves
	waits map[uint64]time.Time

	stages map[uint64]time.Time // steps of staged reflexes, and acts in them
}

// takeOffice forgets what was known of hosts: a new leader looks for itself.
func (s *steadiness) takeOffice() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.well)
}

// watch notes which moves have been begun, and which rollouts wait.
func (s *steadiness) watch(state *topology.State, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(state, now)
}

func (s *steadiness) note(state *topology.State, now time.Time) {
	s.seen = noted(s.seen, state.Rebalanced(), now)
	s.waits = noted(s.waits, state.Waits(), now)
	s.stages = noted(s.stages, state.StageSteps(), now)
}

// noted is when each of the indexes was first seen.
func noted(before map[uint64]time.Time, list []uint64, now time.Time) map[uint64]time.Time {
	after := make(map[uint64]time.Time, len(list))
	for _, index := range list {
		at, ok := before[index]
		if !ok {
			at = now
		}
		after[index] = at
	}
	return after
}

// ages is how long ago each index was first seen.
func ages(seen map[uint64]time.Time, now time.Time) map[uint64]time.Duration {
	out := make(map[uint64]time.Duration, len(seen))
	for index, at := range seen {
		out[index] = now.Sub(at)
	}
	return out
}

// observe puts what is known into what is decided by.
func (s *steadiness) observe(obs *topology.Observations, state *topology.State, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(state, now)
	obs.Moved, obs.Waited, obs.Staged = ages(s.seen, now), ages(s.waits, now), ages(s.stages, now)
	if s.well == nil {
		s.well = map[string]time.Time{}
	}
	for host, o := range obs.Hosts {
		if !o.Alive || o.Suspect || !o.Reported || o.ReportAge >= missedReport {
			delete(s.well, host)
			continue
		}
		if _, ok := s.well[host]; !ok {
			s.well[host] = now
		}
		o.WellFor = now.Sub(s.well[host])
		obs.Hosts[host] = o
	}
}

// postMesh changes settings of the mesh.
func (s *server) postMesh(r *http.Request, body []byte) (any, error) {
	var req api.MeshSettings
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	cmds, set, err := meshCommands(req)
	if err != nil {
		return nil, err
	}
	out := api.MeshSet{MeshSettings: set}
	for i, cmd := range cmds {
		if i > 0 { // one key is good for one command
			r.Header.Del(api.HeaderRequest)
		}
		res, err := s.commit(r, cmd)
		if err != nil {
			return nil, err
		}
		out.Revision = res.Revision
	}
	s.log.Info("mesh setting changed", "setting", set, "revision", out.Revision)
	return out, nil
}

// meshCommands are the commands by which settings are changed, and the settings as
// they are then.
func meshCommands(req api.MeshSettings) (cmds []topology.Command, set api.MeshSettings, err error) {
	if req.Rebalance != "" {
		v, err := topology.ParseRebalance(req.Rebalance)
		if err != nil {
			return nil, set, api.Errorf(api.CodeInvalid, "%v", err)
		}
		cmds, set.Rebalance = append(cmds, topology.Command{Rebalance: &topology.SetRebalance{Rebalance: v}}), v.String()
	}
	if req.ReflexStage != "" {
		v, err := topology.ParseReflexStage(req.ReflexStage)
		if err != nil {
			return nil, set, api.Errorf(api.CodeInvalid, "%v", err)
		}
		cmds, set.ReflexStage = append(cmds, topology.Command{ReflexStage: &topology.SetReflexStage{ReflexStage: v}}), v.String()
	}
	if len(cmds) == 0 {
		return nil, set, api.Errorf(api.CodeInvalid, "set mesh: no setting is named; there are rebalance and reflex_stage")
	}
	return cmds, set, nil
}
