package agent

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/workload/artifact"
)

// makePackage packs files as apply does.
func makePackage(t *testing.T, files map[string]string) ([]byte, string) {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l, err := artifact.Prepare(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r, _ := l.Reader()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b, string(l.Digest)
}

func (h *host) push(t *testing.T, data []byte, digest string) api.ArtifactSpread {
	t.Helper()
	if err := h.PutArtifact(t.Context(), digest, "web.tar.zst", bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
	var out api.ArtifactSpread
	if err := h.Post(t.Context(), "/v1/artifacts/"+digest+"/spread", nil, struct{}{}, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func packaged(name string, count int, digest string) intent.App {
	app := sleeper(name, count)
	app.Run.Command, app.Run.Artifact = []string{"./run"}, digest
	return app
}

// TestPackagesOfAMesh: what is pushed to one host runs on all, is kept as long
// as an app names it, and goes when it is removed.
func TestPackagesOfAMesh(t *testing.T) {
	hosts := startMesh(t, 3)
	awaitVoters(t, hosts[0], 3)
	script := "#!/bin/sh\nwhile :; do sleep 1; done\n"
	data, digest := makePackage(t, map[string]string{"run": script, "conf": "x"})
	if has, err := hosts[1].HasArtifact(t.Context(), digest); has || err != nil {
		t.Fatalf("before the push: %v, %v", has, err)
	}
	spread := hosts[1].push(t, data, digest)
	if len(spread.Hosts) != 2 {
		t.Errorf("spread to %v", spread.Hosts)
	}
	hosts[2].apply(t, packaged("web", 3, digest))
	st := hosts[0].awaitReady(t, "web", 3)
	for _, c := range st.Copies {
		exe, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", c.Pid))
		if err != nil || !strings.Contains(string(exe), "/artifacts/trees/"+digest[7:]+"/run") {
			t.Errorf("%s runs %q, %v", c.ID, exe, err)
		}
	}
	var list []api.Artifact
	if err := hosts[0].Get(t.Context(), "/v1/artifacts", nil, &list); err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	if a := list[0]; len(a.Hosts) != 3 || !slices.Equal(a.Apps, []string{"web"}) || a.Name != "web.tar.zst" || a.Size != int64(len(data)) {
		t.Errorf("%+v", a)
	}
	if err := hosts[2].Delete(t.Context(), "/v1/artifacts/"+digest, nil); api.CodeOf(err) != api.CodeRejected {
		t.Errorf("remove what an app names: %v", err)
	}
	if err := hosts[2].Delete(t.Context(), "/v1/apps/web", nil); err != nil {
		t.Fatal(err)
	}
	await(t, 30*time.Second, "it can be removed", func() error {
		return hosts[2].Delete(t.Context(), "/v1/artifacts/"+digest, nil)
	})
	if has, err := hosts[1].HasArtifact(t.Context(), digest); has || err != nil {
		t.Errorf("after the removal: %v, %v", has, err)
	}
}

// TestPackagesOfOneHost starts one agent for both.
func TestPackagesOfOneHost(t *testing.T) {
	h := startMesh(t, 1)[0]
	t.Run("requests", func(t *testing.T) { artifactRequests(t, h) })
	t.Run("a new version waits", func(t *testing.T) { newVersionWaits(t, h) })
}

// newVersionWaits: a version whose package nobody has stops
// nothing, says why, and comes when somebody has it.
func newVersionWaits(t *testing.T, h *host) {
	one, first := makePackage(t, map[string]string{"run": "#!/bin/sh\nexec sleep 100000\n"})
	two, second := makePackage(t, map[string]string{"run": "#!/bin/sh\nexec sleep 200000\n"})
	h.push(t, one, first)
	h.apply(t, packaged("web", 1, first))
	before := h.awaitReady(t, "web", 1).Copies[0]
	h.apply(t, packaged("web", 1, second))
	var st topology.AppStatus
	look := func() topology.CopyStatus {
		if err := h.Get(t.Context(), "/v1/status?app=web", nil, &st); err != nil || len(st.Copies) != 1 {
			t.Fatalf("%+v, %v", st, err)
		}
		return st.Copies[0]
	}
	await(t, 20*time.Second, "it is told why", func() error {
		if c := look(); !strings.Contains(c.Why, "at any of 0 hosts") || c.Pid != before.Pid || !c.Ready {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	h.push(t, two, second)
	await(t, 40*time.Second, "the new version runs", func() error {
		if c := look(); c.Version == before.Version || !c.Ready || c.Pid == before.Pid {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
}

func artifactRequests(t *testing.T, h *host) {
	data := []byte(strings.Repeat("package ", 1000))
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(data))
	other := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("other")))
	if err := h.PutArtifact(t.Context(), other, "x", bytes.NewReader(data), int64(len(data))); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("another digest: %v", err)
	}
	for _, path := range []string{"/v1/artifacts/" + digest, "/v1/local/artifacts/" + digest} {
		if err := h.Get(t.Context(), path, nil, nil); api.CodeOf(err) != api.CodeNotFound {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := h.Post(t.Context(), "/v1/artifacts/"+other+"/spread", nil, struct{}{}, nil); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("spread of what nobody has: %v", err)
	}
	for range 2 {
		if s := h.push(t, data, digest); !slices.Equal(s.Hosts, []string{"h1"}) {
			t.Errorf("spread in a mesh of one: %v", s)
		}
	}
	r, err := h.ReadArtifact(t.Context(), digest, "bytes=8-15")
	if err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(r)
	r.Close()
	if string(got) != "package " {
		t.Errorf("range: %q", got)
	}
	err = h.Post(t.Context(), "/v1/apply", nil, api.ApplyRequest{Intents: intent.Intents{Apps: []intent.App{packaged("web", 1, "./web")}}}, nil)
	if api.CodeOf(err) != api.CodeInvalid || !strings.Contains(err.Error(), "ganglion artifact push") {
		t.Errorf("a path on the wire: %v", err)
	}
	if err := h.Post(t.Context(), "/v1/local/artifacts/"+digest+"/fetch", nil, struct{}{}, nil); api.CodeOf(err) != api.CodeDenied {
		t.Errorf("fetch asked for by no agent: %v", err)
	}
	if err := h.Delete(t.Context(), "/v1/artifacts/"+digest, nil); err != nil {
		t.Error(err)
	}
}
