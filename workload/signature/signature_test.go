package signature

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"aead.dev/minisign"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/ssh"
)

// The files in testdata were made by minisign 0.11 and OpenSSH 9.2; the secret
// keys are gone.
func data(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func digest(t testing.TB) string { return strings.TrimSpace(string(data(t, "digest"))) }

func key(t testing.TB, name string) Key {
	t.Helper()
	k, err := ParseKey(string(data(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func opens(b []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

func TestGood(t *testing.T) {
	for _, c := range []struct{ sig, key string }{
		{"hashed.minisig", "minisign.pub"}, {"legacy.minisig", "minisign.pub"},
		{"ssh.sig", "ssh.pub"}, {"ssh256.sig", "ssh.pub"},
	} {
		s, err := Parse(data(t, c.sig))
		if err != nil {
			t.Errorf("%s: %v", c.sig, err)
			continue
		}
		k := key(t, c.key)
		if err := s.Check(k, digest(t), opens(data(t, "package"))); err != nil {
			t.Errorf("%s: %v", c.sig, err)
		}
		if err := s.Check(k, digest(t), nil); !errors.Is(err, ErrNeedsContent) {
			t.Errorf("%s without the package: %v", c.sig, err)
		}
		if s.KeyID() != k.ID() || s.String() != string(data(t, c.sig)) {
			t.Errorf("%s: %s, %q", c.sig, s.KeyID(), s)
		}
	}
}

// TestGoodOfDigest: what artifact push prints is signed; no package is needed.
func TestGoodOfDigest(t *testing.T) {
	for _, c := range []struct{ sig, key string }{{"digest.minisig", "minisign.pub"}, {"digest.sig", "ssh.pub"}} {
		s, err := Parse(data(t, c.sig))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Check(key(t, c.key), digest(t), nil); err != nil {
			t.Errorf("%s: %v", c.sig, err)
		}
		other := "sha256:" + strings.Repeat("0", 64)
		if err := s.Check(key(t, c.key), other, opens([]byte("another package"))); !errors.Is(err, ErrBad) {
			t.Errorf("%s, replayed onto another package: %v", c.sig, err)
		}
	}
}

// TestBad alters everything that a signature is made of, one at a time.
func TestBad(t *testing.T) {
	pkg := data(t, "package")
	tampered := bytes.Clone(pkg)
	tampered[len(tampered)-2] ^= 1
	cases := []struct {
		name, sig, key string
		content        []byte
		want           error
	}{
		{"tampered package", "hashed.minisig", "minisign.pub", tampered, ErrBad},
		{"tampered package", "legacy.minisig", "minisign.pub", tampered, ErrBad},
		{"tampered package", "ssh.sig", "ssh.pub", tampered, ErrBad},
		{"cut package", "ssh256.sig", "ssh.pub", pkg[:len(pkg)-1], ErrBad},
		{"empty package", "hashed.minisig", "minisign.pub", nil, ErrBad},
		{"another key", "other.minisig", "minisign.pub", pkg, ErrOtherKey},
		{"another key", "other.sig", "ssh.pub", pkg, ErrOtherKey},
		{"a key of the other kind", "hashed.minisig", "ssh.pub", pkg, ErrOtherKey},
		{"a key of the other kind", "ssh.sig", "minisign.pub", pkg, ErrOtherKey},
	}
	for _, c := range cases {
		s, err := Parse(data(t, c.sig))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Check(key(t, c.key), digest(t), opens(c.content)); !errors.Is(err, c.want) {
			t.Errorf("%s, %s: %v, want %v", c.name, c.sig, err, c.want)
		}
	}
}

// TestAltered flips parts of the text of good signatures.
func TestAltered(t *testing.T) {
	alter := func(sig, old, with string) {
		t.Helper()
		text := string(data(t, sig))
		if !strings.Contains(text, old) {
			t.Fatalf("%s holds no %q", sig, old)
		}
		s, err := Parse([]byte(strings.Replace(text, old, with, 1)))
		if err != nil {
			return // refused sooner
		}
		if err := s.Check(key(t, "minisign.pub"), digest(t), opens(data(t, "package"))); err == nil {
			t.Errorf("%s with %q for %q is good", sig, with, old)
		}
	}
	alter("hashed.minisig", "version 1.2", "version 1.3") // the trusted comment
	alter("hashed.minisig", "trusted comment: v", "trusted comment: V")
	alter("hashed.minisig", "\nRUT", "\nRWT") // ED, pre-hashed, to Ed, legacy
	alter("legacy.minisig", "\nRWT", "\nRUT")
	text := string(data(t, "hashed.minisig"))
	swap := strings.Split(text, "\n")
	swap[3] = strings.Split(string(data(t, "legacy.minisig")), "\n")[3]
	if s, err := Parse([]byte(strings.Join(swap, "\n"))); err == nil && s.Check(key(t, "minisign.pub"), digest(t), opens(data(t, "package"))) == nil {
		t.Error("the comment of another signature is good")
	}
	if s, err := Parse([]byte(strings.Replace(text, "signature from minisign secret key", "hello", 1))); err != nil ||
		s.Check(key(t, "minisign.pub"), digest(t), opens(data(t, "package"))) != nil {
		t.Errorf("the untrusted comment counts: %v", err)
	}
}

// TestHashIsNoPackage: minisign does not sign in which way it signed, so that a
// signature of a file is also one of its hash. Nobody signed that as a package.
func TestHashIsNoPackage(t *testing.T) {
	hash := blake2b.Sum512(data(t, "package"))
	forged := strings.Replace(string(data(t, "hashed.minisig")), "\nRUT", "\nRWT", 1)
	s, err := Parse([]byte(forged))
	if err != nil {
		t.Fatal(err)
	}
	if !minisign.Verify(key(t, "minisign.pub").mini, hash[:], []byte(forged)) {
		t.Fatal("this forgery does not work any more: the case can go")
	}
	if err := s.Check(key(t, "minisign.pub"), digest(t), opens(hash[:])); !errors.Is(err, ErrBad) {
		t.Errorf("the hash of a signed file passes as a signed package: %v", err)
	}
}

func TestRefused(t *testing.T) {
	good := string(data(t, "ssh.sig"))
	for name, c := range map[string]struct{ text, want string }{
		"empty":            {"", "neither"},
		"huge":             {strings.Repeat("x", MaxSize+1), "more than"},
		"long comment":     {strings.Replace(string(data(t, "hashed.minisig")), "version", strings.Repeat("v", MaxSize), 1), "more than"},
		"not text":         {"\x88\xff\xfe", "not text"},
		"rsa":              {string(data(t, "rsa.sig")), "ssh-rsa"},
		"ecdsa":            {string(data(t, "ecdsa.sig")), "ecdsa-sha2-nistp256"},
		"namespace":        {string(data(t, "namespace.sig")), "-n ganglion"},
		"two":              {good + good, "more than one"},
		"pgp":              {"-----BEGIN PGP SIGNATURE-----\n\niQEz\n=abcd\n-----END PGP SIGNATURE-----\n", "no SSH signature"},
		"cut":              {good[:len(good)/2], "no SSH signature"},
		"garbled":          {strings.Replace(good, "U1NIU0lH", "U1NIU0lI", 1), "read SSH signature"},
		"minisign, cut":    {strings.Join(strings.Split(string(data(t, "hashed.minisig")), "\n")[:3], "\n"), "neither"},
		"minisign, base64": {strings.Replace(string(data(t, "hashed.minisig")), "\nRUT", "\n*UT", 1), "neither"},
		"an SSH key":       {string(data(t, "ssh.pub")), "neither"},
	} {
		if _, err := Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line with %q", name, err, c.want)
		}
	}
}

// TestSignatureOfAnotherAlgorithm: the blob names an ed25519 key, the signature
// in it another algorithm.
func TestSignatureOfAnotherAlgorithm(t *testing.T) {
	_, secret, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sshsig.Sign(strings.NewReader("x"), signer, sshsig.HashSHA512, Namespace)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(sshsig.Armor(s)); err != nil {
		t.Fatal(err)
	}
	s.Signature.Format = ssh.KeyAlgoECDSA256
	if _, err := Parse(sshsig.Armor(s)); err == nil {
		t.Error("accepted")
	}
}

// TestReadErrors are told as what they are, not as a bad signature.
func TestReadErrors(t *testing.T) {
	broken := errors.New("the disk is broken")
	open := func() (io.ReadCloser, error) { return io.NopCloser(iotest.ErrReader(broken)), nil }
	for sig, k := range map[string]string{"hashed.minisig": "minisign.pub", "legacy.minisig": "minisign.pub", "ssh.sig": "ssh.pub"} {
		s, err := Parse(data(t, sig))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Check(key(t, k), digest(t), open); !errors.Is(err, broken) || errors.Is(err, ErrBad) {
			t.Errorf("%s: %v", sig, err)
		}
		if err := s.Check(key(t, k), digest(t), func() (io.ReadCloser, error) { return nil, broken }); !errors.Is(err, broken) {
			t.Errorf("%s, open: %v", sig, err)
		}
	}
	s, _ := Parse(data(t, "legacy.minisig"))
	large := func() (io.ReadCloser, error) { return io.NopCloser(io.LimitReader(zeros{}, MaxLegacy+1)), nil }
	if err := s.Check(key(t, "minisign.pub"), digest(t), large); err == nil || !strings.Contains(err.Error(), "without -l") {
		t.Errorf("a large package with a legacy signature: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestKeys(t *testing.T) {
	mini, line := key(t, "minisign.pub"), key(t, "ssh.pub")
	if mini.Kind() != KindMinisign || line.Kind() != KindSSH || len(mini.ID()) != 16 || !strings.HasPrefix(line.ID(), "SHA256:") {
		t.Errorf("%s %s, %s %s", mini.Kind(), mini.ID(), line.Kind(), line.ID())
	}
	if strings.Contains(line.String(), "release@") {
		t.Errorf("the comment is kept: %s", line)
	}
	for _, k := range []Key{mini, line} {
		again, err := ParseKey(" " + k.String() + "\n")
		if err != nil || again.String() != k.String() || again.ID() != k.ID() {
			t.Errorf("%s: %v, %v", k, again, err)
		}
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty":           {"", "want a key"},
		"rsa":             {string(data(t, "rsa.pub")), "ssh-rsa"},
		"short":           {mini.String()[:40], "no whole key"},
		"options":         {`command="x" ` + line.String(), "nothing before"},
		"two":             {line.String() + "\n" + line.String(), "one key"},
		"minisign secret": {"untrusted comment: minisign encrypted secret key\nRWRTY0Iy", "secret key"},
		"secret line":     {"RWRTY0Iy" + base64.StdEncoding.EncodeToString(make([]byte, 150)), "secret key"},
		"ssh secret":      {"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA", "secret key"},
		"huge":            {strings.Repeat("R", 10_000), "more than"},
		"a signature":     {string(data(t, "hashed.minisig")), "no whole key"},
	} {
		if _, err := ParseKey(c.text); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line with %q", name, err, c.want)
		}
	}
}

// FuzzParse: no text crashes, and nothing that is not exactly as it was signed
// passes as signed.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"hashed.minisig", "legacy.minisig", "digest.minisig", "ssh.sig", "ssh256.sig", "digest.sig", "rsa.sig", "ecdsa.sig", "namespace.sig", "other.sig"} {
		f.Add(data(f, name))
	}
	keys := []Key{key(f, "minisign.pub"), key(f, "ssh.pub")}
	never := opens([]byte("nobody has signed this"))
	unsigned := "sha256:" + strings.Repeat("0", 64)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err != nil {
			return
		}
		if s.KeyID() == "" || s.String() != string(b) {
			t.Errorf("%q: %q by %q", b, s, s.KeyID())
		}
		for _, k := range keys {
			if s.Check(k, unsigned, never) == nil {
				t.Errorf("%q is a signature of what nobody has signed", b)
			}
		}
	})
}

// FuzzParseKey: no text crashes, and a key that is read is read again from its
// own line.
func FuzzParseKey(f *testing.F) {
	for _, name := range []string{"minisign.pub", "ssh.pub", "rsa.pub"} {
		f.Add(string(data(f, name)))
	}
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ParseKey(text)
		if err != nil {
			return
		}
		again, err := ParseKey(k.String())
		if err != nil || again.String() != k.String() {
			t.Errorf("%q: %q, %v", text, k, err)
		}
	})
}
