package trust

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestTokenRoundTrip(t *testing.T) {
	m := newMesh(t, "mesh-a")
	tok, err := NewToken(m.auth.CertPEM, RoleAgent)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseToken(" " + tok.String() + "\n")
	if err != nil || got != tok {
		t.Fatalf("ParseToken(String()) = %#v, %v, want %#v", got, err, tok)
	}
	raw, err := tokenAlphabet.DecodeString(tok.Secret)
	if err != nil || len(raw)*8 < 128 {
		t.Fatalf("secret of %d bits (%v), want at least 128", len(raw)*8, err)
	}
	again, err := NewToken(m.auth.CertPEM, RoleAgent)
	if err != nil || again.Secret == tok.Secret || again.ID == tok.ID {
		t.Fatalf("two tokens share a secret or id (%v)", err)
	}
}

func TestTokenVerify(t *testing.T) {
	m := newMesh(t, "mesh-a")
	tok, err := NewToken(m.auth.CertPEM, RoleAgent)
	if err != nil {
		t.Fatal(err)
	}
	hash := tok.Hash()
	if !tok.Verify(hash) || !(Token{ID: tok.ID, Secret: tok.Secret}).Verify(hash) {
		t.Fatal("the token does not match its own hash")
	}
	other, err := NewToken(m.auth.CertPEM, RoleAgent)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]struct {
		tok  Token
		hash []byte
	}{
		"other secret": {Token{ID: tok.ID, Secret: other.Secret}, hash},
		"other id":     {Token{ID: other.ID, Secret: tok.Secret}, hash},
		"no secret":    {Token{ID: tok.ID}, Token{ID: tok.ID}.Hash()},
		"no hash":      {tok, nil},
		"short hash":   {tok, hash[:31]},
		"moved split":  {Token{ID: tok.ID + tok.Secret[:1], Secret: tok.Secret[1:]}, hash},
	} {
		if bad.tok.Verify(bad.hash) {
			t.Errorf("%s: verified", name)
		}
	}
	if strings.Contains(string(hash), tok.Secret) {
		t.Error("the hash contains the secret")
	}
}

func TestParseTokenRefuses(t *testing.T) {
	m := newMesh(t, "mesh-a")
	tok, err := NewToken(m.auth.CertPEM, RoleAgent)
	if err != nil {
		t.Fatal(err)
	}
	good := tok.String()
	for name, s := range map[string]string{
		"empty":              "",
		"other prefix":       "mesh2" + good[5:],
		"a part less":        good[:strings.LastIndex(good, ".")],
		"a part more":        good + ".x",
		"truncated secret":   good[:len(good)-1],
		"longer secret":      good + "a",
		"foreign characters": good[:len(good)-1] + "!",
		"newline in secret":  good[:len(good)-5] + "\n" + good[len(good)-5:],
		"upper-case CA":      strings.Replace(good, tok.CAHash, strings.ToUpper(tok.CAHash[:63])+"A", 1),
		"short CA":           strings.Replace(good, tok.CAHash, tok.CAHash[:62], 1),
		"CA not hex":         strings.Replace(good, tok.CAHash, strings.Repeat("g", 64), 1),
		"unknown role":       strings.Replace(good, ".agent.", ".root.", 1),
		"no role":            strings.Replace(good, ".agent.", "..", 1),
		"id of a path":       strings.Replace(good, tok.ID, "../x", 1),
		"huge":               good + strings.Repeat("a", 1<<20),
	} {
		_, err := ParseToken(s)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if strings.Contains(err.Error(), tok.Secret[:16]) || len(err.Error()) > 300 {
			t.Errorf("%s: the error repeats the input: %.400s", name, err)
		}
	}
}

// TestSecretsStayOutOfLogs prints everything that carries a secret the ways that
// people print by accident.
func TestSecretsStayOutOfLogs(t *testing.T) {
	m := newMesh(t, "mesh-a")
	tok, err := NewToken(m.auth.CertPEM, RoleAgent)
	if err != nil {
		t.Fatal(err)
	}
	cred := m.credentials(t, "h1", RoleAgent, nowForTest())
	req := JoinRequest{TokenID: tok.ID, Secret: tok.Secret, Host: "h1"}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "token", tok, "cred", cred, "auth", m.auth, "req", req)
	out := log.String() + fmt.Sprintf("%#v %v %+v %s %#v %v %+v %s %#v %v %+v", tok, cred, cred, cred, cred, m.auth, m.auth, m.auth, m.auth, req, req)
	for name, secret := range map[string]string{
		"token secret":  tok.Secret,
		"host key":      string(cred.KeyPEM[40:80]),
		"authority key": string(m.auth.KeyPEM[40:80]),
		"gossip key":    string(cred.GossipKey),
		"bytes of key":  strings.Trim(fmt.Sprint(cred.KeyPEM[:8]), "[]"),
	} {
		if strings.Contains(out, secret) {
			t.Errorf("%s in output", name)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	m := newMesh(f, "mesh-a")
	tok, err := NewToken(m.auth.CertPEM, RoleOperator)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(tok.String())
	f.Add("mesh1....")
	f.Add("mesh1.00.agent.x.y")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseToken(s)
		if err != nil {
			return
		}
		if tok.String() != strings.TrimSpace(s) {
			t.Fatalf("two spellings of one token: %q and %q", s, tok.String())
		}
		if !tok.Verify(tok.Hash()) {
			t.Fatal("accepted token does not verify")
		}
	})
}
