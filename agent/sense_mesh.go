package agent

import (
	"context"
	"time"

	"github.com/ganglion-mesh/ganglion/gossip"
	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses"
)

// meshEvery is how often it is looked how this host sees the mesh, besides each
// change of gossip.
const meshEvery = time.Second

// meshSense tells how this host sees the mesh: its peers by gossip, and its
// leader by Raft or by who last answered as such.
type meshSense struct{ *nerves }

// Name implements senses.Sense.
func (s *meshSense) Name() string { return "mesh" }

// Vars implements senses.Sense.
func (s *meshSense) Vars() []reflexes.VarID {
	return []reflexes.VarID{
		reflexes.PeersAlive, reflexes.PeersFailed, reflexes.PeersSick, reflexes.PeerState, reflexes.PeerFailures,
		reflexes.LeaderKnown, reflexes.LeaderSelf, reflexes.LeaderSilent, reflexes.LeaderChanges,
	}
}

// Run implements senses.Sense.
func (s *meshSense) Run(ctx context.Context, emit senses.Emit) error {
	look := meshLook{self: s.cfg.Name, known: map[meshFact]reflexes.Value{}, peers: map[string]peerSeen{}}
	tick := time.NewTicker(meshEvery)
	defer tick.Stop()
	for {
		changed := s.pool.Changed()
		if facts := look.at(s.pool.Members(), s.leaderSeen(), s.bootTime()); len(facts) > 0 {
			emit(facts)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		}
	}
}

// leaderSeen is what this host knows of the leader.
type leaderSeen struct {
	addr   string // empty: none is known
	self   bool
	silent time.Duration
}

// leaderSeen asks Raft, or else who has last taken a report.
func (s *meshSense) leaderSeen() leaderSeen {
	if node := s.raft.node(); node != nil {
		st := node.Status()
		return leaderSeen{addr: st.LeaderAddr, self: st.Leader, silent: st.LastContact}
	}
	addr, silent := s.compass.heard()
	return leaderSeen{addr: addr, silent: silent}
}

type meshFact struct {
	id   reflexes.VarID
	peer string
}

type peerSeen struct {
	status   gossip.Status
	failures int64
}

// meshLook turns what is seen of the mesh into facts. It tells what changed,
// and ages.
type meshLook struct {
	self    string
	known   map[meshFact]reflexes.Value
	peers   map[string]peerSeen
	leader  string
	changes int64
	facts   []reflexes.Fact
	now     reflexes.Boot
}

func (l *meshLook) at(members []gossip.Member, leader leaderSeen, now reflexes.Boot) []reflexes.Fact {
	l.facts, l.now = l.facts[:0], now
	count := map[gossip.Status]int{}
	seen := map[string]bool{}
	for _, m := range members {
		count[m.Status]++
		seen[m.Name] = true
		if m.Name == l.self {
			continue
		}
		p := l.peers[m.Name]
		if m.Status == gossip.StatusFailed && p.status != m.Status && p.status != "" {
			p.failures++
		}
		p.status = m.Status
		l.peers[m.Name] = p
		l.tell(reflexes.PeerState, m.Name, reflexes.Text(string(m.Status)))
		l.tell(reflexes.PeerFailures, m.Name, reflexes.Int(p.failures))
	}
	for name := range l.peers {
		if !seen[name] {
			delete(l.peers, name)
			l.tell(reflexes.PeerState, name, reflexes.Value{})
		}
	}
	alive, failed := count[gossip.StatusAlive], count[gossip.StatusFailed]
	l.tell(reflexes.PeersAlive, "", reflexes.Int(int64(alive)))
	l.tell(reflexes.PeersFailed, "", reflexes.Int(int64(failed)))
	if alive+failed > 0 {
		l.tell(reflexes.PeersSick, "", reflexes.Float(float64(failed)/float64(alive+failed)))
	}
	l.atLeader(leader)
	return l.facts
}

func (l *meshLook) atLeader(leader leaderSeen) {
	if leader.addr != "" && leader.addr != l.leader {
		if l.leader != "" {
			l.changes++
		}
		l.leader = leader.addr
	}
	l.tell(reflexes.LeaderKnown, "", reflexes.Bool(leader.addr != "" || leader.self))
	l.tell(reflexes.LeaderSelf, "", reflexes.Bool(leader.self))
	l.tell(reflexes.LeaderChanges, "", reflexes.Int(l.changes))
	silent := leader.silent
	if leader.self {
		silent = 0
	}
	l.facts = append(l.facts, reflexes.Fact{Var: reflexes.LeaderSilent, Target: reflexes.Host(), Value: reflexes.Float(min(silent, l.now).Seconds()), At: l.now})
}

// tell tells a value that is not known yet.
func (l *meshLook) tell(id reflexes.VarID, peer string, v reflexes.Value) {
	key := meshFact{id, peer}
	if was, ok := l.known[key]; ok && was == v {
		return
	}
	l.known[key] = v
	t := reflexes.Host()
	if peer != "" {
		t = reflexes.Target{Scope: reflexes.ScopePeer, Name: peer}
	}
	l.facts = append(l.facts, reflexes.Fact{Var: id, Target: t, Value: v, At: l.now})
}
