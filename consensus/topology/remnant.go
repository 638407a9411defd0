package topology

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ganglion-mesh/ganglion/intent"
)

const (
	// MaxRemnants is how many remnants are remembered, the latest ones.
	MaxRemnants = 20_000
	maxSwept    = 5000 // by one command
)

// Remnant is a copy that a host was told to run and then no more. Until the host
// has reported on a slice of that index or a later one, and without the copy, it
// may run there, or yet begin, whatever was reported before: so it is placed on no
// other host but as the rules for lost hosts allow.
type Remnant struct {
	App   string `json:"app"`
	N     int    `json:"n"`
	Host  string `json:"host"`
	Index uint64 `json:"index"` // at which it was taken away
	// Ports and Memory are what it had there, and has until it is gone.
	Ports  []int `json:"ports,omitempty"`
	Memory int64 `json:"memory,omitempty"` // bytes
}

// Key names the copy.
func (m Remnant) Key() CopyKey { return CopyKey{App: m.App, N: m.N} }

// Sweep forgets remnants that are no more, by the word of their hosts. It moves no
// revision: a decision knows as much from the same reports.
type Sweep struct {
	Remnants []Remnant `json:"remnants"`
}

// Remnants returns what hosts may still run of what was taken from them, by app
// and number.
func (s *State) Remnants() []Remnant { return listed(s.remnants) }

func remnantKey(k CopyKey, host string) []byte { return append(copyKey(k), host...) }

// leave remembers a placement that is taken from its host. What runs under a lease
// is remembered by that.
func (t *txn) leave(p Placement) {
	if app, ok := t.apps.Get([]byte(p.App)); ok && app.Spec.Singleton {
		if _, leased := t.leases.Get([]byte(p.App)); leased {
			return
		}
	}
	m := Remnant{App: p.App, N: p.N, Host: p.Host, Index: t.index, Ports: slices.Sorted(maps.Values(p.Ports))}
	if app, ok := t.apps.Get([]byte(p.App)); ok && !app.spent(p) {
		m.Memory = int64(app.Versions[p.Version].Resources.Memory)
	}
	t.remnants, _, _ = t.remnants.Insert(remnantKey(p.Key(), p.Host), &m)
}

// resume forgets the remnant of a copy on the host that gets it again: it has one
// process there, whatever it was told before.
func (t *txn) resume(p Placement) {
	t.remnants, _, _ = t.remnants.Delete(remnantKey(p.Key(), p.Host))
}

func (t *txn) sweep(c Sweep) {
	for _, m := range c.Remnants {
		t.forgetRemnant(m)
	}
}

// forgetRemnant forgets m, unless the copy was placed there and taken away anew
// since.
func (t *txn) forgetRemnant(m Remnant) {
	if m.N < 0 || m.N >= intent.MaxCopies {
		return
	}
	key := remnantKey(m.Key(), m.Host)
	if now, ok := t.remnants.Get(key); ok && now.Index == m.Index {
		t.remnants, _, _ = t.remnants.Delete(key)
	}
}

// forgetRemnantsOn forgets what a host may run that is off the roster.
func (t *txn) forgetRemnantsOn(host string) {
	for _, m := range t.Remnants() {
		if m.Host == host {
			t.forgetRemnant(m)
		}
	}
}

// boundRemnants forgets the oldest of too many.
func (t *txn) boundRemnants() {
	excess := t.remnants.Len() - MaxRemnants
	if excess <= 0 {
		return
	}
	all := t.Remnants()
	slices.SortStableFunc(all, func(a, b Remnant) int { return cmp.Compare(a.Index, b.Index) })
	for _, m := range all[:excess] {
		t.forgetRemnant(m)
	}
}

// remains reports whether m may still be there.
func (r *room) remains(m *Remnant) bool {
	if !r.obs.Reported || r.obs.Slice < m.Index {
		return true
	}
	o, known := r.obs.Copies[m.Key()]
	return known && !over(o)
}

// findRemnants adds the copies that hosts may still run, or yet begin, to those
// that they are known to have, and sweeps up those that are no more.
func (p *planner) findRemnants() {
	for m := range values(p.state.remnants) {
		switch r := p.byName[m.Host]; {
		case r.remains(m):
			r.leftover++
			r.keep(m)
			if !slices.Contains(p.strays[m.Key()], r) {
				p.strays[m.Key()] = append(p.strays[m.Key()], r)
			}
		case len(p.swept) < maxSwept:
			p.swept = append(p.swept, Remnant{App: m.App, N: m.N, Host: m.Host, Index: m.Index})
		}
	}
}

// keep leaves a remnant the ports and the memory that it may still have. Its cores
// it shares with whoever comes.
func (r *room) keep(m *Remnant) {
	if len(m.Ports) == 0 && m.Memory == 0 {
		return
	}
	if r.kept == nil {
		r.kept = map[CopyKey]*Remnant{}
	}
	r.kept[m.Key()] = m
	r.keptMemory += m.Memory
}

// keeps names the copy that may still have a port on a host that it was taken from.
// To the copy that comes back itself it leaves what it had.
func (r *room) keeps(port int, comes CopyKey) (by CopyKey, kept bool) {
	for key, m := range r.kept { // of one port there is hardly a second; the least is named
		if key != comes && slices.Contains(m.Ports, port) && (!kept || compareKeys(key, by) < 0) {
			by, kept = key, true
		}
	}
	return by, kept
}

// checkRemnants holds the invariants of remnants in a snapshot.
func (s *State) checkRemnants(im image) error {
	if s.remnants.Len() != len(im.Remnants) || len(im.Remnants) > MaxRemnants {
		return errors.New("two remnants are of one copy on one host, or they are too many")
	}
	for _, m := range im.Remnants {
		if _, ok := s.hosts.Get([]byte(m.Host)); !ok {
			return fmt.Errorf("remnant of copy %s: its host %q is missing", m.Key(), m.Host)
		}
		if p, ok := s.copies.Get(copyKey(m.Key())); ok && p.Host == m.Host {
			return fmt.Errorf("remnant of copy %s: it is placed on %s", m.Key(), m.Host)
		}
		if m.App == "" || m.N < 0 || m.N >= intent.MaxCopies || m.Index == 0 || m.Index > s.revision {
			return fmt.Errorf("remnant of copy %s: it cannot have come about", m.Key())
		}
	}
	return nil
}

// remainsElsewhere reports whether another host than that of p may still have the
// copy.
func (t *txn) remainsElsewhere(p Placement) bool {
	for m := range prefixed(t.remnants, p.App) {
		if m.N == p.N && m.Host != p.Host {
			return true
		}
	}
	return false
}
