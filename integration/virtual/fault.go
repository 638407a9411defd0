package virtual

import "slices"

// Isolate cuts hosts off from all others, and leaves them each other. It takes
// the place of an earlier partition.
func (m *Mesh) Isolate(hosts ...*Host) {
	var names []string
	for _, h := range hosts {
		names = append(names, h.Name)
	}
	m.CutLinks(func(from, to string) bool { return slices.Contains(names, from) != slices.Contains(names, to) })
}

// CutLinks cuts everything that goes from one host to another while the
// predicate says so. It takes the place of an earlier one.
func (m *Mesh) CutLinks(cut func(from, to string) bool) {
	m.Heal()
	for i, a := range m.Hosts {
		for _, b := range m.Hosts[i+1:] {
			if cut(a.Name, b.Name) || cut(b.Name, a.Name) {
				m.ledger.trouble(a.Name, b.Name, linkCut)
			}
		}
	}
	m.Net.Cut(cut)
}

// Heal mends all links.
func (m *Mesh) Heal() {
	m.Net.Cut(nil)
	m.ledger.over(func(t Trouble) bool { return t.What == linkCut })
}
