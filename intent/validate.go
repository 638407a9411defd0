package intent

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong with, or not yet possible for, a
// declaration. Path names the field: "app.web.run.command[1]", or
// "apps[0].name" where the name itself cannot be used.
type Problem struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

func (p Problem) String() string {
	if p.Path == "" {
		return p.Why
	}
	return p.Path + ": " + p.Why
}

// ValidationError is everything that is wrong with a declaration, in the order
// of its fields.
type ValidationError struct {
	Problems []Problem
}

// Error returns one line for each problem.
func (e *ValidationError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Validate reports everything that is wrong with in as a *ValidationError, or
// nil. It takes intents as written and as normalized. What it cannot judge,
// knowing no expression language, is whether the Expressions compile.
func (in Intents) Validate() error {
	var out []Problem
	for _, p := range in.problems() {
		out = append(out, p.Problem)
	}
	return asError(out)
}

// Validate reports what is wrong with one app; the paths are relative to it.
func (a App) Validate() error { return asError(a.problems()) }

// Validate reports what is wrong with one reflex; the paths are relative to it.
func (r Reflex) Validate() error { return asError(r.problems()) }

func asError(problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	return &ValidationError{Problems: problems}
}

// located is a problem with the index of the app or reflex it is in, or -1.
type located struct {
	Problem
	app, reflex int
}

func (in Intents) problems() []located {
	var out []located
	if n := max(len(in.Apps), len(in.Reflexes), len(in.Senses)); n > MaxApps {
		return []located{{Problem{"", fmt.Sprintf("%d apps, reflexes or senses at once; at most %d are allowed", n, MaxApps)}, -1, -1}}
	}
	seen := make(map[string]bool)
	for i, a := range in.Apps {
		for _, p := range prefixed(appPath(i, a), a.problems()) {
			out = append(out, located{p, i, -1})
		}
		if a.Name != "" && seen[a.Name] {
			out = append(out, located{Problem{index("apps", i) + ".name", quote(a.Name) + " is declared twice"}, i, -1})
		}
		seen[a.Name] = true
	}
	clear(seen)
	for i, r := range in.Reflexes {
		for _, p := range prefixed(reflexPath(i, r), r.problems()) {
			out = append(out, located{p, -1, i})
		}
		if r.Name != "" && seen[r.Name] {
			out = append(out, located{Problem{index("reflexes", i) + ".name", quote(r.Name) + " is declared twice"}, -1, i})
		}
		seen[r.Name] = true
	}
	for _, p := range senseProblems(in.Senses) {
		out = append(out, located{p, -1, -1})
	}
	if len(out) == 0 {
		if n := jsonSize(in); n > MaxIntents {
			out = append(out, located{Problem{"", fmt.Sprintf("%d bytes in all; at most %d are allowed at once", n, MaxIntents)}, -1, -1})
		}
	}
	return out
}

func (a App) problems() []Problem {
	var s scope
	a.check(s.root())
	if len(s.problems) == 0 {
		if n := jsonSize(a); n > MaxSpec {
			s.root().fail("%d bytes of JSON; at most %d are allowed", n, MaxSpec)
		}
	}
	return s.problems
}

func (r Reflex) problems() []Problem {
	var s scope
	r.check(s.root())
	return s.problems
}

func jsonSize(v any) int {
	data, err := json.Marshal(v)
	if err != nil {
		return MaxIntents + 1
	}
	return len(data)
}

// appPath is the path of an app: by name where that is one, as users think of
// it so, else by index.
func appPath(i int, a App) string {
	if CheckName(a.Name) != nil {
		return index("apps", i)
	}
	return "app." + a.Name
}

func reflexPath(i int, r Reflex) string {
	if CheckName(r.Name) != nil {
		return index("reflexes", i)
	}
	return "reflex." + r.Name
}

func index(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

// prefixed puts the path of a parent before relative ones.
func prefixed(parent string, problems []Problem) []Problem {
	for i, p := range problems {
		problems[i].Path = strings.TrimSuffix(parent+"."+p.Path, ".")
	}
	return problems
}

// scope collects problems.
type scope struct {
	problems []Problem
}

// field is a place in a declaration that problems are reported at.
type field struct {
	scope *scope
	path  string
}

func (s *scope) root() field { return field{scope: s} }

// at is the field name within f.
func (f field) at(name string) field {
	if f.path != "" {
		name = f.path + "." + name
	}
	return field{f.scope, name}
}

// key is the entry name of the map f; name may be anything a user wrote.
func (f field) key(name string) field { return f.at(FieldKey(name)) }

// FieldKey is how a key of a map, of env or ports, stands in the path of a
// Problem: as it is, or escaped and cut where it would not fit on a line.
func FieldKey(name string) string { return strings.Trim(quote(name), `"`) }

// item is element i of the list f.
func (f field) item(i int) field { return field{f.scope, index(f.path, i)} }

func (f field) fail(format string, args ...any) {
	f.scope.problems = append(f.scope.problems, Problem{f.path, fmt.Sprintf(format, args...)})
}

// failIf reports err, if it is one.
func (f field) failIf(err error) {
	if err != nil {
		f.fail("%v", err)
	}
}

// Expression is a condition in a declaration, in a language that this package
// does not know; expr.Check of package intent/expr compiles it.
type Expression struct {
	Path      string // as in Problem
	Source    string
	Placement bool // over labels, from place; otherwise over the variables of reflexes
}

// Expressions returns every expression in in, so that whoever accepts intents
// can compile them all.
func (in Intents) Expressions() []Expression {
	var out []Expression
	for i, a := range in.Apps {
		for _, e := range a.Expressions() {
			e.Path = appPath(i, a) + "." + e.Path
			out = append(out, e)
		}
	}
	for i, r := range in.Reflexes {
		out = append(out, r.expressions(reflexPath(i, r)+".")...)
	}
	return out
}

// Expressions returns the expressions of one app, with paths relative to it.
func (a App) Expressions() []Expression {
	var out []Expression
	for i, s := range a.Place.Require {
		out = append(out, Expression{index("place.require", i), s, true})
	}
	for i, s := range a.Place.Prefer {
		out = append(out, Expression{index("place.prefer", i), s, true})
	}
	for i, r := range a.Reflexes {
		out = append(out, r.expressions(index("reflexes", i)+".")...)
	}
	return out
}

// Expressions returns the conditions of one reflex, with paths relative to it.
func (r Reflex) Expressions() []Expression { return r.expressions("") }

func (r Reflex) expressions(prefix string) []Expression {
	out := []Expression{{Path: prefix + "when", Source: r.When}}
	if r.Clear != "" {
		out = append(out, Expression{Path: prefix + "clear", Source: r.Clear})
	}
	return out
}
