package agent

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/pause"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

const (
	// enginePatience is how long the engine of reflexes may take to answer.
	enginePatience = 5 * time.Second
	// firstLook is how long it takes until senses that nobody needed have looked.
	firstLook = 1200 * time.Millisecond
)

// getReflexes lists all reflexes that are declared, those of apps among them.
func (s *server) getReflexes(r *http.Request, _ []byte) (any, error) {
	state, err := s.settled(r.Context())
	if err != nil {
		return nil, err
	}
	out := []api.Reflex{}
	for _, r := range state.Reflexes() {
		out = append(out, api.ShowReflex(r.Spec, ""))
	}
	for _, a := range state.Apps() {
		for _, r := range a.Spec.Reflexes {
			out = append(out, api.ShowReflex(r, a.Spec.Name))
		}
	}
	for i, r := range out {
		if st, ok := state.Stage(api.RuleName(r.Name, r.App)); ok {
			out[i].Stage = st.String() + s.leader.awaits(st.Rule)
		}
	}
	return out, nil
}

// deleteReflex removes a reflex that is declared outside of apps.
func (s *server) deleteReflex(r *http.Request, _ []byte) (any, error) {
	name := r.PathValue("name")
	res, err := s.commit(r, topology.Command{DeleteReflex: &topology.DeleteReflex{Name: name}})
	if err != nil {
		return nil, err
	}
	gone := intent.Change{Op: intent.OpRemove, Kind: intent.ChangeReflex, Name: name}
	return api.ApplyResponse{Revision: res.Revision, Changes: []intent.Change{gone}}, nil
}

// deleteSense removes a sense.
func (s *server) deleteSense(r *http.Request, _ []byte) (any, error) {
	name := r.PathValue("name")
	res, err := s.commit(r, topology.Command{DeleteSense: &topology.DeleteSense{Name: name}})
	if err != nil {
		return nil, err
	}
	gone := intent.Change{Op: intent.OpRemove, Kind: intent.ChangeSense, Name: name}
	return api.ApplyResponse{Revision: res.Revision, Changes: []intent.Change{gone}}, nil
}

// getLocalReflexes tells how the reflexes of this host, or with ?name= those of
// a name, stand.
func (s *server) getLocalReflexes(r *http.Request, _ []byte) (any, error) {
	ctx, cancel := context.WithTimeout(r.Context(), enginePatience)
	defer cancel()
	all, err := s.nerves.explain(ctx)
	if err != nil {
		return nil, err
	}
	name := r.URL.Query().Get("name")
	if name == "" {
		return all, nil
	}
	mine := slices.DeleteFunc(all, func(l api.LocalReflex) bool {
		return plainRule(l.Name) != name && api.RuleName(plainRule(l.Name), l.App) != name
	})
	if len(mine) == 0 {
		return nil, api.Errorf(api.CodeNotFound, "find reflex %q on host %s: it has none of that name (ganglion reflex list)", shorten(name), s.cfg.Name)
	}
	return mine, nil
}

// explain tells how all reflexes of this host stand.
func (n *nerves) explain(ctx context.Context) ([]api.LocalReflex, error) {
	n.mu.Lock()
	all := slices.Clone(n.shown)
	n.mu.Unlock()
	list, ok := n.reflexer.Explain(ctx, "")
	if !ok {
		return nil, api.Errorf(api.CodeInternal, "ask the reflexes of host %s: no answer in time; try again", n.cfg.Name)
	}
	targets := map[string][]api.ReflexTarget{}
	for _, x := range list {
		one := api.ShowTarget(x)
		one.Holds = append(n.held.of(x.Rule, x.Target), n.addressesOf(x.Rule, x.Target)...)
		targets[x.Rule] = append(targets[x.Rule], one)
	}
	for i, l := range all {
		if all[i].Targets = targets[api.RuleName(l.Name, l.App)]; all[i].Targets == nil {
			all[i].Targets = []api.ReflexTarget{}
		}
	}
	return append([]api.LocalReflex{}, all...), nil
}

// getLocalVars tells what this host senses now. What no rule reads is sensed for
// the asking, for a while.
func (s *server) getLocalVars(r *http.Request, _ []byte) (any, error) {
	if s.nerves.watch() && !pause.For(r.Context(), firstLook) {
		return nil, r.Context().Err()
	}
	ctx, cancel := context.WithTimeout(r.Context(), enginePatience)
	defer cancel()
	ids := reflexes.Vars()
	seen, ok := s.nerves.reflexer.Known(ctx, ids)
	if !ok {
		return nil, api.Errorf(api.CodeInternal, "ask the reflexes of host %s: no answer in time; try again", s.cfg.Name)
	}
	values := map[reflexes.VarID][]api.ReflexFact{}
	for _, v := range seen {
		values[v.Var] = append(values[v.Var], api.ReflexFact{Var: v.Var.String(), Target: v.Target.String(), Value: v.Value, AgeMS: v.Age.Milliseconds()})
	}
	out := make([]api.ReflexVar, 0, len(ids))
	for _, id := range ids {
		v := id.Info()
		one := api.ReflexVar{
			Name: v.Name, Type: v.Type.String(), Unit: v.Unit, Scope: v.Scope.String(), Kind: v.Kind(), Source: v.Source, Doc: v.Doc,
			Values: append([]api.ReflexFact{}, values[id]...),
		}
		out = append(out, one)
	}
	return out, nil
}
