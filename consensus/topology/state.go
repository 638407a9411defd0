package topology

import (
	"encoding/binary"
	"iter"

	"github.com/ganglion-mesh/ganglion/intent"
	iradix "github.com/hashicorp/go-immutable-radix/v2"
)

// State is the replicated topology at one revision. It is immutable: Apply
// returns a new State that shares what did not change, so that to keep a State
// is a snapshot at no cost, and any number of goroutines may read it.
//
// What accessors return shares memory with the State: read it, never change it.
type State struct {
	revision uint64
	era      uint64
	meshID   string
	meshName string
	trust    Trust

	rebalance Rebalance
	moved     []uint64 // spent of its budget; see Rebalanced
	thawed    Thaw

	reflexStage ReflexStage
	stages      *iradix.Tree[*Stage] // by RuleKey

	loans []Loan // replaced, never changed

	apps     *iradix.Tree[*appEntry]
	hosts    *iradix.Tree[*hostEntry]
	copies   *iradix.Tree[*Placement] // by copyKey
	onHost   *iradix.Tree[*Placement] // the same, by host and copyKey
	remnants *iradix.Tree[*Remnant]   // by remnantKey
	tokens   *iradix.Tree[PutToken]
	leases   *iradix.Tree[*Lease]     // by app
	revoked  *iradix.Tree[Revocation] // by host id

	untold   *iradix.Tree[[]Fact] // see Untold; by indexKey of the command
	untoldN  int                  // facts in it
	missed   unkept
	reflexes *iradix.Tree[*Reflex] // outside of apps, by name
	senses   *iradix.Tree[*Sense]  // by name

	signing    Signing
	signatures *iradix.Tree[*Signature] // by signatureKey

	requests *iradix.Tree[remembered]
	replay   *iradix.Tree[string] // request ids by the index they were accepted at
}

// appEntry is an App with its compiled expressions, which entries of one text
// share.
type appEntry struct {
	App
	rules *rules
}

// hostEntry is a Host with the index of its slice.
type hostEntry struct {
	Host
	slice uint64
}

// remembered is what a request did.
type remembered struct {
	Kind     string `json:"kind"`
	Index    uint64 `json:"index"`
	Revision uint64 `json:"revision"`
}

// New returns the empty state before any command.
func New() *State {
	return &State{
		apps:       iradix.New[*appEntry](),
		hosts:      iradix.New[*hostEntry](),
		copies:     iradix.New[*Placement](),
		onHost:     iradix.New[*Placement](),
		remnants:   iradix.New[*Remnant](),
		tokens:     iradix.New[PutToken](),
		leases:     iradix.New[*Lease](),
		revoked:    iradix.New[Revocation](),
		reflexes:   iradix.New[*Reflex](),
		senses:     iradix.New[*Sense](),
		stages:     iradix.New[*Stage](),
		signatures: iradix.New[*Signature](),
		requests:   iradix.New[remembered](),
		replay:     iradix.New[string](),
		untold:     iradix.New[[]Fact](),
	}
}

// Revision is the index of the last command that changed intents, placements,
// hosts or settings.
func (s *State) Revision() uint64 { return s.revision }

// Era rises when a mesh is recovered or restored; it is 0 before the mesh is
// founded.
func (s *State) Era() uint64 { return s.era }

// MeshID returns the mesh's id; empty before the mesh is founded.
func (s *State) MeshID() string { return s.meshID }

// MeshName returns the mesh's name; empty before the mesh is founded.
func (s *State) MeshName() string { return s.meshName }

// Trust returns the mesh's secrets.
func (s *State) Trust() Trust { return s.trust }

// Apps returns all apps by name.
func (s *State) Apps() []App {
	list := make([]App, 0, s.apps.Len())
	for e := range values(s.apps) {
		list = append(list, e.App)
	}
	return list
}

// App returns an app by name.
func (s *State) App(name string) (App, bool) {
	e, ok := s.apps.Get([]byte(name))
	if !ok {
		return App{}, false
	}
	return e.App, true
}

// Hosts returns the roster by name.
func (s *State) Hosts() []Host {
	list := make([]Host, 0, s.hosts.Len())
	for e := range values(s.hosts) {
		list = append(list, e.Host)
	}
	return list
}

// Host returns a host of the roster by name.
func (s *State) Host(name string) (Host, bool) {
	e, ok := s.hosts.Get([]byte(name))
	if !ok {
		return Host{}, false
	}
	return e.Host, true
}

// Token returns a join token by its id.
func (s *State) Token(id string) (PutToken, bool) { return s.tokens.Get([]byte(id)) }

// Tokens returns all join tokens by id.
func (s *State) Tokens() []PutToken {
	list := make([]PutToken, 0, s.tokens.Len())
	for t := range values(s.tokens) {
		list = append(list, t)
	}
	return list
}

// Placements returns all placements by app and number.
func (s *State) Placements() []Placement { return collect(values(s.copies)) }

// Placement returns where a copy is placed.
func (s *State) Placement(key CopyKey) (Placement, bool) {
	p, ok := s.copies.Get(copyKey(key))
	if !ok {
		return Placement{}, false
	}
	return *p, true
}

// PlacementsOf returns the placements of an app by number.
func (s *State) PlacementsOf(app string) []Placement { return collect(prefixed(s.copies, app)) }

// PlacementsOn returns the placements on a host by app and number.
func (s *State) PlacementsOn(host string) []Placement { return collect(prefixed(s.onHost, host)) }

// Slice returns what one host needs to know. For a host that is not on the
// roster it has no assignments, and Index 0.
func (s *State) Slice(host string) Slice {
	slice := Slice{MeshID: s.meshID, Host: host, Era: s.era, Drain: DrainNone}
	if e, ok := s.hosts.Get([]byte(host)); ok {
		slice.Index, slice.Drain, slice.Removing, slice.Revoked = e.slice, e.Drain, e.Removing, s.revokedIDs()
		slice.Reflexes, slice.Senses, slice.Stages = s.reflexesOn(), s.sensesOn(), s.stagesOn(host)
	}
	slice.Leases = s.heldBy(host)
	for p := range prefixed(s.onHost, host) {
		app, _ := s.apps.Get([]byte(p.App))
		slice.Assignments = append(slice.Assignments, app.assignment(*p))
	}
	slice.Packages = s.packagesOn(host)
	slice.SignaturesRequired, slice.Signatures = s.signing.Required, s.signaturesFor(slice.Packages)
	return slice
}

// assignment is what the host of a placement gets of it. Whether it is a surge
// copy, where it was tried before, and whether it is to go, is not the host's business.
func (a App) assignment(p Placement) Assignment {
	p.Surge, p.Relief, p.Tried, p.Evicted, p.EvictedChain = false, nil, nil, "", ""
	as := Assignment{Placement: p, Spec: a.assigned(p.Version)}
	if a.Rollout.smoking(p.N) {
		as.Smoke = a.Rollout.SmokeID
	}
	return as
}

// assigned is the specification a host gets for a version: what the version
// embodies from that version, and everything else, such as the stop rule, as
// last applied. Where and how many is not the host's business, so that a change
// of count moves no other host's slice.
func (a App) assigned(version string) intent.App {
	spec, made := a.Spec, a.Versions[version]
	spec.Run, spec.Ports, spec.Resources, spec.Checks = made.Run, made.Ports, made.Resources, made.Checks
	spec.Count, spec.Place = nil, intent.Place{}
	return spec
}

// copyKey orders by app, then by number: names hold no NUL.
func copyKey(k CopyKey) []byte {
	return binary.BigEndian.AppendUint32(append([]byte(k.App), 0), uint32(k.N))
}

func hostKey(host string, k CopyKey) []byte {
	return append(append([]byte(host), 0), copyKey(k)...)
}

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

func values[T any](t *iradix.Tree[T]) iter.Seq[T] {
	return func(yield func(T) bool) {
		t.Root().Walk(func(_ []byte, v T) bool { return !yield(v) })
	}
}

// listed copies what a tree holds, in the order of its keys.
func listed[T any](t *iradix.Tree[*T]) []T {
	list := make([]T, 0, t.Len())
	for v := range values(t) {
		list = append(list, *v)
	}
	return list
}

// found copies what a tree holds under a key.
func found[T any](t *iradix.Tree[*T], key string) (v T, ok bool) {
	p, ok := t.Get([]byte(key))
	if !ok {
		return v, false
	}
	return *p, true
}

// prefixed walks the entries of one app or host, whose keys begin with its name
// and a NUL.
func prefixed[T any](t *iradix.Tree[T], name string) iter.Seq[T] {
	return func(yield func(T) bool) {
		t.Root().WalkPrefix(append([]byte(name), 0), func(_ []byte, v T) bool { return !yield(v) })
	}
}

func collect(seq iter.Seq[*Placement]) []Placement {
	var list []Placement
	for p := range seq {
		list = append(list, *p)
	}
	return list
}
