package artifact

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var good = []member{
	{name: "bin/", kind: tar.TypeDir, mode: 0o777},
	{name: "./bin/web", mode: 0o6755, body: "program"},
	{name: "conf/a.txt", mode: 0o666, body: "text"},
	{name: "current", kind: tar.TypeSymlink, link: "bin"},
	{name: "conf/up", kind: tar.TypeSymlink, link: "../bin/web"},
	{name: "conf/nowhere", kind: tar.TypeSymlink, link: "missing"},
}

func TestUnpackOfEveryFormat(t *testing.T) {
	plainTar := makeTar(t, append(good, member{name: "hard", kind: tar.TypeLink, link: "bin/web"})...)
	want := map[string]string{
		"bin/": "", "bin/web": "program", "conf/": "", "conf/a.txt": "text", "current": "-> bin",
		"conf/up": "-> ../bin/web", "conf/nowhere": "-> missing", "hard": "program",
	}
	for name, data := range map[string][]byte{
		"tar": plainTar, "tar.gz": gzipped(t, plainTar), "tar.zst": zstded(t, plainTar), "zip": makeZip(t, good...),
		"trailing": append(gzipped(t, plainTar), "behind the end"...),
	} {
		t.Run(name, func(t *testing.T) {
			if name == "trailing" {
				data = append(plainTar[:len(plainTar):len(plainTar)], make([]byte, 70<<10)...)
			}
			s := newStore(t)
			d := put(t, s, data)
			dir, err := s.Unpack(t.Context(), d, "web")
			if err != nil {
				t.Fatal(err)
			}
			expect := maps.Clone(want)
			if name == "zip" {
				delete(expect, "hard")
			}
			if got := content(t, dir); !maps.Equal(got, expect) {
				t.Errorf("got %q, want %q", got, expect)
			}
			harmless(t, dir)
			for file, mode := range map[string]os.FileMode{"bin/web": 0o555, "conf/a.txt": 0o444, "bin": 0o555, ".": 0o555} {
				if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Mode().Perm() != mode {
					t.Errorf("%s: %v, %v", file, info.Mode(), err)
				}
			}
			again, err := openStore(t, s.cfg.Dir).Unpack(t.Context(), d, "web")
			if err != nil || again != dir {
				t.Errorf("by the next agent: %s, %v", again, err)
			}
		})
	}
}

// TestTreesOfAnEarlierBoot: what may not have reached the disk before a power cut
// is not trusted after it; what was settled is.
func TestTreesOfAnEarlierBoot(t *testing.T) {
	s := newStore(t)
	d := put(t, s, makeTar(t, good...))
	dir, err := s.Unpack(t.Context(), d, "")
	if err != nil {
		t.Fatal(err)
	}
	meta := treeMeta{Bytes: 11, Files: 6, Boot: "an earlier one"}
	reboot := func() *Store {
		if err := readJSON(dir+metaSuffix, &meta); err != nil {
			t.Fatal(err)
		}
		meta.Boot = "an earlier one"
		if err := s.writeJSON(dir+metaSuffix, meta); err != nil {
			t.Fatal(err)
		}
		return openStore(t, s.cfg.Dir)
	}
	s = reboot()
	if _, ok := s.Tree(d, ""); ok || len(content(t, s.path(dirTrees))) > 0 {
		t.Error("an unflushed tree is trusted")
	}
	if _, err := s.Unpack(t.Context(), d, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := reboot().Tree(d, ""); !ok {
		t.Error("a settled tree is not trusted")
	}
}

func TestPlainPackages(t *testing.T) {
	s := newStore(t)
	d := put(t, s, []byte("#!/bin/sh\n"))
	if _, err := s.Unpack(t.Context(), d, ""); !errors.Is(err, ErrRefused) {
		t.Errorf("without a name: %v", err)
	}
	dir, err := s.Unpack(t.Context(), d, "../../run me")
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.Unpack(t.Context(), d, "other")
	if err != nil || other == dir {
		t.Fatalf("%s, %v", other, err)
	}
	if got := content(t, dir); len(got) != 1 || got["run_me"] != "#!/bin/sh\n" {
		t.Errorf("%q", got)
	}
	if info, _ := os.Stat(filepath.Join(dir, "run_me")); info.Mode().Perm() != 0o555 {
		t.Error(info.Mode())
	}
}

// hostile are packages that no host may unpack, and what the refusal says.
func hostile(t testing.TB) map[string]struct {
	data []byte
	says string
} {
	type bad = struct {
		data []byte
		says string
	}
	file := func(name string) member { return member{name: name, mode: 0o644, body: "x"} }
	link := func(name, to string) member { return member{name: name, kind: tar.TypeSymlink, link: to} }
	out := map[string]bad{
		"upwards":              {makeTar(t, file("../evil")), "upwards"},
		"upwards later":        {makeTar(t, file("a/../../evil")), "upwards"},
		"upwards within":       {makeTar(t, file("a/../b")), "upwards"},
		"absolute":             {makeTar(t, file("/etc/evil")), "absolute"},
		"absolute link":        {makeTar(t, link("a", "/etc")), "relative links"},
		"link out":             {makeTar(t, link("a/b", "../../etc")), "out of the package"},
		"link out, hidden":     {makeTar(t, link("a/l", ".."), link("b", "a/l/../..")), "only stand at the beginning"},
		"through a link":       {makeTar(t, link("a", "b"), file("a/evil")), "something else"},
		"link swapped":         {makeTar(t, file("a"), link("a", "b")), "twice"},
		"file over link":       {makeTar(t, link("a", "b"), file("a")), "twice"},
		"dir over link":        {makeTar(t, link("a", "b"), member{name: "a/", kind: tar.TypeDir}), "something else"},
		"twice":                {makeTar(t, file("a"), file("./a")), "twice"},
		"hard link out":        {makeTar(t, member{name: "a", kind: tar.TypeLink, link: "../../etc/shadow"}), "upwards"},
		"hard link to nothing": {makeTar(t, member{name: "a", kind: tar.TypeLink, link: "b"}), "no file before it"},
		"hard link to link":    {makeTar(t, link("l", "x"), member{name: "a", kind: tar.TypeLink, link: "l"}), "no file before it"},
		"device":               {makeTar(t, member{name: "a", kind: tar.TypeBlock}), "neither file"},
		"fifo":                 {makeTar(t, member{name: "a", kind: tar.TypeFifo}), "neither file"},
		"deep":                 {makeTar(t, file(strings.Repeat("d/", 70)+"f")), "deep"},
		"long":                 {makeTar(t, file(strings.Repeat("d/", 600)+"f")), "longer than"},
		"long part":            {makeTar(t, file(strings.Repeat("n", 300))), "255"},
		"empty tar":            {gzipped(t, makeTar(t)), "no file"},
		"cut":                  {gzipped(t, makeTar(t, file("a")))[:60], "damaged"},
		"not a tar":            {gzipped(t, []byte("just text")), "damaged"},
		"xz":                   {[]byte("\xfd7zXZ\x00..."), "cannot be unpacked"},
		"zip upwards":          {makeZip(t, file("../evil")), "upwards"},
		"zip absolute":         {makeZip(t, file("/evil")), "absolute"},
		"zip link out":         {makeZip(t, link("a", "../etc")), "out of the package"},
		"zip through a link":   {makeZip(t, link("a", "b"), file("a/evil")), "something else"},
		"zip fifo":             {makeZip(t, member{name: "a", kind: tar.TypeFifo}), "neither file"},
		"zip twice":            {makeZip(t, file("a"), file("a")), "twice"},
		"zip empty":            {makeZip(t), "no file"},
		"bomb":                 {zstded(t, makeTar(t, member{name: "zeros", body: string(make([]byte, 68<<20))})), "times its size"},
		"many files":           {makeTar(t, manyFiles(51)...), "more than 50 files"},
	}
	// Checksums of headers that tar.Writer would not write are right.
	huge := makeTar(t, member{name: "a", body: "x"})
	copy(huge[124:136], "77777777777\x00")
	rechecksum(huge)
	out["claims to be huge"] = bad{huge, "damaged"}
	return out
}

func manyFiles(n int) (out []member) {
	for i := range n {
		out = append(out, member{name: fmt.Sprintf("f%d", i)})
	}
	return out
}

func rechecksum(h []byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, b := range h[:512] {
		sum += int(b)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

func TestHostilePackagesAreRefused(t *testing.T) {
	for name, c := range hostile(t) {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			s := openStore(t, filepath.Join(base, "store"), func(c *Config) {
				if name == "many files" {
					c.Limits.Files = 50
				}
			})
			d := put(t, s, c.data)
			_, err := s.Unpack(t.Context(), d, "plain")
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
			if _, ok := s.Tree(d, "plain"); ok || len(content(t, s.path(dirTrees)))+len(content(t, s.path(dirTemp))) > 0 {
				t.Error("something of it is there")
			}
			if list, _ := os.ReadDir(base); len(list) != 1 {
				t.Errorf("beside the store: %v", list)
			}
			if !s.Has(d) {
				t.Error("a package is blamed on the disk")
			}
		})
	}
}

// TestRottenPackage: a bit that flips on this host's own disk makes the package
// disappear, so that it is fetched again, and never becomes a tree.
func TestRottenPackage(t *testing.T) {
	for name, data := range map[string][]byte{
		"tar": makeTar(t, good...), "zip": makeZip(t, good...), "zst": zstded(t, makeTar(t, good...)), "plain": []byte("program"),
	} {
		s := newStore(t)
		d := put(t, s, data)
		path := s.path(dirPackages, d.hex())
		for _, at := range []int{len(data) / 2, len(data) - 1, 3} {
			rotten := bytes.Clone(data)
			rotten[at] ^= 1
			if err := os.WriteFile(path, rotten, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Unpack(t.Context(), d, "plain"); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s, bit in byte %d: %v", name, at, err)
			}
			if s.Has(d) || put(t, s, data) != d {
				t.Errorf("%s: still here", name)
			}
		}
		if _, err := s.Unpack(t.Context(), d, "plain"); err != nil {
			t.Errorf("%s, mended: %v", name, err)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	for _, c := range hostile(f) {
		if len(c.data) < 64<<10 {
			f.Add(c.data)
		}
	}
	plain := makeTar(f, good...)
	for _, seed := range [][]byte{plain, gzipped(f, plain), zstded(f, plain), makeZip(f, good...)} {
		f.Add(seed)
	}
	f.Add(binary.LittleEndian.AppendUint32([]byte("PK\x05\x06"), 0xffffffff))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return
		}
		base := t.TempDir()
		dir := filepath.Join(base, "store")
		t.Cleanup(func() { removeTree(dir) })
		s := openStore(t, dir, func(c *Config) { c.Limits = Limits{Bytes: 1 << 20, Files: 100} })
		s.noSync = true
		d := put(t, s, data)
		tree, err := s.Unpack(t.Context(), d, "plain")
		file, _ := s.Open(d)
		defer file.Close()
		checked := Check(t.Context(), file, "plain", s.cfg.Limits)
		if (err == nil) != (checked == nil) {
			t.Errorf("unpacked: %v, checked: %v", err, checked)
		}
		if err == nil {
			harmless(t, tree)
		} else if !errors.Is(err, ErrRefused) {
			t.Errorf("blamed on this host: %v", err)
		}
		if list, _ := os.ReadDir(base); len(list) != 1 {
			t.Errorf("beside the store: %v", list)
		}
	})
}
