package signature

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// tool makes keys and signatures with a program that users have.
type tool struct {
	dir  string
	key  func(name string) []string // command line that makes a key
	sign func(key, file, out string, more ...string) []string
}

func (l tool) run(t *testing.T, args []string) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = l.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

// signed has file signed by key and returns what the tool has made.
func (l tool) signed(t *testing.T, key, file string, more ...string) Signature {
	t.Helper()
	l.run(t, l.sign(key, file, file+".out", more...))
	b, err := os.ReadFile(filepath.Join(l.dir, file+".out"))
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(l.dir, file+".out"))
	s, err := Parse(b)
	if err != nil {
		t.Fatalf("%v: %v\n%s", l.sign(key, file, file+".out", more...), err, b)
	}
	return s
}

func (l tool) write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(l.dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func minisignTool(dir string) tool {
	return tool{
		dir: dir,
		key: func(name string) []string { return []string{"minisign", "-G", "-W", "-p", name + ".pub", "-s", name} },
		sign: func(key, file, out string, more ...string) []string {
			return append([]string{"minisign", "-S", "-s", key, "-m", file, "-x", out}, more...)
		},
	}
}

func sshTool(dir string) tool {
	return tool{
		dir: dir,
		key: func(name string) []string {
			return []string{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name}
		},
		sign: func(key, file, out string, more ...string) []string {
			line := "ssh-keygen -q -Y sign -n ganglion -f " + key
			for _, m := range more {
				line += " " + m
			}
			return []string{"sh", "-c", line + " <" + file + " >" + out}
		},
	}
}

// TestMinisign and TestSSHKeygen hold the package against the programs that users
// sign with, as they are installed here; testdata holds what they made elsewhere.
func TestMinisign(t *testing.T) {
	againstTool(t, "minisign", minisignTool(t.TempDir()), []string{"-t", "a comment"}, []string{"-l"})
}

func TestSSHKeygen(t *testing.T) {
	againstTool(t, "ssh-keygen", sshTool(t.TempDir()), []string{"-O", "hashalg=sha256"})
}

func againstTool(t *testing.T, program string, l tool, ways ...[]string) {
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("needs %s: %v", program, err)
	}
	content := make([]byte, 1<<20)
	rand.Read(content)
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(content))
	l.write(t, "package", content)
	l.write(t, "digest", []byte(digest+"\n"))
	l.write(t, "bare", []byte(digest))
	var keys []Key
	for _, name := range []string{"one", "two"} {
		l.run(t, l.key(name))
		b, err := os.ReadFile(filepath.Join(l.dir, name+".pub"))
		if err != nil {
			t.Fatal(err)
		}
		k, err := ParseKey(string(b))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	for _, way := range append(ways, nil) {
		s := l.signed(t, "one", "package", way...)
		if err := s.Check(keys[0], digest, opens(content)); err != nil {
			t.Errorf("%v: %v", way, err)
		}
		if err := s.Check(keys[1], digest, opens(content)); !errors.Is(err, ErrOtherKey) {
			t.Errorf("%v, by another key: %v", way, err)
		}
		if err := s.Check(keys[0], digest, opens(append(content, 0))); !errors.Is(err, ErrBad) {
			t.Errorf("%v, of another package: %v", way, err)
		}
		for _, file := range []string{"digest", "bare"} {
			if err := l.signed(t, "one", file, way...).Check(keys[0], digest, nil); err != nil {
				t.Errorf("%v of %s: %v", way, file, err)
			}
		}
	}
}
