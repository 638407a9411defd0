package consensus

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	stepTimeout    = 10 * time.Second // of one change of the configuration
	catchUpTimeout = 500 * time.Millisecond
	catchUpTick    = 5 * time.Millisecond
)

// tending is what Tend remembers between its calls, within one term.
type tending struct {
	mu       sync.Mutex // held for a whole Tend: one at a time
	term     uint64
	conf     uint64               // entry of the configuration as of the last snapshot
	unlisted map[string]time.Time // since when a server has had no candidate
	step     Step                 // the step that is being held
	since    time.Time            // since when
}

func newTending() *tending { return &tending{unlisted: map[string]time.Time{}} }

// Tend looks at the voters and takes at most one step towards the right
// number of healthy ones. The leader's caller calls it every second or so, and
// again at once after a plan that was Done; elsewhere it returns
// *NotLeaderError. The plan also names hosts that should start a server: they
// turn up among the candidates, with their id, when they have.
//
// candidates must name every host of the committed roster (see Candidate).
func (n *Node) Tend(ctx context.Context, candidates []Candidate) (VoterPlan, error) {
	n.tending.mu.Lock()
	defer n.tending.mu.Unlock()
	r := n.raft.Load()
	if r == nil {
		return VoterPlan{}, fmt.Errorf("tend voters: %w", ErrStopped)
	}
	if r.State() != raft.Leader {
		return VoterPlan{}, &NotLeaderError{Leader: n.otherLeader()}
	}
	e, err := n.electorate(r, candidates)
	if err != nil {
		return VoterPlan{}, fmt.Errorf("tend voters: %w", err)
	}
	plan := planVoters(e)
	if plan.Step.Kind == StepNone || !n.tending.held(plan.Step, e.now) {
		return plan, nil
	}
	// The configuration that was looked at must be the committed one, and this
	// server the leader: both are proved by the log.
	if err := n.Barrier(ctx); err != nil {
		return plan, fmt.Errorf("tend voters: %w", err)
	}
	if !slices.Equal(configured(r), e.servers) {
		return plan, nil
	}
	if err := n.execute(ctx, plan.Step); err != nil {
		return plan, fmt.Errorf("tend voters: %s %v: %w", plan.Step.Kind, plan.Step.Servers, err)
	}
	n.tending.step = Step{}
	plan.Done = true
	n.log.Info("consensus: voters changed", "step", plan.Step.Kind, "servers", plan.Step.Servers, "why", plan.Step.Why)
	return plan, nil
}

// held says whether a step has been the next one for as long as it asks.
func (t *tending) held(s Step, now time.Time) bool {
	if s.Kind != t.step.Kind || !slices.Equal(s.Servers, t.step.Servers) {
		t.step, t.since = s, now
	}
	return now.Sub(t.since) >= s.Hold
}

func configured(r *raft.Raft) []server {
	var out []server
	for _, s := range r.GetConfiguration().Configuration().Servers {
		out = append(out, server{id: string(s.ID), addr: string(s.Address), voter: s.Suffrage == raft.Voter})
	}
	return out
}

// electorate gathers what the policy looks at.
func (n *Node) electorate(r *raft.Raft, candidates []Candidate) (electorate, error) {
	t, term, now := n.tending, r.CurrentTerm(), time.Now()
	if t.term != term {
		n.progress.lead(term)
		snaps, err := n.snaps.List()
		if err != nil {
			return electorate{}, err
		}
		t.term, t.step, t.conf = term, Step{}, 0
		clear(t.unlisted)
		for _, s := range snaps {
			t.conf = max(t.conf, s.ConfigurationIndex)
		}
	}
	listed := map[string]bool{}
	for _, c := range candidates {
		listed[c.ID] = true
	}
	e := electorate{self: n.id, now: now, stability: n.cfg.Stability, servers: configured(r), candidates: candidates, contacts: map[string]contact{}}
	members := map[string]bool{}
	last, conf := r.LastIndex(), max(t.conf, n.machine.conf.Load())
	for _, s := range e.servers {
		members[s.id] = true
		c := contact{}
		if s.id != n.id {
			c = n.progress.contact(s.id, last, conf)
		}
		if listed[s.id] {
			delete(t.unlisted, s.id)
		} else if since, ok := t.unlisted[s.id]; ok {
			c.unlisted = now.Sub(since)
		} else {
			t.unlisted[s.id] = now
		}
		e.contacts[s.id] = c
	}
	n.progress.keep(members)
	return e, nil
}

// execute carries a step out. Each change names the configuration it builds
// on, so that one that another change overtook is refused.
func (n *Node) execute(ctx context.Context, s Step) error {
	if s.Kind == StepTransfer {
		return n.transferTo(ctx, s.Servers[0], s.Addrs[0])
	}
	if s.Kind == StepRemove {
		n.letCatchUp(ctx, s.Servers[0])
	}
	prev := n.machine.conf.Load() // 0, known from a snapshot only: no check
	for i, id := range s.Servers {
		var addr string
		if i < len(s.Addrs) {
			addr = s.Addrs[i]
		}
		next, err := n.change(ctx, s.Kind, raft.ServerID(id), raft.ServerAddress(addr), prev)
		if err != nil {
			return err
		}
		prev = next
	}
	return nil
}

// letCatchUp waits a moment until a server that answers has the whole log.
// Raft tells a removed server so only if nothing else is on its way to it.
func (n *Node) letCatchUp(ctx context.Context, id string) {
	r := n.raft.Load()
	if r == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, catchUpTimeout)
	defer cancel()
	tick := time.NewTicker(catchUpTick)
	defer tick.Stop()
	for {
		if c := n.progress.contact(id, r.LastIndex(), 0); c.lag == 0 || c.silence > freshContact {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (n *Node) change(ctx context.Context, kind StepKind, id raft.ServerID, addr raft.ServerAddress, prev uint64) (uint64, error) {
	var index uint64
	err := n.call(ctx, func(r *raft.Raft) error {
		var f raft.IndexFuture
		switch kind {
		case StepAdd:
			f = r.AddNonvoter(id, addr, prev, stepTimeout)
		case StepPromote:
			f = r.AddVoter(id, addr, prev, stepTimeout)
		case StepReaddress:
			if n.isVoter(r, id) {
				f = r.AddVoter(id, addr, prev, stepTimeout)
			} else {
				f = r.AddNonvoter(id, addr, prev, stepTimeout)
			}
		case StepDemote:
			f = r.DemoteVoter(id, prev, stepTimeout)
		case StepRemove:
			f = r.RemoveServer(id, prev, stepTimeout)
		default:
			return fmt.Errorf("unknown step %q", kind)
		}
		if err := f.Error(); err != nil {
			return err
		}
		index = f.Index()
		return nil
	})
	if err != nil {
		if refused, ok := n.refused(err); ok {
			return 0, refused
		}
		return 0, err
	}
	return index, nil
}

func (n *Node) isVoter(r *raft.Raft, id raft.ServerID) bool {
	return slices.ContainsFunc(configured(r), func(s server) bool { return s.id == string(id) && s.voter })
}
