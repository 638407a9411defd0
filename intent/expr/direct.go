package expr

import (
	"math"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// Most conditions compare variables with constants and join that by && and ||.
// They are evaluated by a tree of our own: it allocates nothing, which matters
// between the end of a process and its restart, and it can be analysed.
// Everything else is cel's. A fuzz test holds the two to the same results.

// node is one node of that tree.
type node struct {
	op    string // an operator of cel, or "var", "const", "startsWith", "endsWith"
	args  []*node
	index int     // of a var
	want  Type    // of a var
	value Value   // of a const
	set   []Value // of in
}

// direct returns e in our own form, or nil.
func (v *Vars) direct(e ast.Expr) *node {
	switch e.Kind() {
	case ast.IdentKind:
		if i, ok := v.index[e.AsIdent()]; ok {
			return &node{op: "var", index: i, want: v.list[i].Type}
		}
	case ast.LiteralKind:
		if val, ok := constant(e); ok {
			return &node{op: "const", value: val, want: val.kind}
		}
	case ast.CallKind:
		return v.directCall(e.AsCall())
	}
	return nil
}

func (v *Vars) directCall(call ast.CallExpr) *node {
	args := call.Args()
	if call.IsMemberFunction() {
		args = append([]ast.Expr{call.Target()}, args...)
	}
	n := &node{op: call.FunctionName()}
	if n.op == operators.In {
		n.args = []*node{v.direct(args[0])}
		n.set = constants(args[1])
		if n.args[0] == nil || len(n.set) == 0 || slices.ContainsFunc(n.set, func(s Value) bool { return s.kind != n.args[0].want }) {
			return nil
		}
		return n
	}
	for _, a := range args {
		d := v.direct(a)
		if d == nil {
			return nil
		}
		n.args = append(n.args, d)
	}
	if !n.takes() {
		return nil
	}
	return n
}

// yields is the type of what n evaluates to.
func (n *node) yields() Type {
	if n.op == "var" || n.op == "const" {
		return n.want
	}
	return BoolType
}

// takes tells whether the operator of n is one of ours, for the types of its
// arguments.
func (n *node) takes() bool {
	types := make([]Type, len(n.args))
	for i, a := range n.args {
		types[i] = a.yields()
	}
	leaf := func(a *node) bool { return a.op == "var" || a.op == "const" }
	switch n.op {
	case operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot:
		return true
	case operators.Equals, operators.NotEquals, operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
		if !leaf(n.args[0]) || !leaf(n.args[1]) {
			return false
		}
		number := func(t Type) bool { return t == IntType || t == FloatType }
		return types[0] == types[1] || number(types[0]) && number(types[1])
	case "startsWith", "endsWith":
		return len(n.args) == 2 && leaf(n.args[0]) && leaf(n.args[1])
	}
	return false
}

func constant(e ast.Expr) (Value, bool) {
	switch lit := e.AsLiteral().(type) {
	case types.Bool:
		return Bool(bool(lit)), true
	case types.Int:
		return Int(int64(lit)), true
	case types.Double:
		f := Float(float64(lit))
		return f, f.Known()
	case types.String:
		return String(string(lit)), true
	}
	return Value{}, false
}

func constants(e ast.Expr) []Value {
	if e.Kind() != ast.ListKind {
		return nil
	}
	out := make([]Value, 0, e.AsList().Size())
	for _, x := range e.AsList().Elements() {
		if x.Kind() != ast.LiteralKind {
			return nil
		}
		v, ok := constant(x)
		if !ok {
			return nil
		}
		out = append(out, v)
	}
	return out
}

// value is what a leaf, or a boolean node, is.
func (n *node) get(in Source, missing *int) Value {
	switch n.op {
	case "const":
		return n.value
	case "var":
		v, ok := in.Value(n.index).Convert(n.want)
		if !ok || !v.Known() || len(v.text) > MaxText {
			if *missing < 0 {
				*missing = n.index
			}
			return Value{}
		}
		return v
	}
	switch n.truth(in, missing) {
	case True:
		return Bool(true)
	case False:
		return Bool(false)
	}
	return Value{}
}

// truth evaluates a boolean node by three-valued logic.
func (n *node) truth(in Source, missing *int) Truth {
	switch n.op {
	case operators.LogicalNot:
		return not(n.args[0].truth(in, missing))
	case operators.LogicalAnd, operators.LogicalOr:
		decides := False
		if n.op == operators.LogicalOr {
			decides = True
		}
		a := n.args[0].truth(in, missing)
		if a == decides {
			return a
		}
		b := n.args[1].truth(in, missing)
		if b == decides || a != Unknown {
			return b
		}
		return Unknown
	case operators.In:
		return n.in(in, missing)
	}
	a := n.get0(in, missing)
	if n.op == "var" || n.op == "const" {
		if !a.Known() {
			return Unknown
		}
		return truthOf(a.AsBool())
	}
	b := n.args[1].get(in, missing)
	if !a.Known() || !b.Known() {
		return Unknown
	}
	return truthOf(apply(n.op, a, b))
}

// get0 is the value of a leaf itself, or of the first argument of an operator.
func (n *node) get0(in Source, missing *int) Value {
	if len(n.args) == 0 {
		return n.get(in, missing)
	}
	return n.args[0].get(in, missing)
}

func (n *node) in(in Source, missing *int) Truth {
	v := n.args[0].get(in, missing)
	if !v.Known() {
		return Unknown
	}
	for _, s := range n.set {
		if compare(v, s) == 0 {
			return True
		}
	}
	return False
}

func apply(op string, a, b Value) bool {
	switch op {
	case "startsWith":
		return strings.HasPrefix(a.text, b.text)
	case "endsWith":
		return strings.HasSuffix(a.text, b.text)
	}
	c := compare(a, b)
	switch op {
	case operators.Equals:
		return c == 0
	case operators.NotEquals:
		return c != 0
	case operators.Less:
		return c < 0
	case operators.LessEquals:
		return c <= 0
	case operators.Greater:
		return c > 0
	}
	return c >= 0
}

// compare orders two values of one type, or two numbers, as cel does.
func compare(a, b Value) int {
	switch {
	case a.kind == StringType:
		return strings.Compare(a.text, b.text)
	case a.kind == BoolType:
		return order(a.bits, b.bits)
	case a.kind == IntType && b.kind == IntType:
		return order(a.AsInt(), b.AsInt())
	case a.kind == IntType:
		return -compareMixed(b.AsFloat(), a.AsInt())
	case b.kind == IntType:
		return compareMixed(a.AsFloat(), b.AsInt())
	}
	return order(a.AsFloat(), b.AsFloat())
}

// compareMixed orders a float and an int; the float may lie beyond all ints.
func compareMixed(f float64, i int64) int {
	switch {
	case f < math.MinInt64:
		return -1
	case f > math.MaxInt64:
		return 1
	}
	return order(f, float64(i))
}

func order[T int64 | uint64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func not(t Truth) Truth {
	switch t {
	case True:
		return False
	case False:
		return True
	}
	return Unknown
}

func truthOf(b bool) Truth {
	if b {
		return True
	}
	return False
}

// Compared returns the constants that the condition compares the variable with
// index i with, each once, in the order in which they stand; and whether that
// is all that it does with it, so that it cannot tell apart two values between
// neighbours of these.
func (c *Condition) Compared(i int) (consts []Value, all bool) {
	if c.direct == nil {
		return nil, !slices.Contains(c.reads, i)
	}
	all = true
	c.direct.compared(i, &consts, &all)
	return consts, all
}

func (n *node) compared(i int, consts *[]Value, all *bool) {
	add := func(v Value) {
		if !slices.Contains(*consts, v) {
			*consts = append(*consts, v)
		}
	}
	mentions := false
	for _, a := range n.args {
		mentions = mentions || a.op == "var" && a.index == i
		a.compared(i, consts, all)
	}
	if !mentions {
		return
	}
	for _, s := range n.set {
		add(s)
	}
	for _, a := range n.args {
		switch {
		case a.op == "const":
			add(a.value)
		case len(n.args) == 2 && n.yieldsFromValues() && !(a.op == "var" && a.index == i):
			*all = false // compared with another variable
		}
	}
	if n.op == "startsWith" || n.op == "endsWith" {
		*all = false
	}
}

// yieldsFromValues tells that n compares values, and does not join truths.
func (n *node) yieldsFromValues() bool {
	return n.op != operators.LogicalAnd && n.op != operators.LogicalOr
}
