package agent

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// headerCursor names the moment of an answer, for ?after= of the next read.
const headerCursor = api.HeaderCursor

// maxStatusWait bounds how long a blocking status read is held.
const maxStatusWait = 25 * time.Second

// cursored is an answer with the cursor that belongs to it.
type cursored struct {
	value  any
	cursor string
}

// getStatus answers with the status of all apps, or with ?app= of one. With
// ?after=CURSOR it waits until something may have changed since that answer, or
// for a while.
func (s *server) getStatus(r *http.Request, _ []byte) (any, error) {
	q := r.URL.Query()
	if after := q.Get("after"); after != "" {
		s.awaitNews(r.Context(), after)
	}
	cursor := s.cursor()
	if app := q.Get("app"); app != "" {
		st, err := s.appStatus(r.Context(), app)
		return cursored{st, cursor}, err
	}
	all, err := s.statuses(r.Context())
	return cursored{all, cursor}, err
}

// cursor names what this leader knows at this moment.
func (s *server) cursor() string {
	var index uint64
	if n := s.raft.node(); n != nil {
		index = n.State().Revision()
	}
	return fmt.Sprintf("%s-%d-%d", s.boot, index, s.obs.version())
}

// awaitNews blocks until the cursor differs from after.
func (s *server) awaitNews(ctx context.Context, after string) {
	ctx, cancel := context.WithTimeout(ctx, maxStatusWait)
	defer cancel()
	for ctx.Err() == nil {
		news := s.obs.news()
		node := s.raft.node()
		if node == nil {
			return
		}
		moved, revision := node.Leadership(), node.State().Revision()
		if !node.Status().Leader || s.cursor() != after {
			return
		}
		select {
		case <-ctx.Done():
		case <-news:
		case <-node.Changed(revision):
		case <-moved:
			return
		}
	}
}

// statuses is the status of every app at a linearizable point.
func (s *server) statuses(ctx context.Context) ([]topology.AppStatus, error) {
	state, err := s.settled(ctx)
	if err != nil {
		return nil, err
	}
	obs := s.observations(state)
	all := topology.Status(state, obs)
	for i := range all {
		s.addAddrs(all[i].Copies)
	}
	return append(all, s.leftovers(state, obs)...), nil
}

// appStatus is the status of one app; an unknown app is an error.
func (s *server) appStatus(ctx context.Context, app string) (topology.AppStatus, error) {
	all, err := s.statuses(ctx)
	if err != nil {
		return topology.AppStatus{}, err
	}
	for _, st := range all {
		if st.App == app {
			return st, nil
		}
	}
	return topology.AppStatus{}, api.Errorf(api.CodeNotFound, "find app %q: no such app in mesh %s (ganglion status)", app, s.meshName())
}

// leftovers lists apps that were deleted and of which hosts still report
// copies: they are not gone before their copies are.
func (s *server) leftovers(state *topology.State, obs topology.Observations) []topology.AppStatus {
	byApp := map[string]*topology.AppStatus{}
	var order []string
	for _, h := range state.Hosts() {
		if ho := obs.Hosts[h.Name]; !ho.Alive && ho.ReportAge > missedReport {
			continue // what a lost host last said keeps no app from being gone
		}
		for key, c := range obs.Hosts[h.Name].Copies {
			if _, ok := state.App(key.App); ok {
				continue
			}
			st := byApp[key.App]
			if st == nil {
				st = &topology.AppStatus{App: key.App, Kind: "replicated", Version: c.Version, State: topology.AppPending}
				byApp[key.App] = st
				order = append(order, key.App)
			}
			st.Copies = append(st.Copies, topology.CopyStatus{
				ID: key.String(), Host: h.Name, Version: c.Version, State: c.State, Pid: c.Pid, Why: "deleted; it is being stopped",
			})
		}
	}
	out := make([]topology.AppStatus, 0, len(order))
	for _, app := range slices.Sorted(slices.Values(order)) {
		out = append(out, *byApp[app])
	}
	return out
}

// addAddrs fills in where the hosts of copies are reached.
func (s *server) addAddrs(copies []topology.CopyStatus) {
	now := time.Now()
	for i, c := range copies {
		if r, _, ok := s.obs.last(c.Host, now); ok {
			copies[i].Addr = r.Addr
		}
	}
}

// getLocalStatus is what this host runs, asked from nobody else.
func (s *server) getLocalStatus(r *http.Request, _ []byte) (any, error) {
	return s.localStatus(r.URL.Query().Get("app")), nil
}
