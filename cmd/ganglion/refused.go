package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/workload/artifact"
	"github.com/ganglion-mesh/ganglion/workload/signature"
)

// wouldBring takes out of what a plan says is refused for want of a signature
// those apps whose signature apply would bring: it lies beside the package, and
// is good. Of the others it says what is wrong with what lies there.
func (b *baggage) wouldBring(ctx context.Context, refused []topology.Refusal, keys []signature.Key, online bool) ([]topology.Refusal, error) {
	p := &progress{c: b.cli}
	defer p.end()
	p.show("checking signatures")
	var left []topology.Refusal
	for _, r := range refused {
		why := errors.New("")
		switch {
		case b.from[r.Package] != "":
			why = b.signedBeside(r.Package, keys)
		case b.far[r.Package] != "" && online:
			why = b.signedAt(ctx, r.Package, keys)
		case b.far[r.Package] != "":
			why = errors.New("whether a signature lies beside it at its address was not looked for")
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if why == nil {
			continue
		}
		if text := oneLine(why.Error()); text != "" {
			r.Reason += "; " + text
		}
		left = append(left, r)
	}
	return left, nil
}

// signedBeside tells whether a good signature lies beside a local package. What
// is not one is the error; nothing there is an empty one.
func (b *baggage) signedBeside(digest string, keys []signature.Key) error {
	i := slices.IndexFunc(b.local, func(l *artifact.Local) bool { return string(l.Digest) == digest })
	found := errors.New("")
	for _, ending := range endings {
		name := filepath.Clean(b.from[digest]) + ending
		text, err := readSignature(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err == nil:
			err = checkFor(text, keys, digest, func() (io.ReadCloser, error) {
				r, err := b.local[i].Reader()
				return io.NopCloser(r), err
			})
		}
		if err == nil {
			return nil
		}
		found = fmt.Errorf("%s does not do: %w", name, err)
	}
	return found
}

// signedAt is signedBeside for a package at an address. A signature of its bytes
// is taken to be good: only who has them can tell.
func (b *baggage) signedAt(ctx context.Context, digest string, keys []signature.Key) error {
	found := errors.New("")
	for _, ending := range endings {
		text, err := fetchSignature(ctx, b.origin, b.far[digest], ending)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err == nil:
			err = checkFor(text, keys, digest, nil)
		}
		if err == nil || errors.Is(err, signature.ErrNeedsContent) {
			return nil
		}
		found = fmt.Errorf("%s does not do: %w", artifact.PlainName(b.far[digest])+ending, err)
	}
	return found
}

// checkFor tells whether the text is a signature of a package by one of the keys.
func checkFor(text string, keys []signature.Key, digest string, open func() (io.ReadCloser, error)) error {
	sig, err := signature.Parse([]byte(text))
	if err != nil {
		return err
	}
	err = signature.ErrOtherKey
	for _, k := range keys {
		if k.ID() != sig.KeyID() {
			continue
		}
		if err = sig.Check(k, digest, open); err == nil {
			return nil
		}
	}
	switch {
	case errors.Is(err, signature.ErrOtherKey):
		return fmt.Errorf("key %s has made it, which this mesh does not trust", sig.KeyID())
	case errors.Is(err, signature.ErrBad):
		return errors.New("it is of something else")
	}
	return err
}

// trustedKeys are the keys of a policy, but for those of a kind that only a
// later release knows.
func trustedKeys(lines []string) (keys []signature.Key) {
	for _, line := range lines {
		if k, err := signature.ParseKey(line); err == nil {
			keys = append(keys, k)
		}
	}
	return keys
}

// keysOfMesh asks the mesh whose signatures count.
func (c *cli) keysOfMesh(ctx context.Context) ([]signature.Key, error) {
	var p api.Signing
	if err := c.get(ctx, "/v1/signing", &p); err != nil {
		return nil, err
	}
	var lines []string
	for _, k := range p.Keys {
		lines = append(lines, k.Key)
	}
	return trustedKeys(lines), nil
}

// refusedError is what a plan ends with whose apply would change nothing.
func refusedError(list []topology.Refusal) error {
	more := ""
	if n := len(list) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	return fmt.Errorf("plan: apply would be refused and change nothing: app %s: %s%s", list[0].App, list[0].Reason, more)
}
