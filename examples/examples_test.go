package examples

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/intent/hcl"
)

// notYet lists the paths that each example's NotYet must report. An example
// that is not here fails the test.
var notYet = map[string][]string{
	"hello":      nil,
	"per-host":   nil,
	"placement":  nil,
	"lifecycle":  nil,
	"checks":     nil,
	"web":        nil,
	"blue-green": nil,
	"singleton":  nil,
	"schedule":   nil,
	"once":       nil,
	"reflexes":   nil,
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
	if len(dirs) != len(notYet) {
		t.Errorf("%d examples, %d are known to this test", len(dirs), len(notYet))
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
		var got []string
		for _, p := range in.NotYet() {
			got = append(got, p.Path)
		}
		if want, known := notYet[name]; !known || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: not yet %q, want %q", name, got, want)
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
	for name, paths := range notYet {
		_, row, found := strings.Cut(string(readme), "| `"+name+"` |")
		row, _, _ = strings.Cut(row, "\n")
		if !found || strings.Contains(row, "not yet") != (len(paths) > 0) {
			t.Errorf("%s: the table says %q, not yet are %q", name, row, paths)
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
