package brake

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
)

// maxOfHost is how many freezes of one host are kept that do not cover each
// other. A host that keeps its state has one: its next covers its last.
const maxOfHost = 4

// set is what is known: the last thaw, and the freezes that no thaw has ended.
// Sets merge: commutative, associative and idempotent, so neither order nor
// repetition of what is heard matters. It is immutable.
type set struct {
	thaw    *Signed
	freezes []*Signed // by order
}

// with is s and one record more, and whether that said anything new.
func (s set) with(r *Signed) (set, bool) {
	next := set{thaw: s.thaw, freezes: slices.Clone(s.freezes)}
	if r.Record.Thaw {
		if s.thaw != nil && s.thaw.Record.Epoch >= r.Record.Epoch {
			return s, false
		}
		next.thaw = r
	} else {
		next.freezes = append(next.freezes, r)
	}
	next.trim()
	same := next.thaw == s.thaw && slices.Equal(next.freezes, s.freezes)
	if same {
		return s, false
	}
	return next, true
}

// trim drops what has been thawed, and what others cover.
func (s *set) trim() {
	slices.SortFunc(s.freezes, func(a, b *Signed) int { return b.order(a) })
	s.freezes = slices.CompactFunc(s.freezes, func(a, b *Signed) bool { return a.order(b) == 0 })
	var kept []*Signed
	of := map[string]int{}
	for _, r := range s.freezes { // what covers another comes before it
		switch {
		case s.thaw != nil && r.Record.Epoch < s.thaw.Record.Epoch:
		case slices.ContainsFunc(kept, func(k *Signed) bool { return k.Record.covers(r.Record) }):
		case of[r.Record.By] == maxOfHost:
		default:
			of[r.Record.By]++
			kept = append(kept, r)
		}
	}
	s.freezes = kept
}

// order is total over different freezes: of two of which one covers the other
// that one is greater.
func (s *Signed) order(o *Signed) int {
	a, b := s.Record, o.Record
	wide := func(r Record) int {
		if len(r.Apps) == 0 {
			return 1 << 20
		}
		return len(r.Apps)
	}
	return cmp.Or(
		cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(b2i(a.Hard), b2i(b.Hard)), cmp.Compare(wide(a), wide(b)),
		slices.Compare(a.Apps, b.Apps), cmp.Compare(a.By, b.By), bytes.Compare(s.body, o.body),
	)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// covers tells that whoever holds r need not hold o.
func (r Record) covers(o Record) bool {
	if r.Epoch < o.Epoch || o.Hard && !r.Hard {
		return false
	}
	return len(r.Apps) == 0 || len(o.Apps) > 0 && !slices.ContainsFunc(o.Apps, func(a string) bool { return !slices.Contains(r.Apps, a) })
}

// epoch is the highest that is known.
func (s set) epoch() uint64 {
	var top uint64
	for _, r := range s.all() {
		top = max(top, r.Record.Epoch)
	}
	return top
}

func (s set) all() []*Signed {
	if s.thaw == nil {
		return s.freezes
	}
	return append([]*Signed{s.thaw}, s.freezes...)
}

// next is the record of a freeze of apps, all if there are none, that also says
// what was frozen already.
func (s set) next(apps []string, hard bool) Record {
	r := Record{Epoch: s.epoch() + 1, Hard: hard, Apps: slices.Clone(apps)}
	all := len(apps) == 0
	for _, f := range s.freezes {
		r.Hard = r.Hard || f.Record.Hard
		all = all || len(f.Record.Apps) == 0
		r.Apps = append(r.Apps, f.Record.Apps...)
	}
	if slices.Sort(r.Apps); all {
		r.Apps = nil
	}
	r.Apps = slices.Compact(r.Apps)
	return r
}

// View is what is frozen. It is immutable.
type View struct {
	Epoch  uint64          // of the freezes that hold, the highest; 0: nothing is frozen
	Thawed uint64          // epoch of the last thaw
	By     string          // who froze last, or thawed
	whole  bool            // everything is
	hard   bool            // … restarts in place among it
	apps   map[string]bool // these are; true: restarts in place among it
}

func (s set) view() *View {
	v := &View{apps: map[string]bool{}}
	if s.thaw != nil {
		v.Thawed, v.By = s.thaw.Record.Epoch, s.thaw.Record.By
	}
	for i := len(s.freezes) - 1; i >= 0; i-- {
		r := s.freezes[i].Record
		v.Epoch, v.By = r.Epoch, r.By // rising
		if len(r.Apps) == 0 {
			v.whole, v.hard = true, v.hard || r.Hard
		}
		for _, a := range r.Apps {
			v.apps[a] = v.apps[a] || r.Hard
		}
	}
	return v
}

// Frozen tells whether anything is.
func (v *View) Frozen() bool { return v.whole || len(v.apps) > 0 }

// Whole tells whether everything is.
func (v *View) Whole() bool { return v.whole }

// Hard tells whether restarts in place are held, of anything.
func (v *View) Hard() bool {
	for _, hard := range v.apps {
		if hard {
			return true
		}
	}
	return v.hard
}

// Apps are the apps that are frozen, sorted; none if everything is.
func (v *View) Apps() []string {
	if v.whole {
		return nil
	}
	return slices.Sorted(maps.Keys(v.apps))
}

// Holds tells whether automatic action on an app is held, and whether restarts
// in place are too.
func (v *View) Holds(app string) (frozen, hard bool) {
	h, named := v.apps[app]
	return v.whole || named, v.hard || h
}
