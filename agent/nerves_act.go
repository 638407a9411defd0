package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/agent/reflexer"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/systemd"
)

// readyPatience is how long the restart of one copy of an app waits for the
// one before it to be ready.
const readyPatience = 30 * time.Second

// authority is what the mesh allows at this moment.
func (n *nerves) authority(f reflexes.Firing) reflexes.Authority {
	app := appOf(f.On)
	if f.Rung.Leased() {
		app = appOf(f.Target)
	}
	frozen, hard := n.brake.View().Holds(app)
	a := reflexes.Authority{Frozen: frozen, Hard: hard, Scarce: n.scarce(f)}
	if f.Class != reflexes.ClassTell && !f.Rung.Revives() {
		a.SameRule = 1 + n.pool.Wishers(plainRule(f.Rule))
	}
	if f.Class == reflexes.ClassB {
		a.Staged = n.notInForce(reflexes.Version{Rule: f.Rule, Stage: f.Stage})
		a.GateShut, a.Needless = n.crowd.shut(time.Now()), n.needless(f)
	}
	if f.Rung.Leased() {
		a.Leased, a.Asking, a.Lacks = n.leased(f)
	}
	return a
}

// appOf is the app that a target is, or is a copy of; empty for others.
func appOf(t reflexes.Target) string {
	if t.Scope != reflexes.ScopeCopy && t.Scope != reflexes.ScopeApp {
		return ""
	}
	app, _, _ := strings.Cut(t.Name, "/")
	return app
}

// unfrozen refuses what a freeze holds that came after the permit: an act may
// have waited for others on its copy (S8).
func (n *nerves) unfrozen(app string, revives bool) error {
	if frozen, hard := n.brake.View().Holds(app); frozen && (hard || !revives) {
		return notDoneError{errors.New("not done: frozen meanwhile")}
	}
	return nil
}

// scarce tells whether an act would take a ready copy while as many others of
// its app on this host are not ready as an update may change at a time (S5).
func (n *nerves) scarce(f reflexes.Firing) bool {
	if op := f.Rung.Do.Op; op != "restart" && op != "stop" || f.On.Scope != reflexes.ScopeCopy || f.Rung.Revives() {
		return false // and nothing is looked up for what is in a hurry
	}
	app := appOf(f.On)
	unready, ready := 0, false
	for _, r := range n.copies.Reports() {
		switch {
		case r.ID.App != app:
		case r.ID.String() == f.On.Name:
			ready = r.Ready
		case !r.Ready:
			unready++
		}
	}
	return ready && unready >= n.parallel(app)
}

// parallel is how many copies of an app may be changed at a time.
func (n *nerves) parallel(app string) int {
	for _, a := range n.slices.slice().Assignments {
		if a.Placement.App == app {
			return max(a.Spec.Update.Parallel, 1)
		}
	}
	return 1
}

// act does what a rule may do, and returns what is to be told of it: to copies
// through their supervisors, and beyond them through whoever leads.
func (n *nerves) act(ctx context.Context, o reflexer.Order) (said string, err error) {
	if o.Class == reflexes.ClassB {
		if why := n.notInForce(reflexes.Version{Rule: o.Rule, Stage: o.Stage}); why != "" {
			return "", fmt.Errorf("not done: it is not in force on this host any more (%s)", why)
		}
	}
	said, err = n.perform(ctx, o)
	n.judgeAct(ctx, o, err)
	return said, err
}

func (n *nerves) perform(ctx context.Context, o reflexer.Order) (said string, err error) {
	switch o.Do.Op {
	case "":
		return "", nil // it only tells, and is told as fired
	case "run":
		return n.runHook(ctx, o)
	case "claim":
		return n.claimAddress(o)
	}
	if o.On.Scope == reflexes.ScopeUnit {
		return "", n.actOnUnit(ctx, o)
	}
	if o.Class == reflexes.ClassB {
		return "", n.reach(ctx, o)
	}
	return "", n.actOnCopies(ctx, o)
}

// actOnCopies does what is done to copies, through their supervisors and in no
// other way.
func (n *nerves) actOnCopies(ctx context.Context, o reflexer.Order) error {
	ids := n.onHere(o.On)
	if len(ids) == 0 {
		return fmt.Errorf("nothing of %s is on this host", o.On)
	}
	why := fmt.Sprintf("restarted by reflex %s (act %d)", o.Rule, o.ID)
	for i, id := range ids {
		n.pulse.begin(id.String(), o.ID, o.Do.Op, plainChain(o.Chain))
		err := n.actOn(ctx, id, o, why)
		n.pulse.end(id.String(), o.ID, n.bootTime())
		if err == nil && o.Do.Op == "restart" && i < len(ids)-1 {
			err = n.awaitReady(ctx, id)
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", o.Do.Op, id, err)
		}
	}
	return nil
}

func (n *nerves) actOn(ctx context.Context, id workload.CopyID, o reflexer.Order, why string) error {
	may := func() error { return n.unfrozen(id.App, o.Revives) }
	switch o.Do.Op {
	case "restart":
		return n.copies.Restart(ctx, id, why, o.Revives, may)
	case "stop":
		if err := may(); err != nil {
			return err
		}
		return n.copies.StopLocal(id)
	case "signal":
		sig, err := workload.ParseSignal(o.Do.Args["signal"])
		if err != nil {
			return err
		}
		return n.copies.Signal(ctx, id, sig, may)
	case "throttle":
		if err := may(); err != nil {
			return err
		}
		return n.held.begin(ctx, id, o)
	}
	return fmt.Errorf("this release cannot %s", o.Do.Op)
}

// able tells why this host cannot do what a rule may, or nil.
func (n *nerves) able(r *reflexes.Rule) error {
	unit, ops := r.Unit()
	for _, op := range ops {
		if err := n.mayOnUnit(op, unit); err != nil {
			return err
		}
	}
	for i := range r.Rungs {
		do := r.Rungs[i].Do
		if do.Op == "run" && !n.cfg.AllowRun {
			return errNoRun
		}
		if do.Op == "claim" {
			if err := n.mayClaim(do); err != nil {
				return err
			}
		}
		if do.Op != "throttle" {
			continue
		}
		t, err := do.Throttle()
		if err == nil {
			can := n.copies.CanThrottle
			if r.OnUnit(&r.Rungs[i]) {
				can = systemd.CanThrottle // whatever driver copies have
			}
			err = can(workload.Throttle{CPU: t.CPU, Memory: int64(t.Memory)})
		}
		if err != nil {
			return fmt.Errorf("throttle: %w", err)
		}
	}
	return nil
}

// onHere lists the copies of this host that t means.
func (n *nerves) onHere(t reflexes.Target) (out []workload.CopyID) {
	for _, id := range n.copies.Of(appOf(t)) {
		if t.Scope == reflexes.ScopeApp || t.Name == id.String() {
			out = append(out, id)
		}
	}
	return out
}

// awaitReady waits until a copy is ready, so that the next is not restarted
// before.
func (n *nerves) awaitReady(ctx context.Context, id workload.CopyID) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	for {
		changed := n.copies.Changed()
		for _, r := range n.copies.Reports() {
			if r.ID == id && r.Ready {
				return nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.New("it runs again but is not ready; the other copies are left as they are")
		}
	}
}

// tell makes an event of what became of a rule: one plain write.
func (n *nerves) tell(t reflexer.Told) {
	n.judgeOutcome(t)
	rule, app := api.SplitRule(plainRule(t.Rule))
	target := ""
	if t.Target != (reflexes.Target{}) {
		target = t.Target.String()
	}
	var data events.Payload
	switch t.Kind {
	case reflexes.Finished:
		fired := events.ReflexFired{
			Rule: rule, App: app, Target: target, Act: uint64(t.Act), Facts: factsOf(t.Facts), Action: t.Action,
			Emits: emitsOf(t.Tells), Result: "ok",
		}
		if fired.Output = t.Detail; !t.OK {
			fired.Result, fired.Output = t.Detail, ""
		}
		if t.Acted > 0 && t.Sensed > 0 {
			fired.SensedToActedUS = max(t.Acted-t.Sensed, 0).Microseconds()
		}
		data = fired
	case reflexes.Observed:
		data = events.ReflexObserved{Rule: rule, App: app, Target: target, Facts: factsOf(t.Facts), Action: t.Action, Reason: reasonOf(t.Outcome)}
	case reflexes.Cleared:
		n.held.look()
		n.lookAddresses()
		data = events.ReflexCleared{Rule: rule, App: app, Target: target, HeldMS: t.Held.Milliseconds()}
	case reflexes.Suppressed, reflexes.Undecided, reflexes.Exhausted, reflexes.Off:
		data = events.ReflexSuppressed{
			Rule: rule, App: app, Target: target, Facts: factsOf(t.Facts), Action: t.Action, Reason: reasonOf(t.Outcome), NeedsHuman: t.NeedsHuman(),
		}
	default:
		return // an act has begun: it is told with its result
	}
	d := events.New(events.ReflexSubject(rule, n.cfg.Name), data).With(n.causeOf(t), n.slices.index())
	e := n.record(d.Along(cmp.Or(plainChain(t.Chain), plainRule(t.Rule)))) // else it would answer its own words
	if t.Kind == reflexes.Finished && e.ID != "" {
		n.webhooks.post(e, t)
	}
}

// causeOf is the event that what is told of a rule came from, if it is known.
func (n *nerves) causeOf(t reflexer.Told) string {
	switch {
	case t.Kind == reflexes.Cleared:
		return ""
	case t.Target.Scope == reflexes.ScopeCopy:
		return n.pulse.cause(t.Target.Name)
	case t.Target.Scope == reflexes.ScopeSense:
		return n.heardAt(t.Target.Name, t.Sensed)
	}
	return ""
}

// reasonOf says why nothing was done, with the numbers that matter.
func reasonOf(o reflexes.Outcome) string {
	s := o.Reason.String()
	if o.Kind == reflexes.Undecided && o.Var != 0 {
		s = o.Var.String() + " is not known"
	}
	if o.Detail != "" {
		s += " (" + o.Detail + ")"
	}
	if o.Since > 1 {
		s += fmt.Sprintf("; %d times", o.Since)
	}
	if o.Retry > o.At {
		s += "; tried again in " + (o.Retry - o.At).Round(time.Millisecond).String()
	}
	return s
}

// factsOf is what a rule saw, by variable; of a variable of another target than
// the rule's the target stands before it.
func factsOf(facts []reflexes.Fact) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for _, f := range facts {
		if v, err := f.Value.MarshalJSON(); err == nil {
			out[f.Var.String()] = v
		}
	}
	return out
}

func emitsOf(tells []intent.Action) (out []events.ReflexEmit) {
	for _, a := range tells {
		if a.Op == "emit" {
			out = append(out, events.ReflexEmit{Name: a.Target, Severity: a.Args["severity"]})
		}
	}
	return out
}
