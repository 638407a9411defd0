package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/brake"
	"github.com/ganglion-mesh/ganglion/consensus"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/gossip"
	"github.com/ganglion-mesh/ganglion/pause"
)

// leaderTick is how often a leader looks again when nothing has changed: ages
// and deadlines pass without an event.
const leaderTick = time.Second

// leaderLoop is the leader's work on a host with a Raft server: observe,
// decide, propose. It decides nothing itself; topology.Decide does.
type leaderLoop struct {
	raft    *raftSlot
	obs     *observatory
	pool    *gossip.Pool
	voters  *voterKeeper
	probes  *prober
	teller  *teller
	log     *slog.Logger
	told    func(leads bool)                  // a seam; may be nil
	synced  func() error                      // has all that was told on disk
	last    atomic.Pointer[topology.Decision] // of the present term, for status
	gate    gate
	current atomic.Uint64 // term in which this host leads and has passed its barrier; 0: none

	lessor *lessor
	lender *lender
	steady steadiness
	brake  *brake.Keeper
}

// makeLeader puts together what a member does while it leads.
func (m *member) makeLeader() {
	m.obs = newObservatory()
	m.lessor = newLessor(m.raft, m.cfg.bootClock(), m.cfg.Lease)
	m.lender = &lender{raft: m.raft, clock: m.cfg.bootClock(), held: func() string { return m.leader.withholds() }}
	m.leader = &leaderLoop{
		raft: m.raft, obs: m.obs, pool: m.pool, teller: newTeller(m.cfg.Name, m.tell), lessor: m.lessor, lender: m.lender, brake: m.brake,
		log: m.log, told: m.cfg.Seams.Lead, synced: m.recorder.Sync,
		probes: &prober{net: m.cfg.network(), obs: m.obs, asked: map[string]time.Time{}},
		voters: &voterKeeper{pool: m.pool, obs: m.obs, links: m.links, log: m.log, asked: map[string]time.Time{}, retiring: map[string]time.Time{}},
	}
}

// run works whenever this host leads, until ctx ends.
func (l *leaderLoop) run(ctx context.Context) error {
	for ctx.Err() == nil {
		moved, gossiped := l.raft.changed(), l.pool.Changed()
		members := l.pool.Members()
		l.obs.members(members, time.Now())
		var elected, decided <-chan struct{}
		var arrived <-chan time.Time
		if node := l.raft.node(); node != nil {
			elected = node.Leadership()
			if st := node.Status(); st.Leader {
				l.lead(ctx, node, st.Term)
				continue
			}
			state := node.State()
			decided = node.Changed(state.Revision())
			if l.watch(state, members, time.Now()) {
				arrived = time.After(arriveTime)
			}
		} else {
			l.gate = gate{} // a host outside the quorum knows no roster
		}
		select {
		case <-ctx.Done():
		case <-moved:
		case <-gossiped:
		case <-elected:
		case <-decided:
		case <-arrived:
		}
	}
	return nil
}

// watch keeps what this host must know already when it has to lead: since when
// which host is down, and whether too many are to believe it. It reports whether
// to look again although gossip has no news: for a host that it may never know.
func (l *leaderLoop) watch(state *topology.State, members []gossip.Member, now time.Time) (again bool) {
	l.steady.watch(state, now)
	obs, again := l.obs.watch(state.Hosts(), members, now)
	obs.GateShut, obs.CalmFor = l.gate.shut, l.gate.calmFor(now)
	shut, calm := topology.Gate(state, obs)
	l.gate.update(shut, calm, now)
	return again
}

// lead works for one term of office.
func (l *leaderLoop) lead(ctx context.Context, node *consensus.Node, term uint64) {
	bctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	err := node.Barrier(bctx)
	cancel()
	if err != nil {
		if !errors.As(err, new(*consensus.NotLeaderError)) {
			l.log.Debug("take office", "term", term, "error", err)
		}
		pause.For(ctx, 50*time.Millisecond)
		return
	}
	ctx, over := context.WithCancel(ctx)
	defer l.voters.asks.Wait()
	defer l.probes.calls.Wait()
	defer over()
	l.obs.takeOffice(time.Now())
	l.lessor.takeOffice()
	l.lender.takeOffice()
	l.steady.takeOffice()
	l.last.Store(nil)
	l.current.Store(term)
	defer l.current.Store(0)
	if l.told != nil {
		l.told(true)
		defer l.told(false)
	}
	l.teller.elected(term, node.State().Revision())
	l.log.Info("leading", "term", term)
	for ctx.Err() == nil {
		moved := node.Leadership()
		st := node.Status()
		if !st.Leader || st.Term != term {
			l.teller.lost(term)
			l.log.Info("no longer leading", "term", term)
			return
		}
		gossiped, reported, braked := l.pool.Changed(), l.obs.news(), l.brake.Changed()
		state := node.State()
		index := state.Revision()
		wake := l.step(ctx, node, state)
		l.voters.tend(ctx, node, term)
		select {
		case <-ctx.Done():
		case <-node.Changed(index):
		case <-moved:
		case <-reported:
		case <-braked:
		case <-gossiped:
		case <-time.After(wake):
		}
	}
}

// step decides once and proposes what was decided. A command that is rejected
// was decided on a state that has moved on: the next step decides afresh.
func (l *leaderLoop) step(ctx context.Context, node *consensus.Node, state *topology.State) time.Duration {
	l.tellFacts(ctx, node, state)
	if err := l.sealThaw(state); err != nil {
		l.log.Error("make a thaw known", "error", err)
	}
	now := time.Now()
	l.obs.runs(now)
	members := l.pool.Members()
	l.teller.members(members, state)
	obs := l.obs.observe(state.Hosts(), members, now)
	obs.GateShut, obs.CalmFor = l.gate.shut, l.gate.calmFor(now)
	l.lessor.observe(&obs, state, l.obs)
	l.lender.look(state)
	l.steady.observe(&obs, state, now)
	brakes := l.brake.View()
	obs.Freeze, obs.Leader = freezeOf(brakes), l.teller.host
	l.probes.look(ctx, obs, members, now)
	l.teller.obs = obs
	l.teller.doubts(obs, state.Revision())
	d := topology.Decide(state, obs)
	l.gate.update(d.GateShut, d.Calm, now)
	if before := l.last.Swap(&d); d.Held != "" && (before == nil || before.Held != d.Held) {
		l.log.Warn("nothing is moved", "why", d.Held)
	}
	for _, cmd := range d.Commands {
		if l.brake.View() != brakes {
			return 0 // decided under another freeze, which counts when it is acted on
		}
		actx, cancel := context.WithTimeout(ctx, 5*time.Second)
		res, err := node.Apply(actx, cmd)
		cancel()
		if err != nil {
			l.log.Debug("propose", "error", err)
			return leaderTick
		}
		if res.Err != nil {
			l.log.Debug("decision overtaken", "why", res.Err)
			return 0
		}
	}
	l.teller.decision(d, state.Revision())
	if d.Wake > 0 && d.Wake < leaderTick {
		return d.Wake
	}
	return leaderTick
}

// leading tells whether this host leads and has passed its barrier, so that
// its observations are of use.
func (l *leaderLoop) leading() bool { return l.current.Load() != 0 }

// awaits says what a staged reflex waits for.
func (l *leaderLoop) awaits(rule string) string {
	if d := l.last.Load(); d != nil {
		for _, w := range d.Stages {
			if w.Rule == rule {
				return "; " + w.Why
			}
		}
	}
	return ""
}

// gate remembers what one observation cannot tell: that the population gate was
// shut, and for how long it could have opened (S9). It outlives terms of office.
type gate struct {
	shut bool
	calm time.Time // since when it has been calm; zero: it is not
}

func (g *gate) calmFor(now time.Time) time.Duration {
	if g.calm.IsZero() {
		return 0
	}
	return now.Sub(g.calm)
}

func (g *gate) update(shut, calm bool, now time.Time) {
	g.shut = shut
	switch {
	case !calm:
		g.calm = time.Time{}
	case g.calm.IsZero():
		g.calm = now
	}
}
