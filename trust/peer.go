package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// The roles that a certificate can carry.
const (
	// RoleAgent is a host of the mesh: it serves and calls every protocol.
	RoleAgent = "agent"
	// RoleOperator is a person or a script: it calls the API and serves nothing.
	RoleOperator = "operator"
)

// ErrNoPeer is returned by PeerOf for a connection whose other side showed no
// certificate: a join, or no TLS at all.
var ErrNoPeer = errors.New("identify peer: it showed no certificate")

// nameForm is the form of every name in the mesh (hosts, roles, token ids); a
// mesh id has it too.
var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// Peer says who holds a certificate.
type Peer struct {
	MeshID string
	Role   string
	Host   string // for RoleOperator: the operator's name
}

// URI returns spiffe://<mesh id>/<role>/<host>.
func (p Peer) URI() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: p.MeshID, Path: "/" + p.Role + "/" + p.Host}
}

func (p Peer) String() string { return p.URI().String() }

// validate reports the first part of p that is no name.
func (p Peer) validate() error {
	for _, part := range []struct{ what, value string }{{"mesh id", p.MeshID}, {"role", p.Role}, {"host", p.Host}} {
		if !nameForm.MatchString(part.value) {
			return fmt.Errorf("%s %q: want lower-case letters, digits and dashes, at most 63", part.what, part.value)
		}
	}
	return nil
}

// PeerOf tells who is at the other side of a connection that was made with the
// configurations of an Identity. Only such a connection has been verified.
func PeerOf(cs tls.ConnectionState) (Peer, error) {
	if len(cs.PeerCertificates) == 0 {
		return Peer{}, ErrNoPeer
	}
	return peerOfCert(cs.PeerCertificates[0])
}

// peerOfCert reads the one URI of a host's or operator's certificate. Anything
// but the exact form is refused, so that no two spellings name one peer.
func peerOfCert(cert *x509.Certificate) (Peer, error) {
	if len(cert.URIs) != 1 {
		return Peer{}, fmt.Errorf("identify peer: its certificate has %d URIs, want one spiffe URI", len(cert.URIs))
	}
	uri := cert.URIs[0]
	role, host, _ := strings.Cut(strings.TrimPrefix(uri.Path, "/"), "/")
	p := Peer{MeshID: uri.Host, Role: role, Host: host}
	if err := p.validate(); err != nil {
		return Peer{}, fmt.Errorf("identify peer: %w", err)
	}
	if uri.String() != p.String() {
		return Peer{}, fmt.Errorf("identify peer: URI %q is not of the form spiffe://MESH/ROLE/HOST", uri)
	}
	return p, nil
}

// meshOfCA reads the mesh id from the authority's own URI, spiffe://<mesh id>.
func meshOfCA(ca *x509.Certificate) (string, error) {
	if !ca.IsCA || !ca.BasicConstraintsValid {
		return "", errors.New("not a certificate authority")
	}
	if len(ca.URIs) != 1 || !nameForm.MatchString(ca.URIs[0].Host) || ca.URIs[0].String() != "spiffe://"+ca.URIs[0].Host {
		return "", errors.New("no mesh id in it: want one URI of the form spiffe://MESH")
	}
	return ca.URIs[0].Host, nil
}
