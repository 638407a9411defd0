package integration

import (
	"archive/tar"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// BenchmarkPackages measures from the start of apply until ten packages of 200 MB
// run on five hosts, beside one host's cp of the ten, flushed, and five plain HTTP
// downloads of them at once. GANGLION_BENCH_PACKAGE_MB makes them smaller.
func BenchmarkPackages(b *testing.B) {
	const count, hosts = 10, 5
	mb := 200
	if s := os.Getenv("GANGLION_BENCH_PACKAGE_MB"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			b.Fatalf("GANGLION_BENCH_PACKAGE_MB %q: want a number", s)
		}
		mb = n
	}
	size := int64(mb) * 1e6
	dir := b.TempDir()
	var files []string
	for i := range count {
		files = append(files, packageTar(b, filepath.Join(dir, fmt.Sprintf("p%d.tar", i)), uint64(i), size))
	}
	r := rig.New(b, hosts)
	r.Start()
	awaitAllVoters(b, r)
	var text strings.Builder
	for i, f := range files {
		text.WriteString(everywhere(fmt.Sprintf("p%d", i), f))
	}
	intents := r.Hosts[0].File("packages.hcl", text.String())
	for b.Loop() {
		before := int64(0)
		for _, h := range r.Hosts {
			before += received(b, h)
		}
		begun := time.Now()
		r.Hosts[0].Must("apply", "--timeout", "20m", intents)
		applied := time.Since(begun)
		came := -before
		for _, h := range r.Hosts {
			came += received(b, h)
		}
		cp := copyOnce(b, files)
		plain := plainHTTP(b, dir, files, hosts)
		total := float64(count) * float64(size)
		b.ReportMetric(applied.Seconds(), "apply-s")
		b.ReportMetric(float64(came)/total, "bytes/packages") // 4 of 5 hosts is the least
		b.ReportMetric(cp.Seconds(), "cp-s")
		b.ReportMetric(plain.Seconds(), "http-s")
		b.ReportMetric(applied.Seconds()/plain.Seconds(), "apply/http")
	}
	b.ReportMetric(0, "ns/op")
}

// packageTar makes an archive that is pushed as it is.
func packageTar(b *testing.B, path string, seed uint64, size int64) string {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	w.WriteHeader(&tar.Header{Name: "run", Mode: 0o755, Size: int64(len(runScript))})
	io.WriteString(w, runScript)
	w.WriteHeader(&tar.Header{Name: "load", Mode: 0o644, Size: size})
	bulk(b, w, seed, size)
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return path
}

// copyOnce is what one host needs to copy all files to its own disk.
func copyOnce(b *testing.B, files []string) time.Duration {
	b.Helper()
	to := b.TempDir()
	begun := time.Now()
	if out, err := exec.Command("cp", append(files, to)...).CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for _, f := range files {
		flush(b, filepath.Join(to, filepath.Base(f)))
	}
	took := time.Since(begun)
	os.RemoveAll(to)
	return took
}

func flush(b *testing.B, path string) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		b.Error(err)
		return
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		b.Error(err)
	}
}

// plainHTTP is what hosts at once need to download all files over loopback, with
// no encryption, no check and no unpacking.
func plainHTTP(b *testing.B, dir string, files []string, hosts int) time.Duration {
	b.Helper()
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer srv.Close()
	to := b.TempDir()
	begun := time.Now()
	var all sync.WaitGroup
	for h := range hosts {
		all.Go(func() {
			for _, f := range files {
				path := filepath.Join(to, fmt.Sprintf("%d-%s", h, filepath.Base(f)))
				if err := download(srv.URL+"/"+filepath.Base(f), path); err != nil {
					b.Error(err)
				}
				flush(b, path)
			}
		})
	}
	all.Wait()
	took := time.Since(begun)
	os.RemoveAll(to)
	return took
}

func download(url, path string) error {
	resp, err := http.Get(url) //nolint:gosec // of our own server
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, resp.Body)
	return err
}
