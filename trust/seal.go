package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
)

// What travels by ways that anybody with the gossip key can write to is signed:
// by a host with the key of its certificate, or by the mesh itself with the key
// of its authority, which only voters hold. A signature is for one purpose, and
// for one mesh.

// sealMark begins all that is signed here, so that it can never be taken for a
// certificate or a handshake, which the same keys sign.
const sealMark = "ganglion signed note\x00"

func sealDigest(meshID, purpose string, payload []byte) []byte {
	h := sha256.New()
	h.Write([]byte(sealMark + meshID + "\x00" + purpose + "\x00"))
	h.Write(payload)
	return h.Sum(nil)
}

func signWith(key crypto.Signer, digest []byte) ([]byte, error) {
	if _, ok := key.Public().(ed25519.PublicKey); ok {
		return key.Sign(rand.Reader, digest, crypto.Hash(0))
	}
	return key.Sign(rand.Reader, digest, crypto.SHA256)
}

func verifyWith(public any, digest, sig []byte) error {
	ok := false
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(p, digest, sig)
	case ed25519.PublicKey:
		ok = ed25519.Verify(p, digest, sig)
	}
	if !ok {
		return errors.New("the signature does not fit")
	}
	return nil
}

// Sign signs payload with this identity's key, for a purpose. The second result
// is its certificate, which goes with the signature.
func (i *Identity) Sign(purpose string, payload []byte) (sig, cert []byte, err error) {
	key, ok := i.chain.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, errors.New("sign: the identity's key cannot")
	}
	sig, err = signWith(key, sealDigest(i.peer.MeshID, purpose, payload))
	if err != nil {
		return nil, nil, fmt.Errorf("sign: %w", err)
	}
	return sig, i.chain.Leaf.Raw, nil
}

// CheckSigned tells which host of this mesh has signed payload for the purpose,
// and its public key as the certificate has it. The end of the certificate's
// validity is not checked: this needs no clock.
func (i *Identity) CheckSigned(purpose string, payload, sig, cert []byte) (Peer, []byte, error) {
	leaf, err := x509.ParseCertificate(cert)
	if err != nil {
		return Peer{}, nil, fmt.Errorf("check signature: certificate: %w", err)
	}
	if leaf.IsCA || !bytes.Equal(leaf.Raw, cert) {
		return Peer{}, nil, errors.New("check signature: not a host's certificate")
	}
	if err := i.trust.verifyAt(leaf, x509.ExtKeyUsageServerAuth, leaf.NotBefore); err != nil {
		return Peer{}, nil, fmt.Errorf("check signature: not by a host of this mesh: %w", err)
	}
	peer, err := peerOfCert(leaf)
	if err != nil {
		return Peer{}, nil, err
	}
	if peer.MeshID != i.trust.meshID || peer.Role != RoleAgent {
		return Peer{}, nil, fmt.Errorf("check signature: %s is no host of this mesh", peer)
	}
	if err := verifyWith(leaf.PublicKey, sealDigest(peer.MeshID, purpose, payload), sig); err != nil {
		return Peer{}, nil, fmt.Errorf("check signature of %s: %w", peer, err)
	}
	return peer, leaf.RawSubjectPublicKeyInfo, nil
}

// Seal signs payload in the name of the mesh, for a purpose. Only voters can.
func (a Authority) Seal(purpose string, payload []byte) ([]byte, error) {
	ca, key, err := a.parse()
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	meshID, err := meshOfCA(ca)
	if err != nil {
		return nil, fmt.Errorf("seal: authority: %w", err)
	}
	sig, err := signWith(key, sealDigest(meshID, purpose, payload))
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return sig, nil
}

// CheckSealed tells whether payload was sealed for the purpose by the authority
// of this mesh.
func (i *Identity) CheckSealed(purpose string, payload, sig []byte) error {
	if err := verifyWith(i.trust.ca.PublicKey, sealDigest(i.trust.meshID, purpose, payload), sig); err != nil {
		return fmt.Errorf("check seal: %w", err)
	}
	return nil
}
