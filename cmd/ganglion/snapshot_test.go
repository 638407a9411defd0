package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
)

// testBackup is a mesh of two hosts with an app of two copies on them.
func testBackup(t *testing.T) topology.Backup {
	t.Helper()
	s, index := topology.New(), uint64(0)
	apply := func(c topology.Command) {
		var res topology.Result
		index++
		if s, res = s.Apply(index, c); res.Err != nil {
			t.Fatal(res.Err)
		}
	}
	apply(topology.Command{Found: &topology.Found{MeshID: "m1", Name: "main", CACert: []byte("cert"), CAKey: []byte("ca"), GossipKey: []byte("gk")}})
	two := 2
	app := intent.App{Name: "web", Count: &two, Run: intent.Run{Command: []string{"/bin/web"}}}.WithDefaults()
	apply(topology.Command{PutIntents: &topology.PutIntents{Intents: intent.Intents{Apps: []intent.App{app}}}})
	seen := topology.Observations{Settled: true, Hosts: map[string]topology.HostObs{}}
	for i, host := range []string{"h1", "h2"} {
		apply(topology.Command{EnrolHost: &topology.EnrolHost{Name: host, ID: "id-" + host}})
		apply(topology.Command{Place: &topology.Place{Put: []topology.Placement{{App: "web", N: i, Host: host, Version: app.Version()}}}})
		p, _ := s.Placement(topology.CopyKey{App: "web", N: i})
		seen.Hosts[host] = topology.HostObs{
			Alive: true, Reported: true, CPU: 2, Memory: 2 << 30, PortMin: 20000, PortMax: 20009,
			Copies: map[topology.CopyKey]topology.CopyObs{p.Key(): {Version: p.Version, Generation: p.Generation, State: topology.CopyRunning, Ready: true, ReadyFor: time.Hour, Age: time.Hour}},
		}
	}
	return topology.Backup{State: s, Seen: seen, Saved: time.Unix(1_800_000_000, 0), By: "v0"}
}

func backupBytes(t *testing.T, b topology.Backup) []byte {
	t.Helper()
	var file bytes.Buffer
	if err := b.Write(&file); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func backupFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "main.snap")
	if err := os.WriteFile(path, backupBytes(t, testBackup(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSnapshotSave(t *testing.T) {
	b := testBackup(t)
	bare := b
	bare.State = b.State.WithoutSecrets()
	dir := t.TempDir()
	path := filepath.Join(dir, "main.snap")
	if err := os.WriteFile(path, []byte("an older one"), 0o644); err != nil {
		t.Fatal(err)
	}
	f := newFakeAgent(t)
	f.answer("GET /v1/snapshot", api.Snapshot{Data: backupBytes(t, bare)})
	f.answers("GET /v1/snapshot/keys", api.Keys{Keys: b.State.Trust()}, api.Errorf(api.CodeRejected, "h4 is no voter"))

	got := f.run("snapshot", "save", path)
	if got.code != 0 || !strings.Contains(got.errs, "keep it like a root password") || !strings.Contains(got.out, "1 apps, 2 copies, 2 hosts, with the mesh's keys") {
		t.Errorf("%+v", got)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	data, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(data, backupBytes(t, b)) {
		t.Errorf("the file is not what was saved (%v)", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	got = f.run("snapshot", "save", path) // on a host that is no voter
	if got.code != 0 || !strings.Contains(got.errs, "saved without the keys of the mesh (h4 is no voter)") || !strings.Contains(got.out, "without the mesh's keys") {
		t.Errorf("%+v", got)
	}
	asked := f.count("/v1/snapshot/keys")
	if got = f.run("snapshot", "save", "--without-keys", "-"); got.code != 0 || got.out != string(backupBytes(t, bare)) || f.count("/v1/snapshot/keys") != asked {
		t.Errorf("to a pipe: exit %d, %d bytes, %s", got.code, len(got.out), got.errs)
	}
	if got = f.run("snapshot", "save", dir); got.code != 2 || !strings.Contains(got.errs, "not a regular file") {
		t.Errorf("over a directory: %+v", got)
	}
	if got = f.run("snapshot", "save", filepath.Join(dir, "no", "where")); got.code != 1 {
		t.Errorf("into nowhere: %+v", got)
	}
	damaged := newFakeAgent(t)
	damaged.answer("GET /v1/snapshot", api.Snapshot{Data: backupBytes(t, bare)[:99]})
	if got = damaged.run("snapshot", "save", path+"2"); got.code != 1 {
		t.Errorf("a damaged answer: %+v", got)
	}
	if _, err := os.Stat(path + "2"); err == nil {
		t.Error("a damaged answer was saved")
	}
}

// A terminal is no place for keys.
func TestSnapshotSaveRefusesTerminals(t *testing.T) {
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no terminal can be had")
	}
	defer tty.Close()
	if err := (&cli{out: tty}).writable("-"); err == nil || !strings.Contains(err.Error(), "not for terminals") {
		t.Errorf("%v", err)
	}
	if err := (&cli{out: tty}).writable("/dev/ptmx"); err == nil {
		t.Error("a device was accepted")
	}
}

func TestSnapshotRestore(t *testing.T) {
	path := backupFile(t)
	changes := api.ApplyResponse{Revision: 9, Changes: []intent.Change{{Op: intent.OpRemove, Kind: intent.ChangeApp, Name: "late"}}}
	f := newFakeAgent(t)
	f.answer("POST /v1/restore", changes)
	sent := func() (req api.RestoreRequest) {
		_, body := f.request("/v1/restore")
		if err := json.Unmarshal(body, &req); err != nil {
			t.Fatal(err)
		}
		return req
	}
	env := map[string]string{"GANGLION_ADDR": f.addr}

	if got := f.run("snapshot", "restore", path); got.code != 2 || !strings.Contains(got.firstLine(), "--yes") || f.count("/v1/restore") != 0 {
		t.Errorf("unasked: %+v, %d requests", got, f.count("/v1/restore"))
	}
	got := invocation{env: env, stdin: "n\n", asks: true}.run(t, "snapshot", "restore", path)
	if got.code != 1 || !strings.Contains(got.out, "- app late") || !strings.Contains(got.errs, "Take mesh main back to that?") || !sent().Check {
		t.Errorf("refused: %+v", got)
	}
	got = invocation{env: env, stdin: "y\n", asks: true}.run(t, "snapshot", "restore", path)
	if req := sent(); got.code != 0 || req.Check || req.Restore.MeshID != "m1" || len(req.Restore.Apps) != 1 || len(req.Restore.Placements) != 2 || !strings.Contains(got.out, "restored, at revision 9") {
		t.Errorf("%+v, %+v", got, req)
	}
	if r, body := f.request("/v1/restore"); r.Header.Get(api.HeaderRequest) == "" || bytes.Contains(body, []byte("gk")) {
		t.Errorf("the write has no key, or keys travel: %s", body)
	}
	if got := f.run("snapshot", "restore", path, "--yes", "-o", "json"); got.code != 0 || !strings.HasPrefix(got.out, "{") {
		t.Errorf("%+v", got)
	}
	if err := os.WriteFile(path, []byte("GNGLSNAPnonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := f.run("snapshot", "restore", path, "--yes"); got.code != 2 || !strings.Contains(got.firstLine(), path) {
		t.Errorf("a damaged file: %+v", got)
	}
	other := newFakeAgent(t)
	other.answer("POST /v1/restore", api.Errorf(api.CodeRejected, "restore: the snapshot is of another mesh"))
	if got := other.run("snapshot", "restore", backupFile(t), "--yes"); got.code != 1 || !strings.Contains(got.firstLine(), "another mesh") || other.count("/v1/restore") != 1 {
		t.Errorf("%+v", got)
	}
}

// A plan from a file needs no agent.
func TestPlanFromFile(t *testing.T) {
	path := backupFile(t)
	env := map[string]string{"GANGLION_ADDR": "unix:/nonexistent"}
	got := invocation{env: env}.run(t, "plan", "--from", path, "--lose", "h2")
	if got.code != 2 || !strings.Contains(got.out, "web/1  h2    h1  host h2 is lost") || !strings.Contains(got.errs, "as of mesh main") {
		t.Errorf("%+v", got)
	}
	if got := (invocation{env: env}).run(t, "plan", "--from", path, "testdata/web.hcl", "-o", "json"); got.code != 2 || !strings.Contains(got.out, `"op": "change"`) {
		t.Errorf("%+v", got)
	}
	if got := (invocation{env: env}).run(t, "plan", "--from", path, "--drain", "h9"); got.code != 1 || !strings.Contains(got.firstLine(), "there is no such host") {
		t.Errorf("%+v", got)
	}
	if got := (invocation{env: env}).run(t, "plan", "--from", "nosuch", "--drain", "h1"); got.code != 1 {
		t.Errorf("%+v", got)
	}
	if got := (invocation{env: env}).run(t, "snapshot", "inspect", path); got.code != 0 || !strings.Contains(got.out, "mesh main (m1), era 1, revision 6") || !strings.Contains(got.out, "web  replicated") {
		t.Errorf("%+v", got)
	}
	if got := (invocation{env: env}).run(t, "snapshot"); got.code != 2 {
		t.Errorf("%+v", got)
	}
}
