package reflexes

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/intent/expr"
)

// LintKind is what is wrong with a rule that compiles.
type LintKind string

// The kinds of finding.
const (
	LintMatchAll    LintKind = "match-all"    // it holds always, or is about everything
	LintNever       LintKind = "never"        // its condition cannot hold
	LintFight       LintKind = "fight"        // it undoes what another rule does, or itself
	LintSelfTrigger LintKind = "self-trigger" // its act brings its condition about
	LintUnreachable LintKind = "unreachable"  // its end, or a rung, is never come to
	LintCaps        LintKind = "caps"         // its limit holds nothing back
)

// Finding is what Lint holds against a rule: what is wrong, and what to do.
type Finding struct {
	Rule   string   `json:"rule"`
	App    string   `json:"app,omitempty"`
	Other  string   `json:"other,omitempty"` // the rule that it fights
	Kind   LintKind `json:"kind"`
	Refuse bool     `json:"refuse,omitempty"` // the rule must not be declared; else a warning
	Path   string   `json:"path"`             // within the reflex: "when", "act[1]"
	Why    string   `json:"why"`
	Fix    string   `json:"fix"`
}

// Problem is the finding as apply shows what is wrong with intents.
func (f Finding) Problem() intent.Problem {
	return intent.Problem{Path: f.Path, Why: f.Why + "; " + f.Fix}
}

// Lint looks for what compiles and is a mistake all the same, in each rule and
// between them: the rules of the whole mesh, so that a new one is held against
// those that there are. The same for the same rules, in their order. A condition
// too large to be tried out is not judged.
func Lint(rules []*Rule) []Finding {
	l := linter{tries: allTries}
	for _, r := range rules {
		l.rule = r
		l.matchAll()
		l.unreachable()
		l.selfTrigger()
		l.caps()
		l.fightItself()
	}
	for i, a := range rules {
		for _, b := range rules[i+1:] {
			l.fight(a, b)
		}
	}
	return l.found
}

type linter struct {
	rule  *Rule
	found []Finding
	tries int // that are left
}

func (l *linter) add(kind LintKind, refuse bool, path, why, fix string) {
	l.found = append(l.found, Finding{Rule: l.rule.Name, App: l.rule.App, Kind: kind, Refuse: refuse, Path: path, Why: why, Fix: fix})
}

// matchAll finds rules that hold always, and those that could stop everything. A
// rule that only observes is warned of: to see that is what it is for.
func (l *linter) matchAll() {
	r := l.rule
	if len(r.edges) == 0 && l.is(expr.True, r.when) {
		l.add(LintMatchAll, !r.Observe, "when", "it holds whatever happens", "compare with a value that is not always on one side; ratios are from 0 to 1")
	}
	if l.is(expr.False, r.when) {
		l.add(LintNever, !r.Observe, "when", "it can never hold", "compare with a value that can be had; ratios are from 0 to 1")
	}
	for i := range r.Rungs {
		rung := &r.Rungs[i]
		switch {
		case !rung.op.onApp:
		case strings.Contains(rung.Do.Target, "*"):
			l.add(LintMatchAll, true, r.actPath(rung), fmt.Sprintf("%s names no single target", rung), "name the app or the copy; a pattern belongs into scope")
		case rung.app == "" && !rung.revives && strings.Trim(r.pattern, "*") == "":
			l.add(LintMatchAll, !r.Observe, "scope", fmt.Sprintf("%s would act on every %s there is", rung, r.Scope),
				fmt.Sprintf("name what it is for, as in scope = %q", r.Scope.String()+":"+scopeExamples[r.Scope]))
		}
	}
}

// actPath is where a rung stands in the reflex.
func (r *Rule) actPath(g *Rung) string {
	return fmt.Sprintf("act[%d]", slices.IndexFunc(r.source.Act, func(a intent.Action) bool { return a.Op == g.Do.Op && a.Target == g.Do.Target }))
}

// unreachable finds what a rule never comes to: its end, or a rung.
func (l *linter) unreachable() {
	r := l.rule
	if r.clear != nil {
		l.unclear()
	}
	for i := range r.Rungs[:max(len(r.Rungs)-1, 0)] {
		rung := &r.Rungs[i]
		switch {
		case rung.Do.Op == "drain_self", rung.Do.Op == "evict" && rung.app == "", rung.Do.Op == "stop" && rung.app == "":
			next := &r.Rungs[i+1]
			if next.op.class != ClassTell {
				l.add(LintUnreachable, false, r.actPath(next), fmt.Sprintf("after %s there is nothing left for %s to act on", rung, next), "end the ladder with the last resort")
			}
		}
	}
	if n := noEffect * (len(r.Rungs) - 1); r.limit.N > 0 && n >= r.limit.N && len(r.Rungs) > 1 {
		l.add(LintUnreachable, false, "limit", fmt.Sprintf("%s comes after %d acts without effect, and %s allows %d", &r.Rungs[len(r.Rungs)-1], n, r.limit, r.limit.N),
			fmt.Sprintf("allow at least %d, or shorten the ladder", n+1))
	}
}

// unclear judges clear beside when.
func (l *linter) unclear() {
	r := l.rule
	if l.is(expr.False, r.clear) {
		l.add(LintUnreachable, false, "clear", "it can never hold: what has fired is never over", "compare with a value that can be had, or leave clear out")
		return
	}
	both := false
	decided := l.explore([]*expr.Condition{r.when, r.clear}, nil, func(t []expr.Truth, _ *values) bool {
		both = t[0] == expr.True && t[1] == expr.True
		return !both
	})
	if decided && both {
		l.add(LintUnreachable, false, "clear", "it can hold while when holds: the rule is over as soon as it fires, and fires again", "keep a gap between the two, as in when = \"x > 0.9\" and clear = \"x < 0.7\"")
	}
}

// caps finds limits that hold nothing back.
func (l *linter) caps() {
	r := l.rule
	disturbs := slices.ContainsFunc(r.Rungs, func(g Rung) bool { return g.op.class != ClassTell && !g.revives })
	if disturbs && r.limit.N > hostLimit.N && r.limit.Per <= hostLimit.Per {
		l.add(LintCaps, false, "limit", fmt.Sprintf("%s is more than the %s that a host allows all rules together", r.limit, hostLimit), "say how often it may act before a person has to look")
	}
}

// made is what an operation makes of a variable of what it acts on.
type made struct {
	op    string
	id    VarID
	value Value // nothing: more than it was
	brief bool  // only until the copy is well again
}

var effects = []made{
	{"restart", AppUptime, Float(0), false},
	{"restart", AppRestarts, Value{}, false},
	{"restart", AppRunning, Bool(false), true},
	{"restart", AppReady, Bool(false), true},
	{"restart", AppReadyRatio, Float(0), true},
	{"stop", AppUptime, Float(0), false},
	{"stop", AppRunning, Bool(false), false},
	{"stop", AppReady, Bool(false), false},
	{"stop", AppReadyRatio, Float(0), false},
	{"throttle", AppPSICPUSome10s, Float(1), false},
	{"stop", UnitState, Text("inactive"), false},
}

// selfTrigger finds rules whose own act can make them hold.
func (l *linter) selfTrigger() {
	r := l.rule
	if len(r.edges) > 0 {
		return
	}
	for i := range r.Rungs {
		rung := &r.Rungs[i]
		for _, e := range effects {
			if e.op != rung.Do.Op || e.brief && r.for_ > 0 || !slices.Contains(r.reads, e.id) || !r.actsOnOwn(rung) || !l.brings(r.when, e) {
				continue
			}
			fix := "read something that the act makes better"
			if e.brief {
				fix = "give it for, longer than a start takes, as in for = \"30s\""
			}
			l.add(LintSelfTrigger, false, "when", fmt.Sprintf("%s itself changes %s so that it holds", rung, e.id), fix)
		}
	}
}

// actsOnOwn tells whether a rung acts on what the rule is about.
func (r *Rule) actsOnOwn(g *Rung) bool {
	return g.app == "" || r.Scope != ScopeHost && matches(r.pattern, g.app) || r.Scope == ScopeCopy && strings.HasPrefix(g.app+"/", r.pattern+"/")
}

// brings tells whether a condition that does not hold can hold by e alone.
func (l *linter) brings(c *expr.Condition, e made) bool {
	found := false
	l.explore([]*expr.Condition{c}, nil, func(t []expr.Truth, v *values) bool {
		if t[0] != expr.False {
			return true
		}
		was := v[e.id]
		if !was.Known() {
			return true
		}
		after := []Value{e.value}
		if !e.value.Known() {
			after = slices.DeleteFunc(points(e.id, c), func(p Value) bool { return p.AsFloat() <= was.AsFloat() })
		}
		for _, p := range after {
			v[e.id], _ = p.Convert(e.id.Info().Type)
			found = found || c.Eval(v).Truth == expr.True
		}
		v[e.id] = was
		return !found
	})
	return found
}

// fightItself finds a ladder of which one rung undoes another.
func (l *linter) fightItself() {
	r := l.rule
	for i := range r.Rungs {
		for j := range r.Rungs[:i] {
			a, b := &r.Rungs[j], &r.Rungs[i]
			if slices.Contains(a.op.against, b.Do.Op) && meets(r, a, r, b) && b.Do.Op != "evict" && b.Do.Op != "stop" {
				l.add(LintFight, false, r.actPath(b), fmt.Sprintf("%s undoes %s before it", b, a), "choose one of the two")
			}
		}
	}
}

// fight finds two rules of which one undoes what the other does.
func (l *linter) fight(a, b *Rule) {
	for i := range a.Rungs {
		for j := range b.Rungs {
			x, y := &a.Rungs[i], &b.Rungs[j]
			if x.op.leased || y.op.leased {
				continue // a host that is being emptied lets go of what it has under a lease, and wants it no more
			}
			if !slices.Contains(x.op.against, y.Do.Op) && !slices.Contains(y.op.against, x.Do.Op) || !meets(a, x, b, y) {
				continue
			}
			how, may := l.together(a, b)
			if !may {
				continue
			}
			l.found = append(l.found, Finding{
				Rule: a.Name, App: a.App, Other: b.Name, Kind: LintFight, Path: "when",
				Why: fmt.Sprintf("%s fights reflex %s: %s and %s act on the same, and both can hold%s", x, b.Name, x, y, how),
				Fix: "make the conditions exclude each other, or make one reflex with a ladder of both",
			})
			return
		}
	}
}

// together tells whether two rules can hold at once, and by which values.
func (l *linter) together(a, b *Rule) (how string, may bool) {
	apart := map[VarID]bool{} // of different things, so that they may differ
	if a.Scope != b.Scope || a.pattern != b.pattern {
		for _, id := range a.reads {
			if id.Info().Scope != ScopeHost {
				apart[id] = true
			}
		}
	}
	decided := l.explore([]*expr.Condition{a.when, b.when}, apart, func(t []expr.Truth, v *values) bool {
		may = t[0] != expr.False && t[1] != expr.False
		if may && t[0] == expr.True && t[1] == expr.True {
			how = v.witness(apart, slices.Concat(a.reads, b.reads))
		}
		return !may
	})
	return how, may || !decided
}

// meets tells whether two rungs can act on one thing.
func meets(a *Rule, x *Rung, b *Rule, y *Rung) bool {
	if !x.op.onApp || !y.op.onApp {
		return !x.op.onApp && !y.op.onApp
	}
	p, unitX := a.object(x)
	q, unitY := b.object(y)
	if unitX != unitY {
		return false
	}
	if !strings.Contains(p, "/") || !strings.Contains(q, "/") {
		p, _, _ = strings.Cut(p, "/")
		q, _, _ = strings.Cut(q, "/")
	}
	return matches(p, q) || matches(q, p) || strings.Contains(p, "*") && strings.Contains(q, "*")
}

// object is what a rung acts on, as a pattern, and whether that is a unit.
func (r *Rule) object(g *Rung) (pattern string, unit bool) {
	if g.app != "" {
		return g.app, false
	}
	return r.pattern, r.Scope == ScopeUnit
}
