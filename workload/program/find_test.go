package program

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/workload"
)

func TestWorkDir(t *testing.T) {
	for _, c := range []struct{ pkg, dir, want string }{
		{"", "", "/own"}, {"", "x", "/own/x"}, {"", "/a/../b", "/b"},
		{"/pkg", "", "/pkg"}, {"/pkg", "x", "/pkg/x"}, {"/pkg", "/b", "/b"},
	} {
		if got := WorkDir(workload.Spec{Package: c.pkg, Dir: c.dir}, "/own"); got != c.want {
			t.Errorf("package %q, dir %q: %s, want %s", c.pkg, c.dir, got, c.want)
		}
	}
}

func TestResolve(t *testing.T) {
	own, pkg := t.TempDir(), t.TempDir()
	put := func(dir, name string, mode os.FileMode) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	put(own, "here", 0o755)
	put(own, "sub/here", 0o755)
	put(pkg, "bin/web", 0o755)
	put(pkg, "text", 0o644)
	for _, c := range []struct{ pkg, dir, name, want, fault string }{
		{"", "", "./here", own + "/here", ""},
		{"", "sub", "./here", own + "/sub/here", ""},
		{pkg, "sub", "bin/web", pkg + "/bin/web", ""}, // the package's, wherever it runs
		{pkg, "", "./text", "", "is not executable; chmod +x it"},
		{pkg, "", "./bin", "", "is a directory"},
		{pkg, "", "./none", "", "does not exist"},
		{pkg, "", "../x/y", "", "leads out of the package"},
		{pkg, "", "web", "", "./web if it is in the package"},
		{"", "", os.DevNull, "", "is not a regular file"},
		{"", "", "sh", "sh", ""},
		{"", "", "", "", "the command is empty"},
	} {
		got, err := Resolve(workload.Spec{Package: c.pkg, Dir: c.dir}, c.name, own)
		switch {
		case c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)):
			t.Errorf("%q: error %v, want %q", c.name, err, c.fault)
		case c.fault == "" && (err != nil || !strings.HasSuffix(got, c.want)):
			t.Errorf("%q: %s, %v, want %s", c.name, got, err, c.want)
		}
	}
}
