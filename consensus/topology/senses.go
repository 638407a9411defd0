package topology

import "github.com/ganglion-mesh/ganglion/intent"

// MaxSenses is how many senses of users' own a mesh may have: every host holds
// them all.
const MaxSenses = 100

// Sense is a declared sense as stored.
type Sense struct {
	Spec     intent.Sense `json:"spec"`
	Set      string       `json:"set,omitempty"`
	Created  uint64       `json:"created"`
	Modified uint64       `json:"modified"` // index of the last change of Spec or Set
}

// DeleteSense removes a sense.
type DeleteSense struct {
	Name string `json:"name"`
}

// SenseKey is the key of a sense in PutIntents.Expect, beside the names of apps.
func SenseKey(name string) string { return "sense/" + name }

// Senses returns all senses, by name.
func (s *State) Senses() []Sense { return listed(s.senses) }

// Sense returns a sense by its name.
func (s *State) Sense(name string) (Sense, bool) { return found(s.senses, name) }

// sensesOn are the senses that a host is to have: all of them.
func (s *State) sensesOn() []intent.Sense {
	var list []intent.Sense
	for x := range values(s.senses) {
		list = append(list, x.Spec)
	}
	return list
}

// storeSenses declares what was found fit to be, and prunes.
func (t *txn) storeSenses(c PutIntents) *Rejected {
	named := map[string]bool{}
	for _, spec := range c.Intents.Senses {
		named[spec.Name] = true
		t.putSense(spec, c.Set)
	}
	if c.Prune {
		for _, x := range t.Senses() {
			if x.Set == c.Set && !named[x.Spec.Name] {
				t.dropSense(x.Spec.Name)
			}
		}
	}
	return t.countSenses("apply")
}

func (t *txn) countSenses(verb string) *Rejected {
	if n := t.senses.Len(); n > MaxSenses {
		return reject(RejectLimit, "%s: the mesh would have %d senses, the limit is %d", verb, n, MaxSenses)
	}
	return nil
}

// checkSenses keeps the state sane.
func checkSenses(list []intent.Sense) *Rejected {
	seen := map[string]bool{}
	for _, spec := range list {
		if err := intent.CheckName(spec.Name); err != nil {
			return reject(RejectInvalid, "apply sense: %v", err)
		}
		if seen[spec.Name] {
			return reject(RejectInvalid, "apply sense %s: it is declared twice", spec.Name)
		}
		seen[spec.Name] = true
	}
	return nil
}

// putSense stores one sense. To apply the same again changes nothing.
func (t *txn) putSense(spec intent.Sense, set string) {
	next := Sense{Spec: spec, Set: set, Created: t.index, Modified: t.index}
	old, ok := t.senses.Get([]byte(spec.Name))
	if ok {
		next.Created = old.Created
		if set == "" {
			next.Set = old.Set
		}
	}
	same := ok && sameStored(old.Spec, spec)
	if same && next.Set == old.Set {
		return
	}
	t.senses, t.changed = insert(t.senses, spec.Name, &next), true
	if !same { // else hosts have it already
		t.touchAll()
	}
}

func (t *txn) deleteSense(c DeleteSense) *Rejected {
	if _, ok := t.senses.Get([]byte(c.Name)); !ok {
		return reject(RejectUnknown, "delete sense %q: there is no such sense", c.Name)
	}
	t.dropSense(c.Name)
	return nil
}

func (t *txn) dropSense(name string) {
	t.senses = remove(t.senses, name)
	t.touchAll()
}

// restoreSenses takes the senses back to those of a backup.
func (t *txn) restoreSenses(saved []Sense) *Rejected {
	var specs []intent.Sense
	named := map[string]bool{}
	for _, x := range saved {
		specs, named[x.Spec.Name] = append(specs, x.Spec), true
	}
	if r := checkSenses(specs); r != nil {
		return r
	}
	for _, x := range t.Senses() {
		if !named[x.Spec.Name] {
			t.dropSense(x.Spec.Name)
		}
	}
	for _, x := range saved {
		t.putSense(x.Spec, x.Set)
	}
	return t.countSenses("restore")
}
