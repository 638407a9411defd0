package artifact

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, body := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if to, link := strings.CutPrefix(body, "-> "); link {
			if err := os.Symlink(to, path); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func prepare(t *testing.T, path string) *Local {
	t.Helper()
	l, err := Prepare(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

var webDir = map[string]string{"bin/web": "program", "etc/conf": "x = 1", "current": "-> bin", "z": ""}

// goldenDigest is that of webDir as this release packs it. If a new version of
// the compressor changes it, every directory that users have applied becomes a
// new version: say so in the changelog.
const goldenDigest = "sha256:76ffe0d99abdc7b8fa58372c2dce7df813e5fead12bd1495342d5654f1bbb879"

func TestEqualDirectoriesHaveEqualDigests(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	write(t, one, webDir)
	write(t, two, webDir)
	os.Chmod(filepath.Join(one, "bin/web"), 0o750)
	os.Chmod(filepath.Join(two, "bin/web"), 0o4711)
	os.Chtimes(filepath.Join(two, "etc/conf"), time.Now(), time.Unix(1e9, 0))
	a, b := prepare(t, one), prepare(t, two)
	if a.Digest != b.Digest || a.Size != b.Size {
		t.Errorf("%s and %s", a.Digest, b.Digest)
	}
	if a.Digest != goldenDigest {
		t.Errorf("the form of packages has changed: %s", a.Digest)
	}
	os.Chmod(filepath.Join(two, "etc/conf"), 0o711)
	if c := prepare(t, two); c.Digest == a.Digest {
		t.Error("an executable file is none")
	}
	s := newStore(t)
	r, err := a.Reader()
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Put(t.Context(), r, PutOptions{Want: a.Digest, Name: a.Name})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := s.Unpack(t.Context(), d, "")
	want := maps.Clone(webDir)
	want["bin/"], want["etc/"] = "", ""
	if got := content(t, dir); err != nil || !maps.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestPrepareFiles(t *testing.T) {
	dir := t.TempDir()
	archive := string(gzipped(t, makeTar(t, good...)))
	write(t, dir, map[string]string{
		"web": "#!/bin/sh\n", "odd.bin": archive, "fake.tar.gz": "text", "x.xz": "\xfd7zXZ\x00", "bad.zip": string(makeZip(t, member{name: "../x"})),
	})
	os.Mkdir(filepath.Join(dir, "empty"), 0o755)
	write(t, dir, map[string]string{"link/out": "-> /etc/passwd"})
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	l := prepare(t, filepath.Join(dir, "web"))
	r, _ := l.Reader()
	d, err := s.Put(t.Context(), r, PutOptions{Want: l.Digest})
	if err != nil {
		t.Fatal(err)
	}
	tree, err := s.Unpack(t.Context(), d, "")
	if got := content(t, tree); err != nil || len(got) != 1 || got["web"] != "#!/bin/sh\n" {
		t.Errorf("%q, %v", got, err)
	}
	if info, _ := os.Stat(filepath.Join(tree, "web")); info.Mode().Perm() != 0o555 {
		t.Error("a plain file cannot be executed")
	}
	if l := prepare(t, filepath.Join(dir, "odd.bin")); l.Size != int64(len(archive)) || l.temp {
		t.Errorf("an archive is not taken as it is: %+v", l)
	}
	for name, says := range map[string]string{
		"fake.tar.gz": "its content is none", "x.xz": "cannot be unpacked", "bad.zip": "upwards",
		"empty": "empty", "link": "relative links", "fifo": "neither", "absent": "no such file",
	} {
		l, err := Prepare(t.Context(), filepath.Join(dir, name))
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if name != "absent" && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v is not a refusal", name, err)
		}
		if l != nil && l.file != nil {
			t.Errorf("%s: a file is left open", name)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "ganglion-package-*")); len(left) > 1 { // of web, until the end
		t.Errorf("left: %v", left)
	}
}
