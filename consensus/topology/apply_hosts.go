package topology

import "github.com/ganglion-mesh/ganglion/intent"

func (t *txn) enrolHost(c EnrolHost) *Rejected {
	if err := intent.CheckName(c.Name); err != nil {
		return reject(RejectInvalid, "enrol host: %v", err)
	}
	if c.ID == "" || len(c.ID) > maxID {
		return reject(RejectInvalid, "enrol host %s: host id must have 1 to %d bytes", c.Name, maxID)
	}
	if e, ok := t.hosts.Get([]byte(c.Name)); ok {
		if e.ID != c.ID {
			return reject(RejectConflict, "enrol host %s: another host (id %s) has this name; choose another name, or remove that host first", c.Name, e.ID)
		}
		return nil
	}
	if _, gone := t.revoked.Get([]byte(c.ID)); gone {
		return reject(RejectConflict, "enrol host %s: the host with id %s was removed from the mesh; run ganglion leave on it, then join again", c.Name, c.ID)
	}
	for e := range values(t.hosts) {
		if e.ID == c.ID {
			return reject(RejectConflict, "enrol host %s: the host with id %s is enrolled as %s; remove that first", c.Name, c.ID, e.Name)
		}
	}
	if t.hosts.Len() >= MaxHosts {
		return reject(RejectLimit, "enrol host %s: the mesh has %d hosts, the limit", c.Name, MaxHosts)
	}
	t.hosts = insert(t.hosts, c.Name, &hostEntry{
		Host:  Host{Name: c.Name, ID: c.ID, Enrolled: t.index, Drain: DrainNone},
		slice: t.index,
	})
	t.changed = true
	return nil
}

func (t *txn) removeHost(c RemoveHost) *Rejected {
	e, ok := t.hosts.Get([]byte(c.Name))
	if !ok {
		return reject(RejectUnknown, "remove host %s: there is no such host", c.Name)
	}
	if e.ID != c.ID {
		return reject(RejectConflict, "remove host %s: its id is %s, not %q; look again", c.Name, e.ID, c.ID)
	}
	if c.Drained && e.Drain != DrainDrained {
		return reject(RejectConflict, "remove host %s: it is not drained; ganglion drain %s", c.Name, c.Name)
	}
	if len(c.Unproved) > maxUnproved {
		return reject(RejectInvalid, "remove host %s: more than %d things are unproved", c.Name, maxUnproved)
	}
	for _, p := range collect(prefixed(t.onHost, c.Name)) {
		t.unplace(p.Key())
	}
	t.forgetRemnantsOn(c.Name)
	t.hosts = remove(t.hosts, c.Name)
	revoked := Revocation{ID: e.ID, Name: e.Name, Index: t.index, Left: c.Left, Unproved: c.Unproved}
	t.revoke(revoked)
	t.note(Fact{Removed: &revoked})
	t.changed = true
	return nil
}

func (t *txn) setDrain(c SetDrain) *Rejected {
	e, ok := t.hosts.Get([]byte(c.Host))
	if !ok {
		return reject(RejectUnknown, "drain host %s: there is no such host", c.Host)
	}
	switch {
	case c.Drain != DrainNone && c.Drain != DrainDraining && c.Drain != DrainDrained:
		return reject(RejectInvalid, "drain host %s: %q is no drain state", c.Host, c.Drain)
	case c.Drain != DrainDraining && c.Removing:
		return reject(RejectInvalid, "drain host %s: %q does not go with removing it", c.Host, c.Drain)
	case (c.Drain == e.Drain || c.Drain == DrainDraining && e.Drain == DrainDrained) && (!c.Removing || e.Removing):
		return nil
	case len(c.Chain) > maxReason:
		return reject(RejectInvalid, "drain host %s: the chain of rules that led to it has %d bytes, the limit is %d", c.Host, len(c.Chain), maxReason)
	case c.Drain == DrainDrained && e.Drain != DrainDraining:
		return reject(RejectConflict, "drain host %s: it is not draining", c.Host)
	case c.Loan != 0 && (c.Drain != DrainDraining || c.Removing):
		return reject(RejectInvalid, "drain host %s: a loan pays for a drain alone", c.Host)
	case c.Drain == DrainDrained && len(collect(prefixed(t.onHost, c.Host))) > 0:
		return reject(RejectConflict, "drain host %s: copies are still placed on it", c.Host)
	}
	if c.Loan != 0 {
		if r := t.actBy(c.For, c.Host); r != nil {
			return r
		}
		if r := t.useLoan("drain host "+c.Host, c.Loan, c.Host); r != nil {
			return r
		}
	}
	next := *e
	next.Removing = c.Removing || e.Removing && c.Drain != DrainNone
	if c.Drain != DrainDraining || e.Drain != DrainDrained {
		next.Drain = c.Drain
	}
	if c.Drain != DrainDrained {
		next.DrainChain = c.Chain
	}
	t.hosts = insert(t.hosts, c.Host, &next)
	t.touched[c.Host] = true
	t.changed = true
	return nil
}

func (t *txn) putToken(c PutToken) *Rejected {
	if c.ID == "" || len(c.ID) > maxID || len(c.Role) > maxID || len(c.Hash) > maxID {
		return reject(RejectInvalid, "put token %q: id must have 1 to %d bytes, role and hash no more", c.ID, maxID)
	}
	if _, ok := t.tokens.Get([]byte(c.ID)); !ok && t.tokens.Len() >= MaxTokens {
		return reject(RejectLimit, "put token %s: the mesh has %d tokens, the limit; revoke some", c.ID, MaxTokens)
	}
	t.tokens = insert(t.tokens, c.ID, c)
	t.changed = true
	return nil
}

func (t *txn) dropToken(c DropToken) *Rejected {
	if _, ok := t.tokens.Get([]byte(c.ID)); !ok {
		return reject(RejectUnknown, "revoke token %s: there is no such token", c.ID)
	}
	t.tokens = remove(t.tokens, c.ID)
	t.changed = true
	return nil
}
