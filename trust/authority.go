package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/url"
	"time"
)

const (
	// validity is long because nothing renews certificates yet: one that ended
	// would cut a working host off.
	validity = 10 * 365 * 24 * time.Hour
	// backdate lets verifiers with slightly late clocks accept a fresh
	// certificate.
	backdate = time.Hour
)

// Authority signs the certificates of one mesh. Its key lives in the replicated
// state, so that any leader can enrol; nothing else holds it.
type Authority struct {
	CertPEM []byte
	KeyPEM  []byte
}

// NewAuthority makes the authority of a new mesh. The mesh's id is bound into
// its certificate; the name is there for people who look at it.
func NewAuthority(meshID, meshName string) (Authority, error) {
	if !nameForm.MatchString(meshID) || !nameForm.MatchString(meshName) {
		return Authority{}, fmt.Errorf("make authority of mesh %q with id %q: want lower-case letters, digits and dashes, at most 63", meshName, meshID)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Authority{}, fmt.Errorf("make authority: %w", err)
	}
	tmpl, err := template(time.Now(), "ganglion mesh "+meshName)
	if err != nil {
		return Authority{}, fmt.Errorf("make authority: %w", err)
	}
	tmpl.URIs = []*url.URL{{Scheme: "spiffe", Host: meshID}}
	tmpl.IsCA, tmpl.MaxPathLenZero = true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return Authority{}, fmt.Errorf("make authority: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return Authority{}, fmt.Errorf("make authority: %w", err)
	}
	return Authority{CertPEM: encodeCert(der), KeyPEM: keyPEM}, nil
}

// LogValue keeps the key out of logs.
func (a Authority) LogValue() slog.Value { return slog.StringValue("authority " + a.describe()) }

// String keeps the key out of formatted output.
func (a Authority) String() string { return "authority " + a.describe() }

// GoString keeps the key out of %#v.
func (a Authority) GoString() string { return a.String() }

func (a Authority) describe() string {
	hash, err := CAHash(a.CertPEM)
	if err != nil {
		return "(unreadable)"
	}
	return hash
}

// Sign makes a certificate for host in role from a signing request (PEM or
// DER). Of the request only the public key is used: whatever names it asks for
// are the caller's to decide, who has checked the token.
func (a Authority) Sign(csr []byte, host, role string) (certPEM []byte, err error) {
	return a.sign(csr, host, role, time.Now())
}

func (a Authority) sign(csr []byte, host, role string, now time.Time) ([]byte, error) {
	ca, key, err := a.parse()
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	meshID, err := meshOfCA(ca)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: authority: %w", err)
	}
	peer := Peer{MeshID: meshID, Role: role, Host: host}
	if err := peer.validate(); err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	usage, err := usageOf(role)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	public, err := parseCSR(csr)
	if err != nil {
		return nil, fmt.Errorf("sign certificate for %s: %w", host, err)
	}
	tmpl, err := template(now, host)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	tmpl.URIs = []*url.URL{peer.URI()}
	// For verifiers that insist on a host name (curl); the mesh's hosts do not.
	tmpl.DNSNames = []string{host}
	tmpl.KeyUsage, tmpl.ExtKeyUsage = x509.KeyUsageDigitalSignature, usage
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca, public, key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate for %s: %w", host, err)
	}
	return encodeCert(der), nil
}

// usageOf lists what a role's certificate may be used for.
func usageOf(role string) ([]x509.ExtKeyUsage, error) {
	switch role {
	case RoleAgent:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, nil
	case RoleOperator:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, nil
	}
	return nil, fmt.Errorf("role %q: want %s or %s", role, RoleAgent, RoleOperator)
}

func (a Authority) parse() (*x509.Certificate, crypto.Signer, error) {
	ca, err := parseCert(a.CertPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("authority: %w", err)
	}
	key, err := parseKey(a.KeyPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("authority: %w", err)
	}
	return ca, key, nil
}

// CAHash returns the hash by which tokens pin an authority: lower-case hex of
// the SHA-256 of its certificate.
func CAHash(caPEM []byte) (string, error) {
	ca, err := parseCert(caPEM)
	if err != nil {
		return "", fmt.Errorf("hash authority: %w", err)
	}
	return hashCert(ca), nil
}

func hashCert(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// NewCSR makes a new key and the signing request for it. The name in the
// request tells people whose it is; authorities ignore it.
func NewCSR(host string) (csrPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	req := &x509.CertificateRequest{Subject: pkix.Name{CommonName: host}}
	der, err := x509.CreateCertificateRequest(rand.Reader, req, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make signing request: %w", err)
	}
	keyPEM, err = encodeKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), keyPEM, nil
}

// parseCSR returns the public key of a request whose sender has proved to hold
// the private one. Only two kinds of key are taken: a stranger's RSA key of
// absurd size would cost the signer its CPU.
func parseCSR(b []byte) (crypto.PublicKey, error) {
	if block, _ := pem.Decode(b); block != nil {
		b = block.Bytes
	}
	csr, err := x509.ParseCertificateRequest(b)
	if err != nil {
		return nil, fmt.Errorf("read signing request: %w", err)
	}
	switch key := csr.PublicKey.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return nil, errors.New("read signing request: key is on an unsupported curve; use P-256 or Ed25519")
		}
	default:
		return nil, errors.New("read signing request: unsupported kind of key; use P-256 or Ed25519")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("read signing request: %w", err)
	}
	return csr.PublicKey, nil
}

// template returns what all certificates share.
func template(now time.Time, name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(validity),
		BasicConstraintsValid: true,
	}, nil
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// parseCert reads exactly one certificate.
func parseCert(b []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("read certificate: want one PEM block CERTIFICATE")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	return cert, nil
}

func parseKey(b []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("read key: want a PEM block PRIVATE KEY")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		// The cause could quote the key; the parser's words are not shown.
		return nil, errors.New("read key: not in PKCS #8 form")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("read key: cannot sign")
	}
	return signer, nil
}
