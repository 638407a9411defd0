package topology

import (
	"maps"
	"slices"

	"github.com/ganglion-mesh/ganglion/intent"
	iradix "github.com/hashicorp/go-immutable-radix/v2"
)

func (t *txn) place(c Place) *Rejected {
	if c.Expect != 0 && c.Expect != t.revision {
		return reject(RejectConflict, "place: decided at revision %d, it is now %d; decide again", c.Expect, t.revision)
	}
	for _, key := range c.Remove {
		if key.N < 0 || key.N >= intent.MaxCopies || !t.placed(key) {
			continue // gone already is what was asked for
		}
		t.unplace(key)
		t.forgetStop(key)
	}
	for _, g := range c.Grant {
		if r := t.grant(g, c.Put); r != nil {
			return r
		}
	}
	if r := t.spend(c); r != nil {
		return r
	}
	t.markUnfit(c.Unfit)
	before := t.copies
	seen := map[CopyKey]bool{}
	for _, p := range c.Put {
		if seen[p.Key()] {
			return reject(RejectInvalid, "place copy %s: it is placed twice", p.Key())
		}
		seen[p.Key()] = true
		if r := t.checkPlacement(p); r != nil {
			return r
		}
		if r := t.checkLease(p); r != nil {
			return r
		}
		t.putPlacement(p)
	}
	return t.checkPlaced(before, c.Put)
}

func (t *txn) checkPlacement(p Placement) *Rejected {
	app, ok := t.apps.Get([]byte(p.App))
	if !ok {
		return unknownApp("place", p.App)
	}
	if _, ok := t.hosts.Get([]byte(p.Host)); !ok {
		return reject(RejectUnknown, "place copy %s: there is no host %q", p.Key(), p.Host)
	}
	if _, ok := app.Versions[p.Version]; !ok {
		return reject(RejectUnknown, "place copy %s: app has no version %q", p.Key(), p.Version)
	}
	if p.N < 0 || p.N >= intent.MaxCopies {
		return reject(RejectInvalid, "place copy %s: number is not within 0 and %d", p.Key(), intent.MaxCopies-1)
	}
	if len(p.Leaving) > 1024 {
		return reject(RejectInvalid, "place copy %s: reason to leave is longer than 1024 bytes", p.Key())
	}
	if len(p.Evicted) > 1024 || len(p.EvictedChain) > maxReason {
		return reject(RejectInvalid, "place copy %s: reason to be evicted is longer than 1024 bytes", p.Key())
	}
	if len(p.Tried) > maxTried || p.Surge && p.Leaving != "" {
		return reject(RejectInvalid, "place copy %s: a surge copy does not leave, and none is tried on more than %d hosts", p.Key(), maxTried)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Ports)) {
		if port := p.Ports[name]; port < 1 || port > 65535 {
			return reject(RejectInvalid, "place copy %s: port %s cannot be %d", p.Key(), name, port)
		}
	}
	return checkRelief(p)
}

// checkPlaced is the last guard of two promises, whoever decided: no port is
// assigned twice on a host, and no app has more copies than it asks for.
func (t *txn) checkPlaced(before *iradix.Tree[*Placement], put []Placement) *Rejected {
	hosts, apps := map[string]bool{}, map[string]bool{}
	for _, p := range put {
		if !apps[p.App] {
			apps[p.App] = true
			if r := t.checkCount(before, p.App); r != nil {
				return r
			}
		}
		if !hosts[p.Host] {
			hosts[p.Host] = true
			if r := t.checkPorts(p.Host); r != nil {
				return r
			}
		}
	}
	return nil
}

// checkCount allows an app that has too many copies, after its count went down,
// to keep them until they are removed, but not to gain one. The same goes for
// its surge copies.
func (t *txn) checkCount(before *iradix.Tree[*Placement], name string) *Rejected {
	app, _ := t.apps.Get([]byte(name))
	limit := app.most()
	if app.Spec.PerHost {
		limit = t.hosts.Len()
	}
	have, surge := count(t.copies, name)
	had, surgeBefore := count(before, name)
	if have > limit && have > had {
		return reject(RejectConflict, "place app %s: it would have %d copies, it asks for %d", name, have, limit)
	}
	if most := app.surgeLimit(limit); surge > most && surge > surgeBefore {
		return reject(RejectConflict, "place app %s: it would have %d surge copies, its update allows %d", name, surge, most)
	}
	return nil
}

// count tells how many copies an app has of those that are asked for, and how
// many surge copies.
func count(copies *iradix.Tree[*Placement], app string) (asked, surge int) {
	for p := range prefixed(copies, app) {
		if p.Surge {
			surge++
		} else {
			asked++
		}
	}
	return asked, surge
}

func (t *txn) checkPorts(host string) *Rejected {
	taken := map[int]CopyKey{}
	for p := range prefixed(t.onHost, host) {
		for _, name := range slices.Sorted(maps.Keys(p.Ports)) {
			port := p.Ports[name]
			if other, ok := taken[port]; ok {
				return reject(RejectConflict, "place copy %s: port %d on %s belongs to %s", p.Key(), port, host, other)
			}
			taken[port] = p.Key()
		}
	}
	return nil
}

func (t *txn) placed(k CopyKey) bool {
	_, ok := t.copies.Get(copyKey(k))
	return ok
}

// putPlacement stores p as a new generation, unless it only makes a surge copy
// one of those that are asked for. The app must exist.
func (t *txn) putPlacement(p Placement) {
	app, _ := t.apps.Get([]byte(p.App))
	if old, ok := t.copies.Get(copyKey(p.Key())); ok && old.Surge && !p.Surge && old.runsAs(p) {
		t.relabel(*old)
		return
	}
	if old, ok := t.copies.Get(copyKey(p.Key())); ok && old.Host != p.Host {
		t.unplace(p.Key())
	}
	p.Generation = t.index
	p.Stopped = app.stops(p)
	t.storePlacement(p)
}

// storePlacement stores p as it is. It must not change the copy's host.
func (t *txn) storePlacement(p Placement) {
	t.copies, _, _ = t.copies.Insert(copyKey(p.Key()), &p)
	t.onHost, _, _ = t.onHost.Insert(hostKey(p.Host, p.Key()), &p)
	t.resume(p)
	t.mark(p)
}

// relabel stores a placement as a surge copy if it was none, and the other way
// round. Nothing begins anew by it, and its host need not know.
func (t *txn) relabel(p Placement) {
	p.Surge, p.Relief = !p.Surge, nil
	t.relate(p)
}

// runsAs reports whether two placements of a copy ask its host for the same.
func (p Placement) runsAs(o Placement) bool {
	return p.Host == o.Host && p.Version == o.Version && p.Leaving == "" && o.Leaving == "" && maps.Equal(p.Ports, o.Ports)
}

// stops reports whether a host keeps the copy stopped: because a user said so,
// because it is on its way to another host, or because its run is over.
func (a App) stops(p Placement) bool {
	_, one := slices.BinarySearch(a.StoppedCopies, p.N)
	return a.Stopped || one || p.Leaving != "" || a.spent(p)
}

func (t *txn) unplace(k CopyKey) {
	p, ok := t.copies.Get(copyKey(k))
	if !ok {
		return
	}
	t.copies, _, _ = t.copies.Delete(copyKey(k))
	t.onHost, _, _ = t.onHost.Delete(hostKey(p.Host, k))
	t.leave(*p)
	t.mark(*p)
}

func (t *txn) mark(p Placement) {
	t.touched[p.Host], t.dirty[p.App], t.shifted[p.Key()], t.changed = true, true, true, true
}

// forgetStop lets a number that is placed anew later begin as running.
func (t *txn) forgetStop(k CopyKey) {
	e, ok := t.apps.Get([]byte(k.App))
	if !ok {
		return
	}
	if left := withNumber(e.StoppedCopies, k.N, false); len(left) != len(e.StoppedCopies) {
		next := e.App
		next.StoppedCopies = left
		t.setApp(next)
	}
}
