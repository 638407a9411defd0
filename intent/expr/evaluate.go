package expr

import (
	"fmt"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
)

// Truth is what a condition can be.
type Truth uint8

// The truths. Unknown: it depends on a variable that has no value.
const (
	Unknown Truth = iota
	False
	True
)

// String returns "true", "false" or "unknown".
func (t Truth) String() string {
	switch t {
	case True:
		return "true"
	case False:
		return "false"
	}
	return "unknown"
}

// Source gives the values of variables by their index; the zero Value of those
// that are not known.
type Source interface {
	Value(i int) Value
}

// Result is what an evaluation found.
type Result struct {
	Truth Truth
	// Missing is the variable for want of which Truth is Unknown, else -1.
	Missing int
	// Err says why the condition has no meaning for the values there are: a
	// division by zero. Truth is Unknown then.
	Err error
}

// Eval evaluates the condition. Where the values that there are decide it, it is
// true or false whatever is not known. What is made of comparisons, && and || is
// evaluated without allocating.
func (c *Condition) Eval(in Source) Result {
	if c.direct != nil {
		missing := -1
		t := c.direct.truth(in, &missing)
		if t != Unknown {
			missing = -1
		}
		return Result{Truth: t, Missing: missing}
	}
	return c.interpret(in)
}

// interpret evaluates by cel. Variables without a value resolve to its own
// Unknown, which && and || absorb where the other side decides.
func (c *Condition) interpret(in Source) Result {
	out, _, err := c.program.Eval(&activation{vars: c.vars, in: in})
	if u, ok := out.(*types.Unknown); ok {
		return Result{Missing: int(u.IDs()[0])}
	}
	if err != nil {
		return Result{Missing: -1, Err: fmt.Errorf("evaluate %s: %w", clip(c.src), err)}
	}
	switch out {
	case types.True:
		return Result{Truth: True, Missing: -1}
	case types.False:
		return Result{Truth: False, Missing: -1}
	}
	return Result{Missing: -1, Err: fmt.Errorf("evaluate %s: yields a %s", clip(c.src), out.Type())}
}

// activation lets cel read variables.
type activation struct {
	vars *Vars
	in   Source
}

// ResolveName implements interpreter.Activation.
func (a *activation) ResolveName(name string) (any, bool) {
	i, ok := a.vars.index[name]
	if !ok {
		return nil, false
	}
	v, ok := a.in.Value(i).Convert(a.vars.list[i].Type)
	if !ok || !v.Known() || len(v.text) > MaxText {
		return types.NewUnknown(int64(i), types.NewAttributeTrail(name)), true
	}
	return celValue(v), true
}

// Parent implements interpreter.Activation.
func (a *activation) Parent() interpreter.Activation { return nil }

func celValue(v Value) ref.Val {
	switch v.kind {
	case BoolType:
		return types.Bool(v.AsBool())
	case IntType:
		return types.Int(v.AsInt())
	case FloatType:
		return types.Double(v.AsFloat())
	}
	return types.String(v.text)
}
