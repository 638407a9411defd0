package agent

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// postPlan tells what apply would change, or the loss or drain of hosts. State
// and observations are those of one instant.
func (s *server) postPlan(r *http.Request, body []byte) (any, error) {
	var req api.ApplyRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	in, err := api.CheckIntents(req.Intents)
	if err != nil {
		return nil, err
	}
	state, obs, err := s.instant(r.Context())
	if err != nil {
		return nil, err
	}
	for _, host := range slices.Concat(req.Lose, req.Drain) {
		if _, ok := state.Host(host); !ok {
			return nil, api.Errorf(api.CodeNotFound, "plan: no host %q in mesh %s (ganglion hosts)", host, state.MeshName())
		}
	}
	what := topology.WhatIf{Lose: req.Lose, Drain: req.Drain, Voters: s.voterNames()}
	if len(in.Apps)+len(in.Reflexes)+len(in.Senses) > 0 || req.Prune {
		far, err := api.Far(in)
		if err != nil {
			return nil, err
		}
		what.Put = &topology.PutIntents{Intents: in, Set: req.Set, Prune: req.Prune, Far: far}
	}
	preview := topology.Plan(state, obs, what)
	if preview.Err != nil {
		return nil, api.Errorf(rejectionCode(preview.Err), "%v", preview.Err)
	}
	return preview, nil
}

// voterNames lists the hosts that vote.
func (s *server) voterNames() (names []string) {
	for _, p := range s.quorum() {
		if p.Voter {
			names = append(names, p.Name)
		}
	}
	return names
}

// instant is the state with what is observed of it. A leader that has just come
// to office waits until the hosts have reported to it: what it has not heard of
// would look lost.
func (s *server) instant(ctx context.Context) (*topology.State, topology.Observations, error) {
	for {
		news := s.obs.news()
		state, err := s.settled(ctx)
		if err != nil {
			return nil, topology.Observations{}, err
		}
		obs := s.observations(state)
		obs.Freeze = topology.Freeze{} // what would be, were it not frozen
		if obs.Settled {
			return state, obs, nil
		}
		select {
		case <-ctx.Done():
			return nil, obs, ctx.Err()
		case <-news:
		case <-time.After(leaderTick):
		}
	}
}
