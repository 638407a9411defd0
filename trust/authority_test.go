package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"slices"
	"testing"
	"time"
)

func nowForTest() time.Time { return time.Now() }

func TestSignUsesOnlyTheKeyOfTheRequest(t *testing.T) {
	m := newMesh(t, "mesh-a")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	greedy, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "root", Organization: []string{"admins"}},
		DNSNames: []string{"other-host"},
		URIs:     []*url.URL{{Scheme: "spiffe", Host: "mesh-a", Path: "/agent/other-host"}},
		ExtraExtensions: []pkix.Extension{{
			Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 0x03, 0x01, 0x01, 0xff}, // CA: true
		}},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, err := m.auth.Sign(greedy, "h1", RoleAgent)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := parseCert(certPEM)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := peerOfCert(cert)
	if err != nil || peer != (Peer{MeshID: "mesh-a", Role: RoleAgent, Host: "h1"}) {
		t.Fatalf("peer = %v, %v", peer, err)
	}
	if cert.IsCA || cert.Subject.CommonName != "h1" || len(cert.Subject.Organization) > 0 || !slices.Equal(cert.DNSNames, []string{"h1"}) {
		t.Fatalf("the request's own names got in: %v %v CA=%v", cert.Subject, cert.DNSNames, cert.IsCA)
	}
	if d := time.Since(cert.NotBefore); d < time.Hour || d > 2*time.Hour {
		t.Errorf("backdated by %v, want 1 h", d)
	}
}

func TestSignRefuses(t *testing.T) {
	m := newMesh(t, "mesh-a")
	csr, _, err := NewCSR("h1")
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaCSR, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384CSR, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, p384)
	if err != nil {
		t.Fatal(err)
	}
	forged := slices.Clone(csrDER(t, csr))
	forged[len(forged)-4] ^= 1
	for name, c := range map[string]struct {
		csr        []byte
		host, role string
	}{
		"garbage":          {[]byte("garbage"), "h1", RoleAgent},
		"nothing":          {nil, "h1", RoleAgent},
		"forged signature": {forged, "h1", RoleAgent},
		"RSA":              {rsaCSR, "h1", RoleAgent},
		"other curve":      {p384CSR, "h1", RoleAgent},
		"unknown role":     {csr, "h1", "root"},
		"no host":          {csr, "", RoleAgent},
		"host of a path":   {csr, "a/b", RoleAgent},
		"upper-case host":  {csr, "H1", RoleAgent},
	} {
		if _, err := m.auth.Sign(c.csr, c.host, c.role); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	if _, err := m.auth.Sign(csrDER(t, csr), "h1", RoleAgent); err != nil {
		t.Errorf("DER: %v", err)
	}
}

func csrDER(t *testing.T, csrPEM []byte) []byte {
	t.Helper()
	block := pemBlock(t, csrPEM)
	return block
}

func TestNewAuthorityRefusesNames(t *testing.T) {
	for _, bad := range [][2]string{{"", "main"}, {"mesh-a", ""}, {"Mesh", "main"}, {"a/b", "main"}, {"mesh-a", "two words"}} {
		if _, err := NewAuthority(bad[0], bad[1]); err == nil {
			t.Errorf("NewAuthority(%q, %q): made", bad[0], bad[1])
		}
	}
}

func TestPeerOfCertIsStrict(t *testing.T) {
	parse := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for name, uris := range map[string][]*url.URL{
		"none":           nil,
		"two":            {parse("spiffe://m/agent/h"), parse("spiffe://m/agent/h2")},
		"other scheme":   {parse("https://m/agent/h")},
		"no host part":   {parse("spiffe://m/agent")},
		"a part more":    {parse("spiffe://m/agent/h/x")},
		"trailing slash": {parse("spiffe://m/agent/h/")},
		"user":           {parse("spiffe://u@m/agent/h")},
		"port":           {parse("spiffe://m:1/agent/h")},
		"query":          {parse("spiffe://m/agent/h?x=1")},
		"fragment":       {parse("spiffe://m/agent/h#x")},
		"escaped":        {parse("spiffe://m/agent/%68")},
		"dots":           {parse("spiffe://m/agent/..")},
		"upper case":     {parse("spiffe://m/agent/H")},
	} {
		if p, err := peerOfCert(&x509.Certificate{URIs: uris}); err == nil {
			t.Errorf("%s: read as %v", name, p)
		}
	}
	p, err := peerOfCert(&x509.Certificate{URIs: []*url.URL{parse("spiffe://m/agent/h")}})
	if err != nil || p.String() != "spiffe://m/agent/h" {
		t.Errorf("good URI: %v, %v", p, err)
	}
}
