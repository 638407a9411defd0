package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/integration/rig"
)

const (
	singletons = 8   // a mesh
	meshes     = 4   // which take pairs of faults from one list
	pairsLeast = 200 // in all: on a slow machine the time gives way, not the count

	// patience is when a machine is given up that does not get through the pairs: it
	// leaves the other tests of the package what they need.
	patience = 10 * time.Minute
)

// shortLease are lease timers that make failovers quick.
var shortLease = topology.Timers{Hold: time.Second, Kill: 300 * time.Millisecond, Grace: 2 * time.Second}

// campaign is what several meshes go through together: each takes the next pair
// of faults when it is through with its last.
type campaign struct {
	timers topology.Timers
	least  int // pairs that have to be reached
	most   int
	end    time.Time // no pair begins later
	soak   bool

	forming sync.Mutex

	mu      sync.Mutex // guards what is below
	rnd     *rand.Rand
	queue   [][2]fault
	begun   int
	done    int
	changes int                      // of owner
	worst   map[string]time.Duration // without one
}

// next returns the next pair and its number, from 1; 0: there is none.
func (c *campaign) next() (pair [2]fault, number int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.begun == c.most || time.Now().After(c.end) {
		return pair, 0
	}
	if len(c.queue) == 0 {
		c.queue = everyPair(c.rnd)
	}
	pair, c.queue = c.queue[0], c.queue[1:]
	c.begun++
	return pair, c.begun
}

// Two hundred pairs of faults, every kind beside every kind, on meshes of eight
// singletons each: no lock is ever asked for while another copy holds it, tokens
// rise, and each singleton is back within the window that its timers give (S4).
// make soak gives it a time instead, and the timers that meshes have.
func TestSingletonsUnderFaults(t *testing.T) {
	t.Parallel()
	c := &campaign{
		timers: shortLease, least: pairsLeast, most: pairsLeast, end: time.Now().Add(patience),
		rnd: rand.New(rand.NewPCG(4, 4)), worst: map[string]time.Duration{},
	}
	if soak := os.Getenv("GANGLION_TEST_SOAK"); soak != "" {
		d, err := time.ParseDuration(soak)
		if err != nil {
			t.Fatal(err)
		}
		c.soak, c.timers, c.least, c.most, c.end = true, topology.DefaultTimers(), meshes, 1<<30, time.Now().Add(d)
	}
	// Not as parallel tests, of which no more run at a time than there are cores:
	// most of the time all meshes wait.
	var all sync.WaitGroup
	for i := range meshes {
		all.Go(func() {
			t.Run(fmt.Sprintf("mesh%d", i), func(t *testing.T) { c.torment(t, uint64(i)) })
		})
	}
	all.Wait()
	t.Logf("%d pairs of faults, %d changes of owner; longest without one: %v", c.done, c.changes, c.worst)
	if c.done < c.least {
		t.Errorf("%d pairs of faults, want at least %d", c.done, c.least)
	}
	if c.changes < c.done/4 {
		t.Errorf("the faults did not bite: %d changes of owner in %d pairs", c.changes, c.done)
	}
}

// form makes a mesh of five hosts with its singletons. The meshes form one after
// the other: twenty agents that start at once would tell of the machine alone.
func (c *campaign) form(t *testing.T, seed uint64) (*nemesis, witness) {
	c.forming.Lock()
	defer c.forming.Unlock()
	r := rig.New(t, 5)
	r.Env = []string{fmt.Sprintf("GANGLION_TEST_LEASE=%s,%s,%s", c.timers.Hold, c.timers.Kill, c.timers.Grace)}
	r.Start()
	awaitVoters(t, r, 3)
	w := newWitness(t)
	h := r.Hosts[0]
	h.Must("apply", "--detach", h.File("one.hcl", w.singletons(singletons)))
	awaitReady(t, h, w.appName(singletons-1), 1, time.Minute)
	return &nemesis{t: t, rig: r, rnd: rand.New(rand.NewPCG(seed, 1)), unit: c.timers.Hold}, w
}

// torment puts pairs of faults on a mesh of its own for as long as there are some.
func (c *campaign) torment(t *testing.T, seed uint64) {
	n, w := c.form(t, seed)
	o := watchOwners(w, singletons)
	defer o.stop()
	for {
		rig.Await(t, 2*time.Minute, o.owned)
		shut := c.awaitWhole(t, n.rig)
		pair, number := c.next()
		if number == 0 {
			break
		}
		before, begun := queued(n.rig), time.Now()
		b := n.strike(pair, w.holder(t, n.rig, w.appName(n.rnd.IntN(singletons))))
		if shut { // nothing moves (S9): a host's singletons are back when it is
			b.whole, b.since = false, time.Now()
		}
		if w.check(t); t.Failed() {
			t.Fatalf("pair %d: %s", number, b.what)
		}
		rig.Await(t, 2*time.Minute, o.owned)
		gap, app := o.longest(begun, b.since)
		c.judge(t, fmt.Sprintf("pair %d: %s: %s", number, b.what, app), b, gap, before.most(queued(n.rig)))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range singletons {
		c.changes += w.checkTokens(t, w.appName(i))
	}
}

// awaitWhole waits until a mesh is as it should be, so that the next faults are
// all that is judged, and tells whether the population gate is shut nevertheless.
// Where faults are short it never is; where they are as long as real leases it
// would be waited for most of the time.
func (c *campaign) awaitWhole(t *testing.T, r *rig.Rig) (shut bool) {
	rig.Await(t, 4*time.Minute, func() error {
		var hosts []api.Host
		var m api.Mesh
		if err := r.Hosts[0].Get("/v1/hosts", &hosts); err != nil {
			return err
		}
		for _, h := range hosts {
			if h.Status == "failed" || h.Note != "" {
				return fmt.Errorf("%s is %s: %s", h.Name, h.Status, h.Note)
			}
		}
		if err := r.Hosts[0].Get("/v1/mesh", &m); err != nil {
			return err
		}
		if shut = m.Held != ""; shut && !c.soak {
			return fmt.Errorf("nothing is moved: %s", m.Held)
		}
		return nil
	})
	return shut
}

// judge holds that no singleton was without an owner for longer than its timers
// give. Starved is for how long a process of the mesh waited for a CPU of this
// machine, at most: next to nothing, unless other work takes it.
func (c *campaign) judge(t *testing.T, what string, b blow, gap, starved time.Duration) {
	limit, class := c.timers.Window(), "one host lost"
	if b.leader {
		limit, class = limit+topology.LeaderWindow, "the leader lost"
	}
	if !b.whole {
		limit, class = c.timers.Window()+topology.LeaderWindow, "all hosts back"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done++
	c.worst[class] = max(c.worst[class], gap)
	if gap > limit {
		t.Logf("%s had no owner for %s, over %s; a process was starved for %s", what, gap, limit, starved)
	}
	if gap > limit+starved {
		t.Errorf("that is not the machine's fault")
	}
}

// waits are for how long each process of a mesh has waited for a CPU.
type waits map[int]time.Duration

// queued reads them from the kernel's own account of each thread.
func queued(r *rig.Rig) waits {
	w := waits{}
	for _, h := range r.Hosts {
		for _, pid := range h.Pids() {
			threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
			for _, e := range threads {
				b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, e.Name()))
				var ran, waited int64
				fmt.Sscan(string(b), &ran, &waited)
				w[pid] += time.Duration(waited)
			}
		}
	}
	return w
}

// most is the longest that one process has waited until later.
func (w waits) most(later waits) (most time.Duration) {
	for pid, d := range later {
		most = max(most, d-w[pid])
	}
	return most
}

// holder is the host on which an app was the last to start.
func (w witness) holder(t *testing.T, r *rig.Rig, app string) *rig.Host {
	t.Helper()
	list := w.tenures(t, app)
	for _, h := range r.Hosts {
		if h.Name == list[len(list)-1].host {
			return h
		}
	}
	t.Fatalf("%s ran on %+v", app, list)
	return nil
}
