package senses

import (
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// linkTable is what is known of the host's links, and turns reports about them
// into facts. It is pure. It outlives a run of the sense, so that what happened
// while none ran is found by comparing.
type linkTable struct {
	links map[int]*linkState
}

type linkState struct {
	name      string
	up        bool
	addresses int
	gateway   bool // a default route leads through it
	downs     int64
	told      bool // since the run began
	seen      bool // in the list that is being compared
}

// maxLinks bounds the links of which anything is kept.
const maxLinks = 4096

func newLinkTable() *linkTable {
	return &linkTable{links: map[int]*linkState{}}
}

// begin has all links told anew.
func (t *linkTable) begin() {
	for _, l := range t.links {
		l.told = false
	}
}

// set takes in what is said of one link.
func (t *linkTable) set(index int, name string, up bool, at reflexes.Boot, to []reflexes.Fact) []reflexes.Fact {
	l := t.links[index]
	if l != nil && l.name != name { // renamed: another one, as far as rules go
		to = append(to, goneLink(l, at)...)
		*l = linkState{name: name, up: l.up, addresses: l.addresses, gateway: l.gateway}
	}
	if l == nil {
		if len(t.links) >= maxLinks {
			return to
		}
		l = &linkState{name: name}
		t.links[index] = l
	}
	l.seen = true
	fell := l.up && !up
	if fell {
		l.downs++
	}
	changed := l.up != up || !l.told
	l.up = up
	if changed {
		to = append(to, fact(reflexes.LinkUp, l.target(), reflexes.Bool(up), at))
	}
	if fell || !l.told {
		to = append(to, fact(reflexes.LinkDowns, l.target(), reflexes.Int(l.downs), at))
	}
	if !l.told {
		to = append(to, l.addressFact(at), l.gatewayFact(at))
	}
	l.told = true
	return to
}

// remove takes in that a link is gone, which is also a way to go down.
func (t *linkTable) remove(index int, at reflexes.Boot, to []reflexes.Fact) []reflexes.Fact {
	l := t.links[index]
	if l == nil {
		return to
	}
	if l.up {
		to = append(to,
			fact(reflexes.LinkUp, l.target(), reflexes.Bool(false), at),
			fact(reflexes.LinkDowns, l.target(), reflexes.Int(l.downs+1), at))
	}
	delete(t.links, index)
	return append(to, goneLink(l, at)...)
}

// compare begins to take in a whole list; what it does not set is gone when
// compared is called.
func (t *linkTable) compare() {
	for _, l := range t.links {
		l.seen = false
	}
}

func (t *linkTable) compared(at reflexes.Boot, to []reflexes.Fact) []reflexes.Fact {
	for index, l := range t.links {
		if !l.seen {
			to = t.remove(index, at, to)
		}
	}
	return to
}

// addressed takes in how many addresses of global scope each link has.
func (t *linkTable) addressed(count map[int]int, at reflexes.Boot, to []reflexes.Fact) []reflexes.Fact {
	for index, l := range t.links {
		if l.addresses != count[index] {
			l.addresses = count[index]
			to = append(to, l.addressFact(at))
		}
	}
	return to
}

// routed takes in through which links default routes lead.
func (t *linkTable) routed(through map[int]bool, at reflexes.Boot, to []reflexes.Fact) []reflexes.Fact {
	for index, l := range t.links {
		if l.gateway != through[index] {
			l.gateway = through[index]
			to = append(to, l.gatewayFact(at))
		}
	}
	return to
}

func (l *linkState) target() reflexes.Target {
	return reflexes.Target{Scope: reflexes.ScopeLink, Name: l.name}
}

func (l *linkState) addressFact(at reflexes.Boot) reflexes.Fact {
	return fact(reflexes.LinkAddresses, l.target(), reflexes.Int(int64(l.addresses)), at)
}

func (l *linkState) gatewayFact(at reflexes.Boot) reflexes.Fact {
	return fact(reflexes.LinkDefault, l.target(), reflexes.Bool(l.gateway), at)
}

var linkVars = []reflexes.VarID{reflexes.LinkUp, reflexes.LinkAddresses, reflexes.LinkDefault, reflexes.LinkDowns}

func goneLink(l *linkState, at reflexes.Boot) []reflexes.Fact {
	return gone(nil, l.target(), at, linkVars...)
}
