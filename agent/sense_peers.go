package agent

import (
	"context"
	"time"

	"github.com/ganglion-mesh/ganglion/gossip"
	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses"
)

// peerSense tells how the other hosts are: what they say of themselves by gossip,
// and how long the way to them is. It runs only where a rule asks, for in a large
// mesh that is many facts.
type peerSense struct{ *nerves }

// Name implements senses.Sense.
func (s *peerSense) Name() string { return "peers" }

// Vars implements senses.Sense.
func (s *peerSense) Vars() []reflexes.VarID {
	return []reflexes.VarID{reflexes.PeerCPU, reflexes.PeerMemory, reflexes.PeerDisk, reflexes.PeerPressure, reflexes.PeerRTT}
}

// Run implements senses.Sense.
func (s *peerSense) Run(ctx context.Context, emit senses.Emit) error {
	tick := time.NewTicker(meshEvery)
	defer tick.Stop()
	told := map[string][2]reflexes.Boot{} // when what was told last of a host was so: its vitals, the way to it
	for {
		if facts := s.look(told); len(facts) > 0 {
			emit(facts)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look returns what is new.
func (s *peerSense) look(told map[string][2]reflexes.Boot) (facts []reflexes.Fact) {
	now := s.bootTime()
	seen := map[string]bool{}
	for _, m := range s.pool.Members() {
		if m.Name == s.cfg.Name || m.Status != gossip.StatusAlive {
			continue
		}
		seen[m.Name] = true
		t, last := reflexes.Target{Scope: reflexes.ScopePeer, Name: m.Name}, told[m.Name]
		tell := func(id reflexes.VarID, v float64, at reflexes.Boot) {
			value := reflexes.Value{} // they could not measure it
			if v >= 0 {
				value = reflexes.Float(v)
			}
			facts = append(facts, reflexes.Fact{Var: id, Target: t, Value: value, At: at})
		}
		// Ages are told anew each time, so the same is a little older or younger: within
		// half a second nothing is new.
		if v, age, ok := s.pool.Vitals(m.Name); ok && now-age > last[0]+meshEvery/2 {
			last[0] = now - age
			tell(reflexes.PeerCPU, v.CPU, last[0])
			tell(reflexes.PeerMemory, v.Memory, last[0])
			tell(reflexes.PeerDisk, v.Disk, last[0])
			tell(reflexes.PeerPressure, v.Pressure, last[0])
		}
		if took, age, ok := s.pool.RTT(m.Name); ok && now-age > last[1]+meshEvery/2 {
			last[1] = now - age
			tell(reflexes.PeerRTT, took.Seconds(), last[1])
		}
		told[m.Name] = last
	}
	for host := range told {
		if !seen[host] {
			delete(told, host)
			facts = append(facts, unknownPeer(host, now, s.Vars())...)
		}
	}
	return facts
}

// unknownPeer tells that nothing is known of a host any more.
func unknownPeer(host string, now reflexes.Boot, ids []reflexes.VarID) (facts []reflexes.Fact) {
	for _, id := range ids {
		facts = append(facts, reflexes.Fact{Var: id, Target: reflexes.Target{Scope: reflexes.ScopePeer, Name: host}, At: now})
	}
	return facts
}
