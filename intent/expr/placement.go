package expr

import (
	"fmt"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
)

// Placement is a compiled boolean expression over the labels of a host.
type Placement struct {
	src     string
	labels  []string
	program cel.Program
}

// CompilePlacement compiles a boolean expression in which bare names are
// labels: strings, and empty where a host does not have the label. It refuses
// what does not yield a boolean, and what could cost too much, as an *Error.
func CompilePlacement(src string) (*Placement, error) {
	base, err := cel.NewCustomEnv(append([]cel.EnvOption{cel.StdLib()}, limits()...)...)
	if err != nil {
		return nil, fmt.Errorf("make environment: %w", err)
	}
	parsed, err := parse(base, src)
	if err != nil {
		return nil, err
	}
	labels := names(parsed)
	vars := make([]cel.EnvOption, len(labels))
	for i, l := range labels {
		vars[i] = cel.Variable(l, cel.StringType)
	}
	env, err := base.Extend(vars...)
	if err != nil {
		return nil, &Error{Source: src, Why: err.Error()}
	}
	checked, issues := env.Check(parsed)
	if err := asError(src, issues); err != nil {
		return nil, err
	}
	if checked.OutputType() != cel.BoolType {
		return nil, &Error{Source: src, Why: fmt.Sprintf("yields a %s; want true or false, as in zone != 'c'", checked.OutputType())}
	}
	program, err := plan(env, checked)
	if err != nil {
		return nil, &Error{Source: src, Why: err.Error()}
	}
	return &Placement{src: src, labels: labels, program: program}, nil
}

// plan makes checked executable if its greatest cost is within bounds.
func plan(env *cel.Env, checked *cel.Ast) (cel.Program, error) {
	estimate, err := env.EstimateCost(checked, textsOf(maxLabel))
	if err != nil {
		return nil, err
	}
	if estimate.Max > maxCost {
		return nil, fmt.Errorf("may cost %d steps to evaluate; at most %d are allowed", estimate.Max, maxCost)
	}
	return env.Program(checked, cel.CostLimit(maxCost))
}

// textsOf tells the cost estimate how long the values of variables are at most:
// longer ones are not looked at.
type textsOf uint64

func (most textsOf) EstimateSize(node cost.AstNode) *cost.SizeEstimate {
	if len(node.Path()) != 1 {
		return nil
	}
	size := cost.RangedSizeEstimate(0, uint64(most))
	return &size
}

func (textsOf) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// names returns the bare names in an expression, each once, in order.
func names(parsed *cel.Ast) []string {
	var out []string
	ast.PreOrderVisit(parsed.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.IdentKind && !slices.Contains(out, e.AsIdent()) {
			out = append(out, e.AsIdent())
		}
	}))
	return out
}

// Labels returns the labels that the expression mentions.
func (p *Placement) Labels() []string { return slices.Clone(p.labels) }

// String returns the source of the expression.
func (p *Placement) String() string { return p.src }

// Matches evaluates the expression over the labels of a host. It fails where
// the value of a label makes the expression meaningless, such as int(rack) of a
// host without a rack; such a host does not match.
func (p *Placement) Matches(labels map[string]string) (bool, error) {
	vars := make(map[string]any, len(p.labels))
	for _, l := range p.labels {
		if len(labels[l]) > maxLabel {
			return false, fmt.Errorf("evaluate %s: label %s is longer than %d bytes", p.src, l, maxLabel)
		}
		vars[l] = labels[l]
	}
	out, _, err := p.program.Eval(vars)
	if err != nil {
		return false, fmt.Errorf("evaluate %s: %w", p.src, err)
	}
	match, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("evaluate %s: yields a %T", p.src, out.Value())
	}
	return match, nil
}
