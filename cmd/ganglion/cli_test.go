package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// TestWrongInput holds the exit codes of what is wrong before anything is sent:
// no agent listens.
func TestWrongInput(t *testing.T) {
	long := strings.Repeat("a", 300)
	for _, tc := range []struct {
		args string
		code int
		line string // that the first line must contain
	}{
		{"frobnicate", 2, `unknown command "frobnicate"`},
		{"statu", 2, "did you mean status"},
		{"hosts extra", 2, "ganglion hosts: "},
		{"hosts --nope", 2, "unknown flag: --nope"},
		{"hosts -o yaml", 2, "want table, wide or json"},
		{"apply", 2, "want ganglion apply PATH"},
		{"apply nosuch.hcl", 2, "nosuch.hcl: no such file"},
		{"apply testdata/both", 2, "holds both *.hcl and *.go files"},
		{"apply testdata/infra/main.go", 2, "name the directory of the Go program"},
		{"apply testdata", 1, "connect agent"}, // testdata/web.hcl is fine
		{"apply --prune testdata/web.hcl", 2, "--prune needs --set"},
		{"apply --set UPPER testdata/web.hcl", 2, "is not a name"},
		{"plan", 1, "name what to plan"},
		{"plan nosuch.hcl", 1, "no such file"},
		{"plan --nope", 1, "unknown flag"},
		{"plan a b", 1, "ganglion plan: "},
		{"plan --lose UP", 1, "is not a name"},
		{"status " + long, 2, "has 300 characters"},
		{"status web/1", 2, "is not a name"},
		{"stop web/x", 2, `copy "x": want a number`},
		{"stop web/01", 2, "want a number"},
		{"stop web/-1", 2, "want a number"},
		{"logs web --tail -1", 2, "want a number of lines"},
		{"drain H1", 2, "is not a name"},
		{"delete web", 2, "say --yes"},
		{"delete reflex/x", 2, "say --yes"},
		{"delete reflex/X --yes", 2, "is not a name"},
		{"reflex nope", 2, "unknown command"},
		{"reflex show", 2, "want ganglion reflex show NAME"},
		{"reflex vars host.[", 2, "want a name in which *"},
		{"reflex history Web", 2, "is not a name"},
		{"reflex test testdata/reflex/heal.hcl", 2, "want one of --story FILE"},
		{"reflex test testdata/reflex/heal.hcl --story nosuch", 2, "no such file"},
		{"reflex test testdata/reflex/heal.hcl --fact 1s", 2, "line 1 of the story: nothing happens"},
		{"reflex test testdata/web.hcl --fact x", 2, "declares no reflex"},
		{"events a..b", 2, "not a subject pattern"},
		{"events app.web.exploded", 2, "no event has such a subject"},
		{"events --since yesterday", 2, "invalid argument"},
		{"events --since -5m", 2, "want how far back"},
		{"join", 2, "want ganglion join SEED"},
		{"join 10.0.0.1", 2, "no token"},
		{"join , --token t", 2, "no seed"},
		{"join 10.0.0.1 --token t --token-file f", 2, "exclude each other"},
		{"join 10.0.0.1 --token-file /nosuch", 2, "no such file"},
		{"init --name UPPER", 2, "is not a name"},
		{"token", 2, "ganglion token create"},
		{"token list", 2, "ganglion token list is not in this version yet"},
		{"token nope", 2, "unknown command"},
		{"why web", 2, "ganglion why is not in this version yet"},
		{"rollback web --to 3", 1, "is the agent running?"},
		{"rollback", 2, "want ganglion rollback APP"},
		{"history Web", 2, "is not a name"},
		{"top", 2, "not in this version yet"},
		{"mesh", 1, "is the agent running?"},
		{"mesh set rebalance=5/1m", 1, "is the agent running?"},
		{"mesh set rebalance=fast", 2, "10/10m"},
		{"mesh set rebalance=0/1m", 2, "not within 1 and 1000"},
		{"mesh set reflex_stage=5m", 1, "is the agent running?"},
		{"mesh set reflex_stage=fast", 2, "want off, on"},
		{"mesh set reflex_stage=1ms", 2, "not within 1s and 24h0m0s"},
		{"mesh set colour=red", 2, "there is rebalance"},
		{"mesh set rebalance", 2, "want KEY=VALUE"},
		{"mesh set", 2, "want ganglion mesh set KEY=VALUE"},
		{"mesh sett", 2, "mesh"},
		{"version", 0, ""},
		{"completion bash", 0, ""},
		{"--help", 0, ""},
	} {
		t.Run(tc.args, func(t *testing.T) {
			env := map[string]string{"GANGLION_ADDR": "unix:" + t.TempDir() + "/none"}
			got := invocation{env: env}.run(t, strings.Fields(tc.args)...)
			if got.code != tc.code || !strings.Contains(got.firstLine(), tc.line) {
				t.Errorf("exit %d, want %d; first line %q, want in it %q", got.code, tc.code, got.firstLine(), tc.line)
			}
			if tc.code == 0 && got.out == "" {
				t.Error("nothing was printed")
			}
		})
	}
}

func TestLaterCommandsAreNotInTheHelp(t *testing.T) {
	help := invocation{}.run(t, "--help").out
	for _, name := range later {
		if strings.Contains(help, "\n  "+name+" ") {
			t.Errorf("the help names %s, which does nothing yet", name)
		}
	}
}

// TestCodes holds how the errors of an agent become exit codes.
func TestCodes(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer any
		args   []string
		code   int
		line   string
	}{
		{"invalid", api.Errorf(api.CodeInvalid, "apps[0]: bad"), []string{"mesh"}, 2, "apps[0]: bad"},
		{"not yet", api.Errorf(api.CodeNotYet, "create token for role \"viewer\": not yet"), []string{"mesh"}, 2, "viewer"},
		{"rejected", api.Errorf(api.CodeRejected, "drained"), []string{"mesh"}, 1, "drained"},
		{"not found", api.Errorf(api.CodeNotFound, "no app"), []string{"mesh"}, 1, "no app"},
		{"no leader", api.Errorf(api.CodeNoLeader, "none elected"), []string{"mesh"}, 1, "none elected"},
		{"unknown", api.Errorf(api.CodeUnknown, "may have"), []string{"mesh"}, 3, "may have"},
		{"no mesh", api.Errorf(api.CodeNoMesh, "run ganglion init"), []string{"mesh"}, 1, "ganglion init"},
		{"denied", api.Errorf(api.CodeDenied, "no"), []string{"mesh"}, 1, "no"},
		{"broken read", hangUp{}, []string{"mesh"}, 1, "read /v1/mesh from agent"},
		{"broken write", hangUp{}, []string{"undrain", "h1"}, 3, "may or may not have happened"},
		{"broken plan", hangUp{}, []string{"plan", "--lose", "h1"}, 1, "may or may not have happened"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFakeAgent(t)
			f.answer("/", tc.answer)
			got := f.run(tc.args...)
			if got.code != tc.code || !strings.Contains(got.firstLine(), tc.line) || got.out != "" {
				t.Errorf("got %+v, want exit %d and a line with %q", got, tc.code, tc.line)
			}
		})
	}
}

func TestPlanCodes(t *testing.T) {
	change := `{"changes":[{"op":"add","kind":"app","name":"web","fields":[]}],"moves":[],"unplaced":[]}`
	move := `{"changes":[],"moves":[{"copy":"web/0","from":"h1","to":"h2","reason":"lost"}],"unplaced":[]}`
	stuck := `{"changes":[],"moves":[],"unplaced":[{"copy":"web/0","reason":"no room"}]}`
	held := `{"changes":[],"moves":[],"unplaced":[],"down":[{"copy":"web/0","host":"h1","reason":"too many"}],"held":"2 of 3 hosts","singletons":[{"app":"db","window_ms":22000,"leader_ms":5000}],"converged":true,"steps":1,
		"if_removed":{"moves":[{"copy":"web/0","from":"h1","to":"h3","reason":"removed"}],"converged":true,"steps":4,"paced":true,
		"capacity":[{"host":"h3","state":"up","before":1,"copies":2,"cpu":4,"cpu_free":1.5,"memory":8589934592,"memory_free":4294967296,"ports":10,"ports_free":8}]}}`
	relieved := `{"moves":[{"copy":"web/0","from":"h1","to":"h2","reason":"drained","as":"web/3"},{"copy":"web/1","from":"h1","to":"h2","reason":"drained"}]}`
	heldText := `DOWN   ON  WHY
web/0  h1  too many
so large a change was rehearsed all at once: what competes for the same room may end otherwise
SINGLETON  DOWN IF ITS HOST IS LOST  AND THE LEADER WITH IT
db         at most 22s               at most 27s
held: 2 of 3 hosts
nothing would move by itself; if those hosts were removed from the mesh:
MOVES  FROM  TO  WHY
web/0  h1    h3  removed
HOST  STATE  COPIES  FREE CPU  FREE MEMORY       FREE PORTS
h3    up     1 → 2   1.5 of 4  4.0GiB of 8.0GiB  8 of 10
`
	for _, tc := range []struct {
		name, answer string
		args         []string
		code         int
		out          string
	}{
		{"nothing", `{"changes":[]}`, []string{"plan", "testdata/web.hcl"}, 0, "nothing to change\n"},
		{"changes", change, []string{"plan", "testdata/web.hcl"}, 2, "+ app web\n"},
		{"moves", move, []string{"plan", "--lose", "h1"}, 2, "MOVES  FROM  TO  WHY\nweb/0  h1    h2  lost\n"},
		{"moves by another name", relieved, []string{"plan", "--drain", "h1"}, 2, "MOVES  FROM  TO  AS     WHY\nweb/0  h1    h2  web/3  drained\nweb/1  h1    h2  web/1  drained\n"},
		{"stuck anyway", stuck, []string{"plan", "testdata/web.hcl"}, 0, "NO PLACE FOR  WHY\nweb/0         no room\n"},
		{"held", held, []string{"plan", "--lose", "h1", "--lose", "h2"}, 2, heldText},
		{"stuck by it", stuck, []string{"plan", "--drain", "h1"}, 2, "NO PLACE FOR  WHY\nweb/0         no room\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFakeAgent(t)
			f.mux.HandleFunc("POST /v1/plan", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(tc.answer)) })
			got := f.run(tc.args...)
			if got.code != tc.code || got.errs != "" {
				t.Errorf("exit %d with %q, want %d and no error", got.code, got.errs, tc.code)
			}
			want(t, "output", got.out, tc.out)
		})
	}
}

func TestPlanJSONHasEveryList(t *testing.T) {
	f := newFakeAgent(t)
	f.answer("POST /v1/plan", map[string]any{})
	got := f.run("plan", "--lose", "h1", "-o", "json")
	want(t, "json", got.out, strings.NewReplacer("'", `"`).Replace(`{
  'changes': [],
  'moves': [],
  'unplaced': [],
  'placed': [],
  'ended': [],
  'down': [],
  'capacity': [],
  'converged': false,
  'steps': 0,
  'paced': false
}
`))
}

func TestDestroyingAsks(t *testing.T) {
	for _, tc := range []struct {
		answer string
		code   int
		sent   int
	}{{"y\n", 0, 1}, {"YES\n", 0, 1}, {"n\n", 1, 0}, {"\n", 1, 0}, {"", 1, 0}} {
		t.Run(strings.TrimSpace(tc.answer), func(t *testing.T) {
			f := newFakeAgent(t)
			f.answer("DELETE /v1/apps/web", api.ApplyResponse{})
			f.answer("GET /v1/status", api.Errorf(api.CodeNotFound, "gone"))
			got := invocation{env: map[string]string{"GANGLION_ADDR": f.addr}, stdin: tc.answer, asks: true}.run(t, "delete", "web")
			if got.code != tc.code || f.count("/v1/apps/web") != tc.sent {
				t.Errorf("exit %d with %d requests, want %d with %d\n%s", got.code, f.count("/v1/apps/web"), tc.code, tc.sent, got.errs)
			}
			if !strings.HasPrefix(got.errs, "Stop all copies of web") {
				t.Errorf("asked %q", got.errs)
			}
		})
	}
}

func TestDeleteBlocksUntilGone(t *testing.T) {
	f := newFakeAgent(t)
	f.answer("DELETE /v1/apps/web", api.ApplyResponse{})
	f.answer("GET /v1/hosts", []api.Host{{Name: "h1", Status: "alive"}, {Name: "h2", Status: "failed"}})
	on := func(hosts ...string) topology.AppStatus {
		st := topology.AppStatus{App: "web"}
		for _, h := range hosts {
			st.Copies = append(st.Copies, topology.CopyStatus{ID: "web/" + h[1:], Host: h, State: topology.CopyStopping})
		}
		return st
	}
	f.answers("GET /v1/status", on("h1"), on("h1"), api.Errorf(api.CodeNoLeader, "election"), api.Errorf(api.CodeNotFound, "gone"))
	if got := f.run("delete", "web", "--yes"); got.code != 0 || f.count("/v1/status") < 4 {
		t.Errorf("%+v after %d looks", got, f.count("/v1/status"))
	}

	t.Run("copies on a lost host are told, not waited for", func(t *testing.T) {
		f := newFakeAgent(t)
		f.answer("DELETE /v1/apps/web", api.ApplyResponse{})
		f.answer("GET /v1/hosts", []api.Host{{Name: "h1", Status: "alive"}, {Name: "h2", Status: "failed"}})
		f.answers("GET /v1/status", on("h1", "h2"), on("h2"))
		got := f.run("delete", "web", "--yes")
		if got.code != 0 || !strings.Contains(got.errs, "web/2 was on h2, which is lost") {
			t.Errorf("%+v", got)
		}
	})
	t.Run("not in time", func(t *testing.T) {
		f := newFakeAgent(t)
		f.answer("DELETE /v1/apps/web", api.ApplyResponse{})
		f.answer("GET /v1/hosts", []api.Host{{Name: "h1", Status: "alive"}})
		f.answer("GET /v1/status", on("h1"))
		got := f.run("delete", "web", "--yes", "--timeout", "300ms")
		if got.code != 1 || !strings.Contains(got.firstLine(), "not done after 300ms: web/1 on h1 is stopping") {
			t.Errorf("%+v", got)
		}
	})
}
