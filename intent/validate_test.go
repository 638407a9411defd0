package intent

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// web is a valid app that uses most of the vocabulary.
func web() App {
	three := 3
	return App{
		Name:  "web",
		Count: &three,
		Run: Run{
			Command:  []string{"./web", "-listen", ":${port.http}", "-name=${copy.n}@${host.name}/${host.addr}"},
			Artifact: "/srv/web",
			Env:      map[string]string{"MODE": "prod", "SELF": "${host.addr}:${port.http}"},
		},
		Ports:     map[string]Port{"http": {}},
		Resources: Resources{CPU: 0.5, Memory: 256 * MiB},
		Place:     Place{Require: []string{"zone != 'c'"}, Spread: "zone"},
		Checks:    []Check{{Type: CheckHTTP, Path: "/healthz", Every: Second}},
		Update:    Update{Parallel: 1},
	}
}

func TestValidAppPasses(t *testing.T) {
	in := Intents{Apps: []App{web()}, Reflexes: []Reflex{{
		Name: "shed-cache", When: "host.memory.available_ratio < 0.05", For: 5 * Second,
		Act: []Action{{Op: "restart", Target: "cache"}}, Cooldown: Minute, Limit: "3/10m",
	}}}
	for name, v := range map[string]Intents{"written": in, "normalized": in.Normalize()} {
		if err := v.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestValidateRefuses breaks one thing of a valid app at a time: exactly that
// thing is reported, at its path.
func TestValidateRefuses(t *testing.T) {
	long := strings.Repeat("x", 300)
	number := func(n int) *int { return &n }
	digest := "sha256:" + strings.Repeat("0", 64)
	cases := []struct {
		change func(a *App)
		path   string // relative to the app
		why    string // a part of the reason
	}{
		{func(a *App) { a.Count = number(-1) }, "count", "-1 is not a number of copies"},
		{func(a *App) { a.Count = number(MaxCopies + 1) }, "count", "10001"},
		{func(a *App) { a.PerHost = true }, "per_host", "count and per_host exclude each other"},
		{func(a *App) { a.Once = true }, "once", "count and once exclude"},
		{func(a *App) { a.Count, a.PerHost, a.Singleton = nil, true, true }, "singleton", "per_host and singleton"},
		{func(a *App) { a.Count, a.Schedule = nil, "61 * * * *" }, "schedule", `"61" is not between 0 and 59`},
		{func(a *App) { a.Count, a.Schedule = nil, "* * * *" }, "schedule", "has 4 fields"},
		{func(a *App) { a.Count, a.Schedule = nil, "@hourl" }, "schedule", `did you mean "@hourly"?`},
		{func(a *App) { a.Count, a.Schedule = nil, "* * * foo *" }, "schedule", "month of"},
		{func(a *App) { a.Count, a.Schedule = nil, "*/0 * * * *" }, "schedule", "not a step"},
		{func(a *App) { a.Count, a.Schedule = nil, "* 9-5 * * *" }, "schedule", "runs backwards"},
		{func(a *App) { a.Run.Command = nil }, "run.command", "a command is required"},
		{func(a *App) { a.Run.Command[0] = "" }, "run.command", "a command is required"},
		{func(a *App) { a.Run.Command[0] = "../../bin/sh" }, "run.command[0]", "leaves the package"},
		{func(a *App) { a.Run.Artifact = "" }, "run.command[0]", "there is no run.artifact"},
		{func(a *App) { a.Run.Command[2] = "${port.htpp}" }, "run.command[2]", "declares no such port"},
		{func(a *App) { a.Run.Command[2] = "${HOME}" }, "run.command[2]", "unknown placeholder"},
		{func(a *App) { a.Run.Command[2] = "${port.http" }, "run.command[2]", "no closing }"},
		{func(a *App) { a.Run.Command[2] = "a\x00b" }, "run.command[2]", "without NUL"},
		{func(a *App) { a.Run.Command[2] = "\xff" }, "run.command[2]", "not UTF-8"},
		{func(a *App) { a.Run.Command[2] = strings.Repeat("y", MaxWord+1) }, "run.command[2]", "bytes; at most"},
		{func(a *App) { a.Run.Command = make([]string, MaxArgv+1); a.Run.Command[0] = "x" }, "run.command", "257 words"},
		{func(a *App) { a.Run.Artifact = "sha256:beef" }, "run.artifact", "64 hex digits"},
		{func(a *App) { a.Run.Artifact = "http://x/y" }, "run.artifact", "only https://"},
		{func(a *App) { a.Run.Artifact = "https://x/y" }, "run.artifact", "needs run.digest"},
		{func(a *App) { a.Run.Artifact, a.Run.Digest = "https://u:p@x/y", digest }, "run.artifact", "user or password"},
		{func(a *App) { a.Run.Artifact, a.Run.Digest = "https:///y", digest }, "run.artifact", "not an address"},
		{func(a *App) { a.Run.Artifact = "/srv/${host.name}" }, "run.artifact", "placeholders stand in"},
		{func(a *App) { a.Run.Digest = "sha256:" + strings.Repeat("0", 64) }, "run.digest", "for an https:// artifact"},
		{func(a *App) { a.Run.Env["GANGLION_APP"] = "x" }, "run.env.GANGLION_APP", "set by the agent"},
		{func(a *App) { a.Run.Env["PORT_HTTP"] = "x" }, "run.env.PORT_HTTP", "set by the agent"},
		{func(a *App) { a.Run.Env["STATE_DIR"] = "x" }, "run.env.STATE_DIR", "set by the agent"},
		{func(a *App) { a.Run.Env["A-B"] = "x" }, "run.env.A-B", "not the name of an environment variable"},
		{func(a *App) { a.Run.Env["X"] = "${nope}" }, "run.env.X", "unknown placeholder"},
		{func(a *App) { a.Run.User = "a b" }, "run.user", "not the name or number of a user"},
		{func(a *App) { a.Run.Dir = "../etc" }, "run.dir", "leaves the package"},
		{func(a *App) { a.Run.Artifact, a.Run.Command[0], a.Run.Dir = "", "web", "sub" }, "run.dir", "no run.artifact"},
		{func(a *App) { a.Ports["http"] = Port{Static: 65536} }, "ports.http.static", "65536 is not a port"},
		{func(a *App) { a.Ports["http"] = Port{Static: -1} }, "ports.http.static", "-1 is not a port"},
		{func(a *App) { a.Ports["X"] = Port{}; a.Checks[0].Port = "http" }, "ports.X", "not a name"},
		{func(a *App) { a.Resources.CPU = -1 }, "resources.cpu", "not a number of cores"},
		{func(a *App) { a.Resources.CPU = math.NaN() }, "resources.cpu", "not a number of cores"},
		{func(a *App) { a.Resources.CPU = math.Inf(1) }, "resources.cpu", "not a number of cores"},
		{func(a *App) { a.Resources.Memory = 256 }, "resources.memory", "less than 1MiB"},
		{func(a *App) { a.Place.Require[0] = " " }, "place.require[0]", "an expression is required"},
		{func(a *App) { a.Place.Prefer = []string{strings.Repeat("a", MaxExpression+1)} }, "place.prefer[0]", "at most 2048"},
		{func(a *App) { a.Place.Require = make([]string, MaxRules+1) }, "place.require", "33 expressions"},
		{func(a *App) { a.Place.Spread = "a b" }, "place.spread", "not the name of a label"},
		{func(a *App) { a.Checks[0].Type = "htp" }, "checks[0].type", `did you mean "http"?`},
		{func(a *App) { a.Checks[0].Path = "healthz" }, "checks[0].path", "begins with /"},
		{func(a *App) { a.Checks[0].Path = "/a b\r\nHost: x" }, "checks[0].path", "has no space"},
		{func(a *App) { a.Checks[0].Port = "htttp" }, "checks[0].port", `did you mean "http"?`},
		{func(a *App) { a.Ports["admin"] = Port{} }, "checks[0].port", "has 2 ports"},
		{func(a *App) { a.Checks[0].Command = []string{"x"} }, "checks[0].command", "for exec and smoke"},
		{func(a *App) { a.Checks[0].Every = -1 }, "checks[0].every", "not between"},
		{func(a *App) { a.Checks[0].Failures = -2 }, "checks[0].failures", "-2 is not between"},
		{func(a *App) { a.Checks[0] = Check{Type: CheckExec} }, "checks[0].command", "a command is required"},
		{func(a *App) { a.Checks[0] = Check{Type: CheckTCP, Path: "/x"} }, "checks[0].path", "for http checks"},
		{func(a *App) { a.Checks[0] = Check{Type: CheckProcess, Port: "http"} }, "checks[0].port", "for http and tcp"},
		{func(a *App) { a.Checks[0] = Check{Type: CheckSmoke, Command: []string{"x"}, Every: 1} }, "checks[0].every", "runs once"},
		{func(a *App) { a.Checks = make([]Check, MaxChecks+1) }, "checks", "17 checks"},
		{func(a *App) { a.Restart.Limit = -1 }, "restart.limit", "-1"},
		{func(a *App) { a.Restart.Window = MaxSpan + 1 }, "restart.window", "not between"},
		{func(a *App) { a.Update.Strategy = "bluegreen" }, "update.strategy", `did you mean "blue-green"?`},
		{func(a *App) { a.Update.Parallel = -1 }, "update.parallel", "-1"},
		{func(a *App) { a.Update.Canary = -1 }, "update.canary", "-1"},
		{func(a *App) { a.Update.Deadline = Second }, "update.deadline", "leaves no time"},
		{func(a *App) { a.Update.OnFailure = "rolback" }, "update.on_failure", `did you mean "rollback"?`},
		{func(a *App) { a.Disconnect.Policy = "kep" }, "disconnect.policy", `did you mean "keep"?`},
		{func(a *App) { a.Stop.Signal = "TERM" }, "stop.signal", "is not known"},
		{func(a *App) { a.Stop.Grace = -Second }, "stop.grace", "not between"},
		{func(a *App) { a.Reflexes = []Reflex{{Name: "r", When: "x", Act: []Action{{Op: "restrat"}}}} },
			"reflexes[0].act[0].op", `did you mean "restart"?`},
		{func(a *App) { a.Run.Env[long] = "" }, "run.env." + strings.Repeat("x", 40) + `"…`, "not the name"},
	}
	for _, c := range cases {
		t.Run(c.path, func(t *testing.T) {
			a := web()
			c.change(&a)
			problems := problemsOf(t, a.Validate())
			if len(problems) != 1 || problems[0].Path != c.path || !strings.Contains(problems[0].Why, c.why) {
				t.Fatalf("got %q, want one at %s with %q", problems, c.path, c.why)
			}
			if line := problems[0].String(); strings.ContainsAny(line, "\n\r\x00") || len(line) > 300 {
				t.Errorf("not one readable line: %q", line)
			}
		})
	}
}

func problemsOf(t *testing.T, err error) []Problem {
	t.Helper()
	if err == nil {
		return nil
	}
	var v *ValidationError
	if !errors.As(err, &v) {
		t.Fatalf("%T is not a *ValidationError", err)
	}
	return v.Problems
}

func TestStaticPortTwice(t *testing.T) {
	a := App{Name: "a", Run: Run{Command: []string{"a"}}, Ports: map[string]Port{"x": {Static: 80}, "y": {Static: 80}}}
	got := problemsOf(t, a.Validate())
	want := []Problem{{"ports.y.static", `80 is the port "x" already`}}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestNames(t *testing.T) {
	for _, ok := range []string{"a", "0", "web-2", strings.Repeat("a", 63)} {
		if err := CheckName(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "-a", "A", "a_b", "a.b", "a/b", "..", "a\n", "ä", strings.Repeat("a", 64)} {
		if CheckName(bad) == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	in := Intents{Apps: []App{{Name: strings.Repeat("n", 300), Run: Run{Command: []string{"x"}}}}}
	want := `apps[0].name: the name "` + strings.Repeat("n", 40) + `"… has 300 characters; at most 63 are allowed`
	if err := in.Validate(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestIntentsValidateAsAWhole(t *testing.T) {
	ok := App{Name: "a", Run: Run{Command: []string{"a"}}}
	rule := Reflex{Name: "r", When: "x", Act: []Action{{Op: "drain_self"}}}
	cases := []struct {
		in   Intents
		want string
	}{
		{Intents{Apps: []App{ok, ok}}, `apps[1].name: "a" is declared twice`},
		{Intents{Reflexes: []Reflex{rule, rule}}, `reflexes[1].name: "r" is declared twice`},
		{Intents{Apps: []App{{Name: "b"}}}, `app.b.run.command: a command is required`},
		{Intents{Reflexes: []Reflex{{Name: "r", When: "x"}}}, `reflex.r.act: at least one action`},
		{Intents{Apps: make([]App, MaxApps+1)}, `1001 apps, reflexes or senses at once`},
	}
	for _, c := range cases {
		if err := c.in.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

func TestSizeLimits(t *testing.T) {
	big := func(name string, words int) App {
		a := App{Name: name, Run: Run{Command: []string{"a"}}}
		for range words {
			a.Run.Command = append(a.Run.Command, strings.Repeat("x", MaxWord))
		}
		return a
	}
	if err := big("a", 7).Validate(); err != nil {
		t.Errorf("an app below the limit: %v", err)
	}
	if err := big("a", 8).Validate(); err == nil || !strings.Contains(err.Error(), "at most 262144") {
		t.Errorf("an app above the limit: %v", err)
	}
	in := Intents{Apps: []App{big("a", 7), big("b", 7), big("c", 7), big("d", 7), big("e", 7)}}
	if err := in.Validate(); err == nil || !strings.Contains(err.Error(), "bytes in all") {
		t.Errorf("five of them: %v", err)
	}
}

func TestReflexRefuses(t *testing.T) {
	cases := []struct {
		change func(r *Reflex)
		path   string
	}{
		{func(r *Reflex) { r.Name = "A" }, "name"},
		{func(r *Reflex) { r.When = "" }, "when"},
		{func(r *Reflex) { r.Clear = strings.Repeat("a", MaxExpression+1) }, "clear"},
		{func(r *Reflex) { r.For = -1 }, "for"},
		{func(r *Reflex) { r.Limit = "3" }, "limit"},
		{func(r *Reflex) { r.Limit = "0/10m" }, "limit"},
		{func(r *Reflex) { r.Limit = "3/ten" }, "limit"},
		{func(r *Reflex) { r.Limit = "3/-1m" }, "limit"},
		{func(r *Reflex) { r.Mode = "dry" }, "mode"},
		{func(r *Reflex) { r.Act = nil }, "act"},
		{func(r *Reflex) { r.Act[0] = Action{Op: "emit"} }, "act[0].target"},
		{func(r *Reflex) { r.Act[0] = Action{Op: "drain_self", Target: "x"} }, "act[0].target"},
		{func(r *Reflex) { r.Act[0] = Action{Op: "signal", Args: map[string]string{"signal": "HUP"}} }, "act[0].args"},
	}
	for _, c := range cases {
		r := Reflex{Name: "r", When: "x", Act: []Action{{Op: "restart"}}}
		c.change(&r)
		if got := problemsOf(t, r.Validate()); len(got) != 1 || got[0].Path != c.path {
			t.Errorf("got %q, want one at %s", got, c.path)
		}
	}
}

func TestSchedules(t *testing.T) {
	for _, s := range []string{"@hourly", "0 3 * * *", "*/15 0-6/2 1,15 JAN-mar MON-FRI", "0 0 31 12 7", "@every 90s", "CRON_TZ=Europe/Berlin 0 3 * * *", "TZ=UTC @daily"} {
		if err := checkSchedule(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"@every", "@every 1ms", "@every 1h0.5s", "@every 0s", "@every 9000h", "CRON_TZ=Local @daily", "TZ= @daily", "TZ=", "TZ=Nowhere/Atall @daily"} {
		if checkSchedule(s) == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}

func TestExpressionsListsAll(t *testing.T) {
	in := Intents{
		Apps: []App{{Name: "a", Place: Place{Require: []string{"r0", "r1"}, Prefer: []string{"p0"}},
			Reflexes: []Reflex{{Name: "x", When: "w", Clear: "c"}}}, {Name: "BAD", Place: Place{Require: []string{"z"}}}},
		Reflexes: []Reflex{{Name: "y", When: "v"}},
	}
	want := []Expression{
		{"app.a.place.require[0]", "r0", true}, {"app.a.place.require[1]", "r1", true}, {"app.a.place.prefer[0]", "p0", true},
		{"app.a.reflexes[0].when", "w", false}, {"app.a.reflexes[0].clear", "c", false},
		{"apps[1].place.require[0]", "z", true}, {"reflex.y.when", "v", false},
	}
	if got := in.Expressions(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

// TestValidateIsTotal feeds arbitrary structs, as an API may receive them, to
// everything that looks at an intent: nothing panics, results are
// deterministic, and defaults settle after one step.
func TestValidateIsTotal(t *testing.T) {
	gen := rapid.Make[App]()
	rapid.Check(t, func(t *rapid.T) {
		a := gen.Draw(t, "app")
		in := Intents{Apps: []App{a}, Reflexes: a.Reflexes}
		first, second := in.Validate(), in.Validate()
		if fmt.Sprint(first) != fmt.Sprint(second) {
			t.Fatalf("two answers: %v and %v", first, second)
		}
		in.Expressions()
		a.Version()
		once := in.Normalize()
		if twice := once.Normalize(); !reflect.DeepEqual(once, twice) {
			t.Fatalf("defaults do not settle")
		}
		if fmt.Sprint(once.Validate() == nil) != fmt.Sprint(first == nil) {
			t.Fatalf("written %v, normalized %v", first, once.Validate())
		}
		if first == nil {
			if _, err := json.Marshal(in); err != nil {
				t.Fatalf("valid but not JSON: %v", err)
			}
		}
	})
}
