package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/gossip"
)

// tendEvery is how often the leader looks at its quorum.
const tendEvery = time.Second

// retireFor is how long a host counts as leaving after it last said so.
const retireFor = 30 * time.Second

// voterKeeper keeps the quorum as the policy of package consensus wants it: it
// tells that policy which hosts there are, and carries its wishes to them. Used
// by the leader's loop alone.
type voterKeeper struct {
	pool  *gossip.Pool
	obs   *observatory
	links *links
	log   *slog.Logger
	next  time.Time
	asks  sync.WaitGroup
	asked map[string]time.Time // when a host was last asked to start or end its server

	mu       sync.Mutex
	retiring map[string]time.Time // when a host last said that it is leaving
}

// retire takes note that a host is leaving: it gets no vote any more and is
// taken out of the quorum at once. It says so again and again until it is out, so that
// every leader knows, and a leave that was given up is forgotten.
func (k *voterKeeper) retire(host string, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.retiring[host] = now
}

func (k *voterKeeper) isRetiring(host string, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	at, ok := k.retiring[host]
	return ok && now.Sub(at) < retireFor
}

// tend does one step, at most every tendEvery, as the leader of term.
func (k *voterKeeper) tend(ctx context.Context, node *consensus.Node, term uint64) {
	now := time.Now()
	if now.Before(k.next) {
		return
	}
	k.next = now.Add(tendEvery)
	state := node.State()
	tctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	plan, err := node.Tend(tctx, k.candidates(state, now))
	if err != nil {
		k.log.Warn("tend voters", "error", err)
		return
	}
	if plan.Done {
		k.log.Info("voters changed", "step", plan.Step.Kind, "why", plan.Step.Why, "target", plan.Target)
		k.next = now
	}
	for _, host := range plan.Start {
		k.ask(ctx, host, api.VoterRequest{Run: true, Term: term}, now)
	}
	for _, host := range plan.Stop {
		k.ask(ctx, host, api.VoterRequest{Run: false, Term: term}, now)
	}
}

// candidates lists every host of the roster that may carry a voter.
func (k *voterKeeper) candidates(state *topology.State, now time.Time) []consensus.Candidate {
	members := byName(k.pool.Members())
	var out []consensus.Candidate
	for _, h := range state.Hosts() {
		m, known := members[h.Name]
		r, _, reported := k.obs.last(h.Name, now)
		if reported && r.Voter == "never" {
			continue
		}
		out = append(out, consensus.Candidate{
			ID:    m.Tags[tagRaftID],
			Addr:  m.Tags[tagMesh],
			Host:  h.Name,
			Alive: known && m.Status == gossip.StatusAlive && m.Tags[tagHostID] == h.ID && h.Drain == topology.DrainNone,
			Since: m.Since, Leaving: k.isRetiring(h.Name, now),
		})
	}
	return out
}

// ask tells a host to start or end its Raft server, in the background and not
// again within some seconds: the next look shows whether it did. A host that
// hangs must not hold up what the leader decides. Whoever ends ctx waits for asks.
func (k *voterKeeper) ask(ctx context.Context, host string, req api.VoterRequest, now time.Time) {
	m, ok := byName(k.pool.Members())[host]
	if !ok || m.Status != gossip.StatusAlive || now.Sub(k.asked[host]) < 3*time.Second {
		return
	}
	k.asked[host] = now
	k.asks.Go(func() {
		actx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if err := k.links.client(m.Tags[tagMesh]).Post(actx, "/v1/voter", nil, req, nil); err != nil && ctx.Err() == nil {
			k.log.Warn("ask host about its raft server", "host", host, "run", req.Run, "error", err)
		}
	})
}

func byName(members []gossip.Member) map[string]gossip.Member {
	out := make(map[string]gossip.Member, len(members))
	for _, m := range members {
		out[m.Name] = m
	}
	return out
}
