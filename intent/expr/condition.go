package expr

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"

	"github.com/ganglion-mesh/ganglion/intent"
)

// The bounds of a condition.
const (
	maxConditionCost = 1000 // of one evaluation, about 50 µs
	// MaxText is how long, in bytes, a string may be that a condition reads. The
	// cost of conditions is estimated with it; Eval takes longer ones for not
	// known.
	MaxText = 256
)

// Var declares a variable that conditions may read. Its name may have dots.
type Var struct {
	Name string
	Type Type
}

// Vars are the variables that conditions are compiled over. It is immutable.
type Vars struct {
	list  []Var
	index map[string]int
	env   *cel.Env
}

// NewVars declares variables. Their order is what Condition.Reads and Source
// count by.
func NewVars(list []Var) (*Vars, error) {
	v := &Vars{list: slices.Clone(list), index: make(map[string]int, len(list))}
	options := append([]cel.EnvOption{cel.StdLib(), cel.CrossTypeNumericComparisons(true)}, limits()...)
	for i, x := range list {
		t, ok := celTypes[x.Type]
		if _, twice := v.index[x.Name]; !ok || twice {
			return nil, fmt.Errorf("declare variable %q: it has no type, or is there twice", x.Name)
		}
		v.index[x.Name] = i
		options = append(options, cel.Variable(x.Name, t))
	}
	env, err := cel.NewCustomEnv(options...)
	if err != nil {
		return nil, fmt.Errorf("declare variables: %w", err)
	}
	v.env = env
	return v, nil
}

var celTypes = map[Type]*cel.Type{BoolType: cel.BoolType, IntType: cel.IntType, FloatType: cel.DoubleType, StringType: cel.StringType}

// functions are what a condition may call: what gives the same everywhere, at a
// known cost.
var functions = []string{
	operators.Conditional, operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot, operators.Equals, operators.NotEquals,
	operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals, operators.Add, operators.Subtract,
	operators.Multiply, operators.Divide, operators.Modulo, operators.Negate, operators.In,
	"size", "startsWith", "endsWith", "contains", "matches", "int", "double", "string",
}

// Condition is a compiled boolean expression over variables. It is immutable
// and may be evaluated by several goroutines at once.
type Condition struct {
	src     string
	vars    *Vars
	reads   []int
	direct  *node // the expression in our own form, if it has one
	program cel.Program
}

// Compile compiles a boolean expression over the variables. It refuses, as an
// *Error, what names other variables (and says which one was probably meant),
// does not yield a boolean or could cost too much.
func (v *Vars) Compile(src string) (*Condition, error) {
	parsed, err := parse(v.env, src)
	if err != nil {
		return nil, err
	}
	if err := v.names(src, parsed); err != nil {
		return nil, err
	}
	checked, issues := v.env.Check(parsed)
	if err := asError(src, issues); err != nil {
		return nil, err
	}
	if checked.OutputType() != cel.BoolType {
		return nil, &Error{Source: src, Why: fmt.Sprintf("yields a %s; want true or false, as in host.memory.available_ratio < 0.05", checked.OutputType())}
	}
	estimate, err := v.env.EstimateCost(checked, textsOf(MaxText))
	if err != nil {
		return nil, &Error{Source: src, Why: err.Error()}
	}
	if estimate.Max > maxConditionCost {
		return nil, &Error{Source: src, Why: fmt.Sprintf("may cost %d steps to evaluate; at most %d are allowed", estimate.Max, maxConditionCost)}
	}
	program, err := v.env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxConditionCost))
	if err != nil {
		return nil, &Error{Source: src, Why: strings.ReplaceAll(err.Error(), "\n", " ")}
	}
	c := &Condition{src: src, vars: v, program: program}
	for _, name := range names(checked) {
		if i, ok := v.index[name]; ok {
			c.reads = append(c.reads, i)
		}
	}
	slices.Sort(c.reads)
	c.direct = v.direct(checked.NativeRep().Expr())
	return c, nil
}

// names refuses names that are not declared and functions that conditions do
// not have. It looks at the text as parsed, because the checker would only say
// that the first word of a name is unknown.
func (v *Vars) names(src string, parsed *cel.Ast) error {
	var bad *Error
	info := parsed.NativeRep().SourceInfo()
	refuse := func(e ast.Expr, format string, args ...any) {
		if bad == nil {
			at := info.GetStartLocation(e.ID())
			bad = &Error{Source: src, Line: at.Line(), Column: at.Column() + 1, Why: fmt.Sprintf(format, args...)}
		}
	}
	inner := map[int64]bool{} // operands of selections that were judged with them
	ast.PreOrderVisit(parsed.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.IdentKind, ast.SelectKind:
			if inner[e.ID()] {
				return
			}
			if name, root := path(e, inner); root != nil && !v.known(name) {
				refuse(root, "there is no variable %s%s", clip(name), v.meant(name))
			}
		case ast.CallKind:
			if f := e.AsCall().FunctionName(); !slices.Contains(functions, f) {
				refuse(e, "there is no function %s in conditions; there are %s", clip(strings.Trim(f, "_@")), strings.Join(functions[len(functions)-8:], ", "))
			}
		case ast.StructKind, ast.MapKind:
			refuse(e, "conditions have no maps or messages")
		}
	}))
	if bad != nil {
		return bad
	}
	return nil
}

// path returns the dotted name that e spells and the identifier it begins with,
// and marks what it is made of. The root is nil if it begins with a value.
func path(e ast.Expr, inner map[int64]bool) (string, ast.Expr) {
	var words []string
	for e.Kind() == ast.SelectKind {
		words = append(words, e.AsSelect().FieldName())
		e = e.AsSelect().Operand()
		inner[e.ID()] = true
	}
	if e.Kind() != ast.IdentKind {
		return "", nil
	}
	words = append(words, e.AsIdent())
	slices.Reverse(words)
	return strings.Join(words, "."), e
}

// known tells that name is a variable. What goes on behind the name of one,
// the checker refuses with better words.
func (v *Vars) known(name string) bool {
	for {
		if _, ok := v.index[name]; ok {
			return true
		}
		i := strings.LastIndexByte(name, '.')
		if i < 0 {
			return false
		}
		name = name[:i]
	}
}

// meant suggests the variable that name is probably a slip for, or else what there
// is to choose from.
func (v *Vars) meant(name string) string {
	if len(name) > MaxText {
		return ""
	}
	best, least := "", 3+len(name)/8
	kin, nearest := "", math.MaxInt // that begins with the same word
	word, _, _ := strings.Cut(name, ".")
	var words []string
	for _, x := range v.list {
		d := intent.Distance(name, x.Name)
		if strings.HasSuffix(x.Name, "."+name) || strings.HasPrefix(x.Name, name+".") || strings.HasPrefix(x.Name, name+"_") {
			d = min(d, 1) // a part of the name was left out
		}
		if d < least {
			best, least = x.Name, d
		}
		first, _, _ := strings.Cut(x.Name, ".")
		if first == word && d < nearest {
			kin, nearest = x.Name, d
		}
		if !slices.Contains(words, first) {
			words = append(words, first)
		}
	}
	switch {
	case best != "":
		return "; did you mean " + best + "?"
	case kin != "":
		return "; the nearest that begins with " + word + " is " + kin
	case len(words) > 0:
		return "; names begin with " + strings.Join(words, ", ")
	}
	return ""
}

func clip(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}

// Reads returns which variables the condition reads, as indexes into the list
// that NewVars was given, each once, rising. Nobody may change it.
func (c *Condition) Reads() []int { return c.reads }

// String returns the source of the condition.
func (c *Condition) String() string { return c.src }
