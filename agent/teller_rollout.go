package agent

import (
	"fmt"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
)

func placedFor(before *topology.State, p topology.Placement) string {
	if p.Relief != nil {
		return fmt.Sprintf("takes over from %s/%d on %s once it is well: %s", p.App, p.Relief.N, p.Relief.From, p.Relief.Why)
	}
	if p.Surge {
		return "a rollout begins it beside the others"
	}
	return newRun(before, p.App)
}

// progress tells how many copies have the app's version once p is carried out.
func (t *teller) progress(app string, p *topology.Place, before *topology.State, revision uint64) {
	a, _ := before.App(app)
	version := map[topology.CopyKey]string{}
	for _, old := range before.PlacementsOf(app) {
		version[old.Key()] = old.Version
	}
	for _, key := range p.Remove {
		delete(version, key)
	}
	for _, pl := range p.Put {
		if pl.App == app {
			version[pl.Key()] = pl.Version
		}
	}
	told := events.RolloutProgressed{Version: a.Version, Phase: string(a.Rollout.Phase), Want: t.wanted(a, before)}
	for _, v := range version {
		if v == a.Version {
			told.Updated++
		}
	}
	told.Ready = t.ready(a, before)
	t.emit(events.New(events.RolloutSubject(app), told).With("", revision))
}

// wanted is how many copies the app should have.
func (t *teller) wanted(a topology.App, state *topology.State) int {
	if !a.Spec.PerHost {
		return a.Spec.Copies()
	}
	n := 0
	for _, p := range state.PlacementsOf(a.Spec.Name) {
		if !p.Surge {
			n++
		}
	}
	return n
}

// ready is how many copies are ready at the app's version.
func (t *teller) ready(a topology.App, state *topology.State) (n int) {
	for _, p := range state.PlacementsOf(a.Spec.Name) {
		c := t.obs.Hosts[p.Host].Copies[p.Key()]
		if p.Version == a.Version && c.Ready && c.Generation == p.Generation {
			n++
		}
	}
	return n
}

// rollout tells one step of a rollout. A restart or a change of count tells only
// that it failed.
func (t *teller) rollout(c topology.SetRollout, before *topology.State, revision uint64) {
	a, _ := before.App(c.App)
	emit := func(data events.Payload) {
		t.emit(events.New(events.RolloutSubject(c.App), data).With("", revision))
	}
	was, now := a.Rollout, c.Rollout
	if was.Phase == "" && now.Phase != "" {
		t.begun["rollout/"+c.App] = time.Now()
		emit(events.RolloutStarted{Version: now.Version, Previous: now.From, Copies: t.wanted(a, before)})
	}
	if now.Reason != "" && was.Reason == "" {
		emit(events.RolloutFailed{Version: now.Version, Reason: now.Reason})
	}
	switch {
	case c.Revert:
	case now.Outcome == topology.OutcomeHeld:
		emit(events.RolloutHeld{Version: now.Version, Reason: now.Reason + "; apply a version that works or this one again, or go back: ganglion rollback " + c.App})
	case now.Outcome == topology.OutcomeRolledBack:
		delete(t.begun, "rollout/"+c.App)
		emit(events.RolloutRolledback{Version: now.Failed, To: now.Version, Reason: now.Reason})
	case now.Outcome == topology.OutcomeDone && now.Phase != "":
		emit(events.RolloutDone{Version: now.Version, TookMS: t.since("rollout/" + c.App)})
	case was.Phase != "" && now.Phase != was.Phase:
		emit(events.RolloutProgressed{Version: now.Version, Phase: string(now.Phase), Updated: t.updated(a, before), Ready: t.ready(a, before), Want: t.wanted(a, before)})
	}
}

// updated is how many copies have the app's version.
func (t *teller) updated(a topology.App, state *topology.State) (n int) {
	for _, p := range state.PlacementsOf(a.Spec.Name) {
		if p.Version == a.Version {
			n++
		}
	}
	return n
}
