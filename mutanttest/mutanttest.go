// Package mutanttest seeds bugs into the source of this module, one at a time, and
// has the tests of a package catch them.
package mutanttest

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Bug is a defect: Old, which stands once in the file, is replaced by New.
type Bug struct {
	Name string
	File string // below the root of the module
	Old  string
	New  string
}

// patience is how long the tests may take to catch one bug.
const patience = 5 * time.Minute

// Fit fails t unless each bug can be put where it is to be put, whatever has become
// of the code. Root is the root of the module, seen from the test.
func Fit(t *testing.T, root string, bugs []Bug) {
	t.Helper()
	for _, b := range bugs {
		src, err := os.ReadFile(filepath.Join(root, b.File))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(src), b.Old); n != 1 {
			t.Errorf("%s: %q stands %d times in %s", b.Name, b.Old, n, b.File)
		}
	}
}

// Caught builds the package of the test once with each bug, and fails t unless one of
// the tests with these names fails by a check of its own. Files of the source are left
// as they are.
func Caught(t *testing.T, root string, bugs []Bug, tests ...string) {
	t.Helper()
	root, err := filepath.Abs(root) // which an overlay has to name
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bugs {
		t.Run(b.Name, func(t *testing.T) {
			overlay := seed(t, filepath.Join(root, b.File), b)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			out, err := exec.CommandContext(ctx, "go", "test", "-count=1", "-vet=off", "-failfast", "-overlay", overlay,
				"-run", "^("+strings.Join(tests, "|")+")$", ".").CombinedOutput()
			_, caught, ok := strings.Cut(string(out), "--- FAIL: ")
			switch line, _, _ := strings.Cut(caught, "\n"); {
			case err == nil:
				t.Error("not caught")
			case !ok:
				t.Errorf("not by a check: %.400s", out)
			default:
				t.Logf("caught by %s", line)
			}
		})
	}
}

// seed returns the path of an overlay that has the bug in the file at path.
func seed(t *testing.T, path string, b Bug) string {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	patched := filepath.Join(dir, filepath.Base(path))
	if err := os.WriteFile(patched, []byte(strings.Replace(string(src), b.Old, b.New, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{path: patched}})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return overlay
}
