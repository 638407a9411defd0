package topology

import (
	"maps"
	"slices"

	"github.com/ganglion-mesh/ganglion/intent"
)

// Package is an artifact that a kept version of an app names: a host that has
// copies of the app keeps what it has of it, for a rollback may need it.
type Package struct {
	Artifact string `json:"artifact"`         // sha256:…, or https://… with Digest
	Digest   string `json:"digest,omitempty"` // as intent.Run
	Program  string `json:"program"`          // first word of the command
	// Next is set for the version that was declared last. Hosts that have copies
	// of the app get it at once, so that it is there before anything old stops.
	Next bool `json:"next,omitempty"`
	// Key is the one whose signature let the package in; empty if none was asked
	// for when its version was declared.
	Key string `json:"key,omitempty"`
}

// Run is the package as the part of a declaration that names it.
func (p Package) Run() intent.Run {
	return intent.Run{Artifact: p.Artifact, Digest: p.Digest, Command: []string{p.Program}}
}

// Packages returns the artifacts of all versions of the app that are kept,
// ordered by version.
func (a App) Packages() []Package {
	var list []Package
	for _, version := range sortedKeys(a.Versions) {
		run := a.Versions[version].Run
		if run.Artifact == "" || len(run.Command) == 0 {
			continue
		}
		p := Package{Artifact: run.Artifact, Digest: run.Digest, Program: run.Command[0], Next: version == a.Version, Key: a.Signed[version]}
		if !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

// packagesOn returns what the apps of a host's copies name.
func (s *State) packagesOn(host string) []Package {
	var list []Package
	last := ""
	for p := range prefixed(s.onHost, host) {
		if p.App == last {
			continue // copies are ordered by app
		}
		last = p.App
		if app, ok := s.apps.Get([]byte(p.App)); ok {
			list = append(list, app.Packages()...)
		}
	}
	return list
}

// sameVersions tells at no cost whether two states of an app keep the same
// versions, let in by the same signatures: a version is a hash of what it runs.
func sameVersions(a, b App) bool {
	if !maps.Equal(a.Signed, b.Signed) || a.Version != b.Version || len(a.Versions) != len(b.Versions) {
		return false
	}
	for v := range a.Versions {
		if _, ok := b.Versions[v]; !ok {
			return false
		}
	}
	return true
}

// touchPackages moves the slices of the hosts of an app whose packages are no
// longer what they were in the state before.
func (t *txn) touchPackages(before *State, name string) {
	e, ok := t.apps.Get([]byte(name))
	old, was := before.apps.Get([]byte(name))
	if !ok || !was || sameVersions(old.App, e.App) || slices.Equal(old.Packages(), e.Packages()) {
		return // hosts of an app that comes or goes are touched by their copies
	}
	for p := range prefixed(t.copies, name) {
		t.touched[p.Host] = true
	}
}
