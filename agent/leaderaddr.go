package agent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/gossip"
)

// The tags by which hosts tell each other, over gossip, how they are reached.
const (
	tagHostID  = "id"   // made at enrolment
	tagMesh    = "api"  // mesh port, host:port
	tagRaftID  = "raft" // id of the host's Raft server, while it runs one
	tagNATS    = "nats" // client URL of an embedded server
	tagCluster = "natsc"
)

// compass knows where the leader is likely to be. It is a hint: who is asked
// and is not the leader says so, and the asker looks again.
type compass struct {
	mu     sync.Mutex
	last   string               // mesh address that last answered as leader
	at     time.Time            // when one last did
	misses map[string]time.Time // when an address last proved not to lead
}

func (c *compass) set(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last, c.at = addr, time.Now()
	delete(c.misses, addr)
}

// heard tells who is taken for the leader, empty if nobody is, and for how long
// none has answered, from when the agent started.
func (c *compass) heard() (addr string, silent time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, time.Since(c.at)
}

// wrong takes back a hint that proved false.
func (c *compass) wrong(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == addr {
		c.last = ""
	}
	if c.misses == nil || len(c.misses) > maxMisses {
		c.misses = map[string]time.Time{}
	}
	c.misses[addr] = time.Now()
}

// maxMisses bounds what is remembered of hosts that did not lead.
const maxMisses = 64

// guess returns mesh addresses to ask for the leader, the likeliest first: the
// one that last answered, then those with a Raft server that gossip calls
// alive, those last that proved false last. So a leader that hangs, which gossip
// takes its time to notice, is not asked again before all others were.
func (c *compass) guess(members []gossip.Member, self string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, m := range members {
		addr := m.Tags[tagMesh]
		if m.Tags[tagRaftID] != "" && m.Status == gossip.StatusAlive && addr != self && addr != c.last {
			out = append(out, addr)
		}
	}
	slices.SortStableFunc(out, func(a, b string) int { return c.misses[a].Compare(c.misses[b]) })
	if c.last != "" && c.last != self {
		out = slices.Insert(out, 0, c.last)
	}
	return out
}

// leaderAddrs lists who to ask: the leader if this host's Raft server knows
// it, else what the compass guesses.
func (m *member) leaderAddrs() []string {
	if node := m.raft.node(); node != nil {
		st := node.Status()
		if st.LeaderAddr != "" && st.LeaderAddr != m.addr {
			return []string{st.LeaderAddr}
		}
		if inQuorum(st) {
			return nil // an election is on
		}
	}
	return m.compass.guess(m.pool.Members(), m.addr)
}

// sliceAddrs lists who may serve this host's slice, or hand on what it has for the
// leader: whoever may lead, then every other host with a Raft server, for the
// leader may be cut off from this host alone.
func (m *member) sliceAddrs() []string {
	out := m.leaderAddrs()
	for _, addr := range m.compass.guess(m.pool.Members(), m.addr) {
		if !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

// inTurn asks whoever may lead, or hand on what this host has for the leader, one
// after the other until ask says that it is settled or ctx ends, each for so long at
// most: one that hangs leaves time for another. It returns what the last one said.
func (m *member) inTurn(ctx context.Context, each time.Duration, ask func(ctx context.Context, addr string) (settled bool, err error)) error {
	err := errors.New("no voter is reachable")
	for _, addr := range m.sliceAddrs() {
		var settled bool
		one, cancel := context.WithTimeout(ctx, each)
		settled, err = ask(one, addr)
		cancel()
		if settled || ctx.Err() != nil {
			break
		}
	}
	return err
}
