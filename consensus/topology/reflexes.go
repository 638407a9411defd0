package topology

import (
	"github.com/ganglion-mesh/ganglion/intent"
)

// MaxReflexes is how many reflexes a mesh may have outside of apps: every host
// holds them all.
const MaxReflexes = 1000

// Reflex is a declared reflex outside of apps as stored. Those of apps are in
// their Spec.
type Reflex struct {
	Spec     intent.Reflex `json:"spec"`
	Set      string        `json:"set,omitempty"`
	Created  uint64        `json:"created"`
	Modified uint64        `json:"modified"` // index of the last change of Spec or Set
}

// DeleteReflex removes a reflex that is declared outside of apps.
type DeleteReflex struct {
	Name string `json:"name"`
}

// ReflexKey is the key of a reflex in PutIntents.Expect, beside the names of
// apps.
func ReflexKey(name string) string { return "reflex/" + name }

// Reflexes returns all reflexes outside of apps, by name.
func (s *State) Reflexes() []Reflex { return listed(s.reflexes) }

// Reflex returns a reflex outside of apps by its name.
func (s *State) Reflex(name string) (Reflex, bool) { return found(s.reflexes, name) }

// reflexesOn are the reflexes that a host is to run besides those of its copies:
// all of them.
func (s *State) reflexesOn() []intent.Reflex {
	var list []intent.Reflex
	for r := range values(s.reflexes) {
		list = append(list, r.Spec)
	}
	return list
}

// storeReflexes declares what was found fit to be, and prunes.
func (t *txn) storeReflexes(c PutIntents) *Rejected {
	named := map[string]bool{}
	for _, spec := range c.Intents.Reflexes {
		named[spec.Name] = true
		t.putReflex(spec, c.Set)
	}
	if c.Prune {
		for _, r := range t.Reflexes() {
			if r.Set == c.Set && !named[r.Spec.Name] {
				t.dropReflex(r.Spec.Name)
			}
		}
	}
	if n := t.reflexes.Len(); n > MaxReflexes {
		return reject(RejectLimit, "apply: the mesh would have %d reflexes outside of apps, the limit is %d", n, MaxReflexes)
	}
	return nil
}

// checkReflexes keeps the state sane; what a reflex means is judged by whoever
// proposes it.
func checkReflexes(list []intent.Reflex) *Rejected {
	seen := map[string]bool{}
	for _, spec := range list {
		if err := intent.CheckName(spec.Name); err != nil {
			return reject(RejectInvalid, "apply reflex: %v", err)
		}
		if seen[spec.Name] {
			return reject(RejectInvalid, "apply reflex %s: it is declared twice", spec.Name)
		}
		seen[spec.Name] = true
	}
	return nil
}

// putReflex stores one reflex. To apply the same again changes nothing.
func (t *txn) putReflex(spec intent.Reflex, set string) {
	next := Reflex{Spec: spec, Set: set, Created: t.index, Modified: t.index}
	if old, ok := t.reflexes.Get([]byte(spec.Name)); ok {
		next.Created = old.Created
		if set == "" {
			next.Set = old.Set
		}
		if next.Set == old.Set && sameStored(old.Spec, spec) {
			return
		}
		if sameStored(old.Spec, spec) { // hosts have it already
			t.reflexes, t.changed = insert(t.reflexes, spec.Name, &next), true
			return
		}
	}
	t.reflexes = insert(t.reflexes, spec.Name, &next)
	t.touchAll()
}

func (t *txn) deleteReflex(c DeleteReflex) *Rejected {
	if _, ok := t.reflexes.Get([]byte(c.Name)); !ok {
		return reject(RejectUnknown, "delete reflex %q: there is no such reflex outside of apps; one of an app goes when the app is applied without it", c.Name)
	}
	t.dropReflex(c.Name)
	t.sweepStages()
	return nil
}

func (t *txn) dropReflex(name string) {
	t.reflexes = remove(t.reflexes, name)
	t.touchAll()
}

// touchAll says that the slice of every host has changed.
func (t *txn) touchAll() {
	for e := range values(t.hosts) {
		t.touched[e.Name] = true
	}
	t.changed = true
}

// restoreReflexes takes the reflexes outside of apps back to those of a backup.
func (t *txn) restoreReflexes(saved []Reflex) *Rejected {
	var specs []intent.Reflex
	named := map[string]bool{}
	for _, r := range saved {
		specs, named[r.Spec.Name] = append(specs, r.Spec), true
	}
	if r := checkReflexes(specs); r != nil {
		return r
	}
	for _, r := range t.Reflexes() {
		if !named[r.Spec.Name] {
			t.dropReflex(r.Spec.Name)
		}
	}
	for _, r := range saved {
		t.putReflex(r.Spec, r.Set)
	}
	if n := t.reflexes.Len(); n > MaxReflexes {
		return reject(RejectLimit, "restore: the mesh would have %d reflexes outside of apps, the limit is %d", n, MaxReflexes)
	}
	return nil
}
