package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ganglion-mesh/ganglion/consensus/consensustest"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		runChild()
		return
	}
	goleak.VerifyTestMain(m)
}

// rig is a mesh of servers over an in-memory network. Inside a synctest bubble
// its time is virtual.
type rig struct {
	t     *testing.T
	net   *consensustest.Network
	hosts map[string]*rigHost
	tune  func(*Config)
}

// rigHost is a host: what stays when its server is killed, and the server.
type rigHost struct {
	name  string
	dir   string
	store *consensustest.Store
	node  *Node
	stop  context.CancelFunc
	done  chan error
	since time.Time // of the last start or stop
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, net: consensustest.NewNetwork(), hosts: map[string]*rigHost{}}
	t.Cleanup(r.stopAll)
	return r
}

func testLogger(t *testing.T, name string) *slog.Logger {
	if !testing.Verbose() {
		return nil
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil)).With("host", name)
}

func addrOf(name string) string { return name + ":7947" }

// start starts the server of a host, new or stopped.
func (r *rig) start(name string) *rigHost {
	r.t.Helper()
	h := r.hosts[name]
	if h == nil {
		h = &rigHost{name: name, dir: filepath.Join(r.t.TempDir(), name), store: consensustest.NewStore()}
		r.hosts[name] = h
	}
	cfg := Config{
		Dir: h.dir, Addr: addrOf(name), Transport: r.net.Transport(addrOf(name)), Store: h.store,
		Logger: testLogger(r.t, name), LowSpace: -1, Reserve: -1,
	}
	if r.tune != nil {
		r.tune(&cfg)
	}
	node, err := New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	h.node, h.stop, h.done, h.since = node, cancel, make(chan error, 1), time.Now()
	go func() { h.done <- node.Run(ctx) }()
	eventually(r.t, 10*time.Second, "it runs", func() bool { return node.raft.Load() != nil })
	return h
}

// end stops a server as an agent does, and returns what Run said.
func (h *rigHost) end() error {
	if h.node == nil {
		return nil
	}
	h.stop()
	err := <-h.done
	h.node, h.since = nil, time.Now()
	return err
}

func (r *rig) stopAll() {
	for _, name := range slices.Sorted(maps.Keys(r.hosts)) {
		if err := r.hosts[name].end(); err != nil && !errors.Is(err, ErrFatal) {
			r.t.Errorf("stop %s: %v", name, err)
		}
	}
}

// found starts a first server and bootstraps it.
func (r *rig) found(name string) *rigHost {
	r.t.Helper()
	h := r.start(name)
	if err := h.node.Bootstrap(); err != nil {
		r.t.Fatal(err)
	}
	r.leader()
	return h
}

// mesh makes a mesh of n voters and returns the leader.
func (r *rig) mesh(n int) *rigHost {
	r.t.Helper()
	r.found("h1")
	for i := 2; i <= n; i++ {
		r.start(fmt.Sprintf("h%d", i))
	}
	r.tendUntil(30*time.Second, fmt.Sprintf("%d voters", n), func(p VoterPlan) bool { return p.Voters == n && p.Step.Kind == StepNone })
	return r.leader()
}

// leader waits for a leader that can commit.
func (r *rig) leader() *rigHost {
	r.t.Helper()
	var found *rigHost
	eventually(r.t, 20*time.Second, "a leader", func() bool {
		for _, h := range r.hosts {
			if h.node == nil || !h.node.Status().Leader {
				continue
			}
			ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
			err := h.node.Barrier(ctx)
			cancel()
			if err == nil {
				found = h
				return true
			}
		}
		return false
	})
	return found
}

func (r *rig) candidates() []Candidate {
	var out []Candidate
	for _, h := range r.hosts {
		c := Candidate{Host: h.name, Addr: addrOf(h.name), Alive: h.node != nil, Since: h.since}
		if id, err := loadServerID(filepath.Join(h.dir, raftDirName)); err == nil {
			c.ID = id
		}
		out = append(out, c)
	}
	return out
}

// tendUntil lets the leader tend the voters until its plan is as wanted.
func (r *rig) tendUntil(limit time.Duration, what string, want func(VoterPlan) bool) VoterPlan {
	r.t.Helper()
	var last VoterPlan
	eventually(r.t, limit, what, func() bool {
		for _, h := range r.hosts {
			if h.node == nil || !h.node.Status().Leader {
				continue
			}
			ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
			plan, err := h.node.Tend(ctx, r.candidates())
			cancel()
			if err == nil {
				last = plan
				return want(plan)
			}
		}
		return false
	})
	return last
}

// put writes a value under a key: a token is the simplest register there is.
func put(ctx context.Context, n *Node, key, value string) error {
	res, err := n.Apply(ctx, topology.Command{PutToken: &topology.PutToken{ID: key, Role: value}})
	if err == nil && res.Err != nil {
		return res.Err
	}
	return err
}

func get(n *Node, key string) string {
	token, _ := n.State().Token(key)
	return token.Role
}

func mustPut(t *testing.T, n *Node, key, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := put(ctx, n, key, value); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func within(t *testing.T, d time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return do(ctx)
}

// eventually polls a condition until it holds or the limit has passed.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("within %v: not %s", limit, what)
		case <-tick.C:
		}
	}
}
