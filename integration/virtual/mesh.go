// Package virtual runs whole meshes of real agents in one process and in virtual
// time: real Raft, real serf, real TLS and HTTP/2 over a network in memory, on
// hosts that can be killed, switched off and cut apart. It is what proofs of
// promises about several hosts build on where thousands of runs matter more
// than a real kernel (for that, see package rig).
//
// A test describes its mesh with a Config and gets a Mesh inside a
// testing/synctest bubble:
//
//	virtual.Run(t, virtual.Config{Hosts: 5, Seed: seed}, func(t *testing.T, m *virtual.Mesh) {
//		m.Form()
//		m.Apply(virtual.App("web", 10))
//		m.AwaitReady(30*time.Second, "web", 10)
//		m.Leader().Kill()
//		...
//	})
//
// When the test returns, the checks that hold for every history are made: no
// host accepted an older slice (S3), no copy ran twice where it must not (S5), no
// process began or ended for want of an agent (S10).
//
// Time passes only when every goroutine waits, so a slow machine changes
// nothing; how goroutines interleave is Go's choice, so a seed gives the same
// faults at the same times, not the same run. Assert bounds.
package virtual

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// Config of a mesh.
type Config struct {
	Hosts   int    // 1 to 200
	Seed    uint64 // of the network's chances
	Latency time.Duration
	Labels  map[string]map[string]string // by host
	// Settle is how long after a fault copies may still be doubled, between the
	// hosts that it touched; times in which no
	// leader reaches them do not count. Default 30 s.
	Settle time.Duration
	Lease  topology.Timers // of singletons; default topology.DefaultTimers
	Surge  int             // copies that an app may have beside its count at any time (S5)
}

func (c *Config) validate() error {
	if c.Hosts < 1 || c.Hosts > 200 {
		return fmt.Errorf("configure mesh: %d hosts, want 1 to 200", c.Hosts)
	}
	if c.Latency < 0 || c.Settle < 0 {
		return errors.New("configure mesh: a duration is negative")
	}
	if c.Latency == 0 {
		c.Latency = time.Millisecond
	}
	if c.Settle == 0 {
		c.Settle = 30 * time.Second
	}
	return nil
}

// Mesh is a set of hosts on one network. Its methods belong to the goroutine of
// the test.
type Mesh struct {
	Hosts []*Host
	Net   *Network

	t         *testing.T
	cfg       Config
	ledger    *ledger
	freshness *freshness
	log       *logbook
	token     string
}

// Run makes a mesh of hosts that are switched off, and calls f in a bubble, with
// the bubble's own t: that of the caller must not be used in it. Then it ends all agents, lets virtual time run out and makes the checks that hold
// always.
func Run(t *testing.T, cfg Config, f func(t *testing.T, m *Mesh)) {
	t.Helper()
	if err := cfg.validate(); err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t)
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, cfg, dir)
		defer func() { // also when f gives up
			m.end()
			m.check()
			if t.Failed() {
				t.Logf("seed %d; the agents' last words:\n%s", cfg.Seed, m.log)
			}
		}()
		f(t, m)
	})
}

// tempDir is in memory where the machine has such a place: disks here are
// flushed often, and their speed proves nothing.
func tempDir(t *testing.T) string {
	base := "/dev/shm"
	if st, err := os.Stat(base); err != nil || !st.IsDir() {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "virtual-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newMesh(t *testing.T, cfg Config, dir string) *Mesh {
	m := &Mesh{
		t: t, cfg: cfg, Net: newNetwork(cfg.Seed, cfg.Latency),
		ledger: newLedger(), freshness: newFreshness(), log: newLogbook(),
	}
	for i := 1; i <= cfg.Hosts; i++ {
		name := hostName(i)
		m.Hosts = append(m.Hosts, &Host{
			Name: name, Addr: addrOf(i), mesh: m, dir: filepath.Join(dir, name), labels: cfg.Labels[name],
		})
	}
	return m
}

// end stops all agents and lets what memberlist left behind run out.
func (m *Mesh) end() {
	m.Net.Cut(nil)
	for _, h := range m.Hosts {
		if h.Up() {
			h.CloseIdle()
			h.life.ask()
		}
	}
	patience := time.After(time.Minute)
	for _, h := range m.Hosts {
		if h.life == nil {
			continue
		}
		select {
		case <-h.life.done:
		case <-patience:
			m.log.stacks()
			fmt.Fprintln(os.Stderr, m.log) // synctest is about to end the process
			m.t.Fatalf("the agent of %s does not end", h.Name)
		}
	}
	Sleep(time.Minute)
}

// check makes the checks that hold for every history.
func (m *Mesh) check() {
	m.t.Helper()
	h := m.History()
	for what, found := range map[string][]string{
		"S3, an older slice":             m.freshness.problems(),
		"S5, a copy twice":               h.Doubled(m.cfg.Settle),
		"S5, too many copies":            h.Excess(m.cfg.Settle),
		"S10, a process without a cause": h.Unneutral(),
	} {
		for i, problem := range found {
			if i == 5 {
				m.t.Errorf("%s: and %d more", what, len(found)-i)
				break
			}
			m.t.Errorf("%s: %s", what, problem)
		}
	}
}

// Sleep lets virtual time pass. It is only for bubbles.
func Sleep(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // virtual

// History returns all that has happened so far.
func (m *Mesh) History() History {
	h := m.ledger.history()
	h.Surge = m.cfg.Surge
	return h
}

// Elections is in how many terms slices have been given out so far.
func (m *Mesh) Elections() int { return m.freshness.elections() }

// Lie makes voters answer the next reads of slices, n of them in the whole mesh,
// with slices that are older than what the asking hosts have accepted.
func (m *Mesh) Lie(n int) { m.freshness.lie(n) }

// Lied is how many such answers have been given.
func (m *Mesh) Lied() int { return m.freshness.told() }

// Host returns a host by name.
func (m *Mesh) Host(name string) *Host {
	m.t.Helper()
	for _, h := range m.Hosts {
		if h.Name == name {
			return h
		}
	}
	m.t.Fatalf("no host %q", name)
	return nil
}

// Up returns the hosts whose agents run.
func (m *Mesh) Up() []*Host {
	var out []*Host
	for _, h := range m.Hosts {
		if h.Up() {
			out = append(out, h)
		}
	}
	return out
}

// Form starts all hosts, makes one mesh of them and waits until each sees all
// and there are as many voters as there should be.
func (m *Mesh) Form() {
	m.t.Helper()
	m.Found()
	for _, h := range m.Hosts[1:] {
		m.Join(h)
	}
	m.AwaitMembers(30*time.Second, len(m.Hosts))
	m.AwaitVoters(60*time.Second, targetVoters(len(m.Hosts)))
}

func targetVoters(hosts int) int {
	switch {
	case hosts < 3:
		return 1
	case hosts < 7:
		return 3
	}
	return 5
}

// Found starts the first host and makes a mesh of it.
func (m *Mesh) Found() {
	m.t.Helper()
	m.Hosts[0].Start()
	var r api.InitResponse
	if err := m.Hosts[0].Post(m.t.Context(), "/v1/init", nil, api.InitRequest{Name: "virtual"}, &r); err != nil {
		m.t.Fatalf("found mesh: %v", err)
	}
	m.token = r.Token
}

// Join starts a host and makes it a member, through the first one that is up.
func (m *Mesh) Join(h *Host) {
	m.t.Helper()
	seed := m.Up()[0].Addr
	h.Start()
	req := api.JoinRequest{Seeds: []string{seed}, Token: m.token}
	if err := h.Post(m.t.Context(), "/v1/join", nil, req, nil); err != nil {
		m.t.Fatalf("join %s: %v", h.Name, err)
	}
}

// Await polls until cond has no error, for at most within, and returns how long
// it took. What it was about and the last error are what a failing test shows.
func (m *Mesh) Await(within time.Duration, what string, cond func(ctx context.Context) error) time.Duration {
	m.t.Helper()
	took, err := m.TryAwait(within, cond)
	if err != nil {
		m.log.stacks()
		m.t.Fatalf("%s: not within %s: %v", what, within, err)
	}
	return took
}

// TryAwait is Await for a test that goes on without it.
func (m *Mesh) TryAwait(within time.Duration, cond func(ctx context.Context) error) (time.Duration, error) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(m.t.Context(), within)
	defer cancel()
	var last error
	for {
		err := cond(ctx)
		if err == nil {
			return time.Since(begun), nil
		}
		if last == nil || ctx.Err() == nil { // the end of ctx explains nothing
			last = err
		}
		select {
		case <-ctx.Done():
			return time.Since(begun), last
		case <-time.After(pollEvery):
		}
	}
}

// pollEvery is how exactly Await measures.
const pollEvery = 50 * time.Millisecond
