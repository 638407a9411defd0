package intent

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestDefaultsAreThoseOfTheReference(t *testing.T) {
	a := App{Name: "a", Run: Run{Command: []string{"a"}}, Ports: map[string]Port{"http": {}},
		Checks: []Check{{Type: CheckHTTP}, {Type: CheckExec, Command: []string{"x"}}, {Type: CheckSmoke, Command: []string{"x"}}}}
	data, err := json.Marshal(a.WithDefaults())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"name":"a","count":1,"run":{"command":["a"]},"ports":{"http":{}},"checks":[` +
		`{"type":"http","path":"/","port":"http","every":"5s","timeout":"1s","grace":"10s","failures":3,"live":true},` +
		`{"type":"exec","command":["x"],"every":"5s","timeout":"1s","grace":"10s","failures":3,"live":true},` +
		`{"type":"smoke","command":["x"],"timeout":"1s"}],` +
		`"restart":{"limit":5,"window":"10m","backoff_max":"1m"},` +
		`"update":{"strategy":"rolling","parallel":1,"healthy_for":"5s","deadline":"2m","on_failure":"rollback"},` +
		`"disconnect":{"policy":"replace","grace":"5s"},"stop":{"signal":"SIGTERM","grace":"10s"}}`
	if string(data) != want {
		t.Errorf("got  %s\nwant %s", data, want)
	}
	if a.Checks[0].Path != "" || a.Count != nil {
		t.Error("WithDefaults changed the app it was called on")
	}
}

func TestKindsAndCopies(t *testing.T) {
	zero, two := 0, 2
	cases := []struct {
		app    App
		kind   string
		copies int
	}{
		{App{}, KindReplicated, 1}, {App{Count: &two}, KindReplicated, 2}, {App{Count: &zero}, KindReplicated, 0},
		{App{PerHost: true}, KindPerHost, 0}, {App{Singleton: true}, KindSingleton, 1},
		{App{Schedule: "@daily"}, KindSchedule, 0}, {App{Once: true}, KindOnce, 1},
	}
	for _, c := range cases {
		for _, a := range []App{c.app, c.app.WithDefaults()} {
			if a.Kind() != c.kind || a.Copies() != c.copies {
				t.Errorf("%+v: %s with %d copies, want %s with %d", c.app, a.Kind(), a.Copies(), c.kind, c.copies)
			}
		}
	}
}

func TestVersionFollowsWhatACopyEmbodies(t *testing.T) {
	base := web().Version()
	if len(base) != 12 || strings.Trim(base, "0123456789abcdef") != "" {
		t.Fatalf("%q is not 12 hex digits", base)
	}
	if v := web().WithDefaults().Version(); v != base {
		t.Error("writing the defaults out changed the version")
	}
	ten := 10
	same := map[string]func(a *App){
		"count":      func(a *App) { a.Count = &ten },
		"place":      func(a *App) { a.Place.Spread = "rack" },
		"update":     func(a *App) { a.Update.Parallel = 2 },
		"restart":    func(a *App) { a.Restart.Limit = 9 },
		"stop":       func(a *App) { a.Stop.Signal = "SIGINT" },
		"disconnect": func(a *App) { a.Disconnect.Policy = DisconnectKeep },
		"reflexes":   func(a *App) { a.Reflexes = []Reflex{{Name: "x"}} },
		"name":       func(a *App) { a.Name = "other" },
	}
	other := map[string]func(a *App){
		"command":   func(a *App) { a.Run.Command[0] = "./web2" },
		"env":       func(a *App) { a.Run.Env["MODE"] = "dev" },
		"port":      func(a *App) { a.Ports["http"] = Port{Static: 80} },
		"new port":  func(a *App) { a.Ports["x"] = Port{} },
		"resources": func(a *App) { a.Resources.CPU = 1 },
		"check":     func(a *App) { a.Checks[0].Path = "/ready" },
	}
	for name, change := range same {
		a := web()
		if change(&a); a.Version() != base {
			t.Errorf("%s changed the version", name)
		}
	}
	for name, change := range other {
		a := web()
		if change(&a); a.Version() == base {
			t.Errorf("%s left the version", name)
		}
	}
}

func TestPlaceholders(t *testing.T) {
	names, err := Placeholders("a ${port.http}${copy.n} $HOME $${host.name} ${host.addr}")
	if want := []string{"port.http", "copy.n", "host.name", "host.addr"}; err != nil || !reflect.DeepEqual(names, want) {
		t.Errorf("got %q, %v", names, err)
	}
	for _, bad := range []string{"${", "${}", "${port}", "${port.}", "${port.A}", "${ copy.n }", "${copy.n", "${PORT.http}", "x${a${copy.n}}"} {
		if _, err := Placeholders(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	// What is filled in is not looked at again.
	got, err := Expand("[${host.name}]", func(string) (string, error) { return "${copy.n}", nil })
	if err != nil || got != "[${copy.n}]" {
		t.Errorf("got %q, %v", got, err)
	}
	none := errors.New("no such port")
	if _, err := Expand("${port.x}", func(string) (string, error) { return "", none }); !errors.Is(err, none) {
		t.Errorf("got %v", err)
	}
	if got := PortEnv("http-admin"); got != "PORT_HTTP_ADMIN" {
		t.Error(got)
	}
}

func TestDiff(t *testing.T) {
	old := Intents{Apps: []App{web(), {Name: "gone", Run: Run{Command: []string{"x"}}}}}
	changed := web()
	changed.Run.Env = map[string]string{"MODE": "dev"}
	changed.Run.Command = []string{"./web"}
	changed.Checks[0].Every = 2 * Second
	changed.Update.Parallel = 0 // the default again, which is what it was
	added := App{Name: "new", PerHost: true, Run: Run{Command: []string{"x"}}}
	got, err := json.Marshal(Diff(old, Intents{Apps: []App{added, changed}, Reflexes: []Reflex{{Name: "r", When: "w"}}}))
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"op":"remove","kind":"app","name":"gone","fields":[]},` +
		`{"op":"add","kind":"app","name":"new","fields":[{"path":"run.command","from":null,"to":["x"]}]},` +
		`{"op":"change","kind":"app","name":"web","fields":[` +
		`{"path":"checks[0].every","from":"1s","to":"2s"},` +
		`{"path":"run.command","from":["./web","-listen",":${port.http}","-name=${copy.n}@${host.name}/${host.addr}"],"to":["./web"]},` +
		`{"path":"run.env.MODE","from":"prod","to":"dev"},` +
		`{"path":"run.env.SELF","from":"${host.addr}:${port.http}","to":null}]},` +
		`{"op":"add","kind":"reflex","name":"r","fields":[{"path":"when","from":null,"to":"w"}]}]`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if same := Diff(old, old.Normalize()); same == nil || len(same) != 0 {
		t.Errorf("equal intents differ: %v", same)
	}
}

func TestMainPrintsWhatParseJSONReads(t *testing.T) {
	var out, errs bytes.Buffer
	declare := func(m *Mesh) {
		m.App(web())
		m.Reflex(Reflex{Name: "r", When: "a < b && c > d", Act: []Action{{Op: "drain_self"}}})
	}
	if code := run(declare, &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s", code, &errs)
	}
	got, err := ParseJSON(out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	m := new(Mesh)
	declare(m)
	if !reflect.DeepEqual(got, m.Intents()) {
		t.Errorf("got %+v", got)
	}
}

func TestMainTellsWhereItIsWrong(t *testing.T) {
	var out, errs bytes.Buffer
	code := run(func(m *Mesh) {
		m.App(web())
		m.App(App{Name: "bad"})
	}, &out, &errs)
	if code != 2 || out.Len() != 0 {
		t.Errorf("exit %d with output %q", code, &out)
	}
	line := errs.String()
	if !strings.HasPrefix(line, "intent_test.go:") || !strings.Contains(line, ": app.bad.run.command: a command is required") {
		t.Errorf("got %q", line)
	}
}

func TestParseJSONRefuses(t *testing.T) {
	for src, want := range map[string]string{
		``:                                    "nothing was written",
		`{"apps":[{"name":"a","cuont":2}]}`:   `unknown field "cuont"`,
		`{} {}`:                               "more after the JSON value",
		"{\n \"apps\": 3}":                    "line 2, column",
		"{\n \"apps\": [}":                    "line 2, column 11",
		`{"apps":[{"stop":{"grace":"5"}}]}`:   `"5" is not a duration`,
		strings.Repeat(" ", MaxIntents) + "1": "at most 1048576",
	} {
		if _, err := ParseJSON([]byte(src)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %q", src, err, want)
		}
	}
}

func TestUnitsReadWhatTheyPrint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Bytes(rapid.Int64Range(0, 1<<61).Draw(t, "bytes"))
		var back Bytes
		if err := back.UnmarshalText([]byte(b.String())); err != nil || back != b {
			t.Fatalf("%d prints %s reads %d, %v", int64(b), b, int64(back), err)
		}
		d := Duration(rapid.Int64().Draw(t, "duration"))
		var again Duration
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
			t.Fatalf("%d prints %s reads %d, %v", int64(d), d, int64(again), err)
		}
	})
	for _, bad := range []string{"NaN", "-1", "1 GiB x", "", "MiB", "1e40", "Inf", "99999999TiB"} {
		if b := Bytes(7); b.UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%q read as %v", bad, b)
		}
	}
	if b := Bytes(0); b.UnmarshalText([]byte("1.5 GiB")) != nil || b != GiB+512*MiB {
		t.Errorf("1.5 GiB read as %v", b)
	}
}

func FuzzPlaceholders(f *testing.F) {
	f.Add("a ${port.http} ${copy.n}")
	f.Add("${${}")
	f.Fuzz(func(t *testing.T, s string) {
		if names, err := Placeholders(s); err == nil {
			for _, n := range names {
				if CheckPlaceholder(n) != nil {
					t.Errorf("%q is no placeholder", n)
				}
			}
		}
	})
}

func FuzzParseJSON(f *testing.F) {
	data, _ := json.Marshal(Intents{Apps: []App{web()}})
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := ParseJSON(data)
		if err != nil {
			return
		}
		if in.Validate() == nil && in.Normalize().Validate() != nil {
			t.Error("valid only as written")
		}
	})
}

func TestDiffShowsADynamicPort(t *testing.T) {
	with := func(ports map[string]Port) Intents {
		return Intents{Apps: []App{{Name: "web", Run: Run{Command: []string{"web"}}, Ports: ports}}}
	}
	changes := Diff(with(nil), with(map[string]Port{"http": {}}))
	if len(changes) != 1 || len(changes[0].Fields) != 1 || changes[0].Fields[0].Path != "ports.http" {
		t.Errorf("a port was added: %+v", changes)
	}
	if back := Diff(with(map[string]Port{"http": {}}), with(nil)); len(back) != 1 {
		t.Errorf("a port was removed: %+v", back)
	}
}
