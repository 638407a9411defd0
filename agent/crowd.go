package agent

import (
	"context"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/gossip"
)

// rosterFor is how long what a leader said of the size of the mesh is believed.
// Without it the hosts that gossip knows are all there are.
const rosterFor = 10 * time.Minute

// crowd is how this host judges the population (S9): whether so many hosts look
// unhealthy to it that it is more likely to be the sick one. It goes by gossip, and
// by the size of the roster as a leader said it last, so that a host that was
// restarted alone does not take itself for the mesh. It is safe for concurrent use.
type crowd struct {
	pool *gossip.Pool

	mu       sync.Mutex
	gate     gate
	roster   int
	rosterAt time.Time
}

// heard notes how many hosts the roster has.
func (c *crowd) heard(roster int, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roster, c.rosterAt = roster, now
}

// shut tells whether nothing is to be done that reaches beyond this host.
func (c *crowd) shut(now time.Time) bool {
	alive, hosts := 0, 0
	for _, m := range c.pool.Members() {
		switch m.Status {
		case gossip.StatusLeft:
			continue
		case gossip.StatusAlive:
			alive++
		}
		hosts++
	}
	return c.judge(alive, hosts, now)
}

// judge notes how many of the hosts that gossip knows are alive, and tells what shut
// does.
func (c *crowd) judge(alive, hosts int, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.rosterAt) < rosterFor {
		hosts = max(hosts, c.roster)
	}
	shut, calm := topology.Crowd(hosts, hosts-alive, c.gate.shut, c.gate.calmFor(now))
	c.gate.update(shut, calm, now)
	return shut
}

// run looks whenever gossip has news, so that it is known since when it is calm.
func (c *crowd) run(ctx context.Context) {
	for {
		changed := c.pool.Changed()
		c.shut(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}
