package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/workload/artifact"
)

// site makes a declaration with a local package beside it.
func site(t *testing.T) (dir, digest string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range map[string]string{
		"web":     "#!/bin/sh\n",
		"web.hcl": "app \"web\" {\n run {\n command = [\"./web\"]\n artifact = \"./web\"\n }\n}\napp \"two\" {\n run {\n command = [\"./web\"]\n artifact = \"web\"\n }\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l, err := artifact.Prepare(t.Context(), filepath.Join(dir, "web"))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return dir, string(l.Digest)
}

// TestApplyPushesFirst: what is declared names the package by digest, and is
// declared only once enough hosts have it.
func TestApplyPushesFirst(t *testing.T) {
	dir, digest := site(t)
	for _, path := range []string{dir, filepath.Join(dir, "web.hcl")} {
		f := newFakeAgent(t)
		f.mux.HandleFunc("HEAD /v1/artifacts/{digest}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
		f.answer("PUT /v1/artifacts/{digest}", api.ArtifactSpread{})
		f.answer("POST /v1/artifacts/{digest}/spread", api.ArtifactSpread{Digest: digest, Hosts: []string{"h1", "h2"}})
		f.answer("POST /v1/apply", api.ApplyResponse{})
		r := f.run("apply", "--detach", path)
		if r.code != 0 || !strings.Contains(r.out, digest) || !strings.Contains(r.out, "on h1, h2") {
			t.Fatalf("%+v", r)
		}
		put, _ := f.request("/v1/artifacts/" + digest)
		if put.Method != http.MethodPut || put.URL.Query().Get("name") != "web" {
			t.Errorf("%s %s", put.Method, put.URL)
		}
		if n := f.count("/v1/artifacts/" + digest + "/spread"); n != 1 {
			t.Errorf("spread %d times", n)
		}
		_, body := f.request("/v1/apply")
		var req api.ApplyRequest
		if err := json.Unmarshal(body, &req); err != nil {
			t.Fatal(err)
		}
		for _, app := range req.Intents.Apps {
			if app.Run.Artifact != digest {
				t.Errorf("%s: %q", app.Name, app.Run.Artifact)
			}
		}
	}
}

func TestApplyCommitsNothingThatNobodyHas(t *testing.T) {
	dir, digest := site(t)
	f := newFakeAgent(t)
	f.mux.HandleFunc("HEAD /v1/artifacts/{digest}", func(http.ResponseWriter, *http.Request) {})
	f.answer("POST /v1/artifacts/{digest}/spread", api.Errorf(api.CodeRejected, "spread package: only 1 has it"))
	r := f.run("apply", dir)
	if r.code != 1 || !strings.Contains(r.errs, "only 1 has it") || f.count("/v1/apply") != 0 {
		t.Errorf("%+v", r)
	}
	os.Remove(filepath.Join(dir, "web"))
	if r := f.run("apply", dir); r.code != 2 || !strings.Contains(r.firstLine(), "app.web.run.artifact") || !strings.Contains(r.firstLine(), filepath.Join(dir, "web")) {
		t.Errorf("absent: %+v", r)
	}
	if f.count("/v1/artifacts/"+digest+"/spread") != 1 {
		t.Error("asked again")
	}
}

func TestPlanPushesNothing(t *testing.T) {
	dir, digest := site(t)
	f := newFakeAgent(t)
	f.answer("POST /v1/plan", topology.Preview{})
	if r := f.run("plan", dir); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	if _, body := f.request("/v1/plan"); !strings.Contains(string(body), digest) || f.count("/v1/artifacts/"+digest) != 0 {
		t.Errorf("%s", body)
	}
}

func TestArtifactCommands(t *testing.T) {
	dir, digest := site(t)
	f := newFakeAgent(t)
	f.mux.HandleFunc("HEAD /v1/artifacts/{digest}", func(http.ResponseWriter, *http.Request) {})
	f.answer("POST /v1/artifacts/{digest}/spread", api.ArtifactSpread{Digest: digest, Hosts: []string{"h1"}})
	f.answer("GET /v1/artifacts", []api.Artifact{{Digest: digest, Name: "web", Size: 2048, Hosts: []string{"h1", "h2"}, Apps: []string{"web"}}})
	f.answer("DELETE /v1/artifacts/{digest}", api.ArtifactSpread{})
	if r := f.run("artifact", "push", filepath.Join(dir, "web")); r.code != 0 || r.out != digest+"\n" {
		t.Errorf("%+v", r)
	}
	want(t, "list", f.run("artifact", "list").out, "DIGEST               NAME  SIZE     HOSTS  SIGNED BY  APPS\n"+digest[:19]+"  web   2.0 KiB  2      -          web\n")
	if r := f.run("artifact", "list", "-o", "json"); !strings.Contains(r.out, `"apps": [`) || !strings.Contains(r.out, digest) {
		t.Errorf("%+v", r)
	}
	if r := f.run("artifact", "remove", digest); r.code != 2 {
		t.Errorf("without asking: %+v", r)
	}
	if r := f.run("artifact", "remove", digest[:20], "--yes"); r.code != 0 {
		t.Errorf("%+v", r)
	}
	if del, _ := f.request("/v1/artifacts/" + digest); del.Method != http.MethodDelete {
		t.Errorf("%s", del.Method)
	}
	for _, bad := range []string{"sha256:ffffffffffff", "web", "sha256:12"} {
		if r := f.run("artifact", "remove", bad, "--yes"); r.code == 0 {
			t.Errorf("%s: %+v", bad, r)
		}
	}
}
