package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/gossip"
	"github.com/ganglion-mesh/ganglion/trust"
)

// How often the slot looks whether it should serve: nothing tells a server that
// waits for its vote that it has got it, or one that has it that it is gone.
const (
	natsAwaits = time.Second
	natsLook   = 5 * time.Second
)

// natsSlot is the place of this host's embedded NATS server: hosts in the
// quorum have one, clustered with each other. Nothing but the story depends on
// it: a server that cannot start is tried again, and the rest goes on.
type natsSlot struct {
	*member
	cur atomic.Pointer[events.Server]

	mu    sync.Mutex
	voted map[string]time.Time // when a host was last seen in the quorum
}

// votedFor is how long a host that left the quorum may still tell what it saw as
// a voter.
const votedFor = time.Hour

// mayLead tells whether a host is, or lately was, in the quorum: only such hosts
// open routes and tell what leaders tell.
func (n *natsSlot) mayLead(host string) bool {
	inside := host == n.cfg.Name
	if node := n.raft.node(); node != nil && !inside {
		id := byName(n.pool.Members())[host].Tags[tagRaftID]
		inside = slices.ContainsFunc(node.Status().Peers, func(p consensus.Peer) bool { return p.ID == id })
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if inside {
		n.voted[host] = time.Now()
	}
	at, seen := n.voted[host]
	return seen && time.Since(at) < votedFor
}

// local returns the embedded server, if it is ready, for the publisher.
func (n *natsSlot) local() events.InProcess {
	s := n.cur.Load()
	if s == nil {
		return nil
	}
	return s
}

// run serves while this host is in the quorum, until ctx ends.
func (n *natsSlot) run(ctx context.Context) error {
	var retry backoff
	warned := ""
	for ctx.Err() == nil {
		moved := n.raft.changed()
		if !n.isVoter() {
			n.await(ctx, moved)
			continue
		}
		err := n.serve(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil && err.Error() != warned {
			warned = err.Error()
			n.log.Warn("the embedded NATS server does not run: events stay on disk until one does", "error", err)
		}
		retry.wait(ctx)
	}
	return nil
}

// await waits for what may make this host a voter.
func (n *natsSlot) await(ctx context.Context, moved <-chan struct{}) {
	var look <-chan time.Time
	if n.raft.node() != nil {
		look = time.After(natsAwaits)
	}
	select {
	case <-ctx.Done():
	case <-moved:
	case <-look:
	}
}

// serve runs one server until this host leaves the quorum or ctx ends.
func (n *natsSlot) serve(ctx context.Context) error {
	srv, err := events.NewServer(n.config())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	select {
	case err := <-done:
		return err
	case <-srv.Ready():
	}
	n.cur.Store(srv)
	n.publisher.Reconnect()
	n.tags.set(tagNATS, strconv.Itoa(n.ports.NATS))
	n.tags.set(tagCluster, strconv.Itoa(n.ports.NATSCluster))
	defer func() {
		n.cur.Store(nil)
		n.tags.set(tagNATS, "")
		n.tags.set(tagCluster, "")
	}()
	tick := time.NewTicker(natsLook)
	defer tick.Stop()
	routes := n.routes()
	for n.isVoter() {
		gossiped := n.pool.Changed()
		select {
		case err := <-done:
			return err
		case <-gossiped:
		case <-tick.C:
		}
		if now := n.routes(); !slices.Equal(now, routes) {
			if err := srv.SetRoutes(now); err != nil {
				n.log.Warn("route NATS", "error", err)
				continue
			}
			routes = now
		}
	}
	cancel()
	return <-done
}

func (n *natsSlot) config() events.ServerConfig {
	return events.ServerConfig{
		Name: n.cfg.Name, Mesh: n.meshName(), Host: n.cfg.Bind, Port: n.ports.NATS,
		ClusterName: n.id.Peer().MeshID, ClusterPort: n.ports.NATSCluster,
		Advertise: net.JoinHostPort(n.cfg.Advertise, strconv.Itoa(n.ports.NATSCluster)),
		Routes:    n.routes(), TLS: n.id.PeerTLS(), RouteTLS: n.id.ClientTLS(),
		Authorize: n.authorizeHost, Voter: n.mayLead,
		Logger: n.log.With(slog.String("part", "nats")),
	}
}

// authorizeHost names the host of a verified connection.
func (m *member) authorizeHost(cs tls.ConnectionState) (string, bool) {
	peer, err := trust.PeerOf(cs)
	return peer.Host, err == nil && peer.Role == trust.RoleAgent && m.stranger(cs) == ""
}

// isVoter tells whether this host counts in the quorum.
func (n *natsSlot) isVoter() bool {
	node := n.raft.node()
	if node == nil {
		return false
	}
	for _, p := range node.Status().Peers {
		if p.ID == node.ServerID() {
			return p.Voter
		}
	}
	return false
}

// routes lists the cluster ports of the other servers that gossip knows.
func (n *natsSlot) routes() []string { return n.served(tagCluster, "%s") }

// urls lists where NATS is served in the mesh, this host first.
func (n *natsSlot) urls() []string {
	if len(n.cfg.NATS) > 0 {
		return n.cfg.NATS
	}
	var own []string
	if n.cur.Load() != nil {
		own = []string{"nats://" + net.JoinHostPort(n.cfg.Advertise, strconv.Itoa(n.ports.NATS))}
	}
	return append(own, n.served(tagNATS, "nats://%s")...)
}

func (n *natsSlot) served(tag, format string) []string {
	var out []string
	for _, m := range n.pool.Members() {
		if port := m.Tags[tag]; port != "" && m.Name != n.cfg.Name && m.Status == gossip.StatusAlive {
			out = append(out, fmt.Sprintf(format, net.JoinHostPort(m.Addr, port)))
		}
	}
	return out
}
