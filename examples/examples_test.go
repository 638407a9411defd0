package examples

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/intent/hcl"
)

// known lists the examples. One that is not here fails the test.
var known = []string{
	"hello", "per-host", "placement", "lifecycle", "checks", "web", "blue-green", "singleton", "schedule", "once", "reflexes",
}

func names(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, e.Name())
		}
	}
	if want := slices.Sorted(slices.Values(known)); !slices.Equal(dirs, want) {
		t.Errorf("examples %q, known to this test are %q", dirs, want)
	}
	return dirs
}

func TestFileForm(t *testing.T) {
	for _, name := range names(t) {
		in, err := hcl.ParsePath(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if normal := in.Normalize(); normal.Validate() != nil {
			t.Errorf("%s: not valid with defaults: %v", name, normal.Validate())
		}
	}
}

// TestGoFormSaysTheSame runs each Go form as a user would and compares what it
// prints with the file form beside it.
func TestGoFormSaysTheSame(t *testing.T) {
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin+string(filepath.Separator), "./...").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, name := range names(t) {
		var errs bytes.Buffer
		cmd := exec.Command(filepath.Join(bin, name))
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, &errs)
			continue
		}
		got, err := intent.ParseJSON(out)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want, err := hcl.ParsePath(name)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the forms differ: %+v", name, intent.Diff(want, got))
		}
	}
}

// TestReadmeNamesAll keeps the table complete.
func TestReadmeNamesAll(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range known {
		if !strings.Contains(string(readme), "| `"+name+"` |") {
			t.Errorf("%s is not in the table", name)
		}
	}
}

// TestWebIsTheReference keeps the example of the documentation the example.
func TestWebIsTheReference(t *testing.T) {
	reference, err := os.ReadFile("../intent/hcl/testdata/interface.hcl")
	if err != nil {
		t.Fatal(err)
	}
	web, err := os.ReadFile("web/web.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(web, reference) {
		t.Error("web/web.hcl is not the example of the reference")
	}
}
