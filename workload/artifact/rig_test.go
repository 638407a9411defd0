package artifact

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("ARTIFACT_TEST_CHURN"); dir != "" {
		churn(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func openStore(t testing.TB, dir string, edit ...func(*Config)) *Store {
	t.Helper()
	cfg := Config{Dir: dir, Spare: 1}
	for _, f := range edit {
		f(&cfg)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newStore opens a store below a directory that is removed although its trees
// are read-only.
func newStore(t testing.TB, edit ...func(*Config)) *Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "artifacts")
	t.Cleanup(func() { removeTree(dir) })
	return openStore(t, dir, edit...)
}

func put(t testing.TB, s *Store, data []byte) Digest {
	t.Helper()
	d, err := s.Put(t.Context(), bytes.NewReader(data), PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// noise is content that cannot be compressed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(b)
	return b
}

// member is an entry of an archive under test.
type member struct {
	name, link string
	kind       byte // of tar
	mode       int64
	body       string
}

func makeTar(t testing.TB, members ...member) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Linkname: m.link, Typeflag: m.kind, Mode: m.mode, Size: int64(len(m.body))}
		if m.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(b)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zstded(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(b, nil)
}

func makeZip(t testing.TB, members ...member) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, m := range members {
		h := &zip.FileHeader{Name: m.name, Method: zip.Deflate}
		mode := fs.FileMode(m.mode)
		body := m.body
		switch m.kind {
		case tar.TypeSymlink:
			mode, body = fs.ModeSymlink|0o777, m.link
		case tar.TypeFifo:
			mode = fs.ModeNamedPipe
		}
		h.SetMode(mode)
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(f, body)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// content reads a tree: what is in its files, where its links lead.
func content(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		switch {
		case d.IsDir():
			out[name+"/"] = ""
		case d.Type() == fs.ModeSymlink:
			to, err := os.Readlink(path)
			out[name] = "-> " + to
			return err
		default:
			b, err := os.ReadFile(path)
			out[name] = string(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// harmless fails the test if a tree has anything that a package may not have.
func harmless(t testing.TB, dir string) {
	t.Helper()
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			t.Fatal(err)
		}
		info, err := d.Info()
		if err != nil {
			t.Fatal(err)
		}
		switch info.Mode().Type() {
		case 0, fs.ModeDir:
			if info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky|0o222) != 0 {
				t.Errorf("%s: mode %v", path, info.Mode())
			}
		case fs.ModeSymlink:
			if to, err := filepath.EvalSymlinks(path); err == nil && !inside(real, to) {
				t.Errorf("%s leads out, to %s", path, to)
			}
		default:
			t.Errorf("%s: a %v", path, info.Mode().Type())
		}
		return nil
	})
}

// churn puts, unpacks and removes packages until it is killed.
func churn(dir string) {
	s, err := Open(Config{Dir: dir, Spare: 1})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	for i := 0; ; i++ {
		d, err := s.Put(ctx, bytes.NewReader(churned(i)), PutOptions{Name: "churn"})
		if err == nil {
			_, err = s.Unpack(ctx, d, "plain")
		}
		if err == nil && i%3 == 2 {
			err = s.Remove(d)
		}
		if err != nil {
			panic(err)
		}
	}
}

func churned(i int) []byte { return noise(uint64(i%5), 300<<10) }
