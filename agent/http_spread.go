package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/agent/packages"
	"github.com/ganglion-mesh/ganglion/gossip"
	"github.com/ganglion-mesh/ganglion/pause"
	"github.com/ganglion-mesh/ganglion/workload/artifact"
)

// deafFor is how long a host that is to take a package may not answer, or not get
// on with it, before another is asked.
const deafFor = 8 * time.Second

// postSpread sees to it that enough hosts have a package before an app names it:
// two voters, or all hosts where there are fewer.
func (s *server) postSpread(r *http.Request, _ []byte) (any, error) {
	d, err := digestIn(r)
	if err != nil {
		return nil, err
	}
	targets, need, err := s.holders(r.Context(), d)
	if err != nil {
		return nil, err
	}
	from := ""
	if s.artifacts.Has(d) {
		from = s.cfg.Name
	}
	hosts, err := s.spread(r.Context(), d, from, targets, need)
	if err != nil {
		return nil, err
	}
	return api.ArtifactSpread{Digest: string(d), Hosts: hosts}, nil
}

// target is a host that may be asked to hold a package.
type target struct{ name, addr string }

// holders lists who may hold d, whose it is first, and how many of them must.
func (s *server) holders(ctx context.Context, d artifact.Digest) ([]target, int, error) {
	addr := map[string]string{}
	for _, h := range s.pool.Members() {
		if h.Status == gossip.StatusAlive && h.Tags[tagMesh] != "" {
			addr[h.Name] = h.Tags[tagMesh]
		}
	}
	addr[s.cfg.Name] = s.addr
	var peers []api.Peer
	ctx, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	if err := s.links.client(s.addr).Get(ctx, "/v1/peers", nil, &peers); err != nil {
		return nil, 0, err
	}
	var names []string
	for _, p := range peers {
		if p.Voter && addr[p.Name] != "" {
			names = append(names, p.Name)
		}
	}
	need := packages.Holders
	if len(names) < need { // a mesh of one or two, or one that lost most voters
		names = slices.Collect(maps.Keys(addr))
		need = min(need, len(names))
	}
	var out []target
	for _, name := range packages.Share(d, slices.Sorted(slices.Values(names))) {
		out = append(out, target{name, addr[name]})
	}
	return out, need, nil
}

// spread makes need of the targets hold a package, in turn where one fails.
func (s *server) spread(ctx context.Context, d artifact.Digest, from string, targets []target, need int) ([]string, error) {
	var (
		mu      sync.Mutex
		next    int
		hosts   []string
		failed  []error
		workers sync.WaitGroup
	)
	for range need {
		workers.Go(func() {
			for {
				mu.Lock()
				if next == len(targets) {
					mu.Unlock()
					return
				}
				t := targets[next]
				next++
				mu.Unlock()
				err := s.hold(ctx, d, from, t)
				mu.Lock()
				if err == nil {
					hosts = append(hosts, t.name)
					mu.Unlock()
					return
				}
				failed = append(failed, fmt.Errorf("%s: %w", t.name, err))
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	if len(hosts) < need {
		code := api.CodeRejected
		if from == "" && len(hosts) == 0 {
			code = api.CodeNotFound
		}
		return nil, api.Errorf(code, "spread package %s to %d hosts: only %d have it: %v; nothing was changed", d.Short(), need, len(hosts), errors.Join(failed...))
	}
	slices.Sort(hosts)
	return hosts, nil
}

// hold asks a host to get a package until it has it.
func (s *server) hold(ctx context.Context, d artifact.Digest, from string, t target) error {
	q := url.Values{}
	if from != "" && from != t.name {
		q.Set("from", from)
	}
	heard := time.Now()
	for {
		var st api.ArtifactFetch
		err := s.links.client(t.addr).Post(ctx, "/v1/local/artifacts/"+string(d)+"/fetch", q, struct{}{}, &st)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && st.Have:
			return nil
		case err == nil && (st.Failed || st.Stuck && time.Since(heard) > deafFor):
			return errors.New(st.Why)
		case err == nil && !st.Stuck: // it comes, or waits for its turn
			heard = time.Now()
		case err != nil && time.Since(heard) > deafFor:
			return err
		}
		if err != nil {
			pause.For(ctx, 200*time.Millisecond)
		}
	}
}

// getArtifacts lists the packages of the whole mesh.
func (s *server) getArtifacts(r *http.Request, _ []byte) (any, error) {
	state, err := s.settled(r.Context())
	if err != nil {
		return nil, err
	}
	found := map[string]*api.Artifact{}
	at := func(digest string) *api.Artifact {
		if found[digest] == nil {
			found[digest] = &api.Artifact{Digest: digest, Hosts: []string{}, Apps: []string{}, SignedBy: append([]string{}, state.SignedBy(digest)...)}
		}
		return found[digest]
	}
	for _, app := range state.Apps() {
		for _, p := range app.Packages() {
			if ref, ok, _ := packages.RefOf(p.Run()); ok {
				if a := at(string(ref.Digest)); !slices.Contains(a.Apps, app.Spec.Name) {
					a.Apps = append(a.Apps, app.Spec.Name)
				}
			}
		}
	}
	for host, list := range s.localLists(r.Context()) {
		for _, l := range list {
			if a := at(l.Digest); l.Size > 0 {
				a.Size, a.Hosts = l.Size, append(a.Hosts, host)
				a.Name = max(a.Name, l.Name)
			}
		}
	}
	out := []api.Artifact{}
	for _, digest := range slices.Sorted(maps.Keys(found)) {
		slices.Sort(found[digest].Hosts)
		out = append(out, *found[digest])
	}
	return out, nil
}

// localLists asks all hosts what packages they have. Who does not answer is
// missing.
func (s *server) localLists(ctx context.Context) map[string][]api.LocalArtifact {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var mu sync.Mutex
	var asking sync.WaitGroup
	out := map[string][]api.LocalArtifact{}
	for _, h := range s.pool.Members() {
		if h.Status != gossip.StatusAlive {
			continue
		}
		asking.Go(func() {
			var list []api.LocalArtifact
			if err := s.links.client(h.Tags[tagMesh]).Get(ctx, "/v1/local/artifacts", nil, &list); err != nil {
				s.log.Debug("list packages", "host", h.Name, "error", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out[h.Name] = list
		})
	}
	asking.Wait()
	return out
}

// deleteArtifact removes a package from all hosts, unless an app needs it.
func (s *server) deleteArtifact(r *http.Request, _ []byte) (any, error) {
	d, err := digestIn(r)
	if err != nil {
		return nil, err
	}
	state, err := s.settled(r.Context())
	if err != nil {
		return nil, err
	}
	for _, app := range state.Apps() {
		for _, p := range app.Packages() {
			if ref, ok, _ := packages.RefOf(p.Run()); ok && ref.Digest == d {
				return nil, api.Errorf(api.CodeRejected, "remove package %s: app %s names it, now or in a version that is kept; delete the app first", d.Short(), app.Spec.Name)
			}
		}
	}
	return s.removeEverywhere(r.Context(), d)
}

func (s *server) removeEverywhere(ctx context.Context, d artifact.Digest) (any, error) {
	var hosts []string
	var failed []error
	for host, list := range s.localLists(ctx) {
		if !slices.ContainsFunc(list, func(l api.LocalArtifact) bool { return l.Digest == string(d) }) {
			continue
		}
		addr := byName(s.pool.Members())[host].Tags[tagMesh]
		if err := s.links.client(addr).Delete(ctx, "/v1/local/artifacts/"+string(d), nil); err != nil {
			failed = append(failed, err)
			continue
		}
		hosts = append(hosts, host)
	}
	switch {
	case len(failed) > 0:
		return nil, api.Errorf(api.CodeRejected, "remove package %s: %v", d.Short(), errors.Join(failed...))
	case len(hosts) == 0:
		return nil, api.Errorf(api.CodeNotFound, "remove package %s: no host has it (ganglion artifact list)", d.Short())
	}
	slices.Sort(hosts)
	return api.ArtifactSpread{Digest: string(d), Hosts: hosts}, nil
}
