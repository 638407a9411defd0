package hcl

import (
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/ganglion-mesh/ganglion/intent"
)

// decodeReflex reads a reflex block, at the top level or in an app.
func decodeReflex(b top) intent.Reflex {
	b.read(b.body, []string{"when", "clear", "for", "clear_for", "max_age", "act", "cooldown", "limit", "scope", "mode"}, nil)
	r := intent.Reflex{Name: b.name}
	b.str("when", &r.When)
	b.str("clear", &r.Clear)
	b.parsed("for", &r.For)
	b.parsed("clear_for", &r.ClearFor)
	b.parsed("max_age", &r.MaxAge)
	b.parsed("cooldown", &r.Cooldown)
	b.str("limit", &r.Limit)
	b.str("scope", &r.Scope)
	b.str("mode", &r.Mode)
	for i, e := range b.elements("act") {
		r.Act = append(r.Act, b.action(e, b.field("act")+"["+strconv.Itoa(i)+"]"))
	}
	return r
}

// positional names the arguments of an action after its target. Those of the
// actions that are not here are numbered from 1, as run has them.
var positional = map[string][]string{
	"restart":    {},
	"stop":       {},
	"signal":     {"signal"},
	"throttle":   {"cpu"},
	"drain_self": {},
	"evict":      {},
	"emit":       {"severity"},
	"webhook":    {},
	"claim":      {},
}

// action reads a call such as signal("web", "SIGHUP") or
// throttle("web", { cpu = "50%" }): the first string is the target, the next
// are arguments, and an object at the end names its arguments itself.
func (b *block) action(e hclsyntax.Expression, path string) intent.Action {
	call, ok := e.(*hclsyntax.FunctionCallExpr)
	if !ok {
		b.addf(e.Range(), "want an action, as in restart(\"web\")")
		return intent.Action{}
	}
	act := intent.Action{Op: call.Name}
	if ops := intent.ActionOps(); !slices.Contains(ops, act.Op) {
		hint := "want one of " + strings.Join(ops, ", ")
		if near := intent.Nearest(act.Op, ops); near != "" {
			hint = "did you mean " + near + "?"
		}
		b.addf(call.NameRange, "%s is not an action; %s", act.Op, hint)
		return act
	}
	b.places[path+".op"] = call.NameRange
	words := 0
	for i, arg := range call.Args {
		if object, ok := arg.(*hclsyntax.ObjectConsExpr); ok && i == len(call.Args)-1 {
			b.arguments(&act, object, path+".args")
			continue
		}
		s, ok := b.scalar(arg)
		if !ok {
			return act
		}
		b.word(&act, words, s, arg.Range(), path)
		words++
	}
	return act
}

// word puts one positional word of a call where it belongs.
func (b *block) word(act *intent.Action, n int, s string, at hcl.Range, path string) {
	if n == 0 {
		act.Target = s
		b.places[path+".target"] = at
		return
	}
	names, known := positional[act.Op]
	name := strconv.Itoa(n)
	switch {
	case known && n > len(names):
		b.addf(at, "%s takes no more than %d words", act.Op, len(names)+1)
		return
	case known:
		name = names[n-1]
	}
	if act.Args == nil {
		act.Args = make(map[string]string)
	}
	act.Args[name] = s
	b.places[path+".args"] = at
}

func (b *block) arguments(act *intent.Action, object *hclsyntax.ObjectConsExpr, path string) {
	b.places[path] = object.Range()
	for k, v := range b.object(object, path) {
		if _, twice := act.Args[k]; twice {
			b.addf(object.Range(), "%s is given twice", show(k))
			continue
		}
		if act.Args == nil {
			act.Args = make(map[string]string)
		}
		act.Args[k] = v
	}
}
