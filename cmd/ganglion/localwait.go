//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/pause"
)

// awaitReady waits until every host sees all others, the leader hears from all,
// and as many vote as a mesh of this size should have.
func (m *localMesh) awaitReady(ctx context.Context) error {
	for _, h := range m.hosts {
		if err := h.awaitHosts(ctx, len(m.hosts)); err != nil {
			return err
		}
	}
	voters := 1
	switch n := len(m.hosts); {
	case n >= 7:
		voters = 5
	case n >= 3:
		voters = 3
	}
	_, err := awaitMesh(ctx, m.hosts[0], func(x api.Mesh) bool { return x.Leader != "" && len(x.Voters) >= voters })
	return err
}

// awaitHosts waits until this host's agent shows n hosts alive, of each of which
// the leader hears.
func (h *localHost) awaitHosts(ctx context.Context, n int) error {
	for {
		var hosts []api.Host
		err := h.client.Get(ctx, "/v1/hosts", nil, &hosts)
		alive := 0
		for _, x := range hosts {
			if x.Status == "alive" && x.Note == "" {
				alive++
			}
		}
		if err == nil && alive == n {
			return nil
		}
		if !pause.For(ctx, 20*time.Millisecond) {
			return h.blame(fmt.Errorf("it sees %d of %d hosts alive in time (%w)", alive, n, err))
		}
	}
}

// awaitMesh waits until the mesh, asked through h, is as ok wants it.
func awaitMesh(ctx context.Context, h *localHost, ok func(api.Mesh) bool) (api.Mesh, error) {
	for {
		var m api.Mesh
		err := h.client.Get(ctx, "/v1/mesh", nil, &m)
		if err == nil && ok(m) {
			return m, nil
		}
		if !pause.For(ctx, 20*time.Millisecond) {
			return m, h.blame(fmt.Errorf("the mesh is not as expected in time: leader %q, voters %v (%w)", m.Leader, m.Voters, err))
		}
	}
}
