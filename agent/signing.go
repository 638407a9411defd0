package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/workload/artifact"
	"github.com/ganglion-mesh/ganglion/workload/signature"
)

// admitPackage refuses what the slice of this host does not let in, before
// anything of it is unpacked. The leader has checked the same when the app was
// declared; here it is checked against the bytes that are about to run. What is
// unpacked already is not asked about again: nothing that runs depends on it.
func (m *member) admitPackage(_ context.Context, d artifact.Digest) error {
	sig, err := m.slices.slice().Admission(string(d))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", artifact.ErrRefused, err)
	case sig == nil:
		return nil
	}
	return m.checkAdmission(d, *sig)
}

func (m *member) checkAdmission(d artifact.Digest, kept topology.Signature) error {
	key, err := signature.ParseKey(kept.Key)
	if err != nil {
		return fmt.Errorf("%w: the key that let in package %s: %w", artifact.ErrRefused, d.Short(), err)
	}
	sig, err := signature.Parse([]byte(kept.Text))
	if err != nil {
		return fmt.Errorf("%w: the signature that let in package %s: %w", artifact.ErrRefused, d.Short(), err)
	}
	c := &content{store: m.artifacts, digest: d, sum: sha256.New()}
	err = sig.Check(key, string(d), c.open)
	switch {
	case err == nil, errors.Is(err, signature.ErrBad) && !c.whole():
		return nil // what is on this disk is no such package: who unpacks it finds out, and has it fetched again
	case errors.Is(err, signature.ErrBad), errors.Is(err, signature.ErrOtherKey):
		return fmt.Errorf("%w: package %s is not what key %s signed", artifact.ErrRefused, d.Short(), key.ID())
	}
	return fmt.Errorf("check the signature of package %s: %w", d.Short(), err)
}

// content is a package of this host as it is read for a check.
type content struct {
	store  *artifact.Store
	digest artifact.Digest
	sum    hash.Hash
	file   *os.File
}

func (c *content) open() (io.ReadCloser, error) {
	f, err := c.store.Open(c.digest)
	if err != nil {
		return nil, err
	}
	c.file = f
	return c, nil
}

func (c *content) Read(p []byte) (int, error) {
	n, err := c.file.Read(p)
	c.sum.Write(p[:n])
	return n, err
}

func (c *content) Close() error { return c.file.Close() }

// whole tells whether what was read is the package.
func (c *content) whole() bool {
	return fmt.Sprintf("sha256:%x", c.sum.Sum(nil)) == string(c.digest)
}
