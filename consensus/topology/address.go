package topology

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/ganglion-mesh/ganglion/intent"
)

// MaxAddresses bounds the addresses that are leased at a time, and those that one
// host may want.
const MaxAddresses = 1000

// An address that hosts may take over (claim) is leased as a singleton is: the App
// of its Lease is the address as package net/netip prints it, which is no app's name,
// for it has a dot or a colon. There is no copy that comes with it, and no more of it
// in the state: which host wants it is observed, and for what reason is that host's
// own rule. Once over, the lease is forgotten.

// IsAddress tells whether what is leased is an address, and no singleton.
func IsAddress(leased string) bool { return strings.ContainsAny(leased, ".:") }

// HeldAddress is an address that a host has the lease of.
type HeldAddress struct {
	Address string `json:"address"`
	Host    string `json:"host"`
	Token   uint64 `json:"token"`
}

// HeldAddresses lists the addresses whose leases are not over.
func (s *State) HeldAddresses() (list []HeldAddress) {
	for l := range values(s.leases) {
		if IsAddress(l.App) && !l.Over {
			list = append(list, HeldAddress{l.App, l.Host, l.Token})
		}
	}
	return list
}

// grantAddress gives a host the lease of an address.
func (t *txn) grantAddress(g Grant) *Rejected {
	if a, err := netip.ParseAddr(g.App); err != nil || a.String() != g.App || a.Zone() != "" {
		return reject(RejectInvalid, "grant lease of %s: it is no address", clip(g.App))
	}
	_, known := t.leases.Get([]byte(g.App))
	if n := len(t.HeldAddresses()); !known && n >= MaxAddresses {
		return reject(RejectLimit, "grant lease of %s: %d addresses are leased, the limit", g.App, n)
	}
	if r := t.checkGrant(g); r != nil {
		return r
	}
	t.let(g)
	t.changed = true
	return nil
}

// tendAddresses gives the addresses that hosts want, and that nobody holds, to one
// of those that want it: what takes nothing from anybody needs no token, but a leader
// that sees the mesh well (S9) and no freeze.
func (p *planner) tendAddresses() {
	wanted := p.wantedAddresses()
	if len(wanted) == 0 {
		return
	}
	declared := p.state.claims()
	for _, addr := range slices.Sorted(maps.Keys(wanted)) {
		l := p.lease(addr)
		switch {
		case !declared[addr]:
			continue // its host has not heard yet that the rule is gone
		case l.live:
			p.wake(l.left)
			continue
		case p.obs.Freeze.All, p.out.GateShut, l.lapsed && p.wary:
			continue
		}
		r := p.taker(wanted[addr], l.Host)
		p.addresses = append(p.addresses, Grant{
			App: addr, Host: r.Name, Boot: r.obs.Boot, Prev: l.Token, Renewed: l.Renewed, Timers: p.obs.Timers.orDefault(),
		})
		p.granted[addr] = true
		r.addresses++
	}
}

// wantedAddresses lists the hosts that would take an address now, by address.
func (p *planner) wantedAddresses() map[string][]*room {
	wanted := map[string][]*room{}
	for _, r := range p.rooms {
		if !r.fresh || r.Drain != DrainNone || r.obs.Boot == "" {
			continue
		}
		for _, addr := range r.obs.Wants {
			if !slices.Contains(wanted[addr], r) {
				wanted[addr] = append(wanted[addr], r)
			}
		}
	}
	if len(wanted) > 0 {
		for _, a := range p.state.HeldAddresses() {
			if r := p.byName[a.Host]; r != nil {
				r.addresses++
			}
		}
	}
	return wanted
}

// taker picks the host that gets an address: the one that had it, else the one
// with the fewest.
func (p *planner) taker(rooms []*room, last string) *room {
	return slices.MinFunc(rooms, func(a, b *room) int {
		if (a.Name == last) != (b.Name == last) {
			if a.Name == last {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.addresses, b.addresses), cmp.Compare(a.Name, b.Name))
	})
}

// claims lists the addresses that some reflex claims.
func (s *State) claims() map[string]bool {
	out := map[string]bool{}
	for _, r := range s.Reflexes() {
		addClaims(out, r.Spec.Act)
	}
	for e := range values(s.apps) {
		for _, r := range e.Spec.Reflexes {
			addClaims(out, r.Act)
		}
	}
	return out
}

func addClaims(to map[string]bool, acts []intent.Action) {
	for _, a := range acts {
		if a.Op != "claim" {
			continue
		}
		if p, err := a.Address(); err == nil {
			to[p.Addr().String()] = true
		}
	}
}
