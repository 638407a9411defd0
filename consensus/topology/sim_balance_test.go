package topology

import (
	"slices"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// balanceWatch is what the leader of a sim knows for the sake of balance, and
// what is held of moves that serve nothing else.
type balanceWatch struct {
	unwell  map[string]int // when something was last wrong with a host
	seen    map[uint64]int // when the present state's moves were first seen
	begun   []int
	done    int // moves to balance
	drained int // other copies that were taken over from
}

func (b *balanceWatch) wellFor(s *sim, host string, o HostObs) time.Duration {
	if b.unwell == nil {
		b.unwell, b.seen = map[string]int{}, map[uint64]int{}
	}
	if !o.Alive || !o.Reported || o.ReportAge >= reportLate {
		b.unwell[host] = s.now
	}
	return seconds(s.now - max(b.unwell[host], s.office))
}

func (b *balanceWatch) ages(s *sim) map[uint64]time.Duration {
	out := map[uint64]time.Duration{}
	for _, index := range s.state.Rebalanced() {
		if _, ok := b.seen[index]; !ok {
			b.seen[index] = s.now
		}
		out[index] = seconds(s.now - max(b.seen[index], s.office))
	}
	return out
}

// check holds every relief that is begun or takes over.
func (b *balanceWatch) check(s *sim, c *Place, obs Observations, gate bool) {
	set := s.state.Rebalance()
	for _, p := range c.Put {
		old, had := s.state.Placement(p.Key())
		switch {
		case p.Relief != nil && !had && !p.Relief.Balance:
			old, _ := s.state.Placement(CopyKey{p.App, p.Relief.N})
			if from, _ := s.state.Host(p.Relief.From); from.Drain == DrainNone && old.Evicted == "" {
				s.mistake("%s is to take over from one that was not evicted, on a host that is not emptied", p.Key())
			}
		case p.Relief != nil && !had:
			b.begun = append(b.begun, s.now)
			if i := len(b.begun) - 1 - set.Moves; set.Moves == 0 || i >= 0 && s.now-b.begun[i] < int(set.Window.Std()/time.Second) {
				s.mistake("%s is one more than %s", p.Key(), set)
			}
			b.checkBegin(s, p, obs, gate)
		case had && old.Relief != nil && !slices.Contains(c.Remove, CopyKey{p.App, old.Relief.N}):
			// users want more copies, and it is one
		case had && old.Relief != nil:
			if b.drained++; old.Relief.Balance {
				b.drained--
				b.done++
			}
			x := s.hosts[p.Host].procs[p.Key()]
			if o := obs.Hosts[p.Host].Copies[p.Key()]; p.Surge || !o.Ready || x == nil || o.ReadyFor < s.app(p.App).Spec.Update.HealthyFor.Std() {
				s.mistake("%s takes over and is not well", p.Key())
			}
		}
	}
}

// checkBegin: nothing moves without a need while anything is amiss, or the app
// changes.
func (b *balanceWatch) checkBegin(s *sim, p Placement, obs Observations, gate bool) {
	a := s.app(p.App)
	if a.Rollout.Outcome == "" || a.Rollout.Outcome == OutcomeHeld || a.Stopped || a.Spec.PerHost || a.Spec.Disconnect.Policy == intent.DisconnectKeep {
		s.mistake("%s moves to balance: %+v", p.Key(), a.Rollout)
	}
	if gate || s.now-s.office < int(steadyFor/time.Second) {
		s.mistake("%s moves to balance, gate shut %v, leader since %d", p.Key(), gate, s.office)
	}
	for _, name := range s.names {
		if o := obs.Hosts[name]; o.Alive && o.ReportAge >= reportLate || !o.Alive && max(o.ReportAge, o.DownFor) < calmBefore {
			if host, _ := s.state.Host(name); host.Drain != DrainDrained {
				s.mistake("%s moves to balance, and %s is not well", p.Key(), name)
			}
		}
	}
	for _, other := range s.state.Placements() {
		if other.Relief != nil && other.Relief.Balance {
			s.mistake("%s moves to balance beside %s", p.Key(), other.Key())
		}
	}
}

// TestRandomHistoriesRebalanced is TestRandomHistories with a mesh that rebalances.
func TestRandomHistoriesRebalanced(t *testing.T) {
	moved := 0
	for seed := *first; seed < *first+*seeds; seed++ {
		moved += randomHistory(t, seed, Rebalance{Moves: 5, Window: 20 * intent.Second}, false)
	}
	t.Logf("%d copies were moved to balance in %d histories", moved, *seeds)
	if moved < *seeds/4 {
		t.Error("too few: the histories did not bite")
	}
}
