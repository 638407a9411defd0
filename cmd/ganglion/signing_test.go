package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/workload/artifact"
)

// signer makes a key, and signs as minisign does.
func signer(t *testing.T) (public string, sign func(string) string) {
	t.Helper()
	pub, secret, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return pub.String(), func(text string) string {
		r := minisign.NewReader(strings.NewReader(text))
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
		return string(r.Sign(secret))
	}
}

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// signingAgent trusts one key and has every package.
func signingAgent(t *testing.T, public string, required bool) *fakeAgent {
	f := newFakeAgent(t)
	f.mux.HandleFunc("HEAD /v1/artifacts/{digest}", func(http.ResponseWriter, *http.Request) {})
	f.mux.HandleFunc("POST /v1/artifacts/{digest}/spread", func(w http.ResponseWriter, r *http.Request) {
		api.WriteJSON(w, http.StatusOK, api.ArtifactSpread{Digest: r.PathValue("digest"), Hosts: []string{"h1"}})
	})
	f.answer("GET /v1/signing", api.Signing{Required: required, Keys: []api.SigningKey{{Name: "release", Kind: "minisign", ID: "1234", Key: public}}})
	f.answer("POST /v1/apply", api.ApplyResponse{})
	return f
}

func (f *fakeAgent) brought(digest string) (api.SignatureRequest, int) {
	f.t.Helper()
	path := "/v1/artifacts/" + digest + "/signatures"
	n := f.count(path)
	var req api.SignatureRequest
	if n > 0 {
		_, body := f.request(path)
		if err := json.Unmarshal(body, &req); err != nil {
			f.t.Error(err)
		}
	}
	return req, n
}

// posted is the body of the last POST to a path.
func (f *fakeAgent) posted(path string) (body string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, r := range f.seen {
		if r.Method == http.MethodPost && r.URL.Path == path {
			body = string(f.body[i])
		}
	}
	return body
}

// TestSignaturesBesideArePickedUp: also the leader's wait for the package is
// waited out.
func TestSignaturesBesideArePickedUp(t *testing.T) {
	dir, digest := site(t)
	public, sign := signer(t)
	text := sign(digest + "\n")
	writeFile(t, filepath.Join(dir, "web.minisig"), text)
	for _, args := range [][]string{{"apply", "--detach", dir}, {"artifact", "push", filepath.Join(dir, "web")}} {
		f := signingAgent(t, public, false)
		f.answers("POST /v1/artifacts/{digest}/signatures", api.SignatureResponse{Waiting: "fetching"}, api.SignatureResponse{Digest: digest, SignedBy: []string{"release"}})
		r := f.run(args...)
		if req, n := f.brought(digest); r.code != 0 || n != 2 || req.Signature != text || r.errs != "" {
			t.Errorf("%v: %+v, %d times %+v", args, r, n, req)
		}
	}
}

// TestBadSignatureBeside is told; what follows is for the mesh to decide.
func TestBadSignatureBeside(t *testing.T) {
	dir, digest := site(t)
	public, sign := signer(t)
	writeFile(t, filepath.Join(dir, "web.minisig"), sign("other"))
	writeFile(t, filepath.Join(dir, "web.sig"), "-----BEGIN PGP SIGNATURE-----\n")
	f := signingAgent(t, public, true)
	f.answer("POST /v1/artifacts/{digest}/signatures", api.Errorf(api.CodeInvalid, "it is of something else"))
	r := f.run("apply", "--detach", dir)
	if _, n := f.brought(digest); r.code != 0 || n != 1 || !strings.Contains(r.errs, "web.minisig is not taken: it is of something else") || !strings.Contains(r.errs, "web.sig is not taken") {
		t.Errorf("%d, %+v", n, r)
	}
	for _, code := range []api.Code{api.CodeNoLeader, api.CodeUnknown} {
		f := signingAgent(t, public, true)
		f.answer("POST /v1/artifacts/{digest}/signatures", api.Errorf(code, "no leader"))
		if r := f.run("apply", "--detach", dir); r.code == 0 || f.count("/v1/apply") != 0 {
			t.Errorf("%s: %+v", code, r)
		}
	}
	f = newFakeAgent(t)
	f.mux.HandleFunc("HEAD /v1/artifacts/{digest}", func(http.ResponseWriter, *http.Request) {})
	f.answer("POST /v1/artifacts/{digest}/spread", api.ArtifactSpread{Digest: digest, Hosts: []string{"h1"}})
	f.answer("GET /v1/signing", api.Signing{})
	f.answer("POST /v1/apply", api.ApplyResponse{})
	if r := f.run("apply", "--detach", dir); r.code != 0 || r.errs != "" {
		t.Errorf("where no key is trusted: %+v", r)
	}
}

// TestSignaturesThatWereNamed must be good.
func TestSignaturesThatWereNamed(t *testing.T) {
	dir, digest := site(t)
	public, sign := signer(t)
	good := writeFile(t, filepath.Join(dir, "a.minisig"), sign(digest))
	f := signingAgent(t, public, false)
	f.answer("POST /v1/artifacts/{digest}/signatures", api.SignatureResponse{Digest: digest, SignedBy: []string{"release"}})
	f.answer("GET /v1/artifacts", []api.Artifact{{Digest: digest, Name: "web", Hosts: []string{"h1"}, SignedBy: []string{"release"}}})
	if r := f.run("artifact", "push", filepath.Join(dir, "web"), "--signature", good, "-o", "json"); r.code != 0 || !strings.Contains(r.out, `"release"`) {
		t.Errorf("%+v", r)
	}
	if r := f.run("artifact", "sign", digest[:20], "--signature", good); r.code != 0 || r.out != digest[:19]+": signed by release\n" {
		t.Errorf("%+v", r)
	}
	if r := f.run("artifact", "list"); !strings.Contains(r.out, "release") {
		t.Errorf("%+v", r)
	}
	for name, file := range map[string]string{"absent": filepath.Join(dir, "none"), "garbled": writeFile(t, filepath.Join(dir, "bad"), "x"), "huge": writeFile(t, filepath.Join(dir, "huge"), strings.Repeat("x", 1<<20))} {
		for _, args := range [][]string{{"artifact", "push", filepath.Join(dir, "web")}, {"artifact", "sign", digest}} {
			if r := f.run(append(args, "--signature", file)...); r.code != 2 || !strings.Contains(r.firstLine(), "signature") {
				t.Errorf("%s: %+v", name, r)
			}
		}
	}
	if r := f.run("artifact", "sign", digest); r.code != 2 || !strings.Contains(r.firstLine(), "--signature") {
		t.Errorf("%+v", r)
	}
	f = signingAgent(t, public, false)
	f.answer("POST /v1/artifacts/{digest}/signatures", api.Errorf(api.CodeRejected, "sign package: not trusted"))
	if r := f.run("artifact", "push", filepath.Join(dir, "web"), "--signature", good); r.code != 1 || r.out != "" {
		t.Errorf("%+v", r)
	}
}

func TestPolicyCommands(t *testing.T) {
	public, _ := signer(t)
	f := signingAgent(t, public, true)
	f.answer("POST /v1/signing", nil)
	f.answer("POST /v1/signing/keys", api.SigningKey{Name: "release", Kind: "minisign", ID: "1234", Key: public})
	f.answer("DELETE /v1/signing/keys/{name}", api.DistrustResponse{Apps: []string{"web"}})
	want(t, "policy", f.run("artifact", "policy").out, "Packages must be signed by one of these keys.\nNAME     KIND      ID\nrelease  minisign  1234\n")
	if r := f.run("artifact", "policy", "optional"); r.code != 0 {
		t.Errorf("%+v", r)
	}
	if body := f.posted("/v1/signing"); body != `{"required":false}` {
		t.Errorf("policy optional sends %s", body)
	}
	if r := f.run("artifact", "policy", "-o", "json"); !strings.Contains(r.out, `"required": true`) {
		t.Errorf("%+v", r)
	}
	file := writeFile(t, filepath.Join(t.TempDir(), "minisign.pub"), "untrusted comment: minisign public key 1\n"+public+"\n")
	for _, args := range [][]string{{public}, {file}, {"ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIAHFwYJX70mZsDuznDYOS2OubmKnHokez3lmZVCO4wPe", "a@b"}} {
		if r := f.run(append([]string{"artifact", "trust", "release"}, args...)...); r.code != 0 || r.out != "release: minisign key 1234 is trusted\n" {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if r := f.run("artifact", "distrust", "release"); r.code != 0 || !strings.Contains(r.out, "web: they run on") {
		t.Errorf("%+v", r)
	}
	for _, bad := range [][]string{
		{"policy", "maybe"}, {"trust", "release"}, {"trust", "A/b", public}, {"trust", "release", "x"}, {"trust", "release", filepath.Join(t.TempDir(), "none.pub")},
		{"distrust", "../x"}, {"distrust"}, {"nosuch"}, {"trust", "release", writeFile(t, filepath.Join(t.TempDir(), "k"), "untrusted comment: minisign encrypted secret key\nRWRTY0Iy\n")},
	} {
		if r := f.run(append([]string{"artifact"}, bad...)...); r.code != 2 {
			t.Errorf("%v: %+v", bad, r)
		}
	}
}

// TestSignaturesAtAnAddress are read only where the mesh asks for signatures, and
// by https alone.
func TestSignaturesAtAnAddress(t *testing.T) {
	public, sign := signer(t)
	digest := "sha256:" + strings.Repeat("a", 64)
	text := sign(digest)
	asked := []string{}
	origin := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.String())
		switch r.URL.Path {
		case "/x.tar.gz.minisig":
			io.WriteString(w, text)
		case "/plain.minisig":
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	defer origin.Close()
	client := origin.Client()
	client.CheckRedirect = httpsOnly().CheckRedirect
	for _, required := range []bool{false, true} {
		f := signingAgent(t, public, required)
		f.answer("POST /v1/artifacts/{digest}/signatures", api.SignatureResponse{Digest: digest, SignedBy: []string{"release"}})
		var errs strings.Builder
		b := &baggage{cli: &cli{out: io.Discard, errs: &errs}, far: map[string]string{digest: origin.URL + "/x.tar.gz?v=1"}, origin: client}
		agent, err := api.Dial(f.addr, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.push(t.Context(), agent, false); err != nil {
			t.Fatal(err)
		}
		agent.CloseIdle()
		req, n := f.brought(digest)
		if required && (n != 1 || req.Signature != text || req.URL != origin.URL+"/x.tar.gz?v=1" || asked[0] != "/x.tar.gz.minisig?v=1" || errs.Len() > 0) || !required && (n != 0 || len(asked) != 0) {
			t.Errorf("required %v: %d times %+v, asked %v, %s", required, n, req, asked, &errs)
		}
	}
	if _, err := fetchSignature(t.Context(), client, origin.URL+"/plain", ".minisig"); err == nil || !strings.Contains(err.Error(), "https") {
		t.Errorf("sent on to http: %v", err)
	}
	if _, err := fetchSignature(t.Context(), client, "http://example.org/x", ".sig"); err == nil {
		t.Error("read by http")
	}
}

// TestApplyNamesAddresses: what is applied by address is looked for there.
func TestApplyNamesAddresses(t *testing.T) {
	public, _ := signer(t)
	f := signingAgent(t, public, false)
	digest := "sha256:" + strings.Repeat("a", 64)
	path := writeFile(t, filepath.Join(t.TempDir(), "app.hcl"), "app \"far\" {\n run {\n command = [\"./x\"]\n artifact = \"https://example.org/x\"\n digest = \""+digest+"\"\n }\n}\n")
	if r := f.run("apply", "--detach", path); r.code != 0 || f.count("/v1/signing") != 1 {
		t.Errorf("%+v", r)
	}
}

// signing goes through the policy of a real mesh. ok runs a command.
func signing(t *testing.T, ok func(code int, contains string, args ...string) string) {
	t.Helper()
	dir := t.TempDir()
	public, sign := signer(t)
	tree := filepath.Join(dir, "site")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "run"), []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	script := writeFile(t, filepath.Join(dir, "app.hcl"), "app \"signed\" {\n run {\n command = [\"./run\"]\n artifact = \"./site\"\n }\n update {\n healthy_for = \"200ms\"\n }\n}\n")
	ok(0, "no key is trusted", "artifact", "policy")
	ok(1, "trusts no key yet", "artifact", "policy", "required")
	ok(0, "is trusted", "artifact", "trust", "release", writeFile(t, filepath.Join(dir, "release.pub"), public))
	ok(0, "must be signed", "artifact", "policy", "required")
	ok(0, "must be signed by release", "mesh")
	ok(1, "not signed by a key that this mesh trusts (release)", "apply", script)
	ok(1, "no such app", "status", "signed")
	line := ok(0, "sha256:", "artifact", "push", tree)
	if _, err := artifact.ParseDigest(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	writeFile(t, tree+".minisig", sign(line))
	ok(0, "runs and is ready", "apply", script)
	ok(0, "release", "artifact", "list")
	ok(1, "is the last one", "artifact", "distrust", "release")
	ok(0, "need no signature", "artifact", "policy", "optional")
	ok(0, "signed: they run on", "artifact", "distrust", "release")
	ok(0, "deleted", "delete", "signed", "--yes")
}

// TestPlanLooksAtSignatures: what apply would bring is as good as brought, and
// for the rest a plan says what is missing.
func TestPlanLooksAtSignatures(t *testing.T) {
	dir, digest := site(t)
	public, sign := signer(t)
	_, stranger := signer(t)
	refused := topology.Preview{
		Changes: []intent.Change{{Op: intent.OpAdd, Kind: "app", Name: "web"}},
		Refused: []topology.Refusal{{App: "web", Package: digest, Reason: "package is not signed"}, {App: "two", Package: digest, Reason: "package is not signed"}},
	}
	beside := filepath.Join(dir, "web.minisig")
	for _, c := range []struct {
		name, signature string
		code            int
		says            string
	}{
		{"none", "", 1, "app web: package is not signed (and 1 more)"},
		{"of its line", sign(digest + "\n"), 2, ""},
		{"of its bytes", sign("#!/bin/sh\n"), 1, "it is of something else"}, // a plain file becomes a package by being packed
		{"by a stranger", stranger(digest), 1, "which this mesh does not trust"},
		{"garbled", "x", 1, "web.minisig does not do"},
	} {
		if os.Remove(beside); c.signature != "" {
			writeFile(t, beside, c.signature)
		}
		f := signingAgent(t, public, true)
		f.answer("POST /v1/plan", refused)
		r := f.run("plan", dir)
		if r.code != c.code || !strings.Contains(r.errs, c.says) || !strings.Contains(r.out, "+ app web") || strings.Contains(r.out, "REFUSED") != (c.code == 1) || strings.Count(r.errs, "\n") > 1 {
			t.Errorf("%s: %+v", c.name, r)
		}
		if n := f.count("/v1/artifacts/" + digest + "/signatures"); n > 0 {
			t.Errorf("%s: a plan brought a signature", c.name)
		}
	}
}
