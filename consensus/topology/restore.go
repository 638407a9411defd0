package topology

import (
	"maps"
	"slices"

	"github.com/ganglion-mesh/ganglion/intent"
)

// MaxRestore is the largest encoded Restore, in bytes.
const MaxRestore = 32 << 20

// Restore takes a mesh back to what it declared when a backup was made, and
// begins a new era: what is said from now on is newer than anything said before,
// whatever its index (S3).
//
// It is to what users declared what an apply would be that names all of it, with
// --prune. So an app that the mesh still has goes back to its specification by
// its own update rule: copies that are as the backup says run on as they are, and
// the others change a few at a time (S5, S6). An app that was deleted since comes
// back with its versions, and its copies go to the hosts they were on. Generations
// are never taken from a backup: every one is an index of this log, so that none
// means two things.
//
// All else stays as it is now, because it tells of the world and not of wishes:
// hosts, drains, join tokens, keys, leases, remembered requests, who may sign
// packages and what is signed.
type Restore struct {
	MeshID     string      `json:"mesh_id"`
	Era        uint64      `json:"era"`      // of the backup
	Revision   uint64      `json:"revision"` // of the backup
	Apps       []App       `json:"apps"`
	Placements []Placement `json:"placements,omitempty"`
	Reflexes   []Reflex    `json:"reflexes,omitempty"` // outside of apps
	Senses     []Sense     `json:"senses,omitempty"`
	Stages     []Stage     `json:"stages,omitempty"` // of the reflexes
	Differs    Differs     `json:"differs,omitempty"`
}

// Restoration returns the command that takes a mesh back to s.
func (s *State) Restoration() Restore {
	return Restore{MeshID: s.meshID, Era: s.era, Revision: s.revision, Apps: s.Apps(), Placements: s.Placements(), Reflexes: s.Reflexes(), Senses: s.Senses(), Stages: s.Stages()}
}

// Trimmed is c without the placements that Apply would not use, those of apps
// that present has anyway, and without those that would begin a copy while
// another host than the one it was on still has a process of it.
func (c Restore) Trimmed(present *State, obs Observations) Restore {
	elsewhere := func(p Placement) bool {
		for name, o := range obs.Hosts { // order does not matter
			if seen, ok := o.Copies[p.Key()]; ok && name != p.Host && !over(seen) {
				return true
			}
		}
		return false
	}
	var kept []Placement
	for _, p := range c.Placements {
		if _, ok := present.apps.Get([]byte(p.App)); !ok && !elsewhere(p) {
			kept = append(kept, p)
		}
	}
	c.Placements = kept
	return c
}

// RestoreChanges compares what c declares with what the state has.
func RestoreChanges(s *State, c Restore) []intent.Change {
	var old, saved intent.Intents
	for _, a := range s.Apps() {
		old.Apps = append(old.Apps, a.Spec)
	}
	for _, a := range c.Apps {
		saved.Apps = append(saved.Apps, a.Spec)
	}
	old.Reflexes = s.reflexesOn()
	for _, r := range c.Reflexes {
		saved.Reflexes = append(saved.Reflexes, r.Spec)
	}
	old.Senses = s.sensesOn()
	for _, x := range c.Senses {
		saved.Senses = append(saved.Senses, x.Spec)
	}
	return intent.Diff(old, saved)
}

func (t *txn) restore(c Restore) *Rejected {
	switch {
	case t.meshID == "":
		return reject(RejectConflict, "restore: there is no mesh yet to restore to")
	case c.MeshID != t.meshID:
		return reject(RejectConflict, "restore: the snapshot is of another mesh (id %s), this is mesh %s (id %s); nothing was changed", c.MeshID, t.meshName, t.meshID)
	}
	named := map[string]bool{}
	for _, a := range c.Apps {
		if r := checkSaved(a); r != nil {
			return r
		}
		if named[a.Spec.Name] {
			return reject(RejectInvalid, "restore app %s: it is there twice", a.Spec.Name)
		}
		named[a.Spec.Name] = true
	}
	for _, a := range t.Apps() {
		if !named[a.Spec.Name] {
			t.dropApp(a.Spec.Name)
		}
	}
	back := map[string]bool{}
	for _, a := range c.Apps {
		if e, ok := t.apps.Get([]byte(a.Spec.Name)); ok {
			if r := t.takeBack(e, a); r != nil {
				return r
			}
			continue
		}
		if r := t.bringBack(a); r != nil {
			return r
		}
		back[a.Spec.Name] = true
	}
	t.placeBack(c.Placements, back)
	if r := t.restoreReflexes(c.Reflexes); r != nil {
		return r
	}
	if r := t.restoreSenses(c.Senses); r != nil {
		return r
	}
	t.restoreStages(c.Stages)
	t.era = max(t.era, c.Era) + 1
	t.touchAll() // slices name the era
	return nil
}

// checkSaved holds what a State relies on of every app.
func checkSaved(a App) *Rejected {
	if err := intent.CheckName(a.Spec.Name); err != nil {
		return reject(RejectInvalid, "restore app: %v", err)
	}
	if _, ok := a.Versions[a.Stable]; a.Stable != "" && !ok {
		return reject(RejectInvalid, "restore app %s: its version %q is missing", a.Spec.Name, a.Stable)
	}
	if !slices.IsSorted(a.StoppedCopies) || len(slices.Compact(slices.Clone(a.StoppedCopies))) != len(a.StoppedCopies) {
		return reject(RejectInvalid, "restore app %s: its stopped copies are not in order", a.Spec.Name)
	}
	return nil
}

// takeBack restores an app that the mesh has. One that is as it was is not
// touched, and what has halted of it is not tried again.
func (t *txn) takeBack(e *appEntry, saved App) *Rejected {
	name := saved.Spec.Name
	if !sameStored(e.Spec, saved.Spec) {
		if r := t.declare(saved); r != nil {
			return r
		}
	}
	now, _ := t.apps.Get([]byte(name))
	next := now.App
	next.Set, next.Stopped, next.StoppedCopies = saved.Set, saved.Stopped, saved.StoppedCopies
	if next.Set == now.Set && next.Stopped == now.Stopped && slices.Equal(next.StoppedCopies, now.StoppedCopies) {
		return nil
	}
	next.Modified = t.index
	t.setApp(next)
	for _, p := range collect(prefixed(t.copies, name)) {
		if next.stops(p) != p.Stopped {
			t.putPlacement(p)
		}
	}
	return nil
}

// bringBack restores an app that the mesh has no more, with the versions it had.
func (t *txn) bringBack(saved App) *Rejected {
	if r := t.declare(saved); r != nil {
		return r
	}
	now, _ := t.apps.Get([]byte(saved.Spec.Name))
	next := now.App
	next.Stopped, next.StoppedCopies = saved.Stopped, saved.StoppedCopies
	next.Versions = maps.Clone(saved.Versions)
	if next.Versions == nil {
		next.Versions = map[string]intent.App{}
	}
	next.Versions[next.Version] = saved.Spec
	next.Stable, next.Signed = saved.Stable, t.known(saved)
	next.Signed = t.vouched(next, next.Version)
	if n := len(saved.History); n > 0 && saved.History[n-1].Version == next.Version && n <= MaxHistory {
		next.History = slices.DeleteFunc(slices.Clone(saved.History), func(h Applied) bool { return next.Versions[h.Version].Name == "" })
	}
	if saved.Spec.Once && saved.Job.Run.Outcome != "" { // it has run, and is not to run again
		next.Job = saved.Job
		next.Job.Run.Index = t.index
	}
	t.setApp(next)
	return nil
}

// declare stores a specification as an apply would, but that it asks for no
// signature: it was let in once.
func (t *txn) declare(saved App) *Rejected {
	c := PutIntents{Intents: intent.Intents{Apps: []intent.App{saved.Spec}}, Set: saved.Set}
	if r := t.checkPut(c); r != nil {
		return r
	}
	return t.store(c)
}

// placeBack places the copies of apps that came back where they were. Those that
// cannot be there any more are placed by the next decision.
func (t *txn) placeBack(saved []Placement, back map[string]bool) {
	for _, p := range saved {
		if !back[p.App] || t.remainsElsewhere(p) || p.Leaving != "" || p.Surge || t.placed(p.Key()) || t.checkPlacement(p) != nil {
			continue
		}
		app, _ := t.apps.Get([]byte(p.App))
		host, _ := t.hosts.Get([]byte(p.Host))
		kind := app.Spec.Kind()
		if host.Drain != DrainNone || kind != intent.KindReplicated && kind != intent.KindPerHost {
			continue // nor is a lease or a run begun by a backup
		}
		was := *t
		before := t.copies
		t.putPlacement(Placement{App: p.App, N: p.N, Host: p.Host, Version: p.Version, Ports: p.Ports})
		if t.checkPlaced(before, []Placement{p}) != nil {
			t.copies, t.onHost, t.remnants = was.copies, was.onHost, was.remnants // marks may stay: they only cost a look
		}
	}
}
