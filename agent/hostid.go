package agent

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"

	"github.com/ganglion-mesh/ganglion/trust"
)

// joinKey is the key that a host enrols with, and the request to sign it.
type joinKey struct {
	Key []byte `json:"key"` // PEM
	CSR []byte `json:"csr"` // PEM
}

func newJoinKey(host string) (joinKey, error) {
	csr, key, err := trust.NewCSR(host)
	return joinKey{Key: key, CSR: csr}, err
}

// hostID returns the id of the host that holds the key. It follows from the key,
// so that an id can be claimed only with the key, which signing proves, and a
// certificate tells the id of its host.
func (k joinKey) hostID() (string, error) {
	der := k.CSR
	if block, _ := pem.Decode(der); block != nil {
		der = block.Bytes
	}
	req, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return "", fmt.Errorf("read signing request: %w", err)
	}
	return keyID(req.RawSubjectPublicKeyInfo), nil
}

// certID returns the id of the host that holds the key of cert.
func certID(cert *x509.Certificate) string { return keyID(cert.RawSubjectPublicKeyInfo) }

func keyID(public []byte) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:10])
}
