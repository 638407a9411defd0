package reflexes

import (
	"cmp"
	"slices"
	"time"
)

// Explanation is how a rule stands with a target, and why.
type Explanation struct {
	Rule    string        `json:"rule"`
	Target  Target        `json:"target"`
	State   string        `json:"state"`
	For     time.Duration `json:"for"`               // how long it has been in it
	Truth   string        `json:"truth"`             // of the condition: true, false, unknown
	Why     string        `json:"why,omitempty"`     // why it does not act, if it would
	Retry   time.Duration `json:"retry,omitempty"`   // until it is tried again
	Next    string        `json:"next"`              // what it would do
	Rung    int           `json:"rung"`              // of the ladder, from 0
	Tries   int           `json:"tries"`             // acts on it without improvement
	Backoff time.Duration `json:"backoff,omitempty"` // until the target may be acted on
	Streak  int           `json:"streak,omitempty"`  // acts on the target since it was last stable
	Left    int           `json:"left,omitempty"`    // acts within the rule's limit
	Limit   string        `json:"limit,omitempty"`
	Facts   []Seen        `json:"facts"`
}

// Seen is a value that a rule reads.
type Seen struct {
	Var    VarID         `json:"var"`
	Target Target        `json:"target"`
	Value  Value         `json:"value"` // null if not known, or too old
	Age    time.Duration `json:"age"`   // since it was seen
}

// Explain tells how the rules named rule, or all with "", stand with each
// target.
func (e *Engine) Explain(now Boot, rule string) []Explanation {
	now = max(now, e.now)
	var out []Explanation
	for _, s := range e.rules {
		if s.why != "" && (rule == "" || rule == s.rule.Name) {
			out = append(out, Explanation{Rule: s.rule.Name, State: "disabled", Truth: "unknown", Why: s.why, Next: s.rule.Rungs[0].text})
		}
	}
	for _, in := range e.instances {
		if rule == "" || rule == in.rule.Name {
			out = append(out, in.explain(now))
		}
	}
	slices.SortFunc(out, func(a, b Explanation) int {
		return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Target.Scope, b.Target.Scope), cmp.Compare(a.Target.Name, b.Target.Name))
	})
	return out
}

func (in *instance) explain(now Boot) Explanation {
	in.remember(now)
	x := Explanation{
		Rule: in.rule.Name, Target: in.target, State: in.state.String(), For: now - in.since, Truth: in.truth.String(),
		Next: in.rung().text, Rung: in.level, Tries: in.tries,
	}
	if in.wantsToAct() && in.refused != ReasonNone {
		x.Why, x.Retry = in.refused.String(), max(in.retry-now, 0)
	}
	if in.state == StateOff {
		x.Why = ReasonNoEffect.String()
	}
	if why := in.staged(); why != "" {
		x.Why = cmp.Or(x.Why, ReasonStaged.String()+" ("+why+")")
	}
	if in.rule.Observe {
		x.Why = cmp.Or(x.Why, ReasonObserve.String())
	}
	if in.on != nil {
		x.Backoff, x.Streak = max(in.on.ready-now, 0), in.on.streak
	}
	if l := in.rule.limit; l.N > 0 {
		x.Left, x.Limit = in.state0.spent.left(l, now), l.String()
	}
	for _, f := range in.seen {
		x.Facts = append(x.Facts, Seen{f.Var, f.Target, f.Value, now - f.At})
	}
	return x
}

// History returns the records of a rule, or of all with "", oldest first.
func (e *Engine) History(rule string) []Record {
	var out []Record
	mine := map[ActID]bool{}
	for _, r := range e.ordered() {
		if r.Kind == RecordIntent && (rule == "" || r.Rule == rule) {
			mine[r.Act] = true
		}
		if mine[r.Act] {
			out = append(out, r)
		}
	}
	return out
}

// Known returns what the engine knows of a variable, by target: what `reflex
// vars` shows.
func (e *Engine) Known(now Boot, id VarID) []Seen {
	now = max(now, e.now)
	var out []Seen
	for k, c := range e.cells {
		if k.id != id || !c.value.Known() {
			continue
		}
		v := c.value
		if c.window != nil {
			v = Int(c.window.count(now))
		}
		if e.aged(c, now) {
			v = Value{}
		}
		out = append(out, Seen{id, k.t, v, now - c.at})
	}
	slices.SortFunc(out, func(a, b Seen) int { return cmp.Compare(a.Target.Name, b.Target.Name) })
	return out
}
