package main

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// twoHosts is a small mesh as an agent tells it.
func twoHosts() []api.Host {
	return []api.Host{
		{Name: "h1", Addr: "10.0.0.1", Status: "alive", Drain: topology.DrainNone, Role: "leader", Labels: map[string]string{"zone": "a", "disk": "ssd"},
			Vitals: api.Vitals{CPU: 0.5, Memory: 0.25, Disk: 0.1, Pressure: 0.02, AgeMS: 1234}, Copies: 2,
			Addresses: []api.HostAddress{{Address: "10.0.0.100", Token: 17}}},
		{Name: "host-two", Addr: "10.0.0.2", Status: "failed", Drain: topology.DrainDraining, Role: "agent", Vitals: api.Vitals{AgeMS: -1}, Note: "gossips, but does not report"},
	}
}

func webStatus() topology.AppStatus {
	st := web(topology.AppRolling, "0123456789ab",
		topology.CopyStatus{ID: "web/0", Host: "h1", Addr: "10.0.0.1", Version: "0123456789ab", State: topology.CopyRunning, Ready: true, Pid: 77, Restarts: 2, Ports: map[string]int{"http": 20001, "admin": 20002}},
		topology.CopyStatus{ID: "web/1", State: topology.CopyPending, Version: "0123456789ab", Why: "no host\nhas room"})
	st.Why = "1 of 2 copies are ready"
	return st
}

// TestTables holds what people read, to the character.
func TestTables(t *testing.T) {
	mesh := api.Mesh{ID: "abc", Name: "main", Revision: 12, Leader: "h1", Voters: []string{"h1", "h2", "h3"}}
	for _, tc := range []struct {
		args   string
		path   string
		answer any
		out    string
	}{
		{"mesh", "/v1/mesh", mesh, `
MESH  ID   REVISION  LEADER  VOTERS    FROZEN
main  abc  12        h1      h1,h2,h3  no
`},
		{"hosts", "/v1/hosts", twoHosts(), `
HOST      STATUS  ROLE    DRAIN     COPIES  CPU  MEMORY  DISK  NOTE
h1        alive   leader  none      2       50%  25%     10%
host-two  failed  agent   draining  0       -    -       -     gossips, but does not report
`},
		{"hosts -o wide", "/v1/hosts", twoHosts(), `
HOST      STATUS  ROLE    DRAIN     COPIES  CPU  MEMORY  DISK  PRESSURE  AGE   ADDR      ADDRESSES   LABELS           NOTE
h1        alive   leader  none      2       50%  25%     10%   2%        1.2s  10.0.0.1  10.0.0.100  disk=ssd,zone=a
host-two  failed  agent   draining  0       -    -       -     -         -     10.0.0.2  -           -                gossips, but does not report
`},
		{"peers", "/v1/peers", []api.Peer{{Name: "h1", Addr: "10.0.0.1:7947", Voter: true, Leader: true, Healthy: true}, {Name: "h2", Addr: "10.0.0.2:7947"}}, `
HOST  ADDR           VOTER  LEADER  HEALTHY
h1    10.0.0.1:7947  yes    yes     yes
h2    10.0.0.2:7947  no     no      no
`},
		{"status", "/v1/status", []topology.AppStatus{webStatus(), {App: "a", Kind: "per_host", Version: "v", State: topology.AppSteady}}, `
APP  KIND        VERSION       STATE    READY  WHY
web  replicated  0123456789ab  rolling  1/2    web/1: no host has room
a    per_host    v             steady   0/0
`},
		{"status web", "/v1/status", webStatus(), `
web  replicated  version 0123456789ab  rolling  1/2 ready  1 of 2 copies are ready
COPY   HOST  STATE    READY  SINCE  PID  RESTARTS  PORTS                   WHY
web/0  h1    running  yes    -      77   2         admin=20002,http=20001
web/1  -     pending  no     -      -    0         -                       no host has room
`},
		{"status --local", "/v1/local/status", []topology.AppStatus{webStatus()}, `
APP  KIND        VERSION       STATE    READY  WHY
web  replicated  0123456789ab  rolling  1/2    web/1: no host has room
`},
		{"endpoints web", "/v1/endpoints/web", []api.Endpoint{{Copy: "web/0", Host: "h1", Addr: "10.0.0.1", Ports: map[string]int{"http": 20001, "admin": 20002}}, {Copy: "web/1", Host: "h2", Addr: "fd00::1"}}, `
COPY   HOST  PORT   ENDPOINT
web/0  h1    admin  10.0.0.1:20002
web/0  h1    http   10.0.0.1:20001
web/1  h2    -      fd00::1
`},
		{"token create", "/v1/tokens", api.Token{Token: "mesh1.x.agent.y.z", Role: "agent"}, "\nmesh1.x.agent.y.z\n"},
		{"nats", "/v1/nats", api.NATS{URLs: []string{"nats://a:1", "nats://a:1", "nats://b:2"}, Subjects: "ganglion.main.>"}, "\nnats://a:1\nnats://b:2\n"},
		{"init --name lab", "/v1/init", api.InitResponse{Name: "lab", Seed: "10.0.0.1:7947", Token: "mesh1.t"}, `
Mesh lab is there, and this host is its first voter. On every other host, run:

  ganglion join 10.0.0.1:7947 --token mesh1.t
`},
		{"join 10.0.0.1 --token mesh1.t", "/v1/join", api.JoinResponse{Name: "lab", Host: "h2"}, "\nHost h2 is in mesh lab.\n"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			f := newFakeAgent(t)
			f.answer(tc.path, tc.answer)
			got := f.run(strings.Fields(tc.args)...)
			if got.code != 0 {
				t.Fatalf("%+v", got)
			}
			want(t, tc.args, "\n"+got.out, tc.out)
		})
	}
}

// TestJSON holds the fields that scripts rely on, as the reference names them.
func TestJSON(t *testing.T) {
	for _, tc := range []struct {
		args, path string
		answer     any
		out        string
	}{
		{"mesh", "/v1/mesh", api.Mesh{Voters: []string{}}, `{"id":"","name":"","revision":0,"leader":"","voters":[],"frozen":null,"rebalance":"","reflex_stage":""}`},
		{"hosts", "/v1/hosts", []api.Host{}, `[]`},
		{"peers", "/v1/peers", []api.Peer{{Name: "h1"}}, `[{"name":"h1","addr":"","voter":false,"leader":false,"healthy":false}]`},
		{"status", "/v1/status", []topology.AppStatus{}, `[]`},
		{"status a", "/v1/status", topology.AppStatus{App: "a"}, `{"app":"a","kind":"","version":"","state":"","want":0,"ready":0,"copies":[]}`},
		{"status b", "/v1/status", topology.AppStatus{App: "b", Copies: []topology.CopyStatus{{ID: "b/0"}}},
			`{"app":"b","kind":"","version":"","state":"","want":0,"ready":0,"copies":[{"id":"b/0","host":"","addr":"","version":"","state":"","ready":false,"pid":0,"restarts":0,"token":0,"ports":{},"why":""}]}`},
		{"endpoints a", "/v1/endpoints/a", []api.Endpoint{}, `[]`},
		{"token create", "/v1/tokens", api.Token{Token: "t", Role: "agent"}, `{"token":"t","role":"agent","expires":null}`},
	} {
		t.Run(tc.args, func(t *testing.T) {
			f := newFakeAgent(t)
			f.answer(tc.path, tc.answer)
			got := f.run(append(strings.Fields(tc.args), "-o", "json")...)
			want(t, "json", strings.Join(strings.Fields(got.out), ""), tc.out)
		})
	}
}

func TestOneVoterIsTold(t *testing.T) {
	f := newFakeAgent(t)
	f.answer("/v1/hosts", twoHosts())
	if got := f.run("hosts"); !strings.Contains(got.errs, "while h1 is away nothing can be changed") {
		t.Errorf("%+v", got)
	}
}

func TestColourOnlyWhereItIsWanted(t *testing.T) {
	for _, tc := range []struct {
		term bool
		env  map[string]string
		want bool
	}{{false, nil, false}, {true, nil, true}, {true, map[string]string{"NO_COLOR": "1"}, false}} {
		var out bytes.Buffer
		c := &cli{out: &out, outTerm: tc.term, env: func(k string) (string, bool) { v, ok := tc.env[k]; return v, ok }}
		tab := newTable("A", "B")
		tab.row("steady", "x")
		tab.row("ok", "y")
		c.printTable(tab)
		if got := strings.Contains(out.String(), "\x1b["); got != tc.want {
			t.Errorf("%+v: %q", tc, out.String())
		}
		if plain := strings.NewReplacer("\x1b[32m", "", "\x1b[0m", "").Replace(out.String()); plain != "A       B\nsteady  x\nok      y\n" {
			t.Errorf("colour moves the columns: %q", plain)
		}
	}
}

func TestStatusFollows(t *testing.T) {
	f := newFakeAgent(t)
	first, second := webStatus(), webStatus()
	second.State = topology.AppSteady
	f.answers("/v1/status", first, first, api.Errorf(api.CodeNoLeader, "election"), second, api.Errorf(api.CodeNotFound, "app web is gone"))
	got := f.run("status", "web", "-f", "-o", "json")
	if got.code != 1 || strings.Count(got.out, "\n") != 2 {
		t.Errorf("want one line a change, then that it is gone: %+v", got)
	}
	want(t, "first line", strings.Split(got.out, "\n")[0], mustJSON(t, complete(first)))
}

func TestFollowEndsQuietlyWhenInterrupted(t *testing.T) {
	f := newFakeAgent(t)
	f.answer("/v1/status", []topology.AppStatus{webStatus()})
	f.mux.HandleFunc("/v1/events", func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	for _, args := range [][]string{{"status", "-f"}, {"events", "-f"}} {
		got := invocation{env: map[string]string{"GANGLION_ADDR": f.addr}, limit: 300 * time.Millisecond}.run(t, args...)
		if got.code != 0 || got.errs != "" {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

func TestEvents(t *testing.T) {
	line := `{"specversion":"1.0","id":"01A","source":"/hosts/h1","type":"dev.ganglion.app.exited","subject":"app/web/2","time":"2026-01-02T03:04:05.678Z","datacontenttype":"application/json","causeid":"","revision":3,"seq":9,"data":{"pid":7,"code":null,"signal":"SIGKILL","why":"a b\u001b[2J","ran_ms":12}}`
	f := newFakeAgent(t)
	f.answer("/v1/events", lines{text: []string{line}, header: map[string]string{api.HeaderMissing: "h3"}})
	got := f.run("events", "--since", "90s", "app.web.>")
	when := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC).Local().Format("2006-01-02 15:04:05.000")
	want(t, "for people", got.out, when+`  app.web.2.exited              pid=7 code=null signal=SIGKILL why="a b\x1b[2J" ran_ms=12  @h1`+"\n")
	want(t, "missing", got.errs, "events of h3 are missing: they could not be asked\n")
	r, _ := f.request("/v1/events")
	want(t, "query", r.URL.RawQuery, "filter=app.web.%3E&since=1m30s")
	want(t, "for scripts", f.run("events", "-o", "json").out, line+"\n")
	if got := f.run("events", "-f"); got.code != 1 || !strings.Contains(got.errs, "the agent ended the stream") {
		t.Errorf("a follow that ends: %+v", got)
	}
}

func TestLogs(t *testing.T) {
	chunk := func(id, data string) string {
		return fmt.Sprintf(`{"copy":%q,"host":"h1","stream":"stdout","data":%q}`, id, data)
	}
	f := newFakeAgent(t)
	f.answer("/v1/status", webStatus())
	f.answer("/v1/logs/web", lines{text: []string{chunk("web/0", "one\ntw"), chunk("web/1", "first\n"), chunk("web/0", "o\nend")}})
	want(t, "several copies", f.run("logs", "web", "--tail", "5").out, "web/0  one\nweb/1  first\nweb/0  two\nweb/0  end\n")
	r, _ := f.request("/v1/logs/web")
	want(t, "query", r.URL.RawQuery, "tail=5")
	want(t, "one copy", f.run("logs", "web/0").out, "one\ntwfirst\no\nend")
	if got := f.run("logs", "web/9"); got.code != 1 || !strings.Contains(got.firstLine(), "no such copy") {
		t.Errorf("unknown copy: %+v", got)
	}
	f2 := newFakeAgent(t)
	f2.answer("/v1/status", webStatus())
	f2.answer("/v1/logs/web", lines{text: []string{chunk("web/0", "x\n"), `{"copy":"web/1","host":"h2","error":"host is lost"}`}})
	if got := f2.run("logs", "web"); got.code != 1 || got.out != "web/0  x\n" || got.errs != "read logs of web/1 on host h2: host is lost\n" {
		t.Errorf("a host that cannot be asked: %+v", got)
	}
}

func TestActing(t *testing.T) {
	stopped := web(topology.AppStopped, "v", topology.CopyStatus{ID: "web/0", State: topology.CopyStopped})
	stopping := web(topology.AppStopped, "v", topology.CopyStatus{ID: "web/0", Host: "h1", State: topology.CopyStopping, Pid: 5})
	rolling := web(topology.AppRolling, "v", topology.CopyStatus{ID: "web/0", Ready: true})
	steady := web(topology.AppSteady, "v", topology.CopyStatus{ID: "web/0", Ready: true})
	held := web(topology.AppHeld, "v")
	held.Why = "bad"
	for _, tc := range []struct {
		args   string
		path   string
		status []any
		code   int
		text   string
		looks  int
	}{
		{"stop web", "/v1/apps/web/stop", []any{stopping, stopping, stopped}, 0, "web: stopped\n", 3},
		{"stop web/0", "/v1/apps/web/stop", []any{stopping, stopped}, 0, "web/0: stopped\n", 2},
		{"start web", "/v1/apps/web/start", []any{stopped, steady}, 0, "web: started\n", 2},
		{"restart web", "/v1/apps/web/restart", []any{rolling, steady}, 0, "web: restarted\n", 2},
		{"restart web/0", "/v1/apps/web/restart", []any{rolling, steady}, 0, "web/0: restarted\n", 2},
		{"restart web", "/v1/apps/web/restart", []any{rolling, held}, 1, "restart web: web is held: bad\n", 2},
		{"stop web --detach", "/v1/apps/web/stop", []any{stopping}, 0, "web: stopped\n", 0},
	} {
		f := newFakeAgent(t)
		f.answer("POST "+tc.path, api.ApplyResponse{})
		f.answers("GET /v1/status", tc.status...)
		got := f.run(strings.Fields(tc.args)...)
		if got.code != tc.code || got.out+got.errs != tc.text || f.count("/v1/status") != tc.looks {
			t.Errorf("%s: %+v after %d looks, want exit %d, %q after %d", tc.args, got, f.count("/v1/status"), tc.code, tc.text, tc.looks)
		}
		r, _ := f.request(tc.path)
		if wantCopy := strings.Contains(tc.args, "/0"); (r.URL.Query().Get("copy") == "0") != wantCopy {
			t.Errorf("%s: query %q", tc.args, r.URL.RawQuery)
		}
	}
	f := newFakeAgent(t)
	f.answer("POST /v1/local/apps/web/stop", api.Version{Host: "h1"})
	if got := f.run("stop", "--local", "web"); got.code != 0 || got.out != "web: stopped on host h1\n" {
		t.Errorf("local: %+v", got)
	}
}

func TestDrainBlocksUntilDrained(t *testing.T) {
	host := func(d topology.Drain, copies int) []api.Host {
		return []api.Host{{Name: "h1", Drain: d, Copies: copies}}
	}
	f := newFakeAgent(t)
	f.answer("POST /v1/hosts/h1/drain", nil)
	f.answer("GET /v1/status", []topology.AppStatus{webStatus()})
	f.answers("GET /v1/hosts", host(topology.DrainDraining, 2), host(topology.DrainDraining, 0), host(topology.DrainDrained, 0))
	if got := f.run("drain", "h1"); got.code != 0 || got.out != "h1: drained\n" || f.count("/v1/hosts") != 3 {
		t.Errorf("%+v after %d looks", got, f.count("/v1/hosts"))
	}
	f = newFakeAgent(t)
	f.answer("POST /v1/hosts/h1/drain", nil)
	f.answer("GET /v1/status", []topology.AppStatus{webStatus()})
	f.answer("GET /v1/hosts", host(topology.DrainDraining, 2))
	if got := f.run("drain", "h1", "--timeout", "200ms"); got.code != 1 || !strings.Contains(got.errs, "2 copies are still on it: web/0 on h1 is running") {
		t.Errorf("%+v", got)
	}
	if got := f.run("drain", "h1", "--detach"); got.code != 0 || got.out != "h1: draining\n" {
		t.Errorf("%+v", got)
	}
}

func TestLeaveNamesWhatIsLeft(t *testing.T) {
	f := newFakeAgent(t)
	f.answer("/v1/version", api.Version{Host: "h1", Mesh: "lab"})
	f.answer("/v1/leave", api.Version{Host: "h1"})
	if got := f.run("leave"); got.code != 2 || f.count("/v1/leave") != 0 {
		t.Errorf("unasked: %+v", got)
	}
	if got := f.run("leave", "--yes"); got.code != 0 || got.out != "Host h1 has left mesh lab.\n" {
		t.Errorf("%+v", got)
	}
}

// TestRemoveSaysWhatIsProved, and asks before it begins.
func TestRemoveSaysWhatIsProved(t *testing.T) {
	f := newFakeAgent(t)
	f.answer("/v1/hosts/h3/remove", api.Removal{Host: "h3", Done: true, Proved: []string{"peer", "identity"}, Unproved: []string{"copies", "files"}})
	if got := f.run("remove", "h3"); got.code != 2 || f.count("/v1/hosts/h3/remove") != 0 || !strings.Contains(got.errs, "--yes") {
		t.Errorf("without --yes: %+v", got)
	}
	want := "h3: removed; gone for certain: its part in the quorum, its identity; not proved: its copies, what they kept there\n"
	if got := f.run("remove", "h3", "--force", "--yes"); got.code != 0 || got.out != want {
		t.Errorf("%+v", got)
	}
	f = newFakeAgent(t)
	f.answer("/v1/hosts/h3/remove", api.Removal{Host: "h3", Waiting: "2 copies still run there"})
	if got := f.run("remove", "h3", "--yes", "--timeout", "300ms"); got.code != 1 || !strings.Contains(got.errs, "2 copies still run there") || !strings.Contains(got.errs, "undrain h3") {
		t.Errorf("not done in time: %+v", got)
	}
}
