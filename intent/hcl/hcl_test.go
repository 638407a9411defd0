package hcl

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/intent/expr"
)

// example returns the example of the reference, as printed there.
func example(t testing.TB) string {
	t.Helper()
	src, err := os.ReadFile("testdata/interface.hcl")
	if err != nil {
		t.Fatal(err)
	}
	return string(src)
}

func TestExampleOfTheReference(t *testing.T) {
	got, err := Parse("web.hcl", []byte(example(t)))
	if err != nil {
		t.Fatal(err)
	}
	three := 3
	want := intent.Intents{
		Apps: []intent.App{{
			Name:  "web",
			Count: &three,
			Run: intent.Run{
				Command:  []string{"./web", "-listen", ":${port.http}"},
				Artifact: "./web.tar.gz",
				Env:      map[string]string{"MODE": "prod"},
			},
			Ports:     map[string]intent.Port{"http": {}},
			Resources: intent.Resources{CPU: 0.5, Memory: 256 * intent.MiB},
			Place:     intent.Place{Require: []string{"zone != 'c'"}, Spread: "zone"},
			Checks:    []intent.Check{{Type: intent.CheckHTTP, Path: "/healthz", Every: intent.Second}},
			Update:    intent.Update{Parallel: 1, Canary: 1, OnFailure: intent.OnFailureRollback},
		}},
		Reflexes: []intent.Reflex{{
			Name: "shed-cache", When: "host.memory.available_ratio < 0.05", For: 5 * intent.Second,
			Act:      []intent.Action{{Op: "restart", Target: "cache"}},
			Cooldown: intent.Minute, Limit: "3/10m",
		}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestExampleWithEachLineBroken breaks every line of the example in one or more
// ways. The first line of the error says where and what.
func TestExampleWithEachLineBroken(t *testing.T) {
	lines := strings.Split(strings.TrimSuffix(example(t), "\n"), "\n")
	cases := []struct {
		line   int
		broken string
		want   string // what the first line of the error begins with, after the file
	}{
		{1, `ap "web" {`, `1:1: unsupported block type: Blocks of type "ap" are not expected here. Did you mean "app"?`},
		{1, `app {`, `1:5: missing name for app`},
		{1, `app "Web" {`, `1:5: name: "Web" is not a name`},
		{1, `app "` + strings.Repeat("n", 300) + `" {`, `1:5: name: the name "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"… has 300 characters; at most 63 are allowed`},
		{1, `app "web" "two" {`, `1:11: extraneous label for app`},
		{1, `app "web`, `1:5: the string that begins here does not end`},
		{2, `  cuont = 3`, `2:3: unsupported argument: An argument named "cuont" is not expected here. Did you mean "count"?`},
		{2, `  count = "three"`, `2:11: count: "three" is not a whole number`},
		{2, `  count = -3`, `2:11: count: -3 is not a number of copies`},
		{2, `  count = 2.5`, `2:11: count: "2.5" is not a whole number`},
		{2, `  count = 1 + 2`, `2:13: unexpected "+"`},
		{2, `  count = null`, `2:11: null is not a value`},
		{2, `  count = 1e300`, `2:11: count: "1e300" is not a whole number`},
		{2, `  count =`, `2:10: invalid expression`},
		{2, "  per_host = true\n  count = 3", `2:14: per_host: count and per_host exclude each other`},
		{3, `  rum {`, `3:3: unsupported block type: Blocks of type "rum" are not expected here. Did you mean "run"?`},
		{3, `  run = {`, `3:3: unsupported argument: An argument named "run" is not expected here. Did you mean to define a block of type "run"?`},
		{4, ``, `3:3: run.command: a command is required`},
		{4, `    command = "./web"`, `4:15: command is a list`},
		{4, `    command = []`, `4:15: run.command: a command is required`},
		{4, `    command = ["./web", [1]]`, `4:25: want a plain value here`},
		{4, `    command = ["./web", web]`, `4:25: unexpected web; a string stands in quotes`},
		{4, `    command = ["../web"]`, `4:16: run.command[0]: "../web" leaves the package`},
		{4, `    command = ["./web", ":${port.htp}"]`, `4:25: run.command[1]: ${port.htp}: the app declares no such port`},
		{4, `    command = ["./web", ":${prot.http}"]`, `4:29: unknown placeholder "${prot.http}"`},
		{4, `    command = ["./web", "${upper("x")}"]`, `4:28: only the placeholders`},
		{4, `    command = ["./web", "$${HOME}"]`, `4:25: run.command[1]: unknown placeholder "${HOME}"`},
		{4, `    command = ["./web", "${port.http"]`, `4:`},
		{5, `    artifact = "ftp://web.tar.gz"`, `5:16: run.artifact: "ftp://web.tar.gz": only https:// is fetched`},
		{5, `    artifact = 'web.tar.gz'`, `5:16: invalid character`},
		{5, ``, `4:17: run.command[0]: "./web" is inside the package, but there is no run.artifact`},
		{6, `    env = { MODE = prod }`, `6:20: unexpected prod`},
		{6, `    env = { GANGLION_APP = "x" }`, `6:13: run.env.GANGLION_APP: "GANGLION_APP" is set by the agent`},
		{6, `    env = { MODE = "a", MODE = "b" }`, `6:25: "MODE" is set twice`},
		{6, `    env = ["MODE=prod"]`, `6:11: env is a map`},
		{6, `    env = { "a b" = "x" }`, `6:13: run.env.a b: "a b" is not the name of an environment variable`},
		{7, ``, `1:11: unclosed configuration block`},
		{8, ``, `4:37: run.command[2]: ${port.http}: the app declares no such port`},
		{8, "  port \"http\" {}\n  port \"HTTP\" {}", `9:8: ports.HTTP: "HTTP" is not a name`},
		{8, `  port {}`, `8:8: missing name for port`},
		{8, `  port "http" { static = 70000 }`, `8:26: ports.http.static: 70000 is not a port from 1 to 65535`},
		{8, `  port "http" { static = 0 }`, `8:26: static: must be at least 1`},
		{8, "  port \"http\" {}\n  port \"http\" {}", `9:8: port "http" is declared twice, first at web.hcl:8`},
		{9, `  resource {`, `9:3: unsupported block type: Blocks of type "resource" are not expected here. Did you mean "resources"?`},
		{10, `    cpu = "half"`, `10:11: cpu: "half" is not a number`},
		{10, `    cpu = -1`, `10:11: resources.cpu: -1 is not a number of cores`},
		{11, `    memory = "256 meg"`, `11:14: memory: "256 meg" is not a size`},
		{11, `    memory = 256`, `11:14: resources.memory: 256B is less than 1MiB`},
		{12, `  ]`, `12:3: `},
		{13, `  place "here" {`, `13:9: extraneous label for place`},
		{14, `    require = ["zone != "]`, `14:25: place.require[0]: mismatched input the end`},
		{14, `    require = ["zone = 'c'"]`, `14:22: place.require[0]: unexpected =; compare with ==`},
		{14, `    require = ["zone == 3"]`, `14:22: place.require[0]: == cannot be applied to (string, int)`},
		{14, `    require = ["zone"]`, `14:16: place.require[0]: yields a string`},
		{14, `    require = [zone != "c"]`, `14:21: unexpected "!="`},
		{14, `    require = "zone != 'c'"`, `14:15: require is a list`},
		{15, `    spread = "a zone"`, `15:14: place.spread: "a zone" is not the name of a label`},
		{15, `    spread = zone`, `15:14: unexpected zone`},
		{15, `    spread "zone"`, `15:`},
		{16, `  }}`, `1`},
		{17, `  check "htpp" {`, `17:9: checks[0].type: "htpp" is not a check: want http, tcp, exec, process or smoke; did you mean "http"?`},
		{17, `  check {`, `17:9: missing name for check`},
		{17, `  check "tcp" {`, `18:13: checks[0].path: a path is for http checks`},
		{18, `    path = "healthz"`, `18:12: checks[0].path: "healthz" is not the path of a request`},
		{18, `    port = "https"`, `18:12: checks[0].port: "https" is not a port of the app: want http; did you mean "http"?`},
		{19, `    every = "1 second"`, `19:13: every: "1 second" is not a duration`},
		{19, `    every = 1`, `19:13: every: "1" is not a duration`},
		{19, `    every = "0s"`, `19:13: every: zero means the default`},
		{19, `    every = "-1s"`, `19:13: checks[0].every: -1s is not between`},
		{19, `    live = "yes"`, `19:12: live is true or false`},
		{20, `  )`, `20:3: `},
		{21, `  update = 1 {`, `21:`},
		{22, `    parallel = 0`, `22:16: parallel: must be at least 1`},
		{22, `    parallel = 99999999999999999999`, `22:16: `},
		{23, `    canary = -1`, `23:14: update.canary: -1 is not between`},
		{24, `    on_failure = "rolback"`, `24:18: update.on_failure: "rolback" is not known: want rollback, hold or forward; did you mean "rollback"?`},
		{24, "    on_failure = \"hold\"\n    on_failure = \"hold\"", `25:5: attribute redefined`},
		{25, "  }\n  update {}", `26:3: a second update block; the first is at line 21`},
		{26, ``, `1:11: unclosed configuration block`},
		{27, `zone = "a"`, `27:1: unsupported argument`},
		{28, `reflex "shed cache" {`, `28:8: name: "shed cache" is not a name`},
		{28, `reflexx "shed-cache" {`, `28:1: unsupported block type: Blocks of type "reflexx" are not expected here. Did you mean "reflex"?`},
		{29, `  when = "host.memory.available_ratio <"`, `29:40: when: `},
		{29, `  when = host.memory.available_ratio < 0.05`, `29:38: unexpected "<"`},
		{29, ``, `28:1: when: an expression is required`},
		{30, `  for = 5`, `30:9: for: "5" is not a duration`},
		{31, `  act = [restrat("cache")]`, `31:10: restrat is not an action; did you mean restart?`},
		{31, `  act = restart("cache")`, `31:9: act is a list`},
		{31, `  act = ["restart"]`, `31:10: want an action`},
		{31, `  act = [restart("cache", "now")]`, `31:27: restart takes no more than 1 words`},
		{31, `  act = [signal("cache", "HUP")]`, `31:26: act[0].args: "HUP" is not known`},
		{31, `  act = [drain_self("x")]`, `31:21: act[0].target: drain_self acts on this host`},
		{31, `  act = [restart("cache"]`, `31:`},
		{31, `  act = []`, `31:9: act: at least one action is required`},
		{32, `  cooldown = "a minute"`, `32:14: cooldown: "a minute" is not a duration`},
		{33, `  limit = "3 per 10m"`, `33:11: limit: "3 per 10m" is not a limit such as 3/10m`},
		{33, `  mode = "dry"`, `33:10: mode: "dry" is not known: want enforce or observe`},
		{34, ``, `28:21: unclosed configuration block`},
		{34, `} extra`, `34:`},
	}
	covered := make(map[int]bool)
	for _, c := range cases {
		covered[c.line] = true
		t.Run(fmt.Sprintf("%d %.30s", c.line, c.broken), func(t *testing.T) {
			broken := append([]string{}, lines...)
			broken[c.line-1] = c.broken
			_, err := Parse("web.hcl", []byte(strings.Join(broken, "\n")+"\n"))
			checkMessage(t, err)
			first, _, _ := strings.Cut(err.Error(), "\n")
			if !strings.HasPrefix(first, "web.hcl:"+c.want) {
				t.Errorf("got  %s\nwant web.hcl:%s", first, c.want)
			}
		})
	}
	for i := range lines {
		if !covered[i+1] {
			t.Errorf("line %d is never broken: %s", i+1, lines[i])
		}
	}
}

var messageForm = regexp.MustCompile(`^[^:]+:[0-9]+:[0-9]+: .{5,}`)

// checkMessage asserts that err is an *Error whose first line stands for
// itself.
func checkMessage(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %T: %v", err, err)
	}
	first, rest, _ := strings.Cut(err.Error(), "\n")
	if !messageForm.MatchString(first) || len(first) > 400 {
		t.Errorf("the first line is %q", first)
	}
	if e.Problems[0].Snippet != "" && !strings.HasPrefix(rest, e.Problems[0].Snippet) {
		t.Errorf("no snippet after the first line: %q", rest)
	}
}

// TestMechanicalBreaks damages each line in ways that nobody has thought about:
// either the file is still valid, or the error is well formed.
func TestMechanicalBreaks(t *testing.T) {
	lines := strings.SplitAfter(example(t), "\n")
	damage := map[string]func(s string) string{
		"gone":      func(string) string { return "" },
		"half":      func(s string) string { return s[:len(s)/2] },
		"twice":     func(s string) string { return s + s },
		"no quotes": func(s string) string { return strings.ReplaceAll(s, `"`, "") },
		"no braces": func(s string) string { return strings.NewReplacer("{", "", "}", "", "[", "", "]", "").Replace(s) },
		"reversed": func(s string) string {
			r := []rune(s)
			for i, j := 0, len(r)-1; i < j; i, j = i+1, j-1 {
				r[i], r[j] = r[j], r[i]
			}
			return string(r)
		},
		"junk": func(s string) string { return "\xff\x00" + s },
		"null": func(s string) string { return regexp.MustCompile(`= .*`).ReplaceAllString(s, "= null") },
		"list": func(s string) string { return regexp.MustCompile(`= (.*)`).ReplaceAllString(s, "= [[$1]]") },
	}
	refused := 0
	for i := range lines {
		for name, f := range damage {
			broken := append([]string{}, lines...)
			broken[i] = f(lines[i])
			if _, err := Parse("web.hcl", []byte(strings.Join(broken, ""))); err != nil {
				refused++
				checkMessage(t, err)
				if t.Failed() {
					t.Fatalf("line %d, %s", i+1, name)
				}
			}
		}
	}
	if refused < len(lines)*5 {
		t.Errorf("only %d damages were noticed", refused)
	}
}

func TestErrorShowsTheLine(t *testing.T) {
	src := "app \"web\" {\n  run {\n\tcomand = [\"x\"]\n  }\n}\n"
	_, err := Parse("dir/web.hcl", []byte(src))
	want := `dir/web.hcl:3:2: unsupported argument: An argument named "comand" is not expected here. Did you mean "command"?
    3 |  comand = ["x"]
      |  ^^^^^^`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestEveryProblemIsReportedOnce(t *testing.T) {
	src := `app "a" { # no run at all
  count = -1
}
app "b" {
  run { command = ["/b"] }
  stop { signal = "TERM" }
  place { require = ["zone", "a ="] }
}
app "a" {
  run { command = ["/a"] }
}
`
	_, err := Parse("x.hcl", []byte(src))
	var e *Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	var got []string
	for _, p := range e.Problems {
		got = append(got, fmt.Sprintf("%d:%d", p.Line, p.Column))
	}
	if want := []string{"1:1", "2:11", "6:19", "7:22", "7:33", "9:5"}; !reflect.DeepEqual(got, want) {
		t.Errorf("problems at %q, want %q\n%v", got, want, err)
	}
}

func TestManyProblemsAreCut(t *testing.T) {
	_, err := Parse("x.hcl", []byte(strings.Repeat("app \"A\" {}\n", 100)))
	if err == nil || !strings.Contains(err.Error(), "\n… and ") || strings.Count(err.Error(), "\n") > 70 {
		t.Errorf("got %v", err)
	}
}

// TestVocabulary reads one file that sets every attribute there is.
func TestVocabulary(t *testing.T) {
	in, err := Parse("all.hcl", []byte(`
app "all" {
  per_host = true
  run {
    command  = ["server", "$HOME", <<-EOT
      two
      lines of ${host.name}
      EOT
    ]
    artifact = "https://example.org/a.tar.gz"
    digest   = "sha256:`+strings.Repeat("ab", 32)+`"
    env      = { A = 1.10, "B" = true, C = "${copy.n}/${host.addr}/${port.p-2}/${port.8080}" }
    user     = "daemon"
    dir      = "sub/dir"
  }
  port "p-2" { static = 8081 }
  port "8080" { static = 8080 }
  place { prefer = ["disk == 'ssd'"] }
  check "tcp" {
    port     = "p-2"
    every    = "2s"
    timeout  = "500ms"
    grace    = "1m"
    failures = 5
    live     = false
  }
  check "exec" { command = ["./ok", "${port.8080}"] }
  restart {
    limit       = 3
    window      = "5m"
    backoff_max = "30s"
  }
  update {
    strategy    = "rolling"
    healthy_for = "1s"
    deadline    = "1m"
  }
  disconnect {
    policy = "keep"
    grace  = "1m"
  }
  stop {
    signal = "SIGINT"
    grace  = "3s"
  }
  reflex "bound" {
    when      = "app.mem_ratio > 0.95"
    clear     = "app.mem_ratio < 0.8"
    for       = "0s"
    clear_for = "10s"
    max_age   = "2s"
    scope     = "copy"
    mode      = "observe"
    act = [
      throttle("all", { cpu = "50%" }), signal("all", "SIGHUP"), run("/bin/hook", "a", "b"), drain_self(),
      evict(), emit("gave-up", "critical"), webhook("https://example.org/h"), claim("10.0.0.10/24"), stop("all"),
    ]
  }
}
`))
	if err != nil {
		t.Fatal(err)
	}
	a := in.Apps[0]
	if want := map[string]string{"A": "1.10", "B": "true", "C": "${copy.n}/${host.addr}/${port.p-2}/${port.8080}"}; !reflect.DeepEqual(a.Run.Env, want) {
		t.Errorf("env %q", a.Run.Env)
	}
	if want := []string{"server", "$HOME", "two\nlines of ${host.name}\n"}; !reflect.DeepEqual(a.Run.Command, want) {
		t.Errorf("command %q", a.Run.Command)
	}
	want := []intent.Action{
		{Op: "throttle", Target: "all", Args: map[string]string{"cpu": "50%"}},
		{Op: "signal", Target: "all", Args: map[string]string{"signal": "SIGHUP"}},
		{Op: "run", Target: "/bin/hook", Args: map[string]string{"1": "a", "2": "b"}},
		{Op: "drain_self"}, {Op: "evict"},
		{Op: "emit", Target: "gave-up", Args: map[string]string{"severity": "critical"}},
		{Op: "webhook", Target: "https://example.org/h"},
		{Op: "claim", Target: "10.0.0.10/24"}, {Op: "stop", Target: "all"},
	}
	if got := a.Reflexes[0].Act; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	assertAllSet(t, reflect.ValueOf(a), "app", map[string]bool{
		"app.Count": true, "app.Singleton": true, "app.Schedule": true, "app.Once": true, // exclude per_host
		"app.Resources": true, "app.Place.Require": true, "app.Place.Spread": true, // in the example of the reference
		"app.Update.Parallel": true, "app.Update.Canary": true, "app.Update.OnFailure": true, "app.Checks[].Path": true,
		"app.Checks[].Command": true, "app.Reflexes[].For": true, "app.Reflexes[].Cooldown": true, "app.Reflexes[].Limit": true,
		"app.Reflexes[].Act[].Target": true, "app.Reflexes[].Act[].Args": true,
	})
}

// assertAllSet fails for every field below v that is zero and not excused: a
// field that is added to the vocabulary but not to the file form.
func assertAllSet(t *testing.T, v reflect.Value, path string, excused map[string]bool) {
	t.Helper()
	if excused[path] {
		return
	}
	switch {
	case v.IsZero():
		t.Errorf("%s is not set", path)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			assertAllSet(t, v.Field(i), path+"."+v.Type().Field(i).Name, excused)
		}
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		assertAllSet(t, v.Index(0), path+"[]", excused)
	}
}

func TestHostileFiles(t *testing.T) {
	for name, src := range map[string]string{
		"brackets":     "a = " + strings.Repeat("[", 100_000),
		"parentheses":  "a = " + strings.Repeat("(", 100_000),
		"blocks":       strings.Repeat("a {\n", 50_000),
		"bangs":        "a = " + strings.Repeat("!", 200_000),
		"minuses":      "a = " + strings.Repeat("-", 200_000) + "1",
		"conditionals": "a = " + strings.Repeat("1 ? 1 : ", 20_000),
		"templates":    "a = " + strings.Repeat(`"${`, 50_000),
		"directives":   `a = "%{ for x in [1] }%{ endfor }"`,
		"loop":         `app "a" { run { command = [for x in ["a"] : x] } }`,
		"splat":        `app "a" { run { command = ["a", "${port.*}"] } }`,
		"index":        `app "a" { run { command = ["a", "${port["http"]}"] } }`,
		"huge number":  "app \"a\" {\n count = 1e999999999\n}",
		"tiny number":  "app \"a\" {\n count = 1e-999999999\n}",
		"too long":     strings.Repeat("#", maxFile+1),
		"not text":     "\xff\xfe\x00a",
		"huge cores":   "app \"a\" {\n resources { cpu = 1e999999999 }\n}",
		"wrapped":      `app "a" { run { command = ["a", "${5}"] } }`,
		"many digits":  "app \"a\" {\n count = 0." + strings.Repeat("9", 50_000) + "\n}",
		"many dots":    "app \"a\" {\n count = a" + strings.Repeat(".b", 50_000) + "\n}",
		"long line":    "app \"a\" {\n count = \"" + strings.Repeat("é", 50_000) + "\"\n}",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("x.hcl", []byte(src))
			checkMessage(t, err)
			if len(err.Error()) > 2000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

// TestExpressionsOfAllSizes: the two packages that bound expressions, and do not
// know each other, agree.
func TestExpressionsOfAllSizes(t *testing.T) {
	for size, ok := range map[int]bool{intent.MaxExpression: true, intent.MaxExpression + 1: false} {
		src := "zone == '" + strings.Repeat("z", size-len("zone == ''")) + "'"
		a := intent.App{Name: "a", Run: intent.Run{Command: []string{"a"}}, Place: intent.Place{Require: []string{src}}}
		if got := a.Validate() == nil; got != ok {
			t.Errorf("intent: %d bytes: %v", size, got)
		}
		if got := expr.Check(src, true) == nil; got != ok {
			t.Errorf("expr: %d bytes: %v", size, got)
		}
	}
}

func TestParsePath(t *testing.T) {
	dir := t.TempDir()
	write := func(name, src string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ParsePath(dir); err == nil || !strings.Contains(err.Error(), "no *.hcl file") {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := ParsePath(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such path: %v", err)
	}
	write("b.hcl", "app \"b\" {\n run { command = [\"/b\"] }\n}\n")
	write("a.hcl", "app \"a\" {\n run { command = [\"/a\"] }\n}\n")
	write("notes.txt", "not read")
	in, err := ParsePath(dir)
	if err != nil || len(in.Apps) != 2 || in.Apps[0].Name != "a" || in.Apps[1].Name != "b" {
		t.Errorf("got %+v, %v", in, err)
	}
	if in, err := ParsePath(filepath.Join(dir, "b.hcl")); err != nil || len(in.Apps) != 1 {
		t.Errorf("got %+v, %v", in, err)
	}
	write("c.hcl", "\napp \"a\" {\n run { command = [\"/a\"] }\n}\n")
	want := filepath.Join(dir, "c.hcl") + `:2:5: app "a" is declared twice, first at ` + filepath.Join(dir, "a.hcl") + ":1\n"
	if _, err := ParsePath(dir); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(os.DevNull, filepath.Join(dir, "d", "dev.hcl")); err != nil {
		t.Fatal(err)
	}
	if _, err := ParsePath(filepath.Join(dir, "d")); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a device: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(example(f)))
	f.Add([]byte(`app "a" { run { command = ["x", "${port.8080}", <<E` + "\n${copy.n}\nE\n] } }"))
	f.Add([]byte("app \"a\" {\n count = 1e9\n schedule = \"* * * * *\"\n}"))
	f.Fuzz(func(t *testing.T, src []byte) {
		in, err := Parse("f.hcl", src)
		if err != nil {
			checkMessage(t, err)
			return
		}
		if err := in.Validate(); err != nil {
			t.Fatalf("accepted but invalid: %v", err)
		}
	})
}
