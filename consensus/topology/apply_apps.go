package topology

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/ganglion-mesh/ganglion/intent"
)

func (t *txn) putIntents(c PutIntents) *Rejected {
	if r := t.checkPut(c); r != nil {
		return r
	}
	for _, name := range slices.Sorted(maps.Keys(c.Expect)) {
		if modified, want := t.modified(name), c.Expect[name]; want != modified {
			kind := "app "
			if strings.HasPrefix(name, ReflexKey("")) || strings.HasPrefix(name, SenseKey("")) {
				kind = ""
			}
			return reject(RejectConflict, "apply %s%s: it was changed at index %d, you looked at index %d (0: absent); look at the plan again", kind, name, modified, want)
		}
	}
	for _, spec := range c.Intents.Apps {
		if r := t.admit(spec); r != nil {
			return r
		}
	}
	apps, reflexes := t.apps, t.reflexes // as they were
	if r := t.store(c); r != nil {
		return r
	}
	if r := t.storeSenses(c); r != nil {
		return r
	}
	if r := t.storeReflexes(c); r != nil {
		return r
	}
	t.restage(apps, reflexes, c)
	return nil
}

// modified is the index of the last change of what a key of Expect names, 0 if
// there is no such thing.
func (t *txn) modified(key string) uint64 {
	if name, ok := strings.CutPrefix(key, ReflexKey("")); ok {
		if r, ok := t.reflexes.Get([]byte(name)); ok {
			return r.Modified
		}
		return 0
	}
	if name, ok := strings.CutPrefix(key, SenseKey("")); ok {
		x, _ := t.Sense(name)
		return x.Modified
	}
	if e, ok := t.apps.Get([]byte(key)); ok {
		return e.Modified
	}
	return 0
}

// store declares the apps that were found fit to be.
func (t *txn) store(c PutIntents) *Rejected {
	named := map[string]bool{}
	for _, spec := range c.Intents.Apps {
		named[spec.Name] = true
		t.putApp(spec, c)
	}
	if c.Prune {
		for e := range values(t.apps) {
			if e.Set == c.Set && !named[e.Spec.Name] {
				t.dropApp(e.Spec.Name)
			}
		}
	}
	if t.apps.Len() > MaxApps {
		return reject(RejectLimit, "apply: the mesh would have %d apps, the limit is %d", t.apps.Len(), MaxApps)
	}
	return nil
}

func (t *txn) checkPut(c PutIntents) *Rejected {
	if c.Prune && c.Set == "" {
		return reject(RejectInvalid, "apply: prune needs the name of a set; an empty name matches nothing")
	}
	if len(c.Set) > maxID {
		return reject(RejectInvalid, "apply: the name of the set has %d bytes, the limit is %d", len(c.Set), maxID)
	}
	if r := checkReflexes(c.Intents.Reflexes); r != nil {
		return r
	}
	if r := checkSenses(c.Intents.Senses); r != nil {
		return r
	}
	seen := map[string]bool{}
	for _, spec := range c.Intents.Apps {
		if err := intent.CheckName(spec.Name); err != nil {
			return reject(RejectInvalid, "apply app: %v", err)
		}
		if seen[spec.Name] {
			return reject(RejectInvalid, "apply app %s: it is declared twice", spec.Name)
		}
		if n := spec.Count; n != nil && (*n < 0 || *n > intent.MaxCopies) {
			return reject(RejectInvalid, "apply app %s: count %d is not within 0 and %d", spec.Name, *n, intent.MaxCopies)
		}
		seen[spec.Name] = true
	}
	return nil
}

// putApp stores one app. To apply the same again changes nothing, except that
// it tries what is held once more.
func (t *txn) putApp(spec intent.App, c PutIntents) {
	version := spec.Version()
	e, ok := t.apps.Get([]byte(spec.Name))
	if !ok {
		made := App{
			Spec: spec, Version: version, Set: c.Set, Created: t.index, Modified: t.index,
			Versions: map[string]intent.App{version: spec},
			Rollout:  Rollout{Version: version, Started: t.index},
			History:  []Applied{{Version: version, Index: t.index, At: c.At}},
		}
		made.Signed = t.vouched(made, version)
		t.setApp(made)
		return
	}
	next := e.App
	if c.Set != "" {
		next.Set = c.Set
	}
	if next.Set == e.Set && !e.TriesAgain() && sameStored(e.Spec, spec) {
		return
	}
	next.Spec, next.Version, next.Modified = spec, version, t.index
	next.Versions = maps.Clone(e.Versions)
	next.Versions[version] = spec
	next.Signed = t.vouched(next, version)
	switch {
	case version != e.Version:
		next.Rollout = Rollout{Version: version, Started: t.index}
		next.History = e.recorded(Applied{Version: version, Index: t.index, At: c.At})
	case e.Rollout.Outcome != "" || e.Spec.Update.Strategy != spec.Update.Strategy || e.Spec.Update.Canary != spec.Update.Canary:
		next.Rollout = Rollout{Version: version, Started: t.index, Back: e.Rollout.Back && e.onTrial()}
		next.History = e.judged(version, "", "")
	}
	next.rebase(e.App)
	t.setApp(next)
	if next.job() || e.job() {
		t.restop(next)
	}
	if !sameStored(e.assigned(e.Version), next.assigned(e.Version)) {
		for p := range prefixed(t.copies, spec.Name) {
			t.touched[p.Host] = true
		}
	}
}

func (t *txn) setApp(a App) {
	old, _ := t.apps.Get([]byte(a.Spec.Name))
	t.apps = insert(t.apps, a.Spec.Name, newAppEntry(a, old))
	t.dirty[a.Spec.Name] = true
	t.changed = true
}

func (t *txn) deleteApp(c DeleteApp) *Rejected {
	if _, ok := t.apps.Get([]byte(c.Name)); !ok {
		return unknownApp("delete", c.Name)
	}
	t.dropApp(c.Name)
	t.sweepStages()
	return nil
}

func (t *txn) dropApp(name string) {
	for _, p := range collect(prefixed(t.copies, name)) {
		t.unplace(p.Key())
	}
	t.apps = remove(t.apps, name)
	if l, ok := t.leases.Get([]byte(name)); ok && l.Over {
		t.leases = remove(t.leases, name)
	}
	t.changed = true
}

func (t *txn) setRunning(c SetRunning) *Rejected {
	e, ok := t.apps.Get([]byte(c.App))
	if !ok {
		return unknownApp("stop or start", c.App)
	}
	next := e.App
	if c.N == nil || e.job() && *c.N == 0 {
		next.Stopped, next.StoppedCopies = c.Stopped, nil
		next.haltJob()
	} else {
		key := CopyKey{c.App, *c.N}
		if *c.N < 0 || *c.N >= intent.MaxCopies || !t.placed(key) {
			return unknownCopy("stop or start", key)
		}
		if !c.Stopped && e.Stopped {
			return reject(RejectConflict, "start copy %s: the whole app is stopped; start the app", key)
		}
		next.StoppedCopies = withNumber(e.StoppedCopies, *c.N, c.Stopped)
	}
	if next.Stopped == e.Stopped && slices.Equal(next.StoppedCopies, e.StoppedCopies) {
		return nil
	}
	next.Modified = t.index
	t.setApp(next)
	t.restop(next)
	return nil
}

func (t *txn) restartApp(c RestartApp) *Rejected {
	e, ok := t.apps.Get([]byte(c.App))
	if !ok {
		return unknownApp("restart", c.App)
	}
	if c.N == nil || e.job() && *c.N == 0 {
		if e.Rollout.Outcome == OutcomeHeld && e.onTrial() {
			return reject(RejectConflict, "restart app %s: its change to version %s is held (%s); apply again, roll back, or restart single copies", c.App, e.Version, e.Rollout.Reason)
		}
		next := e.App
		next.RestartAt = t.index
		if e.Rollout.Outcome != "" {
			next.Rollout = Rollout{Version: e.Version, Started: t.index}
		}
		t.setApp(next)
		return nil
	}
	key := CopyKey{c.App, *c.N}
	if *c.N < 0 || *c.N >= intent.MaxCopies || !t.placed(key) {
		return unknownCopy("restart", key)
	}
	p, _ := t.copies.Get(copyKey(key))
	t.putPlacement(*p)
	return nil
}

// forgetVersions drops the versions of an app that nothing names any more.
func (t *txn) forgetVersions(name string) {
	e, ok := t.apps.Get([]byte(name))
	if !ok {
		return
	}
	used := map[string]bool{e.Version: true, e.Stable: true}
	if e.Job.active() {
		used[e.Job.Run.Version] = true
	}
	for _, h := range e.History {
		used[h.Version] = true
	}
	for p := range prefixed(t.copies, name) {
		used[p.Version] = true
	}
	kept := maps.Clone(e.Versions)
	maps.DeleteFunc(kept, func(v string, _ intent.App) bool { return !used[v] })
	if len(kept) == len(e.Versions) {
		return
	}
	next := e.App
	next.Versions = kept
	if len(e.Signed) > 0 {
		next.Signed = maps.Clone(e.Signed)
		maps.DeleteFunc(next.Signed, func(v string, _ string) bool { return !used[v] })
	}
	t.apps = insert(t.apps, name, newAppEntry(next, e))
}

// sameStored compares what would be stored, so that nil and empty are one.
func sameStored[T any](a, b T) bool {
	x, errX := commandCodec.enc.Marshal(a)
	y, errY := commandCodec.enc.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// withNumber returns the sorted list with n in it or not.
func withNumber(list []int, n int, in bool) []int {
	i, found := slices.BinarySearch(list, n)
	switch {
	case in && !found:
		return slices.Insert(slices.Clone(list), i, n)
	case !in && found:
		return slices.Delete(slices.Clone(list), i, i+1)
	default:
		return list
	}
}

func unknownApp(verb, name string) *Rejected {
	return reject(RejectUnknown, "%s app %q: there is no such app", verb, name)
}

func unknownCopy(verb string, k CopyKey) *Rejected {
	return reject(RejectUnknown, "%s copy %s: there is no such copy; see the app's status", verb, k)
}
