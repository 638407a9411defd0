package agent

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/intent"
)

// ackAfter is for how long what was told waits to be recorded as told, so that a
// flurry of decisions takes one record more and not one each. A leader that dies
// meanwhile leaves it to the next to tell them again, by the same ids.
const ackAfter = leaderTick

// facts tells what has been decided and not yet told, each once by one leader,
// and returns the index up to which all is told. What cannot be recorded now is
// told later, with all that comes after it.
func (t *teller) facts(list []topology.Fact, state *topology.State) uint64 {
	for i, f := range list {
		if f.Index < t.last.Index || f.Index == t.last.Index && f.Nth <= t.last.Nth && t.last.Index != 0 {
			continue
		}
		if subject, data := t.event(f, state); data != nil {
			d := events.New(subject, data).With("", f.Index).Along(f.Chain)
			d.ID = events.DecisionID(f.At, state.MeshID(), state.Era(), f.Index, f.Nth)
			if err := t.emit(d); err != nil && !errors.Is(err, events.ErrInvalid) {
				break
			}
		}
		if t.last = f; i+1 == len(list) || list[i+1].Index != f.Index {
			t.toldTo = f.Index
		}
	}
	return t.toldTo
}

// event is the event of a fact; nil if it is none. That of a reflex is one of the
// host that tells it: the subjects of others are theirs.
func (t *teller) event(f topology.Fact, state *topology.State) (subject string, data events.Payload) {
	switch {
	case f.Staged != nil:
		return stageEvent(*f.Staged, t.host)
	case f.Missed > 0:
		return events.MeshSubject("story"), events.MeshMissed{Decisions: f.Missed}
	case f.Setting != nil:
		c := *f.Setting
		return events.MeshSubject(strings.ReplaceAll(c.Setting, "_", "-")), events.MeshChanged{Setting: c.Setting, From: c.From, To: c.To, By: f.By}
	case f.Intent != nil && f.Intent.Op == intent.OpRemove:
		return events.IntentSubject(f.Intent.Name), events.IntentRemoved{Kind: f.Intent.Kind, By: f.By}
	case f.Intent != nil:
		return events.IntentSubject(f.Intent.Name), events.IntentApplied{Kind: f.Intent.Kind, Op: f.Intent.Op, Fields: f.Intent.Fields, By: f.By}
	case f.Copy != nil:
		delete(t.why, f.Copy.Key())
		return copySubject(f.Copy.Key()), copyEvent(*f.Copy)
	case f.Rollout != nil:
		return events.RolloutSubject(f.Rollout.App), t.rollout(f, state)
	case f.Run != nil:
		return copySubject(topology.CopyKey{App: f.Run.App}), t.runEvent(*f.Run)
	case f.Host != nil:
		return events.HostSubject(f.Host.Name), t.hostEvent(f)
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

func (t *teller) hostEvent(f topology.Fact) events.Payload {
	switch drain := "drain/" + f.Host.Name; f.Host.What {
	case topology.HostDraining:
		t.begun[drain] = f.At
		return events.HostDraining{By: f.By, Copies: f.Host.Copies}
	case topology.HostDrained:
		return events.HostDrained{TookMS: t.took(drain, f.At)}
	}
	return events.HostJoined{ID: f.Host.ID}
}

// tellFacts tells what is decided and not told, and now and then has recorded what
// was: once it is on this host's disk.
func (l *leaderLoop) tellFacts(ctx context.Context, node *consensus.Node, state *topology.State) {
	t := l.teller
	if state.AllTold() {
		return
	}
	list := state.Untold(t.last.Index)
	if len(list) > 0 && list[0].Missed > 0 && list[0].Index > t.last.Index {
		l.log.Error("facts dropped: decisions were made faster than they could be told, or this host could not write its story", "facts", list[0].Missed, "up_to_revision", list[0].Index)
	}
	told := t.facts(list, state)
	switch {
	case told <= t.acked:
		return
	case t.since.IsZero():
		t.since = time.Now()
	}
	if time.Since(t.since) < ackAfter && !state.Crowded() {
		return
	}
	if err := l.synced(); err != nil {
		l.log.Warn("record what was told", "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := node.Apply(ctx, topology.Command{Told: &topology.Told{Index: told}}); err != nil {
		l.log.Debug("record what was told", "error", err)
		return
	}
	t.acked, t.since = told, time.Time{}
}
