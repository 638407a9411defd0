package agent

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// startMesh starts n agents in this process and makes one mesh of them.
func startMesh(t *testing.T, n int) []*host {
	t.Helper()
	hosts := []*host{startHost(t, "h1", slicePorts(0))}
	token := hosts[0].init(t)
	var seed api.Version
	if err := hosts[0].Get(t.Context(), "/v1/version", nil, &seed); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < n; i++ {
		h := startHost(t, fmt.Sprintf("h%d", i+1), slicePorts(i))
		hosts = append(hosts, h)
		var peers []api.Peer
		if err := hosts[0].Get(t.Context(), "/v1/peers", nil, &peers); err != nil {
			t.Fatal(err)
		}
		if err := h.Post(t.Context(), "/v1/join", nil, api.JoinRequest{Seeds: []string{peers[0].Addr}, Token: token}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range hosts {
		await(t, 20*time.Second, h.cfg.Name+" sees all", func() error { return h.sees(t, n) })
	}
	return hosts
}

// slicePorts gives each agent of one machine its own dynamic ports.
func slicePorts(i int) func(*Config) {
	return func(c *Config) { c.PortRange = [2]int{21000 + 500*i, 21499 + 500*i} }
}

func (h *host) sees(t *testing.T, n int) error {
	var hosts []api.Host
	if err := h.Get(t.Context(), "/v1/hosts", nil, &hosts); err != nil {
		return err
	}
	alive := 0
	for _, x := range hosts {
		if x.Status == "alive" {
			alive++
		}
	}
	if alive != n {
		return fmt.Errorf("%d alive of %+v", alive, hosts)
	}
	return nil
}

func (h *host) mesh(t *testing.T) (api.Mesh, error) {
	var m api.Mesh
	err := h.Get(t.Context(), "/v1/mesh", nil, &m)
	return m, err
}

func awaitVoters(t *testing.T, h *host, n int) api.Mesh {
	t.Helper()
	var m api.Mesh
	await(t, 30*time.Second, "voters", func() (err error) {
		if m, err = h.mesh(t); err == nil && len(m.Voters) != n {
			err = fmt.Errorf("voters %v, want %d", m.Voters, n)
		}
		return err
	})
	return m
}

func TestFiveAgentsInOneProcess(t *testing.T) {
	hosts := startMesh(t, 5)
	awaitVoters(t, hosts[0], 3)
	hosts[4].apply(t, sleeper("web", 10))
	st := hosts[3].awaitReady(t, "web", 10)
	on := map[string]int{}
	for _, c := range st.Copies {
		on[c.Host]++
	}
	for _, h := range hosts {
		if on[h.cfg.Name] != 2 {
			t.Errorf("copies are not spread evenly: %v", on)
		}
	}
}

func TestLeaderLossIsSurvived(t *testing.T) {
	hosts := startMesh(t, 3)
	m := awaitVoters(t, hosts[0], 3)
	hosts[0].apply(t, sleeper("web", 3))
	before := hosts[0].awaitReady(t, "web", 3)
	i := slices.IndexFunc(hosts, func(h *host) bool { return h.cfg.Name == m.Leader })
	gone, left := hosts[i], slices.Delete(slices.Clone(hosts), i, i+1)
	gone.stop(t)
	begun := time.Now()
	await(t, 15*time.Second, "new leader", func() error {
		m, err := left[0].mesh(t)
		if err == nil && m.Leader == gone.cfg.Name {
			err = errors.New("the old one")
		}
		return err
	})
	left[1].apply(t, sleeper("more", 2))
	t.Logf("a new leader accepted an intent after %s", time.Since(begun))
	left[0].awaitReady(t, "more", 2)

	// Its copies outlive the agent; when it is back they are as they were.
	gone.run(t)
	after := gone.awaitReady(t, "web", 3)
	for _, c := range before.Copies {
		if c.Host != gone.cfg.Name {
			continue
		}
		j := slices.IndexFunc(after.Copies, func(x topology.CopyStatus) bool { return x.ID == c.ID })
		if a := after.Copies[j]; a.Host == c.Host && a.Pid != c.Pid {
			t.Errorf("copy %s: pid %d before, %d after the agent's absence", c.ID, c.Pid, a.Pid)
		}
	}
}

func TestEventsOfAllHostsAreTold(t *testing.T) {
	hosts := startMesh(t, 3)
	hosts[1].apply(t, sleeper("web", 3))
	hosts[1].awaitReady(t, "web", 3)
	seen := map[string]int{}
	err := hosts[2].Stream(t.Context(), "/v1/events", url.Values{"since": {"1h"}, "filter": {"app.web.>"}}, func(line []byte) bool {
		seen[string(line)]++
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) < 9 { // placed, started and ready of each
		t.Errorf("%d events of app web: %v", len(seen), seen)
	}
}
