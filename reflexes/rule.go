package reflexes

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/intent/expr"
)

// Rule is a compiled reflex. It is immutable.
type Rule struct {
	Name string
	App  string // the app that it is bound to; "" for a rule of the mesh
	// Hash names what the rule says: a rule whose hash is the same keeps its
	// state.
	Hash    string
	Rungs   []Rung
	Scope   Scope
	Observe bool

	when, clear *expr.Condition
	pattern     string  // of target names; of copies, of their app or of them
	reads       []VarID // of both conditions, rising
	edges       []VarID // counters whose edges the rule is asked for; none: it is asked for levels
	for_        time.Duration
	clearFor    time.Duration
	maxAge      time.Duration
	cooldown    time.Duration
	limit       Limit // N 0: none
	class       Class // the highest of its rungs
	source      intent.Reflex
	stage       Staging // no part of Hash
}

// Revives tells whether the rung restarts what has ended: nothing that runs can be
// harmed by it, and where it runs again already there is nothing to do.
func (r *Rung) Revives() bool { return r.revives }

// Class is how far the rule can reach.
func (r *Rule) Class() Class { return r.class }

// Reads returns the variables that the rule reads. Nobody may change it.
func (r *Rule) Reads() []VarID { return r.reads }

// Source returns the reflex as it was declared.
func (r *Rule) Source() intent.Reflex { return r.source }

// Limit returns how often the rule may act on one host; N is 0 if only the
// back-off of targets bounds it.
func (r *Rule) Limit() Limit { return r.limit }

// Compiler makes rules of reflexes. It is immutable, and dear to make.
type Compiler struct {
	vars *expr.Vars
}

// NewCompiler declares the variables of the table.
func NewCompiler() (*Compiler, error) {
	list := make([]expr.Var, len(table)-1)
	for i, id := range Vars() {
		list[i] = expr.Var{Name: id.Info().Name, Type: id.Info().Type}
	}
	vars, err := expr.NewVars(list)
	if err != nil {
		return nil, err
	}
	return &Compiler{vars: vars}, nil
}

// varOf is the variable with an index in the compiler's list.
func varOf(index int) VarID { return VarID(index + 1) }

// Compile makes a rule of a valid reflex, bound to app unless that is empty. It
// returns everything that is wrong with it as an *intent.ValidationError with
// paths relative to the reflex.
func (c *Compiler) Compile(r intent.Reflex, app string) (*Rule, error) {
	b := builder{rule: &Rule{
		Name: r.Name, App: app, Observe: r.Mode == intent.ModeObserve, Rungs: rungsOf(r.Act), source: r,
		for_: r.For.Std(), clearFor: r.ClearFor.Std(), maxAge: r.MaxAge.Std(), cooldown: r.Cooldown.Std(),
	}}
	b.rule.when = b.condition(c.vars, "when", r.When)
	if r.Clear != "" {
		b.rule.clear = b.condition(c.vars, "clear", r.Clear)
	}
	slices.Sort(b.rule.reads)
	b.scope(r.Scope)
	b.edges()
	b.actions()
	b.caps(r)
	if b.problems != nil {
		return nil, &intent.ValidationError{Problems: b.problems}
	}
	b.rule.Hash = hashOf(r, app)
	return b.rule, nil
}

// hashOf names what a reflex says, whatever it is called.
func hashOf(r intent.Reflex, app string) string {
	data, err := json.Marshal(struct {
		App    string
		Reflex intent.Reflex
	}{app, r})
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// builder collects what is wrong with a reflex while it is compiled.
type builder struct {
	rule     *Rule
	problems []intent.Problem
}

func (b *builder) fail(path, format string, args ...any) {
	b.problems = append(b.problems, intent.Problem{Path: path, Why: fmt.Sprintf(format, args...)})
}

func (b *builder) condition(vars *expr.Vars, path, src string) *expr.Condition {
	c, err := vars.Compile(src)
	if err != nil {
		b.fail(path, "%v", err)
		return nil
	}
	for _, i := range c.Reads() {
		if id := varOf(i); !slices.Contains(b.rule.reads, id) {
			b.rule.reads = append(b.rule.reads, id)
		}
	}
	return c
}

// scope decides what the rule has a state machine for.
func (b *builder) scope(s string) {
	r := b.rule
	switch {
	case s != "":
		if err := r.parseScope(s); err != nil {
			b.fail("scope", "%v", err)
			return
		}
	case r.App != "":
		r.Scope, r.pattern = ScopeCopy, r.App
	default:
		r.Scope = ScopeHost
	}
	if r.App != "" && r.Scope == ScopeCopy && r.pattern != r.App && !strings.HasPrefix(r.pattern, r.App+"/") {
		b.fail("scope", "the reflex is in app %s and cannot be about %s", r.App, s)
	}
	for _, id := range r.reads {
		v := id.Info()
		if v.Scope == ScopeHost || v.Scope == r.Scope || v.Scope == ScopeApp && r.Scope == ScopeCopy {
			continue
		}
		b.fail("scope", "%s is of a %s; say which, as in scope = %q", v.Name, v.Scope, v.Scope.String()+":"+scopeExamples[v.Scope])
		return
	}
}

var scopeExamples = [...]string{
	ScopeApp: "web", ScopeCopy: "web", ScopeLink: "eth0", ScopeDisk: "/var", ScopeUnit: "nginx.service", ScopePeer: "*", ScopeSense: "temperature",
}

func (r *Rule) parseScope(s string) error {
	word, pattern, _ := strings.Cut(s, ":")
	for i, n := range scopeNames {
		if i != 0 && n == word && (pattern == "") == (Scope(i) == ScopeHost) {
			r.Scope, r.pattern = Scope(i), pattern
			return nil
		}
	}
	var known []string
	for i := ScopeHost; i <= ScopeSense; i++ {
		if i == ScopeHost {
			known = append(known, "host")
			continue
		}
		known = append(known, i.String()+":"+scopeExamples[i])
	}
	return fmt.Errorf("%.60q is not a scope; want one such as %s", s, strings.Join(known, ", "))
}

// About tells whether the rule is about t.
func (r *Rule) About(t Target) bool { return r.selects(t) }

// selects tells whether the rule is about t.
func (r *Rule) selects(t Target) bool {
	if t.Scope != r.Scope {
		return false
	}
	if r.Scope == ScopeCopy && !strings.Contains(r.pattern, "/") {
		return matches(r.pattern, t.app())
	}
	return matches(r.pattern, t.Name)
}

// matches tells whether name is like pattern, in which * stands for anything.
func matches(pattern, name string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == name
	}
	if !strings.HasPrefix(name, head) {
		return false
	}
	name = name[len(head):]
	for i := 0; i <= len(name); i++ {
		if matches(rest, name[i:]) {
			return true
		}
	}
	return false
}

// edges finds the counters whose edges the rule is asked for.
func (b *builder) edges() {
	r := b.rule
	if r.when == nil {
		return
	}
	for _, i := range r.when.Reads() {
		v, id := varOf(i).Info(), varOf(i)
		if v.With != 0 {
			id = v.With
		}
		if id.Info().Edge && !slices.Contains(r.edges, id) {
			r.edges = append(r.edges, id)
		}
	}
	switch {
	case len(r.edges) > 1:
		b.fail("when", "%s and %s never happen at one instant; write two reflexes, or count one of them", r.edges[0], r.edges[1])
	case len(r.edges) == 1 && r.for_ > 0:
		b.fail("for", "%s is an instant and cannot last; count it over a time, or leave for out", r.edges[0])
	case len(r.edges) == 1 && (r.clear != nil || r.clearFor > 0):
		b.fail("clear", "%s is an instant, which is over by itself", r.edges[0])
	}
	if r.clear != nil {
		for _, i := range r.clear.Reads() {
			if v := varOf(i).Info(); v.Edge || v.With != 0 {
				b.fail("clear", "%s is an instant, and cannot tell that something is over", v.Name)
			}
		}
	}
}

// OnUnit tells whether a rung acts on the unit that the rule is about.
func (r *Rule) OnUnit(rung *Rung) bool {
	return r.Scope == ScopeUnit && rung.op.onApp && rung.Do.Op != "evict" && rung.Do.Target == ""
}

// Unit returns the unit of systemd on which the rule may act, and by which
// operations; empty: none.
func (r *Rule) Unit() (unit string, ops []string) {
	for i := range r.Rungs {
		if rung := &r.Rungs[i]; r.OnUnit(rung) {
			unit, ops = r.pattern, append(ops, rung.Do.Op)
		}
	}
	return unit, ops
}

// actions finds what the rungs act on, and how far they reach.
func (b *builder) actions() {
	r := b.rule
	for i := range r.Rungs {
		rung := &r.Rungs[i]
		if r.OnUnit(rung) {
			// It is no copy, and who depends on it nobody here knows.
			rung.op.class, rung.op.durable = ClassB, true
			if strings.Contains(r.pattern, "*") {
				b.fail(r.actPath(rung), "%s() of a unit needs its name, as in scope = \"unit:nginx.service\"", rung.Do.Op)
			}
		}
		r.class = max(r.class, rung.op.class)
		if rung.op.leased && len(r.edges) > 0 {
			b.fail(r.actPath(rung)+".op", "%s lasts until the matter is over, and %s is an instant; write a condition that holds for as long", rung.Do.Op, r.edges[0])
		}
		if rung.Do.Op == "drain_self" && r.App != "" {
			b.fail(r.actPath(rung)+".op", "drain_self empties the whole host, not only of app %s; declare the reflex outside of the app, or evict()", r.App)
		}
		if !rung.op.onApp {
			continue
		}
		path := r.actPath(rung) + ".target"
		rung.app = rung.Do.Target
		own := r.Scope == ScopeCopy || r.Scope == ScopeApp || r.Scope == ScopeUnit
		switch {
		case rung.app == "" && !own:
			if rung.app = r.App; rung.app == "" {
				b.fail(path, "%s needs an app here, as in %s(\"web\")", rung.Do.Op, rung.Do.Op)
			}
		case rung.Do.Op == "evict" && rung.app == "" && r.Scope == ScopeUnit:
			b.fail(path, "a unit is on its host alone; evict needs an app, as in evict(\"web\")")
		case rung.app != "" && r.App != "" && rung.app != r.App && !strings.HasPrefix(rung.app, r.App+"/"):
			b.fail(path, "a reflex of app %s cannot act on %.60s; declare it outside of the app", r.App, rung.app)
		}
		rung.revives = rung.Do.Op == "restart" && slices.Equal(r.edges, []VarID{ExitCount}) &&
			(rung.app == "" || r.Scope == ScopeCopy && rung.app == r.pattern)
	}
}

// caps judges the limits of a rule, and fills in those that it may leave out.
func (b *builder) caps(source intent.Reflex) {
	r := b.rule
	if r.class == ClassB && (source.Limit == "" || source.Cooldown == 0) {
		b.fail("limit", "a reflex that reaches beyond its own copies needs a limit and a cooldown, as in limit = \"1/30m\" and cooldown = \"10m\"")
	}
	if source.Limit != "" {
		l, err := ParseLimit(source.Limit)
		if err != nil {
			b.fail("limit", "%v", err)
		}
		r.limit = l
		return
	}
	switch {
	case r.class == ClassTell || r.Observe:
		r.limit = tellLimit
	case !slices.ContainsFunc(r.Rungs, func(g Rung) bool { return g.revives }):
		r.limit = defaultLimit
	}
	if source.Cooldown == 0 && r.edges == nil {
		r.cooldown = time.Minute
	}
}

// Problems returns what err says is wrong with a reflex, if that is what it
// says.
func Problems(err error) []intent.Problem {
	var v *intent.ValidationError
	if errors.As(err, &v) {
		return v.Problems
	}
	return nil
}
