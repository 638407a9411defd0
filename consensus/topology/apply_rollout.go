package topology

import (
	"maps"
	"slices"
)

const maxReason = 1024 // bytes of a reason that is stored

func (t *txn) setRollout(c SetRollout) *Rejected {
	e, ok := t.apps.Get([]byte(c.App))
	if !ok {
		return unknownApp("record rollout of", c.App)
	}
	switch {
	case c.Rollout.Version != e.Version:
		return reject(RejectConflict, "record rollout of app %s: its version is %s, not %s", c.App, e.Version, c.Rollout.Version)
	case c.Rollout.Started != e.Rollout.Started:
		return reject(RejectConflict, "record rollout of app %s: the one of index %d is over, another began at %d", c.App, c.Rollout.Started, e.Rollout.Started)
	case len(c.Rollout.Reason) > maxReason:
		return reject(RejectInvalid, "record rollout of app %s: its reason is longer than %d bytes", c.App, maxReason)
	case c.Revert && !e.onTrial():
		return reject(RejectConflict, "revert app %s: it has no other version that was proved", c.App)
	case c.Rollout == e.Rollout && !c.Flip && !c.Revert && !c.Wait && (c.Rollout.Outcome != OutcomeDone || e.Stable == e.Version):
		return nil
	}
	next := e.App
	if next.Rollout = c.Rollout; c.Wait {
		next.Rollout.Waits = t.index
	}
	switch {
	case c.Revert:
		next = next.reverted(t.index, c.Rollout.Reason)
		next.History = e.judged(e.Version, OutcomeRolledBack, c.Rollout.Reason)
	case c.Flip:
		next.Stable = e.Version
		t.flip(c.App)
	case c.Rollout.Outcome == OutcomeRolledBack:
		next.History = e.judged(e.Version, OutcomeDone, "")
	case c.Rollout.Outcome != "":
		next.History = e.judged(e.Version, c.Rollout.Outcome, c.Rollout.Reason)
	}
	if c.Rollout.Outcome == OutcomeDone {
		next.Stable = e.Version
	}
	t.setApp(next)
	t.wakeForSmoke(e.App, next)
	return nil
}

// flip exchanges the copies that are asked for with the surge copies. Nothing
// begins anew by it.
func (t *txn) flip(app string) {
	for _, p := range collect(prefixed(t.copies, app)) {
		if p.Relief == nil {
			t.relabel(p)
		}
	}
}

// wakeForSmoke moves the slices of hosts that have smoke checks to run now, or
// no longer.
func (t *txn) wakeForSmoke(before, after App) {
	for p := range prefixed(t.copies, after.Spec.Name) {
		if before.assignment(*p).Smoke != after.assignment(*p).Smoke {
			t.touched[p.Host] = true
		}
	}
}

// reverted is the app on its way back to its stable version.
func (a App) reverted(index uint64, reason string) App {
	failed := a.Version
	a = a.embodying(a.Stable, index)
	a.Rollout = Rollout{Version: a.Version, From: a.Version, Started: index, Phase: PhaseRolling, Back: true, Failed: failed, Reason: reason}
	return a
}

// embodying is the app with what a version embodies, and all else as it is.
func (a App) embodying(version string, index uint64) App {
	made := a.Versions[version]
	a.Spec.Run, a.Spec.Ports, a.Spec.Resources, a.Spec.Checks = made.Run, made.Ports, made.Resources, made.Checks
	a.Version, a.Modified = version, index
	a.Versions = maps.Clone(a.Versions)
	a.Versions[version] = a.Spec
	return a
}

func (t *txn) rollback(c Rollback) *Rejected {
	e, ok := t.apps.Get([]byte(c.App))
	if !ok {
		return unknownApp("roll back", c.App)
	}
	to := c.To
	if to == "" {
		to = e.Earlier()
	}
	switch _, kept := e.Versions[to]; {
	case to == "":
		return reject(RejectConflict, "roll back app %s: it has no earlier version that was proved; see its history", c.App)
	case to == e.Version && e.Rollout.Back && e.Rollout.Outcome == "":
		return nil // it is on its way there
	case to == e.Version:
		return reject(RejectConflict, "roll back app %s: version %s is the present one; see its history for others", c.App, to)
	case !kept:
		return reject(RejectUnknown, "roll back app %s: version %q is not kept; see its history for those that are", c.App, to)
	}
	next := e.App
	// To give up a change never asks for a signature: the old version runs.
	if r := t.mayRun("roll back app "+c.App+" to version "+to, e.Versions[to].Run); r != nil && !(e.onTrial() && to == e.Stable) {
		return r
	}
	next.Signed = t.vouched(next, to)
	if e.onTrial() && to == e.Stable {
		const reason = "a user asked for it"
		next = next.reverted(t.index, reason)
		next.History = e.judged(e.Version, OutcomeRolledBack, reason)
	} else {
		next = next.embodying(to, t.index)
		next.Rollout = Rollout{Version: to, Started: t.index, Back: true}
	}
	next.History = next.recorded(Applied{Version: to, Index: t.index, At: c.At, Back: true})
	t.setApp(next)
	return nil
}

// Earlier is the version that a rollback goes back to if none is named: while
// one is on trial the stable one, else the last other one that was proved. It
// is empty if there is none.
func (a App) Earlier() string {
	if a.onTrial() {
		return a.Stable
	}
	for _, h := range slices.Backward(a.History) {
		if h.Outcome == OutcomeDone && h.Version != a.Version {
			return h.Version
		}
	}
	return ""
}

// recorded is the app's history with one entry more.
func (a App) recorded(entry Applied) []Applied {
	list := slices.Clone(a.History)
	if n := len(list); n > 0 && list[n-1].Outcome == "" {
		list[n-1].Outcome = OutcomeSuperseded
	}
	list = append(list, entry)
	return list[max(0, len(list)-MaxHistory):]
}

// judged is the app's history with the outcome of the last entry of a version.
func (a App) judged(version string, outcome Outcome, reason string) []Applied {
	list := slices.Clone(a.History)
	for i := range slices.Backward(list) {
		if list[i].Version == version {
			// A version that was proved stays so when a restart of it is held.
			if list[i].Outcome != OutcomeDone {
				list[i].Outcome, list[i].Reason = outcome, reason
			}
			break
		}
	}
	return list
}

// surgeLimit is how many copies beside those that are asked for an app may have.
func (a App) surgeLimit(asked int) int {
	switch {
	case !a.surges():
		return 0
	case a.blueGreen():
		return asked
	}
	return max(1, a.Spec.Update.Parallel, a.Spec.Update.Canary)
}
