//go:build linux

package install

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

const repo = "../.."

// The versions that the tests install and upgrade to.
const (
	oldVersion = "1.0.0"
	newVersion = "1.0.1-rc1"
)

// built has the packages of both versions below a directory each. They are made
// once for all tests: linking takes most of the time.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ganglion-packages-")
	if err != nil {
		return "", err
	}
	for _, version := range []string{oldVersion, newVersion} {
		cmd := exec.Command("make", "-C", repo, "packages", "VERSION=v"+version)
		cmd.Env = append(os.Environ(), "ARCHS="+runtime.GOARCH, "DIST="+filepath.Join(dir, version))
		if out, err := cmd.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("make packages: %w\n%s", err, out)
		}
	}
	return dir, nil
})

// wanted is set once a test has asked for the packages.
var wanted atomic.Bool

func TestMain(m *testing.M) {
	code := m.Run()
	if wanted.Load() {
		if dir, _ := built(); dir != "" {
			os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

// build makes the package of one version as make packages does, and returns its
// path.
func build(t *testing.T, version, format string) string {
	t.Helper()
	readSources(t)
	wanted.Store(true)
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, version, "*."+format))
	if err != nil || len(found) != 1 {
		t.Fatalf("make packages made %q (%v), want one %s", found, err, format)
	}
	return found[0]
}

// readSources opens what the packages are made of: the result of a test is
// remembered (cached) for as long as the files that it opened are the same.
func readSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(repo, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() && strings.HasPrefix(e.Name(), ".") && p != repo {
			return fs.SkipDir
		}
		if strings.HasSuffix(p, ".go") && !strings.HasSuffix(p, "_test.go") || strings.Contains(p, "/packaging/") && !e.IsDir() {
			_, err = os.ReadFile(p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
