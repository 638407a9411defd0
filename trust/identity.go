package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/ganglion-mesh/ganglion/durable"
)

// identityFile holds all of a host's credentials: one file, so that no crash
// can leave a key beside another key's certificate.
const identityFile = "identity.json"

// maxIdentity bounds what LoadIdentity reads.
const maxIdentity = 256 << 10

// Credentials are what makes a host a member: kept on its disk, and never shown.
type Credentials struct {
	MeshID    string `json:"mesh_id"`
	MeshName  string `json:"mesh_name"`
	Host      string `json:"host"`
	HostID    string `json:"host_id"` // made by the host itself; tells a re-join from a second host of the same name
	Role      string `json:"role"`
	CertPEM   []byte `json:"cert"`
	KeyPEM    []byte `json:"key"`
	CAPEM     []byte `json:"ca"`
	GossipKey []byte `json:"gossip_key,omitempty"`
}

// LogValue keeps the keys out of logs.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }

// String keeps the keys out of formatted output.
func (c Credentials) String() string { return "credentials of " + c.peer().String() }

// GoString keeps the keys out of %#v.
func (c Credentials) GoString() string { return c.String() }

func (c Credentials) peer() Peer { return Peer{MeshID: c.MeshID, Role: c.Role, Host: c.Host} }

// Identity is a host's or operator's place in its mesh, checked and ready for
// TLS. It is immutable and safe for concurrent use.
type Identity struct {
	cred  Credentials
	peer  Peer
	chain tls.Certificate
	trust anchor
}

// NewIdentity checks that the parts belong together: the key is the
// certificate's, the authority signed it, and it names this mesh, role and host.
func NewIdentity(c Credentials) (*Identity, error) {
	ca, err := parseCert(c.CAPEM)
	if err != nil {
		return nil, fmt.Errorf("check identity: authority: %w", err)
	}
	trust, err := newAnchor(ca)
	if err != nil {
		return nil, fmt.Errorf("check identity: authority: %w", err)
	}
	leaf, err := parseCert(c.CertPEM)
	if err != nil {
		return nil, fmt.Errorf("check identity: %w", err)
	}
	if err := checkLeaf(trust, leaf, c.peer()); err != nil {
		return nil, fmt.Errorf("check identity: %w", err)
	}
	key, err := parseKey(c.KeyPEM)
	if err != nil {
		return nil, fmt.Errorf("check identity: %w", err)
	}
	if !sameKey(leaf.PublicKey, key.Public()) {
		return nil, errors.New("check identity: the key is not the certificate's")
	}
	return &Identity{
		cred: c,
		peer: c.peer(),
		// The authority travels along, so that a joiner can pin it.
		chain: tls.Certificate{Certificate: [][]byte{leaf.Raw, ca.Raw}, PrivateKey: key, Leaf: leaf},
		trust: trust,
	}, nil
}

// checkLeaf verifies a certificate of our own: signed by the authority, and for
// exactly want. Its end is not checked: an expired host must still start, and
// its peers are the ones to refuse it.
func checkLeaf(trust anchor, leaf *x509.Certificate, want Peer) error {
	usage := x509.ExtKeyUsageClientAuth // agents have both, operators this one
	if err := trust.verifyAt(leaf, usage, leaf.NotBefore); err != nil {
		return err
	}
	got, err := peerOfCert(leaf)
	if err != nil {
		return err
	}
	if got != want || got.MeshID != trust.meshID {
		return fmt.Errorf("the certificate is for %s, not for %s", got, want)
	}
	return nil
}

// sameKey compares public keys of the two kinds that authorities sign.
func sameKey(a, b any) bool {
	switch a := a.(type) {
	case *ecdsa.PublicKey:
		return a.Equal(b)
	case ed25519.PublicKey:
		return a.Equal(b)
	}
	return false
}

// Peer tells what others see of this identity.
func (i *Identity) Peer() Peer { return i.peer }

// Credentials returns what the identity was made of. The caller must not change
// the slices.
func (i *Identity) Credentials() Credentials { return i.cred }

// Expires tells when peers will refuse this identity.
func (i *Identity) Expires() time.Time { return i.chain.Leaf.NotAfter }

// SaveIdentity writes the identity into dir (made with mode 0700) as one file of
// mode 0600, atomically and durably: after a crash it is there whole or not.
func SaveIdentity(dir string, i *Identity) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("save identity: %w", err)
		}
	}()
	b, err := json.MarshalIndent(i.cred, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, identityFile+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), filepath.Join(dir, identityFile)); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

// LoadIdentity reads and checks what SaveIdentity wrote. Where there is none,
// the error is an fs.ErrNotExist. A file that others can read is refused.
func LoadIdentity(dir string) (*Identity, error) {
	path := filepath.Join(dir, identityFile)
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("load identity: %s: not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("load identity: %s: mode %04o lets others read the key; run `chmod 600 %s`", path, info.Mode().Perm(), path)
	case info.Size() > maxIdentity:
		return nil, fmt.Errorf("load identity: %s: %d bytes is too large", path, info.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	var c Credentials
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&c); err != nil {
		return nil, fmt.Errorf("load identity: %s: damaged: %w; restore it or join again", path, err)
	}
	i, err := NewIdentity(c)
	if err != nil {
		return nil, fmt.Errorf("load identity: %s: %w; restore it or join again", path, err)
	}
	return i, nil
}

// RemoveIdentity forgets the identity in dir, durably. That there is none is no
// error.
func RemoveIdentity(dir string) error {
	err := os.Remove(filepath.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = durable.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("remove identity: %w", err)
	}
	return nil
}
