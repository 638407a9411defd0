//go:build linux

package install

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

const repo = "../.."

// build makes the package of one version as make packages does, and returns its
// path.
func build(t *testing.T, version, format string) string {
	t.Helper()
	readSources(t)
	dist := t.TempDir()
	cmd := exec.Command("make", "-C", repo, "packages", "VERSION=v"+version)
	cmd.Env = append(os.Environ(), "ARCHS="+runtime.GOARCH, "FORMATS="+format, "DIST="+dist)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make packages: %v\n%s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(dist, "*."+format))
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
