package agent

import (
	"context"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/copies"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses"
)

// uptimeEvery is how often the age of copies is told.
const uptimeEvery = 2 * time.Second

// copySense tells how the copies of this host are, from what their runners
// know. It tells the other senses which copies there are.
type copySense struct{ *nerves }

// Name implements senses.Sense.
func (s *copySense) Name() string { return "copies" }

// Vars implements senses.Sense.
func (s *copySense) Vars() []reflexes.VarID {
	return []reflexes.VarID{
		reflexes.AppRunning, reflexes.AppReady, reflexes.AppRestarts, reflexes.AppUptime, reflexes.CheckFailures, reflexes.CheckTimeouts,
		reflexes.AppCopies, reflexes.AppReadyRatio,
	}
}

// Run implements senses.Sense.
func (s *copySense) Run(ctx context.Context, emit senses.Emit) error {
	look := copyLook{nerves: s.nerves, known: map[string]copies.CopyReport{}, apps: map[string][2]int{}}
	tick := time.NewTicker(uptimeEvery)
	defer tick.Stop()
	for {
		changed := s.copies.Changed()
		if facts := look.at(s.copies.Reports(), s.bootTime()); len(facts) > 0 {
			emit(facts)
		}
		select {
		case <-ctx.Done():
			s.watched.Set(nil)
			return nil
		case <-changed:
		case <-tick.C:
		}
	}
}

// copyLook turns reports into facts. It tells what changed, and ages.
type copyLook struct {
	*nerves
	known map[string]copies.CopyReport // by copy
	apps  map[string][2]int            // copies and ready ones, by app
	facts []reflexes.Fact
	now   reflexes.Boot
}

func (l *copyLook) at(reports []copies.CopyReport, now reflexes.Boot) []reflexes.Fact {
	l.facts, l.now = l.facts[:0], now
	seen, apps := map[string]bool{}, map[string][2]int{}
	list := make([]senses.Copy, 0, len(reports))
	asked := map[string]intent.Resources{} // by app
	for _, a := range l.slices.slice().Assignments {
		asked[a.Placement.App] = a.Spec.Resources
	}
	for _, r := range reports {
		id := r.ID.String()
		seen[id] = true
		of := asked[r.ID.App]
		list = append(list, senses.Copy{ID: id, PID: r.Pid, Memory: int64(of.Memory), CPU: of.CPU})
		l.copy(id, r)
		n := apps[r.ID.App]
		n[0]++
		if r.Ready {
			n[1]++
		}
		apps[r.ID.App] = n
	}
	l.watched.Set(list)
	l.app(apps)
	for id := range l.known {
		if !seen[id] {
			l.gone(id)
		}
	}
	return l.facts
}

// copy tells of one copy what is not known yet.
func (l *copyLook) copy(id string, r copies.CopyReport) {
	t := reflexes.CopyTarget(id)
	was, known := l.known[id]
	l.known[id] = r
	if !known {
		l.set.Offer([]reflexes.Fact{{Var: reflexes.ExitCount, Target: t, Value: reflexes.Int(l.pulse.exits(id)), At: l.now}})
	}
	if (r.Ready || r.BestReady > 0) && l.pulse.wellAgain(id, r.Generation) {
		l.reflexer.Mute(t, l.now)
	}
	cause := l.pulse.shadow(id, l.now)
	if r.State == topology.CopyStopped || r.State == topology.CopyStopping && cause.Kind == reflexes.CauseNone {
		cause = reflexes.Cause{Kind: reflexes.CauseRequested}
	}
	tell := func(changed bool, v reflexes.VarID, value reflexes.Value) {
		if !known || changed {
			l.facts = append(l.facts, reflexes.Fact{Var: v, Target: t, Value: value, At: l.now, Cause: cause})
		}
	}
	another := was.Pid != r.Pid || was.State != r.State
	tell(another, reflexes.AppRunning, reflexes.Bool(r.Pid != 0))
	tell(another || was.Ready != r.Ready, reflexes.AppReady, reflexes.Bool(r.Ready))
	tell(was.Restarts != r.Restarts, reflexes.AppRestarts, reflexes.Int(int64(r.Restarts)))
	tell(was.Failures != r.Failures, reflexes.CheckFailures, reflexes.Int(int64(r.Failures)))
	tell(was.Timeouts != r.Timeouts, reflexes.CheckTimeouts, reflexes.Int(int64(r.Timeouts)))
	var up float64
	if r.Pid != 0 && !r.Since.IsZero() {
		up = max(time.Since(r.Since), 0).Seconds()
	}
	cause = reflexes.Cause{}
	tell(true, reflexes.AppUptime, reflexes.Float(up))
}

// app tells of the apps what changed.
func (l *copyLook) app(now map[string][2]int) {
	for app, n := range now {
		if l.apps[app] == n {
			continue
		}
		t := reflexes.Target{Scope: reflexes.ScopeApp, Name: app}
		l.facts = append(l.facts,
			reflexes.Fact{Var: reflexes.AppCopies, Target: t, Value: reflexes.Int(int64(n[0])), At: l.now},
			reflexes.Fact{Var: reflexes.AppReadyRatio, Target: t, Value: reflexes.Float(float64(n[1]) / float64(n[0])), At: l.now})
	}
	for app := range l.apps {
		if _, there := now[app]; !there {
			t := reflexes.Target{Scope: reflexes.ScopeApp, Name: app}
			l.facts = append(l.facts, reflexes.Fact{Var: reflexes.AppCopies, Target: t, At: l.now}, reflexes.Fact{Var: reflexes.AppReadyRatio, Target: t, At: l.now})
			l.reflexer.Forget(t)
		}
	}
	l.apps = now
}

// gone tells that nothing is known of a copy that is not kept here any more.
func (l *copyLook) gone(id string) {
	t := reflexes.CopyTarget(id)
	delete(l.known, id)
	for _, v := range (&copySense{}).Vars() {
		if v.Info().Scope == reflexes.ScopeCopy {
			l.facts = append(l.facts, reflexes.Fact{Var: v, Target: t, At: l.now})
		}
	}
	ends := []reflexes.VarID{reflexes.ExitCode, reflexes.ExitSignal, reflexes.ExitRan, reflexes.ExitOOM, reflexes.ExitCount}
	over := make([]reflexes.Fact, len(ends))
	for i, v := range ends {
		over[i] = reflexes.Fact{Var: v, Target: t, At: l.now}
	}
	l.set.Offer(over)
	l.pulse.forget(id)
	l.reflexer.Forget(t)
}
