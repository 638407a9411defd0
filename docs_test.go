package ganglion_test

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2/hclparse"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/intent/hcl"
)

// agentKeys are the keys of the agent's configuration that users were promised.
var agentKeys = []string{
	"name", "data_dir", "socket", "bind", "advertise", "init", "seeds", "token_file", "labels", "voter", "ports",
	"port_range", "nats", "nats_stream", "http", "driver", "allow_run", "reflex_addresses", "reflex_units", "artifact_cache", "artifact_rate",
}

// pages are the texts for users. Those of developers are only searched for dead
// links.
func pages(t *testing.T) []string {
	t.Helper()
	docs, err := filepath.Glob("docs/*.md")
	if err != nil || len(docs) == 0 {
		t.Fatalf("docs/*.md: %d, %v", len(docs), err)
	}
	return append(docs, "README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md")
}

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// fence is one fenced block of a page.
type fence struct {
	lang string // what stands behind the ticks: "hcl", "hcl agent", "go", …
	body string
}

var fences = regexp.MustCompile("(?ms)^```([^\n]*)\n(.*?)^```$")

func fenced(t *testing.T, path, lang string) (out []fence) {
	t.Helper()
	for _, m := range fences.FindAllStringSubmatch(text(t, path), -1) {
		if first, _, _ := strings.Cut(m[1], " "); first == lang {
			out = append(out, fence{m[1], m[2]})
		}
	}
	return out
}

// TestDocsHCL holds that what users copy from the docs can be applied: "hcl" is
// a whole declaration, "hcl agent" a configuration;
// "hcl fragment" is neither.
func TestDocsHCL(t *testing.T) {
	found := map[string]int{}
	for _, page := range pages(t) {
		for _, f := range fenced(t, page, "hcl") {
			found[f.lang]++
			switch f.lang {
			case "hcl":
				if _, err := hcl.Parse(page, []byte(f.body)); err != nil {
					t.Errorf("%s:\n%v", page, err)
				}
			case "hcl agent":
				checkAgentConfig(t, page, f.body)
			case "hcl fragment":
			default:
				t.Errorf("%s: a block of %q: want hcl, hcl agent or hcl fragment", page, f.lang)
			}
		}
	}
	if found["hcl"] == 0 || found["hcl agent"] == 0 {
		t.Errorf("blocks found: %v", found)
	}
}

func checkAgentConfig(t *testing.T, page, body string) {
	t.Helper()
	file, diags := hclparse.NewParser().ParseHCL([]byte(body), page)
	if diags.HasErrors() {
		t.Errorf("%s: %v", page, diags)
		return
	}
	attrs, diags := file.Body.JustAttributes()
	if diags.HasErrors() {
		t.Errorf("%s: %v", page, diags)
	}
	for key := range attrs {
		if !slices.Contains(agentKeys, key) {
			t.Errorf("%s: %q is no key of the agent's configuration", page, key)
		}
	}
}

// TestDocsGo runs the Go examples as apply does and holds that what they print
// can be applied.
func TestDocsGo(t *testing.T) {
	found := 0
	for _, page := range pages(t) {
		for _, f := range fenced(t, page, "go") {
			found++
			name := filepath.Join(t.TempDir(), "main.go")
			if err := os.WriteFile(name, []byte(f.body), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("go", "run", name).Output()
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				t.Errorf("%s: %v\n%s", page, err, exit.Stderr)
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			in, err := intent.ParseJSON(out)
			if err == nil {
				err = in.Validate()
			}
			if err != nil || len(in.Apps) == 0 {
				t.Errorf("%s: %d apps, %v", page, len(in.Apps), err)
			}
		}
	}
	if found < 2 {
		t.Errorf("%d Go examples found", found)
	}
}

var (
	links    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	headings = regexp.MustCompile(`(?m)^#+ (.+)$`)
	notWords = regexp.MustCompile(`[^a-z0-9 -]`)
)

// TestDocsLinks holds that every relative link of every page leads somewhere.
func TestDocsLinks(t *testing.T) {
	all := pages(t)
	for _, pattern := range []string{"*/DESIGN.md", "*/*/DESIGN.md", "docs/decisions/*.md", "events/*.md"} {
		more, err := filepath.Glob(pattern)
		if err != nil || len(more) == 0 {
			t.Fatalf("%s: %d, %v", pattern, len(more), err)
		}
		all = append(all, more...)
	}
	for _, page := range all {
		for _, m := range links.FindAllStringSubmatch(text(t, page), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			path, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: dead link %s", page, m[1])
			} else if anchor != "" && !slices.Contains(anchors(text(t, target)), anchor) {
				t.Errorf("%s: %s has no heading for #%s", page, target, anchor)
			}
		}
	}
}

// anchors are the headings of a page as links name them.
func anchors(page string) (out []string) {
	for _, m := range headings.FindAllStringSubmatch(page, -1) {
		out = append(out, strings.ReplaceAll(notWords.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return out
}

// section is the part of a page below one heading.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page, "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("no heading %q", heading)
	}
	body, _, _ := strings.Cut(rest, "\n## ")
	return body
}

var row = regexp.MustCompile("(?m)^\\| `([^`]+)`([^|]*)\\|([^|]*)\\|")

// rows maps the first word in the first cell of each row of the tables in body
// to its second cell. Cells that name several things hold them all.
func rows(body string) map[string]string {
	out := map[string]string{}
	for _, m := range row.FindAllStringSubmatch(body, -1) {
		for _, name := range append([]string{m[1]}, ticked(m[2])...) {
			out[name] = m[3]
		}
	}
	return out
}

var ticks = regexp.MustCompile("`([^`]+)`")

func ticked(s string) (out []string) {
	for _, m := range ticks.FindAllStringSubmatch(s, -1) {
		out = append(out, m[1])
	}
	return out
}

// program is the binary that the docs describe.
type program struct{ path string }

func build(t *testing.T) program {
	t.Helper()
	p := program{filepath.Join(t.TempDir(), "ganglion")}
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", p.path, "./cmd/ganglion").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return p
}

func (p program) help(t *testing.T, command ...string) string {
	t.Helper()
	out, err := exec.Command(p.path, append(command, "--help")...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v --help: %v\n%s", command, err, out)
	}
	return string(out)
}

var (
	listed = regexp.MustCompile(`(?m)^  ([a-z]+) {2,}`)
	flag   = regexp.MustCompile(`(?m)^ +(?:-[a-z], )?--([a-z-]+)`)
)

// groups are commands that stand for their sub-commands; "" is one by itself.
var groups = map[string][]string{"mesh": {"", "set"}, "token": {"create"}, "artifact": {"push", "list", "remove", "sign", "trust", "distrust", "policy"}, "snapshot": {"save", "restore", "inspect"},
	"reflex": {"list", "show", "vars", "history", "test"}}

// commands are those that the help lists, and the sub-commands of groups.
func (p program) commands(t *testing.T) (out []string) {
	t.Helper()
	for _, m := range listed.FindAllStringSubmatch(p.help(t), -1) {
		if groups[m[1]] == nil {
			out = append(out, m[1])
		}
		for _, sub := range groups[m[1]] {
			out = append(out, strings.TrimSpace(m[1]+" "+sub))
		}
	}
	return out
}

func (p program) flags(t *testing.T, command ...string) (out []string) {
	t.Helper()
	for _, m := range flag.FindAllStringSubmatch(p.help(t, command...), -1) {
		if m[1] != "help" {
			out = append(out, m[1])
		}
	}
	return out
}

// TestDocsCommands holds the reference against the binary: its commands, their
// flags, what is not there yet, and the keys of the configuration.
func TestDocsCommands(t *testing.T) {
	bin := build(t)
	page := text(t, "docs/reference.md")
	told := map[string]string{}
	for usage, flags := range rows(section(t, page, "Commands")) {
		name, rest, _ := strings.Cut(usage, " ")
		if groups[name] != nil {
			sub, _, _ := strings.Cut(rest, " ")
			name = strings.TrimSpace(name + " " + sub)
		}
		told[name] = flags
	}
	same(t, "commands", slices.Collect(maps.Keys(told)), bin.commands(t))
	for name, cell := range told {
		if name == "agent" || name == "completion" || name == "help" {
			continue // its keys have a table; the others have no flags of ours
		}
		if strings.Contains(cell, "as `") {
			cell = told[ticked(cell)[0]]
		}
		var flags []string
		for _, f := range ticked(cell) {
			if name, _, _ := strings.Cut(f, " "); strings.HasPrefix(name, "-") {
				flags = append(flags, longFlag(name))
			}
		}
		same(t, "flags of "+name, flags, bin.flags(t, strings.Fields(name)...))
	}
	t.Run("not yet", func(t *testing.T) { bin.checkLater(t, page) })
	t.Run("keys", func(t *testing.T) {
		var keys []string
		for _, f := range bin.flags(t, "agent") {
			if f != "config" {
				keys = append(keys, strings.ReplaceAll(f, "-", "_"))
			}
		}
		same(t, "configuration keys", keys, agentKeys)
		same(t, "configuration keys in the reference", slices.Collect(maps.Keys(rows(section(t, page, "Agent configuration")))), agentKeys)
	})
	t.Run("mentions", func(t *testing.T) { checkMentions(t, bin.commands(t)) })
}

// longFlag is the name of a flag without its dashes.
func longFlag(f string) string {
	switch f {
	case "-o":
		return "output"
	case "-f":
		return "follow"
	}
	return strings.TrimPrefix(f, "--")
}

// checkLater holds that what the reference calls not yet is known and refused.
func (p program) checkLater(t *testing.T, page string) {
	_, list, ok := strings.Cut(page, "\nKnown, and *not yet*:")
	list, _, _ = strings.Cut(list, "\n\n")
	if !ok || len(ticked(list)) < 3 {
		t.Fatalf("list of later commands: %q", list)
	}
	for _, command := range ticked(list) {
		out, err := exec.Command(p.path, strings.Fields(command)...).CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 2 || !strings.Contains(string(out), "not in this version yet") {
			t.Errorf("%s is called not yet, but it says %q (%v)", command, out, err)
		}
	}
	m := regexp.MustCompile(`(?m)^var later = \[\]string\{(.*)\}$`).FindStringSubmatch(text(t, "cmd/ganglion/root.go"))
	if m == nil {
		t.Fatal("cmd/ganglion: where are the later commands?")
	}
	for name := range strings.SplitSeq(m[1], ", ") {
		if name = strings.Trim(name, `"`); !slices.Contains(ticked(list), name) {
			t.Errorf("%s is not yet, but the reference does not say so", name)
		}
	}
}

var mention = regexp.MustCompile("(?m)(?:`|^    |^\\$ |^  )ganglion ([a-z]+)")

// checkMentions holds that no page shows a command that does not exist.
func checkMentions(t *testing.T, commands []string) {
	for _, page := range pages(t) {
		if page == "CHANGELOG.md" {
			continue // tells of other versions too
		}
		for _, m := range mention.FindAllStringSubmatch(text(t, page), -1) {
			if groups[m[1]] == nil && !slices.Contains(commands, m[1]) && !strings.Contains(text(t, page), "`ganglion "+m[1]+" is not in this version yet`") {
				t.Errorf("%s: there is no command %q", page, m[1])
			}
		}
	}
}

var route = regexp.MustCompile(`HandleFunc\("([A-Z]+ /v1/[^"]+)"`)

// TestDocsRoutes holds the reference against the routes of the API.
func TestDocsRoutes(t *testing.T) {
	var served []string
	for _, m := range route.FindAllStringSubmatch(text(t, "agent/server.go"), -1) {
		served = append(served, m[1])
	}
	if len(served) < 20 {
		t.Fatalf("routes of the agent: %v", served)
	}
	var told []string
	for _, word := range ticked(section(t, text(t, "docs/reference.md"), "HTTP API")) {
		if strings.Contains(word, " /v1/") {
			told = append(told, word)
		}
	}
	same(t, "routes", told, served)
}

// TestDocsMake holds that the targets that the docs name exist.
func TestDocsMake(t *testing.T) {
	makefile := text(t, "Makefile")
	for _, page := range pages(t) {
		for _, m := range regexp.MustCompile("(?m)(?:`|^    )make ([a-z][a-z ]*)").FindAllStringSubmatch(text(t, page), -1) {
			for target := range strings.FieldsSeq(m[1]) {
				if !strings.Contains(makefile, "\n"+target+":") {
					t.Errorf("%s: make %s: there is no such target", page, target)
				}
			}
		}
	}
}

func same(t *testing.T, what string, told, are []string) {
	t.Helper()
	for _, s := range told {
		if !slices.Contains(are, s) {
			t.Errorf("%s: %q is told, but does not exist", what, s)
		}
	}
	for _, s := range are {
		if !slices.Contains(told, s) {
			t.Errorf("%s: %q exists, but is not told", what, s)
		}
	}
}
