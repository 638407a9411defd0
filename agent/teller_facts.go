package agent

import (
	"context"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
)

// facts tells what has been decided and not yet told, each once by one leader,
// and returns the index up to which all is told. A leader that dies on the way is
// followed by one that tells them again.
func (t *teller) facts(list []topology.Fact) uint64 {
	for _, f := range list {
		if f.Index <= t.toldTo {
			continue
		}
		subject, data := factEvent(f, t.host)
		t.emit(events.New(subject, data).With("", f.Index))
	}
	if len(list) > 0 {
		t.toldTo = max(t.toldTo, list[len(list)-1].Index)
	}
	return t.toldTo
}

// factEvent is the event of a fact. That of a reflex is one of the host that tells
// it: the subjects of others are theirs.
func factEvent(f topology.Fact, host string) (subject string, data events.Payload) {
	switch {
	case f.Staged != nil:
		return stageEvent(*f.Staged, host)
	case f.Setting != nil:
		c := *f.Setting
		return events.MeshSubject(c.Setting), events.MeshChanged{Setting: c.Setting, From: c.From, To: c.To, By: f.By}
	case f.Removed.Left:
		return events.HostSubject(f.Removed.Name), events.HostLeft{Reason: "it asked to"}
	}
	proved, unproved := proofs(*f.Removed)
	return events.HostSubject(f.Removed.Name), events.HostRemoved{By: f.By, ID: f.Removed.ID, Proved: proved, Unproved: unproved}
}

func stageEvent(c topology.StageChange, host string) (subject string, data events.Payload) {
	rule, app := api.SplitRule(c.Rule)
	subject = events.ReflexSubject(rule, host)
	if c.Reach == topology.ReachTaken {
		return subject, events.ReflexReverted{Rule: rule, App: app, Reason: c.Why, Former: c.Former}
	}
	stage := string(c.Reach)
	if c.Reach == topology.ReachNone {
		stage = "none"
	}
	return subject, events.ReflexStaged{Rule: rule, App: app, Stage: stage, Hosts: c.Hosts, Zone: c.Zone}
}

// tellFacts tells what is decided and not told, and has that recorded.
func (l *leaderLoop) tellFacts(ctx context.Context, node *consensus.Node, state *topology.State) {
	list := state.Untold()
	if len(list) == 0 {
		return
	}
	told := topology.Told{Index: l.teller.facts(list)}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := node.Apply(ctx, topology.Command{Told: &told}); err != nil {
		l.log.Debug("record what was told", "error", err)
	}
}
