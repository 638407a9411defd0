package agent

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/pause"
	"github.com/ganglion-mesh/ganglion/workload"
)

// houseEvery is how often the host looks for what deleted apps have left.
const houseEvery = 30 * time.Second

// keepHouse removes what this host keeps for apps that were deleted, until ctx
// ends. State survives every move and version of an app: only the leader's word
// that there is no such app any more lets it go.
func (m *member) keepHouse(ctx context.Context) error {
	told := ""
	for pause.For(ctx, houseEvery) {
		if hint := rejoinHint(m.pool); hint != told {
			told = hint
			if hint != "" {
				m.log.Warn("this host sees no other of its mesh", "why", hint)
			}
		}
		m.purge(ctx)
	}
	return nil
}

// purge looks through the copies' directories once.
func (m *member) purge(ctx context.Context) {
	apps, _ := os.ReadDir(m.store.path("apps"))
	placed := map[string]bool{}
	for _, a := range m.slices.slice().Assignments {
		placed[a.Placement.App] = true
	}
	for _, c := range m.copies.Reports() {
		placed[c.ID.App] = true
	}
	for _, app := range apps {
		if placed[app.Name()] || !m.deleted(ctx, app.Name()) {
			continue
		}
		m.log.Info("app was deleted: removing what this host kept for it", "app", app.Name())
		copies, _ := os.ReadDir(m.store.path(filepath.Join("apps", app.Name())))
		for _, c := range copies {
			if n, err := strconv.Atoi(c.Name()); err == nil {
				if err := m.copies.Purge(ctx, workload.CopyID{App: app.Name(), N: n}); err != nil {
					m.log.Warn("remove copy's directory", "app", app.Name(), "n", n, "error", err)
				}
			}
		}
		os.Remove(m.store.path(filepath.Join("apps", app.Name()))) //nolint:errcheck // not empty: next time
	}
}

// deleted asks the leader whether an app is gone for good.
func (m *member) deleted(ctx context.Context, app string) bool {
	ctx, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	var st topology.AppStatus
	err := m.links.client(m.addr).Get(ctx, "/v1/status", url.Values{"app": {app}}, &st)
	return api.CodeOf(err) == api.CodeNotFound && err != nil
}
