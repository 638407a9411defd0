package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/agent/packages"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/gossip"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/pause"
	"github.com/ganglion-mesh/ganglion/workload/artifact"
)

// larder is what this host has of packages.
type larder struct {
	artifacts *artifact.Store
	packages  *packages.Keeper
	uploads   chan struct{} // a slot for each push that is taken at once
	reads     chan struct{} // a slot for each that is served at once
	seated    chan struct{} // cap 1: this host's Raft server came or went
	stocking  sync.Mutex    // held from a look at what is wanted until it is told
}

const (
	maxUploads = 4
	maxReads   = 64
	maxAsked   = 24 // hosts that are asked for a package at once, besides voters
)

func (m *member) openLarder() error {
	store, err := artifact.Open(artifact.Config{Dir: m.store.path(dirArtifacts), Logger: m.log})
	if err != nil {
		return err
	}
	fetcher, err := artifact.NewFetcher(artifact.FetcherConfig{Store: store, Rate: m.cfg.ArtifactRate, Logger: m.log})
	if err != nil {
		return err
	}
	m.artifacts, m.seated = store, make(chan struct{}, 1)
	m.uploads, m.reads = make(chan struct{}, maxUploads), make(chan struct{}, maxReads)
	m.packages, err = packages.New(packages.Config{
		Store: store, Fetcher: fetcher, Sources: m.packageSources, Bound: m.cfg.ArtifactCache, Admit: m.admitPackage, Logger: m.log,
	})
	return err
}

// stockUp tells the keeper what this host should have now. It comes before
// copies are told to run from it, so that nothing they need can be removed.
func (m *member) stockUp() {
	m.stocking.Lock()
	defer m.stocking.Unlock()
	w := packages.Wanted{Pinned: map[artifact.Digest]bool{}}
	m.wantSlice(&w, m.slices.slice())
	m.wantShare(&w)
	m.packages.Want(w)
}

// wantSlice wants what copies of this host run from or are about to.
func (m *member) wantSlice(w *packages.Wanted, sl topology.Slice) {
	add := func(run intent.Run, unpack bool) {
		ref, ok, err := packages.RefOf(run)
		if !ok || err != nil {
			return // Get says what is wrong with it
		}
		w.Pinned[ref.Digest] = true
		if unpack {
			w.Unpacked = append(w.Unpacked, ref)
		}
	}
	for _, a := range sl.Assignments {
		add(a.Spec.Run, true)
	}
	for _, p := range sl.Packages {
		add(p.Run(), p.Next)
	}
}

// wantShare wants, on a voter, its share of all packages that apps name, and
// keeps what else it has of them.
func (m *member) wantShare(w *packages.Wanted) {
	node := m.raft.node()
	if node == nil || !inQuorum(node.Status()) {
		return
	}
	var voters []string
	for _, p := range node.Status().Peers {
		if p.Voter {
			voters = append(voters, p.ID)
		}
	}
	for _, app := range node.State().Apps() {
		for _, p := range app.Packages() {
			ref, ok, err := packages.RefOf(p.Run())
			if !ok || err != nil {
				continue
			}
			w.Pinned[ref.Digest] = true
			share := packages.Share(ref.Digest, voters)
			for _, id := range share[:min(packages.Holders, len(share))] {
				if id == node.ServerID() {
					w.Stored = append(w.Stored, ref)
				}
			}
		}
	}
}

// keepStock follows what this host should have until ctx ends.
func (m *member) keepStock(ctx context.Context) error {
	const look = 30 * time.Second // for what comes with no sign: voters that change
	for {
		var moved <-chan struct{}
		if node := m.raft.node(); node != nil {
			moved = node.Changed(node.State().Revision())
		}
		m.stockUp()
		t := time.NewTimer(look)
		select {
		case <-ctx.Done():
		case <-m.seated:
		case <-moved:
			pause.For(ctx, 100*time.Millisecond) // changes come in crowds
		case <-t.C:
		}
		t.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// packageSources lists who to ask for a package: who is known to have it, then
// the hosts with a Raft server, which hold all that apps name, and some others.
func (m *member) packageSources(from string) []artifact.Source {
	var first, voters, others []artifact.Source
	for _, h := range m.pool.Members() {
		if h.Status != gossip.StatusAlive || h.Name == m.cfg.Name || h.Tags[tagMesh] == "" {
			continue
		}
		src := &meshSource{name: h.Name, client: m.links.bulkClient(h.Tags[tagMesh])}
		switch {
		case h.Name == from:
			first = append(first, src)
		case h.Tags[tagRaftID] != "":
			voters = append(voters, src)
		default:
			others = append(others, src)
		}
	}
	rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	return append(append(first, voters...), others[:min(len(others), maxAsked)]...)
}

// meshSource is another host of the mesh as a source of packages.
type meshSource struct {
	name   string
	client *api.Client
}

func (s *meshSource) String() string { return s.name }

func (s *meshSource) Describe(ctx context.Context, d artifact.Digest) (artifact.Described, error) {
	var out artifact.Described
	err := s.client.Get(ctx, "/v1/local/artifacts/"+string(d), nil, &out)
	return out, packageError(err)
}

func (s *meshSource) Read(ctx context.Context, d artifact.Digest, off, n int64) (io.ReadCloser, error) {
	r, err := s.client.ReadArtifact(ctx, string(d), fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	return r, packageError(err)
}

// packageError tells that a host has no such package from all other errors.
func packageError(err error) error {
	if err != nil && api.CodeOf(err) == api.CodeNotFound {
		return fmt.Errorf("%w: %w", artifact.ErrAbsent, err)
	}
	return err
}

// artifactError sorts an error about packages for who called.
func artifactError(err error) error {
	var space *artifact.SpaceError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, artifact.ErrAbsent):
		return api.Errorf(api.CodeNotFound, "%v", err)
	case errors.Is(err, artifact.ErrRefused), errors.Is(err, artifact.ErrCorrupt):
		return api.Errorf(api.CodeInvalid, "%v", err)
	case errors.As(err, &space), errors.As(err, new(*artifact.InUseError)):
		return api.Errorf(api.CodeRejected, "%v", err)
	}
	return err
}
