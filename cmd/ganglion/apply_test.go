package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
)

// committed is what an agent answers to an apply of web.
func committed() api.ApplyResponse {
	return api.ApplyResponse{
		Revision: 7, Versions: map[string]string{"web": "v2"},
		Changes: []intent.Change{{Op: "change", Kind: "app", Name: "web", Fields: []intent.FieldChange{{Path: "count", From: 1, To: 2}}}},
	}
}

func web(state topology.AppState, version string, copies ...topology.CopyStatus) topology.AppStatus {
	st := topology.AppStatus{App: "web", Kind: "replicated", Version: version, State: state, Want: 2, Copies: copies}
	for _, cp := range copies {
		if cp.Ready {
			st.Ready++
		}
	}
	return st
}

func TestApplyFollowsToTheTruth(t *testing.T) {
	starting := web(topology.AppRolling, "v2", topology.CopyStatus{ID: "web/1", Host: "h2", Version: "v2", State: topology.CopyStarting, Why: "http: refused"})
	held := web(topology.AppHeld, "v2")
	held.Why = "web/1 failed on h2: exit 3"
	failed := web(topology.AppPending, "v2", topology.CopyStatus{ID: "web/0", Host: "h1", Version: "v2", State: topology.CopyFailed, Why: "exec /nosuch: no such file"})
	oldFailed := web(topology.AppRolling, "v2", topology.CopyStatus{ID: "web/0", Host: "h1", Version: "v1", State: topology.CopyFailed, Why: "old"})
	steady := web(topology.AppSteady, "v2")
	for _, tc := range []struct {
		name    string
		answers []any
		code    int
		line    string
	}{
		{"steady", []any{starting, starting, steady}, 0, ""},
		{"an old version's failure is no failure", []any{oldFailed, steady}, 0, ""},
		{"over a change of the leader", []any{starting, api.Errorf(api.CodeNoLeader, "election"), hangUp{}, steady}, 0, ""},
		{"over a restart of the agent", []any{starting, hangUp{}, api.Errorf(api.CodeNoMesh, "starting"), steady}, 0, ""},
		{"held", []any{starting, held}, 1, "apply: web is held: web/1 failed on h2: exit 3"},
		{"cannot be executed", []any{failed}, 1, "apply: web cannot run: web/0 on h1 is failed: exec /nosuch: no such file"},
		{"another apply", []any{web(topology.AppRolling, "v3")}, 1, "changed by another apply meanwhile: it is now version v3, not v2"},
		{"deleted", []any{starting, api.Errorf(api.CodeNotFound, "gone")}, 1, "web was deleted meanwhile"},
		{"stopped", []any{web(topology.AppStopped, "v2")}, 1, "runs only after ganglion start web"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFakeAgent(t)
			f.answer("POST /v1/apply", committed())
			f.answers("GET /v1/status", tc.answers...)
			got := f.run("apply", "testdata/web.hcl")
			if got.code != tc.code || !strings.Contains(got.firstLine(), tc.line) {
				t.Errorf("exit %d, %q; want %d, %q", got.code, got.errs, tc.code, tc.line)
			}
			if !strings.HasPrefix(got.out, "~ app web\n    count  1 -> 2\n") {
				t.Errorf("printed %q", got.out)
			}
			if done := strings.Contains(got.out, "web v2 runs and is ready"); done != (tc.code == 0) {
				t.Errorf("printed %q", got.out)
			}
		})
	}
}

func TestApplyRequest(t *testing.T) {
	f := newFakeAgent(t)
	f.answer("POST /v1/apply", committed())
	f.answer("GET /v1/status", web(topology.AppSteady, "v2"))
	if got := f.run("apply", "--set", "prod", "--prune", "testdata/web.hcl"); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	r, body := f.request("/v1/apply")
	if len(r.Header.Get(api.HeaderRequest)) < 16 {
		t.Errorf("idempotency key %q", r.Header.Get(api.HeaderRequest))
	}
	var req api.ApplyRequest
	if err := json.Unmarshal(body, &req); err != nil || req.Set != "prod" || !req.Prune || len(req.Intents.Apps) != 1 || *req.Intents.Apps[0].Count != 2 {
		t.Errorf("sent %s (%v)", body, err)
	}
	first := r.Header.Get(api.HeaderRequest)
	f.run("apply", "testdata/web.hcl")
	if r, _ := f.request("/v1/apply"); r.Header.Get(api.HeaderRequest) == first {
		t.Error("two applies share an idempotency key")
	}
}

// TestApplyTimeout also holds that the default is until the outcome of the app's
// update.deadline, and of its healthy_for after that, is known.
func TestApplyTimeout(t *testing.T) {
	waiting := web(topology.AppRolling, "v2",
		topology.CopyStatus{ID: "web/0", Host: "h1", Version: "v2", State: topology.CopyRunning, Ready: true},
		topology.CopyStatus{ID: "web/1", Host: "h2", Version: "v2", State: topology.CopyBackoff, Why: "exited with 1"})
	for _, tc := range []struct {
		args []string
		took time.Duration
		line string
	}{
		{[]string{"apply", "testdata/web.hcl"}, 4*time.Second + outcomeLate, "apply: not done after 9s: web is rolling, 1 of 2 ready: web/1 on h2 is backoff: exited with 1"},
		{[]string{"apply", "--timeout", "200ms", "testdata/web.hcl"}, 200 * time.Millisecond, "apply: not done after 200ms: web is rolling"},
	} {
		f := newFakeAgent(t)
		f.answer("POST /v1/apply", committed())
		f.answer("GET /v1/status", waiting)
		begun := time.Now()
		got := f.run(tc.args...)
		if took := time.Since(begun); got.code != 1 || !strings.HasPrefix(got.firstLine(), tc.line) || took < tc.took || took > tc.took+3*time.Second {
			t.Errorf("%v: exit %d after %s: %s", tc.args, got.code, took, got.errs)
		}
	}
}

func TestApplyDetachedDoesNotFollow(t *testing.T) {
	f := newFakeAgent(t)
	f.answer("POST /v1/apply", committed())
	if got := f.run("apply", "--detach", "testdata/web.hcl"); got.code != 0 || f.count("/v1/status") != 0 {
		t.Errorf("%+v", got)
	}
}

func TestApplyUnknownOutcome(t *testing.T) {
	f := newFakeAgent(t)
	f.answer("POST /v1/apply", hangUp{})
	if got := f.run("apply", "testdata/web.hcl"); got.code != 3 || !strings.Contains(got.firstLine(), "look before you try again") {
		t.Errorf("%+v", got)
	}
	if n := f.count("/v1/apply"); n != 1 {
		t.Errorf("an apply of unknown outcome was sent %d times", n)
	}
}

func TestApplySources(t *testing.T) {
	f := newFakeAgent(t)
	f.answer("POST /v1/apply", api.ApplyResponse{})
	names := func() string {
		_, body := f.request("/v1/apply")
		var req api.ApplyRequest
		if err := json.Unmarshal(body, &req); err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, a := range req.Intents.Apps {
			out = append(out, a.Name)
		}
		return strings.Join(out, " ")
	}
	stdin := func(text string, args ...string) result {
		return invocation{env: map[string]string{"GANGLION_ADDR": f.addr}, stdin: text}.run(t, args...)
	}
	if got := f.run("apply", "testdata/web.hcl"); got.code != 0 || names() != "web" {
		t.Errorf("a file: %+v", got)
	}
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		text := "app \"" + name + "\" {\n run {\n command = [\"/bin/true\"]\n }\n}\n"
		if err := os.WriteFile(dir+"/"+name+".hcl", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.run("apply", dir); got.code != 0 || names() != "a b" {
		t.Errorf("a directory: %+v", got)
	}
	if got := f.run("apply", "testdata/infra"); got.code != 0 || names() != "fromgo" {
		t.Errorf("a Go program: %+v", got)
	}
	if got := stdin(`{"apps":[{"name":"piped","run":{"command":["/bin/true"]}}]}`, "apply", "-"); got.code != 0 || names() != "piped" {
		t.Errorf("standard input: %+v", got)
	}
	n := f.count("/v1/apply")
	for _, tc := range []struct{ stdin, path, line string }{
		{"", "testdata/wrong", `read intents testdata/wrong: main.go:8: `},
		{"", t.TempDir(), "no *.hcl and no *.go file in it"},
		{"", "rig_test.json", "no such file"},
		{"{", "-", "standard input: read intents"},
		{"", "-", "nothing was written"},
		{"{}", "-", "it declares nothing"},
		{`{"apps":[{"name":"x","runn":{}}]}`, "-", `unknown field "runn"`},
		{`{"apps":[{"name":"X","run":{"command":["/bin/true"]}}]}`, "-", "is not a name"},
	} {
		got := stdin(tc.stdin, "apply", tc.path)
		if got.code != 2 || !strings.Contains(got.firstLine(), tc.line) {
			t.Errorf("apply %s < %q: exit %d, %q; want 2 and %q", tc.path, tc.stdin, got.code, got.errs, tc.line)
		}
	}
	if f.count("/v1/apply") != n {
		t.Error("something wrong was sent")
	}
}
