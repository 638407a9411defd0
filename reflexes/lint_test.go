package reflexes

import (
	"fmt"
	"strings"
	"testing"
)

// what lint says of each text, a line each: severity, rule, kind, place.
func TestLint(t *testing.T) {
	app := func(reflex string) string {
		return "app \"web\" {\n  run { command = [\"web\"] }\n" + reflex + "\n}"
	}
	for _, c := range []struct{ name, rules, want string }{
		{"sound", `reflex "shed" {
  when  = "host.memory.available_ratio < 0.05 && host.psi.memory.full_10s > 0.2"
  clear = "host.memory.available_ratio > 0.2"
  for   = "5s"
  act   = [restart("cache"), emit("memory")]
}
reflex "flee" {
  when     = "disk.read_only"
  scope    = "disk:/var"
  act      = [drain_self()]
  limit    = "1/30m"
  cooldown = "10m"
}
` + reviveRule, ""},
		{"percent for ratio", rule("host.memory.available_ratio < 5", `restart("cache")`, ""), "refuse r match-all when"},
		{"always, counted", rule("app.restarts >= 0", `restart()`, `scope = "copy:web"`), "refuse r match-all when"},
		{"always, either way", rule("leader.known || !leader.known", `emit("x")`, ""), "refuse r match-all when"},
		{"always, only looked at", rule("host.cpu.count > 0", `emit("x")`, `mode = "observe"`), "warn r match-all when"},
		{"never", rule("host.cpu.busy_ratio > 90.0", `emit("x")`, ""), "refuse r never when"},
		{"never, by halves", rule("host.cpu.busy_ratio > 0.9 && host.cpu.busy_ratio < 0.8", `emit("x")`, ""), "refuse r never when"},
		{"not to be judged", rule("host.load.per_core * 2.0 > host.load.per_core", `emit("x")`, ""), ""},
		{"an edge always is", rule("link.downs > 0", `emit("x")`, `scope = "link:*"`), ""},
		{"everything", rule("app.mem_ratio > 0.95", `restart()`, `scope = "copy:*"`), "refuse r match-all scope"},
		{"everything that ended", rule("exit.count > 0", `restart()`, `scope = "copy:*"`), ""},
		{"a pattern to act on", rule("host.load.per_core > 20", `stop("web-*")`, ""), "refuse r match-all act[0]"},
		{"never over", rule("host.load.per_core > 4", `emit("x")`, `clear = "host.load.per_core < 0.0"`), "warn r unreachable clear"},
		{"over at once", rule("host.load.per_core > 4", `emit("x")`, `clear = "host.load.per_core > 2"`), "warn r unreachable clear"},
		{"after the last resort", rule("app.mem_ratio > 0.9", `stop(), signal("", "SIGHUP")`, `scope = "copy:web"`), "warn r unreachable act[1]"},
		{"a ladder too long", rule("app.mem_ratio > 0.9", `signal("", "SIGHUP"), restart()`, "scope = \"copy:web\"\n limit = \"2/10m\""), "warn r unreachable limit"},
		{"no cap", rule("app.mem_ratio > 0.9", `restart()`, "scope = \"copy:web\"\n limit = \"100/1m\""), "warn r caps limit"},
		{"by its own uptime", app(rule("app.uptime_seconds < 10.0", `restart()`, "")), "warn r self-trigger when"},
		{"every day", app(rule("app.uptime_seconds > 86400.0", `restart()`, "")), ""},
		{"by its own start", app(rule("!app.ready", `restart()`, "")), "warn r self-trigger when"},
		{"not ready for long", app(rule("!app.ready", `restart()`, `for = "30s"`)), ""},
		{"undone by the next rung", app(rule("app.mem_ratio > 0.9", `stop(), restart()`, "")), "warn r unreachable act[1], warn r fight act[1]"},
		{"two that fight", rule("host.load.per_core > 4", `stop("web")`, "") + "\n" + strings.Replace(rule("host.load.per_core < 6", `restart("web")`, ""), `"r"`, `"s"`, 1),
			"warn r fight when"},
		{"two that take turns", rule("host.load.per_core > 4", `stop("web")`, "") + "\n" + strings.Replace(rule("host.load.per_core < 2", `restart("web")`, ""), `"r"`, `"s"`, 1), ""},
		{"two of other apps", rule("host.load.per_core > 4", `stop("web")`, "") + "\n" + strings.Replace(rule("host.load.per_core < 6", `restart("db")`, ""), `"r"`, `"s"`, 1), ""},
		{"of two disks", rule("disk.free_ratio < 0.1", `stop("web")`, `scope = "disk:/a"`) + "\n" + strings.Replace(rule("disk.free_ratio > 0.5", `restart("web")`, `scope = "disk:/b"`), `"r"`, `"s"`, 1),
			"warn r fight when"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, f := range Lint(compile(t, c.rules)) {
				severity := "warn"
				if f.Refuse {
					severity = "refuse"
				}
				got = append(got, fmt.Sprintf("%s %s %s %s", severity, f.Rule, f.Kind, f.Path))
				if f.Why == "" || f.Fix == "" {
					t.Errorf("without why and fix: %+v", f)
				}
			}
			if g := strings.Join(got, ", "); g != c.want {
				t.Errorf("lint says\n%q, want\n%q", g, c.want)
			}
		})
	}
}

func rule(when, act, more string) string {
	return fmt.Sprintf("reflex \"r\" {\n  when = %q\n  act = [%s]\n  %s\n}", when, act, more)
}

// Two that fight are told with values at which both hold.
func TestLintTellsWhen(t *testing.T) {
	found := Lint(compile(t, rule("host.load.per_core > 4", `stop("web")`, "")+"\n"+strings.Replace(rule("host.load.per_core < 6", `restart("web")`, ""), `"r"`, `"s"`, 1)))
	want := `stop("web") fights reflex s: stop("web") and restart("web") act on the same, and both can hold, as with host.load.per_core = 5`
	if len(found) != 1 || found[0].Why != want || found[0].Other != "s" {
		t.Errorf("found %+v, want %s", found, want)
	}
	if p := found[0].Problem(); p.Path != "when" || !strings.HasPrefix(p.Why, want+"; ") {
		t.Errorf("as a problem: %+v", p)
	}
}

// A mesh full of conditions that are dear to try out is judged in bounded time.
func TestLintIsBounded(t *testing.T) {
	one := compile(t, rule("host.load.per_core > 1 && host.cpu.busy_ratio > 0.1 && host.swap.used_ratio > 0.1 && host.pids.used_ratio > 0.1 && host.files.used_ratio > 0.1", `stop("web")`, ""))[0]
	rules := make([]*Rule, 300)
	for i := range rules {
		r := *one
		r.Name = fmt.Sprint("r", i)
		if i%2 == 1 {
			r.Rungs = compile(t, rule("leader.known", `restart("web")`, ""))[0].Rungs
		}
		rules[i] = &r
	}
	l := linter{tries: allTries}
	for _, a := range rules {
		for _, b := range rules {
			l.together(a, b)
		}
	}
	if l.tries < 0 {
		t.Errorf("%d tries more than allowed", -l.tries)
	}
	Lint(rules)
}
