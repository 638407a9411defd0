package api

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// Judge compiles valid reflexes as hosts do. It is dear to make, and immutable.
type Judge struct {
	compiler *reflexes.Compiler
}

// NewJudge returns a Judge.
func NewJudge() (*Judge, error) {
	c, err := reflexes.NewCompiler()
	if err != nil {
		return nil, Errorf(CodeInternal, "judge reflexes: %v", err)
	}
	return &Judge{c}, nil
}

// Reflex judges a reflex that is to be declared, bound to an app unless that is
// empty. What is wrong with it is an *intent.ValidationError with paths relative to
// the reflex.
func (j *Judge) Reflex(r intent.Reflex, app string) error {
	rule, err := j.Rule(r, app)
	if err != nil {
		return err
	}
	return refusals(rule)
}

// Rule compiles a reflex to a rule by the name that it has on hosts.
func (j *Judge) Rule(r intent.Reflex, app string) (*reflexes.Rule, error) {
	rule, err := j.compiler.Compile(r, app)
	if err != nil {
		return nil, err
	}
	rule.Name = RuleName(r.Name, app)
	return rule, nil
}

// RuleName is the name by which a host knows a reflex: that of the reflex, and
// before it that of the app that it is in.
func RuleName(reflex, app string) string {
	return topology.RuleKey(app, reflex)
}

// SplitRule takes RuleName apart.
func SplitRule(rule string) (reflex, app string) {
	if app, reflex, ok := strings.Cut(rule, "/"); ok {
		return reflex, app
	}
	return rule, ""
}

// checkReflexes refuses the first reflex that is not to be declared.
func checkReflexes(in intent.Intents) error {
	if !hasReflexes(in) {
		return nil
	}
	j, err := NewJudge()
	if err != nil {
		return err
	}
	for _, r := range in.Reflexes {
		if err := j.Reflex(r, ""); err != nil {
			return misdeclared("reflex."+r.Name, err)
		}
	}
	for _, a := range in.Apps {
		for _, r := range a.Reflexes {
			err := j.Reflex(r, a.Name)
			if err == nil {
				err = immovable(r, a)
			}
			if err != nil {
				return misdeclared("app."+a.Name+".reflex."+r.Name, err)
			}
		}
	}
	return nil
}

// immovable refuses to evict copies of an app that have no elsewhere.
func immovable(r intent.Reflex, a intent.App) error {
	bad := &intent.ValidationError{}
	for i, act := range r.Act {
		if kind := a.Kind(); act.Op == "evict" && kind != intent.KindReplicated && kind != intent.KindSingleton {
			bad.Problems = append(bad.Problems, intent.Problem{
				Path: fmt.Sprintf("act[%d].op", i), Why: "a copy of app " + a.Name + " (" + kind + ") has no other host to go to; restart it instead",
			})
		}
	}
	if len(bad.Problems) == 0 {
		return nil
	}
	return bad
}

func hasReflexes(in intent.Intents) bool {
	n := len(in.Reflexes)
	for _, a := range in.Apps {
		n += len(a.Reflexes)
	}
	return n > 0
}

// Far returns the reflexes of in, as RuleName names them, that may do what reaches
// beyond the copies of their host.
func Far(in intent.Intents) (out []string, err error) {
	if !hasReflexes(in) {
		return nil, nil
	}
	j, err := NewJudge()
	if err != nil {
		return nil, err
	}
	for _, r := range j.rules(in) {
		if r.Class() == reflexes.ClassB && !r.Observe {
			out = append(out, r.Name)
		}
	}
	return out, nil
}

// misdeclared says what is wrong with a declaration at path.
func misdeclared(path string, err error) error {
	var bad *intent.ValidationError
	if !errors.As(err, &bad) {
		return Errorf(CodeInvalid, "%s: %v", path, err)
	}
	lines := make([]string, len(bad.Problems))
	for i, p := range bad.Problems {
		lines[i] = path + "." + p.String()
	}
	return Errorf(CodeInvalid, "%s", strings.Join(lines, "\n"))
}

// Reflex is one line of GET /v1/reflexes: a reflex as declared.
type Reflex struct {
	Name  string   `json:"name"`
	App   string   `json:"app,omitempty"` // that it is in
	Mode  string   `json:"mode"`
	Scope string   `json:"scope"`
	When  string   `json:"when"`
	Act   []string `json:"act"`
	Class string   `json:"class,omitempty"` // how far it reaches: tell, A or B
	Limit string   `json:"limit,omitempty"` // on one host
	Stage string   `json:"stage,omitempty"` // how far it is in force, if not everywhere
	// Declared is all that was declared, with defaults.
	Declared intent.Reflex `json:"declared"`
}

// LocalReflex is one line of GET /v1/local/reflexes: a reflex of a host, and how
// it stands there.
type LocalReflex struct {
	Reflex
	Error   string         `json:"error,omitempty"` // why this host does not understand it
	Targets []ReflexTarget `json:"targets"`
}

// ReflexTarget is how a reflex stands with one thing that it is about.
type ReflexTarget struct {
	Target    string       `json:"target"`
	State     string       `json:"state"` // inactive, pending, firing, acting, cooling, exhausted, off or disabled
	ForMS     int64        `json:"for_ms"`
	Truth     string       `json:"truth"`              // of the condition: true, false or unknown
	Why       string       `json:"why,omitempty"`      // why it does not act, if it would
	RetryMS   int64        `json:"retry_ms,omitempty"` // until it is tried again
	Next      string       `json:"next"`               // what it would do
	Rung      int          `json:"rung"`               // of the ladder, from 0
	Tries     int          `json:"tries"`              // acts on that rung without improvement
	BackoffMS int64        `json:"backoff_ms,omitempty"`
	Left      int          `json:"left,omitempty"` // acts within the limit
	Facts     []ReflexFact `json:"facts"`
	// Holds are the copies that it holds back at present, in words.
	Holds []string `json:"holds,omitempty"`
}

// ReflexFact is a variable as a host sees it now. Value is null if it is not
// known.
type ReflexFact struct {
	Var    string         `json:"var"`
	Target string         `json:"target"`
	Value  reflexes.Value `json:"value"`
	AgeMS  int64          `json:"age_ms"`
}

// ReflexVar is one line of GET /v1/local/reflexes/vars: a variable, and its
// values on a host, by target.
type ReflexVar struct {
	Name   string       `json:"name"`
	Type   string       `json:"type"`
	Unit   string       `json:"unit,omitempty"`
	Scope  string       `json:"scope"`
	Kind   string       `json:"kind"`
	Source string       `json:"source"`
	Doc    string       `json:"doc"`
	Values []ReflexFact `json:"values"`
}

// ShowReflex is a reflex as it is listed.
func ShowReflex(r intent.Reflex, app string) Reflex {
	out := Reflex{Name: r.Name, App: app, Mode: r.Mode, Scope: r.Scope, When: r.When, Act: []string{}, Limit: r.Limit, Declared: r}
	if out.Mode == "" {
		out.Mode = intent.ModeEnforce
	}
	if out.Scope == "" {
		if out.Scope = "host"; app != "" {
			out.Scope = "copy:" + app
		}
	}
	for _, a := range r.Act {
		out.Act = append(out.Act, actionText(a))
	}
	return out
}

// actionText prints an action as users write it.
func actionText(a intent.Action) string {
	var words []string
	if a.Target != "" {
		words = append(words, strconv.Quote(a.Target))
	}
	for _, k := range slices.Sorted(maps.Keys(a.Args)) {
		words = append(words, k+"="+a.Args[k])
	}
	return a.Op + "(" + strings.Join(words, ", ") + ")"
}

// ShowTarget is an engine's explanation as it is sent.
func ShowTarget(x reflexes.Explanation) ReflexTarget {
	out := ReflexTarget{
		State: x.State, ForMS: x.For.Milliseconds(), Truth: x.Truth, Why: x.Why, RetryMS: x.Retry.Milliseconds(),
		Next: x.Next, Rung: x.Rung, Tries: x.Tries, BackoffMS: x.Backoff.Milliseconds(), Left: x.Left, Facts: []ReflexFact{},
	}
	if x.Target != (reflexes.Target{}) {
		out.Target = x.Target.String()
	}
	for _, f := range x.Facts {
		out.Facts = append(out.Facts, ReflexFact{f.Var.String(), f.Target.String(), f.Value, f.Age.Milliseconds()})
	}
	return out
}
