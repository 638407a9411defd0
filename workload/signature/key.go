package signature

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"aead.dev/minisign"
	"golang.org/x/crypto/ssh"
)

// The kinds of keys.
const (
	KindMinisign = "minisign"
	KindSSH      = ssh.KeyAlgoED25519
)

// maxKey is the largest text of a public key, in bytes.
const maxKey = 4 << 10

// Key is a public key.
type Key struct {
	mini minisign.PublicKey
	ssh  ssh.PublicKey // nil: it is of minisign
}

// ParseKey reads a public key: what is in minisign.pub or its second line alone,
// or a line of ssh-keygen (ssh-ed25519 AAAA… comment).
func ParseKey(text string) (Key, error) {
	text = strings.TrimSpace(text)
	switch {
	case len(text) > maxKey:
		return Key{}, fmt.Errorf("read public key: it has more than %d bytes", maxKey)
	case strings.Contains(text, "PRIVATE KEY"), strings.Contains(text, "encrypted secret key"), strings.HasPrefix(text, "RW") && len(text) > 120:
		return Key{}, errors.New("read public key: this is a secret key; keep it to yourself and give the public one (minisign.pub, id_ed25519.pub)")
	case strings.HasPrefix(text, "RW"), strings.HasPrefix(text, "untrusted comment:"):
		var k Key
		if err := k.mini.UnmarshalText([]byte(text)); err != nil {
			return Key{}, errors.New("read public key: it is no whole key of minisign; want the second line of minisign.pub")
		}
		return k, nil
	}
	pub, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	switch {
	case err != nil:
		return Key{}, fmt.Errorf("read public key: want a key of minisign (RW…) or a line %s AAAA…", KindSSH)
	case pub.Type() != KindSSH:
		return Key{}, fmt.Errorf("read public key: it is of type %.40q; only %s and minisign are taken", pub.Type(), KindSSH)
	case len(options) > 0, len(bytes.TrimSpace(rest)) > 0:
		return Key{}, errors.New("read public key: want one key, with nothing before it")
	}
	return Key{ssh: pub}, nil
}

// Kind is KindMinisign or KindSSH.
func (k Key) Kind() string {
	if k.ssh != nil {
		return KindSSH
	}
	return KindMinisign
}

// ID is what the tools call the key: the key id of minisign, which a forger can
// choose, or the fingerprint that ssh-keygen -l prints.
func (k Key) ID() string {
	if k.ssh != nil {
		return ssh.FingerprintSHA256(k.ssh)
	}
	return minisignID(k.mini.ID())
}

func minisignID(id uint64) string { return fmt.Sprintf("%016X", id) }

// String is the key as one line, without a comment. Equal keys have equal lines.
func (k Key) String() string {
	if k.ssh != nil {
		return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.ssh)))
	}
	return k.mini.String()
}
