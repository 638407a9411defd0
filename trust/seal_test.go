package trust

import (
	"bytes"
	"testing"
)

func TestSignedNotes(t *testing.T) {
	m, other := newMesh(t, "mesh-a"), newMesh(t, "mesh-b")
	h1, h2 := m.identity(t, "h1", RoleAgent), m.identity(t, "h2", RoleAgent)
	text := []byte("stop")
	sig, cert, err := h1.Sign("freeze", text)
	if err != nil {
		t.Fatal(err)
	}
	peer, key, err := h2.CheckSigned("freeze", text, sig, cert)
	if err != nil || peer.Host != "h1" || len(key) == 0 {
		t.Fatalf("signed by %v, %v", peer, err)
	}
	_, otherCert, _ := h2.Sign("freeze", text)
	operator := m.identity(t, "ann", RoleOperator)
	opSig, opCert, _ := operator.Sign("freeze", text)
	foreign := other.identity(t, "h1", RoleAgent)
	foreignSig, foreignCert, _ := foreign.Sign("freeze", text)
	for name, c := range map[string]struct {
		purpose         string
		text, sig, cert []byte
	}{
		"another purpose":     {"thaw", text, sig, cert},
		"another text":        {"freeze", []byte("go"), sig, cert},
		"another host's name": {"freeze", text, sig, otherCert},
		"no signature":        {"freeze", text, nil, cert},
		"no certificate":      {"freeze", text, sig, nil},
		"more after it":       {"freeze", text, sig, append(bytes.Clone(cert), 0)},
		"an operator":         {"freeze", text, opSig, opCert},
		"another mesh":        {"freeze", text, foreignSig, foreignCert},
		"the authority":       {"freeze", text, sig, pemBlock(t, m.auth.CertPEM)},
	} {
		if peer, _, err := h2.CheckSigned(c.purpose, c.text, c.sig, c.cert); err == nil {
			t.Errorf("%s: believed to be by %v", name, peer)
		}
	}
}

func TestSealedNotes(t *testing.T) {
	m, other := newMesh(t, "mesh-a"), newMesh(t, "mesh-b")
	h1 := m.identity(t, "h1", RoleAgent)
	text := []byte("go on")
	seal, err := m.auth.Seal("freeze", text)
	if err != nil {
		t.Fatal(err)
	}
	if err := h1.CheckSealed("freeze", text, seal); err != nil {
		t.Fatal(err)
	}
	sig, _, _ := h1.Sign("freeze", text)
	foreign, _ := other.auth.Seal("freeze", text)
	for name, c := range map[string]struct {
		purpose   string
		text, sig []byte
	}{
		"another purpose":  {"x", text, seal},
		"another text":     {"freeze", []byte("no"), seal},
		"a host's":         {"freeze", text, sig},
		"another mesh's":   {"freeze", text, foreign},
		"none":             {"freeze", text, nil},
		"cut short":        {"freeze", text, seal[:len(seal)-1]},
		"another mesh's 2": {"freeze", append([]byte("x"), text...), foreign},
	} {
		if h1.CheckSealed(c.purpose, c.text, c.sig) == nil {
			t.Errorf("%s: believed", name)
		}
	}
}
