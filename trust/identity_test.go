package trust

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

func pemBlock(t *testing.T, b []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(b)
	if block == nil {
		t.Fatal("no PEM block")
	}
	return block.Bytes
}

func TestIdentityOnDisk(t *testing.T) {
	m := newMesh(t, "mesh-a")
	dir := filepath.Join(t.TempDir(), "trust")
	if _, err := LoadIdentity(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no identity: %v, want fs.ErrNotExist", err)
	}
	for _, host := range []string{"h1", "h2"} { // the second replaces the first
		want := m.identity(t, host, RoleAgent)
		if err := SaveIdentity(dir, want); err != nil {
			t.Fatal(err)
		}
		got, err := LoadIdentity(dir)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.Credentials(), want.Credentials()) || got.Peer() != want.Peer() {
			t.Fatalf("loaded %v, want %v", got.Peer(), want.Peer())
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("files left: %v, %v, want the identity alone", entries, err)
	}
	for path, want := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, identityFile): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v (%v), want %v", path, info.Mode().Perm(), err, want)
		}
	}
	for range 2 {
		if err := RemoveIdentity(dir); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadIdentity(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("after removal: %v, want fs.ErrNotExist", err)
	}
}

func TestLoadIdentityRefuses(t *testing.T) {
	m := newMesh(t, "mesh-a")
	for name, spoil := range map[string]func(t *testing.T, path string){
		"readable by others": func(t *testing.T, path string) { must(t, os.Chmod(path, 0o640)) },
		"torn":               func(t *testing.T, path string) { must(t, os.Truncate(path, 100)) },
		"empty":              func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) },
		"huge":               func(t *testing.T, path string) { must(t, os.Truncate(path, 1<<20)) },
		"a link": func(t *testing.T, path string) {
			must(t, os.Rename(path, path+".real"))
			must(t, os.Symlink(path+".real", path))
		},
		"a directory": func(t *testing.T, path string) {
			must(t, os.Remove(path))
			must(t, os.Mkdir(path, 0o700))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, SaveIdentity(dir, m.identity(t, "h1", RoleAgent)))
			spoil(t, filepath.Join(dir, identityFile))
			if _, err := LoadIdentity(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("err = %v, want a refusal that is not ErrNotExist", err)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestNewIdentityRefusesWhatDoesNotBelongTogether(t *testing.T) {
	a, b := newMesh(t, "mesh-a"), newMesh(t, "mesh-b")
	good := a.credentials(t, "h1", RoleAgent, time.Now())
	other := a.credentials(t, "h2", RoleAgent, time.Now())
	foreign := b.credentials(t, "h1", RoleAgent, time.Now())
	for name, change := range map[string]func(*Credentials){
		"another host's key":         func(c *Credentials) { c.KeyPEM = other.KeyPEM },
		"another host's certificate": func(c *Credentials) { c.CertPEM = other.CertPEM },
		"another host's name":        func(c *Credentials) { c.Host = "h2" },
		"another role":               func(c *Credentials) { c.Role = RoleOperator },
		"another mesh's id":          func(c *Credentials) { c.MeshID = "mesh-b" },
		"another mesh's authority":   func(c *Credentials) { c.CAPEM = foreign.CAPEM },
		"another mesh's certificate": func(c *Credentials) { c.CertPEM, c.KeyPEM = foreign.CertPEM, foreign.KeyPEM },
		"host as authority":          func(c *Credentials) { c.CAPEM = c.CertPEM },
		"authority as host":          func(c *Credentials) { c.CertPEM, c.KeyPEM = a.auth.CertPEM, a.auth.KeyPEM },
		"no key":                     func(c *Credentials) { c.KeyPEM = nil },
		"no certificate":             func(c *Credentials) { c.CertPEM = nil },
		"two certificates":           func(c *Credentials) { c.CertPEM = append(c.CertPEM, other.CertPEM...) },
		"no authority":               func(c *Credentials) { c.CAPEM = nil },
	} {
		bad := good
		bad.CertPEM = append([]byte(nil), good.CertPEM...)
		change(&bad)
		if _, err := NewIdentity(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// Expired credentials still load: the host must start and say so.
	old := a.identityAt(t, "h1", RoleAgent, time.Now().Add(-validity-time.Hour))
	if !old.Expires().Before(time.Now()) {
		t.Error("not expired")
	}
	if b, err := json.Marshal(good); err != nil || len(b) > maxIdentity/8 {
		t.Errorf("an identity is %d bytes (%v)", len(b), err)
	}
}
