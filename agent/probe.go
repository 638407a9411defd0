package agent

import (
	"context"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/gossip"
)

const (
	probeEvery   = time.Second // how often the kernel of a host that looks dead is asked
	probeTimeout = time.Second
)

// prober finds out whether a host that looks dead is: the kernel of one whose
// agent hangs still takes connections to its mesh port, and its copies run on. A
// host that is gone or cut off does not answer, and where the agent has ended the
// kernel refuses. It is used by the leader's loop alone.
type prober struct {
	net   Network
	obs   *observatory
	asked map[string]time.Time
	calls sync.WaitGroup
}

// look asks the kernels of all hosts that look dead, each in the background, and
// notes the answers in the observatory. Whoever ends ctx waits for calls.
func (p *prober) look(ctx context.Context, obs topology.Observations, members []gossip.Member, now time.Time) {
	addrs := byName(members)
	for name, h := range obs.Hosts {
		if h.Alive || now.Sub(p.asked[name]) < probeEvery {
			continue
		}
		p.asked[name] = now
		addr := addrs[name].Tags[tagMesh]
		p.calls.Go(func() {
			takes := addr != "" && p.takes(ctx, addr)
			if ctx.Err() == nil {
				p.obs.probed(name, takes)
			}
		})
	}
}

func (p *prober) takes(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := p.net.Dial(ctx, addr)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
