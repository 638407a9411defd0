package topology

import (
	"fmt"

	"github.com/ganglion-mesh/ganglion/intent"
	iradix "github.com/hashicorp/go-immutable-radix/v2"
)

// Limits of the state. They bound what one command can make every voter hold.
const (
	MaxApps     = 10_000
	MaxHosts    = 10_000
	MaxTokens   = 10_000
	MaxRequests = 4096 // remembered request ids

	maxRequestID = 128
	maxUnproved  = 16
	maxID        = 128
	maxKeyBytes  = 64 << 10
)

// RejectKind sorts rejections for whoever answers the user.
type RejectKind string

// The kinds of rejection.
const (
	RejectInvalid  RejectKind = "invalid"  // it can never be accepted
	RejectConflict RejectKind = "conflict" // the state differs from what the writer saw: look again
	RejectUnknown  RejectKind = "unknown"  // it names what does not exist
	RejectLimit    RejectKind = "limit"    // the mesh would hold too much
)

// Rejected says that a committed command was refused. Every voter refuses it
// alike, and the state is as before.
type Rejected struct {
	Kind RejectKind `json:"kind"`
	Why  string     `json:"why"`
}

func (r *Rejected) Error() string { return r.Why }

func reject(kind RejectKind, format string, args ...any) *Rejected {
	return &Rejected{Kind: kind, Why: fmt.Sprintf(format, args...)}
}

// Result is what a committed command did.
type Result struct {
	Err      *Rejected // not nil: refused, nothing changed
	Revision uint64    // of the state after it; for a repeated request, after the first
	Changed  bool      // whether the revision moved
	Repeated bool      // the request was already accepted earlier
	Loan     uint64    // of a Lend: the id of the loan
}

// Apply returns the state after a command that was committed at index, and what
// the command did. It depends on nothing but its arguments and never panics. A
// command that changes nothing returns s itself.
func (s *State) Apply(index uint64, c Command) (*State, Result) {
	refuse := func(r *Rejected) (*State, Result) { return s, Result{Err: r, Revision: s.revision} }
	kind, _, err := c.change()
	if err != nil {
		return refuse(reject(RejectInvalid, "%v", err))
	}
	if index <= s.revision {
		return refuse(reject(RejectInvalid, "apply %s: index %d is not after revision %d", kind, index, s.revision))
	}
	if len(c.By) > maxBy {
		return refuse(reject(RejectInvalid, "apply %s: who asks for it has %d bytes, the limit is %d", kind, len(c.By), maxBy))
	}
	if len(c.RequestID) > maxRequestID {
		return refuse(reject(RejectInvalid, "apply %s: request id has %d bytes, the limit is %d", kind, len(c.RequestID), maxRequestID))
	}
	if c.RequestID != "" {
		if first, ok := s.requests.Get([]byte(c.RequestID)); ok {
			if first.Kind != kind {
				return refuse(reject(RejectConflict, "apply %s: request id %q was used for %s; use a new one", kind, c.RequestID, first.Kind))
			}
			again := Result{Revision: first.Revision, Repeated: true}
			if c.Lend != nil {
				again.Loan = first.Index
			}
			return s, again
		}
	}
	t := newTxn(s, index)
	if r := t.do(c); r != nil {
		return refuse(r)
	}
	if t.changed {
		t.tell(s, c)
		t.keepFacts(c.By, c.At)
	}
	next := t.commit(s, kind, c.RequestID)
	res := Result{Revision: next.revision, Changed: t.changed}
	if c.Lend != nil {
		res.Loan = index
	}
	return next, res
}

// txn is the making of one new state. To reject is to drop it.
type txn struct {
	State
	index   uint64
	changed bool
	touched map[string]bool  // hosts whose slice changed
	dirty   map[string]bool  // apps whose placements changed
	shifted map[CopyKey]bool // copies whose placements changed
	facts   []Fact           // what is to be told of it
}

func newTxn(s *State, index uint64) *txn {
	return &txn{State: *s, index: index, touched: map[string]bool{}, dirty: map[string]bool{}, shifted: map[CopyKey]bool{}}
}

func (t *txn) do(c Command) *Rejected {
	switch {
	case c.Found != nil:
		return t.found(*c.Found)
	case c.PutIntents != nil:
		return t.putIntents(*c.PutIntents)
	case c.DeleteApp != nil:
		return t.deleteApp(*c.DeleteApp)
	case c.DeleteReflex != nil:
		return t.deleteReflex(*c.DeleteReflex)
	case c.DeleteSense != nil:
		return t.deleteSense(*c.DeleteSense)
	case c.SetRunning != nil:
		return t.setRunning(*c.SetRunning)
	case c.RestartApp != nil:
		return t.restartApp(*c.RestartApp)
	case c.EnrolHost != nil:
		return t.enrolHost(*c.EnrolHost)
	case c.RemoveHost != nil:
		return t.removeHost(*c.RemoveHost)
	case c.SetDrain != nil:
		return t.setDrain(*c.SetDrain)
	case c.PutToken != nil:
		return t.putToken(*c.PutToken)
	case c.DropToken != nil:
		return t.dropToken(*c.DropToken)
	case c.Place != nil:
		return t.place(*c.Place)
	case c.SetRollout != nil:
		return t.setRollout(*c.SetRollout)
	case c.RenewLeases != nil:
		return t.renewLeases(*c.RenewLeases)
	case c.EndLease != nil:
		return t.endLease(*c.EndLease)
	case c.GrantAddress != nil:
		return t.grantAddress(*c.GrantAddress)
	case c.RecordRuns != nil:
		return t.recordRuns(*c.RecordRuns)
	case c.Restore != nil:
		return t.restore(*c.Restore)
	case c.SetSigning != nil:
		return t.setSigning(*c.SetSigning)
	case c.PutSignature != nil:
		return t.putSignature(*c.PutSignature)
	case c.Rollback != nil:
		return t.rollback(*c.Rollback)
	case c.Rebalance != nil:
		return t.setRebalance(*c.Rebalance)
	case c.Told != nil:
		t.told(*c.Told)
		return nil
	case c.Sweep != nil:
		t.sweep(*c.Sweep)
		return nil
	case c.Thaw != nil:
		return t.thaw(*c.Thaw)
	case c.Lend != nil:
		return t.lend(*c.Lend)
	case c.SettleLoan != nil:
		return t.settleLoan(*c.SettleLoan)
	case c.Evict != nil:
		return t.evict(*c.Evict)
	case c.ReflexStage != nil:
		return t.setReflexStage(*c.ReflexStage)
	case c.SetStage != nil:
		return t.setStage(*c.SetStage)
	case c.NoteAct != nil:
		return t.noteAct(*c.NoteAct)
	default:
		return nil // Heartbeat
	}
}

// commit closes the books: unused versions go, the indexes of touched slices
// move, the request is remembered.
func (t *txn) commit(before *State, kind, requestID string) *State {
	for name := range t.dirty { // order does not matter: each app for itself
		t.forgetVersions(name)
		t.touchPackages(before, name)
	}
	for name := range t.touched {
		if e, ok := t.hosts.Get([]byte(name)); ok {
			t.hosts = insert(t.hosts, name, &hostEntry{Host: e.Host, slice: t.index})
		}
	}
	if t.changed {
		t.revision = t.index
	}
	t.boundRemnants()
	if requestID != "" {
		t.remember(kind, requestID)
	}
	s := t.State
	return &s
}

func (t *txn) remember(kind, id string) {
	t.requests = insert(t.requests, id, remembered{Kind: kind, Index: t.index, Revision: t.revision})
	t.replay, _, _ = t.replay.Insert(indexKey(t.index), id)
	for t.replay.Len() > MaxRequests {
		key, oldest, _ := t.replay.Root().Minimum()
		t.replay, _, _ = t.replay.Delete(key)
		t.requests, _, _ = t.requests.Delete([]byte(oldest))
	}
}

func (t *txn) found(f Found) *Rejected {
	switch {
	case t.meshID != "":
		return reject(RejectConflict, "found mesh %q: this is already mesh %q (%s)", f.Name, t.meshName, t.meshID)
	case f.MeshID == "" || len(f.MeshID) > maxID:
		return reject(RejectInvalid, "found mesh %q: mesh id must have 1 to %d bytes", f.Name, maxID)
	case len(f.CACert) > maxKeyBytes || len(f.CAKey) > maxKeyBytes || len(f.GossipKey) > maxKeyBytes:
		return reject(RejectLimit, "found mesh %q: a key has more than %d bytes", f.Name, maxKeyBytes)
	}
	if err := intent.CheckName(f.Name); err != nil {
		return reject(RejectInvalid, "found mesh: %v", err)
	}
	t.era, t.meshID, t.meshName = 1, f.MeshID, f.Name
	t.trust = Trust{CACert: f.CACert, CAKey: f.CAKey, GossipKey: f.GossipKey}
	t.touchAll() // slices name the mesh
	return nil
}

func insert[T any](tree *iradix.Tree[T], name string, v T) *iradix.Tree[T] {
	next, _, _ := tree.Insert([]byte(name), v)
	return next
}

func remove[T any](tree *iradix.Tree[T], name string) *iradix.Tree[T] {
	next, _, _ := tree.Delete([]byte(name))
	return next
}
