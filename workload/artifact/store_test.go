package artifact

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
)

func TestPutAndOpen(t *testing.T) {
	s := newStore(t)
	data := noise(1, 3*ChunkSize+17)
	d, err := s.Put(t.Context(), bytes.NewReader(data), PutOptions{Name: "../x/web 1.tar.gz"})
	if err != nil {
		t.Fatal(err)
	}
	if parsed, err := ParseDigest(string(d)); err != nil || parsed != d {
		t.Fatal(d, err)
	}
	for _, s := range []*Store{s, openStore(t, s.cfg.Dir)} { // also for the next agent
		f, err := s.Open(d)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(f)
		f.Close()
		c, err := s.Chunks(d)
		if !bytes.Equal(got, data) || err != nil || c.check(1<<30) != nil || len(c.Sums) != 4 {
			t.Errorf("%d bytes, chunks %v, %v", len(got), c, err)
		}
		want := Info{Digest: d, Name: "web_1.tar.gz", Size: int64(len(data))}
		got0 := s.List()[0]
		if got0.Used = 0; len(s.List()) != 1 || got0 != want || s.Size() != want.Size {
			t.Errorf("%+v", s.List())
		}
	}
	if _, err := s.Put(t.Context(), bytes.NewReader(data), PutOptions{Want: d}); err != nil || s.Name(d) != "web_1.tar.gz" {
		t.Errorf("again: %v, %s", err, s.Name(d))
	}
}

func TestPutRefuses(t *testing.T) {
	s := newStore(t, func(c *Config) { c.Limits.Package = 1000 })
	absent := Digest("sha256:" + string(bytes.Repeat([]byte("0"), 64)))
	cut, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		r    io.Reader
		opt  PutOptions
		want error
	}{
		"another digest": {t.Context(), bytes.NewReader([]byte("x")), PutOptions{Want: absent}, ErrCorrupt},
		"too large":      {t.Context(), bytes.NewReader(make([]byte, 1001)), PutOptions{}, ErrRefused},
		"empty":          {t.Context(), bytes.NewReader(nil), PutOptions{}, ErrRefused},
		"broken off":     {t.Context(), io.MultiReader(bytes.NewReader([]byte("x")), broken{}), PutOptions{}, io.ErrUnexpectedEOF},
		"cancelled":      {cut, bytes.NewReader([]byte("x")), PutOptions{}, context.Canceled},
	} {
		if _, err := s.Put(c.ctx, c.r, c.opt); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.cfg.Spare = 1 << 60
	var space *SpaceError
	if _, err := s.Put(t.Context(), bytes.NewReader([]byte("x")), PutOptions{}); !errors.As(err, &space) {
		t.Errorf("no room: %v", err)
	}
	if len(s.List()) != 0 || len(content(t, s.path(dirTemp)))+len(content(t, s.path(dirPackages))) != 0 {
		t.Error("something is left")
	}
	if _, err := s.Open(absent); !errors.Is(err, ErrAbsent) {
		t.Error(err)
	}
	if err := s.Remove(absent); !errors.Is(err, ErrAbsent) {
		t.Error(err)
	}
	for _, bad := range []string{"", "sha256:", "sha256:zz", string(absent[:70]), "sha256:" + string(bytes.Repeat([]byte("A"), 64)), string(absent) + "/"} {
		if _, err := ParseDigest(bad); err == nil {
			t.Errorf("%q is taken for a digest", bad)
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestCollect: what is pinned stays however much it is; of the rest what was used
// longest ago goes first, and only as much as must.
func TestCollect(t *testing.T) {
	s := newStore(t)
	var d []Digest
	for i := range 6 {
		d = append(d, put(t, s, noise(uint64(i), 1000)))
	}
	if _, err := s.Unpack(t.Context(), d[1], "p"); err != nil { // 1000 more, and used
		t.Fatal(err)
	}
	if _, err := s.Collect(Keep{Bound: 7000}); err != nil || len(s.List()) != 6 {
		t.Fatalf("within the bound: %v, %v", err, s.List())
	}
	keep := Keep{Pinned: map[Digest]bool{d[0]: true}, Fresh: map[Digest]bool{d[2]: true}, Bound: 4500}
	gone, err := s.Collect(keep)
	if err != nil || len(gone) != 3 || gone[0].Digest != d[3] || gone[1].Digest != d[4] || gone[2].Digest != d[5] {
		t.Fatalf("gone: %v, %v", gone, err)
	}
	s = openStore(t, s.cfg.Dir) // the order of use outlives the agent
	s.use(d[2])
	put(t, s, noise(9, 1000))
	keep = Keep{Pinned: map[Digest]bool{d[0]: true}, Bound: 3000}
	if gone, err = s.Collect(keep); err != nil || len(gone) != 1 || gone[0].Digest != d[1] {
		t.Fatalf("gone: %v, %v", gone, err)
	}
	if _, err := s.Collect(Keep{Pinned: map[Digest]bool{d[0]: true, d[2]: true}, Bound: 0}); err != nil {
		t.Fatal(err)
	}
	if list := s.List(); len(list) != 2 || !s.Has(d[0]) || !s.Has(d[2]) {
		t.Errorf("left: %v", list)
	}
	if got := content(t, s.path(dirTrees)); len(got) != 0 {
		t.Errorf("trees: %v", got)
	}
}

func TestWhatRunsIsNotRemoved(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("needs sleep")
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	d := put(t, s, makeTar(t, member{name: "sleep", mode: 0o755, body: string(program)}))
	dir, err := s.Unpack(t.Context(), d, "")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, "sleep"), "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var use *InUseError
	gone, err := s.Collect(Keep{Bound: 0})
	if err != nil || len(gone) != 0 {
		t.Errorf("collected %v, %v", gone, err)
	}
	if err := s.Remove(d); !errors.As(err, &use) || use.Pid != cmd.Process.Pid {
		t.Errorf("remove: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if err := s.Remove(d); err != nil || len(s.List()) != 0 {
		t.Errorf("once ended: %v", err)
	}
}

// TestKilledAtAnyTime: a process that puts, unpacks and removes is killed over
// and over; whatever the next one sees is whole.
func TestKilledAtAnyTime(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "store")
	t.Cleanup(func() { removeTree(dir) })
	want := map[Digest][]byte{}
	scratch := newStore(t)
	for i := range 5 {
		want[put(t, scratch, churned(i))] = churned(i)
	}
	seen := 0
	for round := range 15 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "ARTIFACT_TEST_CHURN="+dir)
		var out bytes.Buffer
		cmd.Stderr = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+13*round) * time.Millisecond) // any moment will do
		cmd.Process.Kill()
		cmd.Wait()
		if out.Len() > 0 {
			t.Fatalf("%s", out.Bytes())
		}
		s := openStore(t, dir)
		for _, info := range s.List() {
			seen++
			checkWhole(t, s, info, want)
		}
		files, err := os.ReadDir(s.path(dirTemp))
		if err != nil || len(files) > 0 {
			t.Errorf("left over: %v, %v", files, err)
		}
	}
	if seen == 0 {
		t.Error("no package was ever seen: the killer was too fast")
	}
}

func checkWhole(t *testing.T, s *Store, info Info, want map[Digest][]byte) {
	t.Helper()
	data := want[info.Digest]
	if s.Has(info.Digest) {
		f, err := s.Open(info.Digest)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if got, _ := io.ReadAll(f); !bytes.Equal(got, data) || info.Name != "churn" {
			t.Errorf("half a package: %d bytes, %+v", len(got), info)
		}
	}
	if dir, ok := s.Tree(info.Digest, "plain"); ok {
		got, err := os.ReadFile(filepath.Join(dir, "plain"))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("half a tree: %d bytes, %v", len(got), err)
		}
	}
}

func TestModesOfTheStore(t *testing.T) {
	s := newStore(t)
	put(t, s, []byte("x"))
	got := map[string]fs.FileMode{}
	for _, name := range []string{"", dirPackages, dirParts, dirTemp, dirTrees} {
		info, err := os.Stat(s.path(name))
		if err != nil {
			t.Fatal(err)
		}
		got[name] = info.Mode().Perm()
	}
	for name, mode := range got {
		want := fs.FileMode(0o700)
		if slices.Contains([]string{"", dirTrees}, name) {
			want = 0o711
		}
		if mode != want {
			t.Errorf("%q: %v, want %v", name, mode, want)
		}
	}
}
