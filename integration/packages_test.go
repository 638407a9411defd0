package integration

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/integration/rig"
	"github.com/ganglion-mesh/ganglion/workload/artifact"
)

// bulk writes size bytes that cannot be compressed.
func bulk(t testing.TB, w io.Writer, seed uint64, size int64) {
	t.Helper()
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	if _, err := io.CopyN(w, r, size); err != nil {
		t.Fatal(err)
	}
}

const runScript = "#!/bin/sh\nexec sleep 100000\n"

// packageDir makes a directory that is a package: a program and size bytes of
// load.
func packageDir(t testing.TB, dir string, seed uint64, size int64) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "run"), []byte(runScript), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "load"))
	if err != nil {
		t.Fatal(err)
	}
	bulk(t, f, seed, size)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// packageTarGz is the same as an archive.
func packageTarGz(t testing.TB, path string, seed uint64, size int64) string {
	t.Helper()
	var load bytes.Buffer
	bulk(t, &load, seed, size)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	w := tar.NewWriter(z)
	for name, body := range map[string][]byte{"run": []byte(runScript), "load": load.Bytes()} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(body))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []io.Closer{w, z, f} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// everywhere declares an app that runs a package on every host.
func everywhere(name, artifact string) string {
	return fmt.Sprintf("app %q {\n per_host = true\n run {\n command = [\"./run\"]\n artifact = %q\n }\n update {\n parallel = 10\n healthy_for = \"100ms\"\n deadline = \"5m\"\n }\n}\n", name, artifact)
}

// received is how many bytes have come to a host over its network.
func received(t testing.TB, h *rig.Host) (n int64) {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/net/dev", h.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if name, rest, _ := strings.Cut(strings.TrimSpace(sc.Text()), ":"); name == "eth0" {
			n, _ = strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		}
	}
	return n
}

func awaitReadyOn(t *testing.T, h *rig.Host, app string, n int) {
	t.Helper()
	rig.Await(t, 2*time.Minute, func() error {
		st, err := status(h, app)
		if err == nil && st.Ready != n {
			err = fmt.Errorf("%d of %d ready: %+v", st.Ready, n, st.Copies)
		}
		return err
	})
}

// TestPackages: what is pushed to one host comes to all, whole and no more than
// once, whatever happens to hosts, bits and disks on the way.
func TestPackages(t *testing.T) {
	r := rig.New(t, 4)
	full := r.Hosts[3]
	disk := filepath.Join(full.DataDir(), "artifacts")
	if err := os.MkdirAll(disk, 0o711); err != nil {
		t.Fatal(err)
	}
	mount(t, disk, "90m") // of which 64 MiB are left for others
	r.Start("--artifact-rate", "8MiB")
	t.Run("a full disk", func(t *testing.T) { fullDisk(t, r, full, disk) })
	t.Run("archive and directory", func(t *testing.T) { everyForm(t, r) })
	t.Run("killed while it fetches", func(t *testing.T) { killedFetch(t, r) })
	t.Run("a flipped bit", func(t *testing.T) { flippedBit(t, r) })
}

func mount(t *testing.T, dir, size string) {
	t.Helper()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("needs to mount: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() })
}

// everyForm applies an archive, a directory and a plain file, named relative to
// the file that declares them.
func everyForm(t *testing.T, r *rig.Rig) {
	h := r.Hosts[1]
	packageTarGz(t, filepath.Join(h.Dir, "one.tar.gz"), 1, 3<<20)
	packageDir(t, filepath.Join(h.Dir, "two"), 2, 3<<20)
	h.File("three", runScript)
	for _, name := range []string{"one.tar.gz", "two", "three"} {
		app, _, _ := strings.Cut(name, ".")
		command := "run"
		if name == "three" {
			command = "three"
		}
		text := strings.Replace(everywhere(app, "./"+name), "./run", "./"+command, 1)
		out := h.Must("apply", h.File(app+".hcl", text))
		if !strings.Contains(out, "sha256:") {
			t.Errorf("apply %s does not tell what it pushed: %s", name, out)
		}
		awaitReadyOn(t, r.Hosts[0], app, len(r.Hosts))
		if _, _, code := h.CLI("plan", filepath.Join(h.Dir, app+".hcl")); code != 0 {
			t.Errorf("plan %s once more: exit %d, nothing has changed", name, code)
		}
	}
	h.Must("delete", "two", "--yes")
	h.Must("delete", "three", "--yes")
}

// killedFetch kills an agent in the middle of a package, twice, and counts what
// comes to its host.
func killedFetch(t *testing.T, r *rig.Rig) {
	const size = 48 << 20
	const inFlight = 2 * 3 * 2 * artifact.ChunkSize // kills, hosts that send, chunks at once from each
	h := r.Hosts[2]
	digest := strings.TrimSpace(r.Hosts[0].Must("artifact", "push", packageDir(t, filepath.Join(r.Hosts[0].Dir, "big"), 3, size)))
	if _, err := os.Stat(packageOn(h, digest)); err == nil {
		r.Hosts[0].Must("artifact", "list") // it is one of its two holders: any other host will do
		h = otherThanHolders(t, r, digest)
	}
	before := received(t, h)
	r.Hosts[0].Must("apply", "--detach", r.Hosts[0].File("big.hcl", everywhere("big", digest)))
	part := filepath.Join(h.DataDir(), "artifacts", "parts", digest[len("sha256:"):])
	for _, share := range []int64{size / 2, size * 3 / 4} {
		rig.Await(t, time.Minute, func() error {
			if n := written(part); n < share {
				return fmt.Errorf("%d bytes are there", n)
			}
			return nil
		})
		h.Kill()
		h.StartAgent("--artifact-rate", "8MiB")
	}
	awaitReadyOn(t, r.Hosts[0], "big", len(r.Hosts))
	came := received(t, h) - before
	t.Logf("a package of %d bytes and two kills: %d bytes came", size, came)
	if came > size+inFlight+size/8 {
		t.Errorf("%d bytes came for a package of %d: what was there is fetched again", came, size)
	}
	r.Hosts[0].Must("delete", "big", "--yes")
}

func packageOn(h *rig.Host, digest string) string {
	return filepath.Join(h.DataDir(), "artifacts", "packages", digest[len("sha256:"):])
}

func otherThanHolders(t *testing.T, r *rig.Rig, digest string) *rig.Host {
	t.Helper()
	for _, h := range r.Hosts[1:3] {
		if _, err := os.Stat(packageOn(h, digest)); err != nil {
			return h
		}
	}
	t.Fatal("everybody has it")
	return nil
}

// written is how much of a sparse file is there.
func written(path string) int64 {
	out, err := exec.Command("stat", "-c", "%b", path).Output()
	if err != nil {
		return 0
	}
	blocks, _ := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	return blocks * 512
}

// flippedBit spoils the package on one of its holders before the others fetch it.
func flippedBit(t *testing.T, r *rig.Rig) {
	src := packageDir(t, filepath.Join(r.Hosts[0].Dir, "flip"), 4, 12<<20)
	digest := strings.TrimSpace(r.Hosts[0].Must("artifact", "push", src))
	var list []api.Artifact
	if err := r.Hosts[0].Get("/v1/artifacts", &list); err != nil {
		t.Fatal(err)
	}
	spoilt := ""
	for _, h := range r.Hosts[1:3] {
		f, err := os.OpenFile(packageOn(h, digest), os.O_RDWR, 0)
		if err != nil {
			continue
		}
		var b [1]byte
		f.ReadAt(b[:], 5<<20)
		b[0] ^= 1
		f.WriteAt(b[:], 5<<20)
		f.Close()
		spoilt = h.Name
		break
	}
	if spoilt == "" {
		t.Fatal("no holder besides the one that pushed")
	}
	r.Hosts[0].Must("apply", r.Hosts[0].File("flip.hcl", everywhere("flip", digest)))
	want, err := os.ReadFile(filepath.Join(src, "load"))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range r.Hosts {
		got, err := os.ReadFile(filepath.Join(h.DataDir(), "artifacts", "trees", digest[len("sha256:"):], "load"))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes that are not those pushed, %v", h.Name, len(got), err)
		}
	}
	r.Hosts[0].Must("delete", "flip", "--yes")
}

// fullDisk gives one host too little room: it says so, the others run, and it
// follows when there is room.
func fullDisk(t *testing.T, r *rig.Rig, h *rig.Host, disk string) {
	src := packageDir(t, filepath.Join(r.Hosts[0].Dir, "wide"), 5, 30<<20)
	r.Hosts[0].Must("apply", "--detach", r.Hosts[0].File("wide.hcl", everywhere("wide", src)))
	awaitReadyOn(t, r.Hosts[0], "wide", len(r.Hosts)-1)
	rig.Await(t, time.Minute, func() error {
		st, err := status(r.Hosts[0], "wide")
		for _, c := range st.Copies {
			if c.Host == h.Name && c.State == topology.CopyFetching && strings.Contains(c.Why, "no space") {
				return err
			}
		}
		return fmt.Errorf("%+v, %v", st.Copies, err)
	})
	if out, err := exec.Command("mount", "-o", "remount,size=1g", disk).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	awaitReadyOn(t, r.Hosts[0], "wide", len(r.Hosts))
}
