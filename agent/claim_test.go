package agent

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/trust"
)

func socketClient(t *testing.T, h *host) *http.Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", h.cfg.Socket)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// TestManyInitsMakeOneMesh: each init makes an identity, and the one on disk must
// be that of the mesh that runs.
func TestManyInitsMakeOneMesh(t *testing.T) {
	h := startHost(t, "h1", func(c *Config) { c.Init = true })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			err := h.Post(t.Context(), "/v1/init", nil, api.InitRequest{Name: "other"}, nil)
			if err != nil && api.CodeOf(err) != api.CodeRejected {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	m := awaitMesh(t, h)
	id, err := trust.LoadIdentity(filepath.Join(h.cfg.DataDir, dirIdentity))
	if err != nil || id.Peer().MeshID != m.ID {
		t.Errorf("mesh %s runs, on disk is %v, %v", m.ID, id.Peer(), err)
	}
	h.stop(t)
	h.run(t)
	if again := awaitMesh(t, h); again.ID != m.ID {
		t.Errorf("mesh %s before a restart, %s after", m.ID, again.ID)
	}
}

func awaitMesh(t *testing.T, h *host) api.Mesh {
	t.Helper()
	var m api.Mesh
	await(t, 10*time.Second, "the mesh is founded", func() (err error) {
		if m, err = h.mesh(t); err == nil && m.ID == "" {
			err = errors.New("not yet")
		}
		return err
	})
	return m
}

// TestCutShortLeaveOrFoundLeavesNothing: what an earlier mesh has left behind
// must not come to life in the next one.
func TestCutShortLeaveOrFoundLeavesNothing(t *testing.T) {
	seed := startHost(t, "h1", nil)
	token := seed.init(t)

	h := startHost(t, "h2", nil)
	h.init(t)
	h.stop(t)
	// As after a crash of leave, and of found, in the middle.
	if err := trust.RemoveIdentity(filepath.Join(h.cfg.DataDir, dirIdentity)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.cfg.DataDir, fileFounding), []byte(`[{"found":{"mesh_id":"x","name":"x"}}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	h.run(t)
	if err := h.Post(t.Context(), "/v1/join", nil, api.JoinRequest{Seeds: []string{seed.addr()}, Token: token}, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and after the next start
		if n := h.agent.server.Load().raft.node(); n != nil && n.State().MeshID() != seed.agent.server.Load().id.Peer().MeshID {
			t.Fatalf("a raft server of mesh %s runs", n.State().MeshID())
		}
		await(t, 20*time.Second, "sees all", func() error { return h.sees(t, 2) })
		if _, err := os.Stat(filepath.Join(h.cfg.DataDir, fileFounding)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("founding file: %v", err)
		}
		h.stop(t)
		h.run(t)
		await(t, 20*time.Second, "is a member", func() error {
			if h.agent.server.Load() == nil {
				return errors.New("no")
			}
			return nil
		})
	}
}

// TestJoinIsRepeatedWithTheSameKey: the mesh may have enrolled a host that crashed
// before it had its certificate.
func TestJoinIsRepeatedWithTheSameKey(t *testing.T) {
	seed := startHost(t, "h1", nil)
	token := seed.init(t)
	h := startHost(t, "h2", nil)
	key, err := h.agent.joinKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := enrol(t.Context(), &h.cfg, key, []string{seed.addr()}, token); err != nil {
		t.Fatal(err)
	}
	h.stop(t)
	h.run(t)
	if err := h.Post(t.Context(), "/v1/join", nil, api.JoinRequest{Seeds: []string{seed.addr()}, Token: token}, nil); err != nil {
		t.Errorf("join again: %v", err)
	}
	if _, err := os.Stat(filepath.Join(h.cfg.DataDir, fileJoinKey)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the key lies about: %v", err)
	}
}
