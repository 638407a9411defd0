// Package signature checks signatures of packages: those that minisign and
// ssh-keygen -Y sign make with ed25519 keys.
//
// A signature is of a package if it is of the package's bytes, or of the line
// that names it: its digest, as `ganglion artifact push` prints it. The second
// needs no bytes to check, and is the one way to sign what only the pushing makes
// a package, such as a directory.
//
// All here is pure: who is trusted, and what follows, is decided elsewhere.
package signature

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"aead.dev/minisign"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

const (
	// Namespace is what an SSH signature must have been made for: ssh-keygen -Y
	// sign -n ganglion.
	Namespace = "ganglion"
	// MaxSize is the largest signature, in bytes. Those in use have 300 to 500.
	MaxSize = 4 << 10
	// MaxLegacy is the largest content, in bytes, of which a legacy minisign
	// signature is checked: that takes the content into memory.
	MaxLegacy = 64 << 20

	// prehash is the size of the hash that a pre-hashed minisign signature signs.
	// The hash is not marked as one: see legacy.
	prehash = 64
)

var (
	// ErrOtherKey is returned by Check for a signature that another key made.
	ErrOtherKey = errors.New("another key made this signature")
	// ErrBad is returned by Check for a signature that does not match: the package
	// or the signature is not what was signed.
	ErrBad = errors.New("the signature does not match")
	// ErrNeedsContent is returned by Check if only the package's bytes can tell.
	ErrNeedsContent = errors.New("the package is needed to check this signature")
)

// Signature is a parsed signature. It says nothing before it is checked.
type Signature struct {
	text string
	mini *minisign.Signature // one of the two is set
	ssh  *sshsig.Signature
}

// Parse reads the text of a signature file.
func Parse(b []byte) (Signature, error) {
	switch {
	case len(b) > MaxSize:
		return Signature{}, fmt.Errorf("read signature: it has more than %d bytes", MaxSize)
	case !utf8.Valid(b):
		return Signature{}, errors.New("read signature: it is not text; want what minisign or ssh-keygen -Y sign makes")
	}
	s := Signature{text: string(b)}
	if strings.HasPrefix(s.text, "-----BEGIN ") {
		return s.parseSSH(b)
	}
	s.mini = &minisign.Signature{}
	if err := s.mini.UnmarshalText(b); err != nil {
		return Signature{}, errors.New("read signature: it is neither of minisign nor of ssh-keygen -Y sign")
	}
	return s, nil
}

func (s Signature) parseSSH(b []byte) (Signature, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != sshsig.PEMType || len(bytes.TrimSpace(rest)) > 0 {
		return Signature{}, errors.New("read signature: it is no SSH signature, or more than one; want what ssh-keygen -Y sign makes")
	}
	var err error
	if s.ssh, err = sshsig.ParseSignature(block.Bytes); err != nil {
		return Signature{}, fmt.Errorf("read SSH signature: %w", err)
	}
	switch {
	case s.ssh.PublicKey.Type() != ssh.KeyAlgoED25519 || s.ssh.Signature.Format != ssh.KeyAlgoED25519:
		return Signature{}, fmt.Errorf("read SSH signature: it is by a key of type %.40q; only %s is taken", s.ssh.PublicKey.Type(), ssh.KeyAlgoED25519)
	case s.ssh.Namespace != Namespace:
		return Signature{}, fmt.Errorf("read SSH signature: it was made for %.40q; sign with ssh-keygen -Y sign -n %s", s.ssh.Namespace, Namespace)
	}
	return s, nil
}

// String is the text that was parsed.
func (s Signature) String() string { return s.text }

// KeyID names the key that the signature claims to be made by, as Key.ID.
func (s Signature) KeyID() string {
	if s.ssh != nil {
		return ssh.FingerprintSHA256(s.ssh.PublicKey)
	}
	return minisignID(s.mini.KeyID)
}

// Check tells whether s is k's signature of the package of that digest. Open
// opens the package; it is called at most once, and what it returns is read to
// the end, unless the line that names the package was signed. It may be nil: then
// ErrNeedsContent says that the package must be at hand. Errors of reading come
// back as they are.
func (s Signature) Check(k Key, digest string, open func() (io.ReadCloser, error)) error {
	if s.KeyID() != k.ID() || (s.ssh != nil) != (k.ssh != nil) {
		return ErrOtherKey
	}
	for _, line := range []string{digest + "\n", digest} { // editors and echo differ
		if s.matches(k, strings.NewReader(line)) == nil {
			return nil
		}
	}
	if open == nil {
		return ErrNeedsContent
	}
	r, err := open()
	if err != nil {
		return err
	}
	return errors.Join(s.matches(k, r), r.Close())
}

// matches tells whether s is k's signature of what r reads.
func (s Signature) matches(k Key, r io.Reader) error {
	if s.ssh != nil {
		in := &source{r: r}
		err := sshsig.Verify(in, s.ssh, k.ssh, s.ssh.HashAlgorithm, Namespace)
		switch {
		case in.err != nil:
			return in.err
		case err != nil:
			return ErrBad
		}
		return nil
	}
	if s.mini.Algorithm == minisign.EdDSA {
		return s.legacy(k, r)
	}
	hashed := minisign.NewReader(r)
	if _, err := io.Copy(io.Discard, hashed); err != nil {
		return err
	}
	if !hashed.Verify(k.mini, []byte(s.text)) {
		return ErrBad
	}
	return nil
}

// legacy checks a signature of the content itself. minisign does not sign which
// of its two ways a signature was made in: a pre-hashed one of any file is also a
// legacy one of the 64 bytes of that file's hash, which nobody has signed.
func (s Signature) legacy(k Key, r io.Reader) error {
	content, err := io.ReadAll(io.LimitReader(r, MaxLegacy+1))
	switch {
	case err != nil:
		return err
	case len(content) > MaxLegacy:
		return fmt.Errorf("a legacy minisign signature is checked of at most %d MiB: sign without -l, with minisign 0.10 or later", MaxLegacy>>20)
	case len(content) == prehash, !minisign.Verify(k.mini, content, []byte(s.text)):
		return ErrBad
	}
	return nil
}

// source remembers why reading ended.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}
