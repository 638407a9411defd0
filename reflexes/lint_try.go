package reflexes

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/ganglion-mesh/ganglion/intent/expr"
)

// Conditions compare variables with constants. Between two neighbouring
// constants nothing can change, so a few values of each variable stand for all,
// and what a condition can be is found by trying them.

// maxTries bounds how many assignments are tried; what would need more is not
// judged.
const maxTries = 4096

// allTries bounds them for all rules together: some tenths of a second.
const allTries = 1 << 19

// values are an assignment of the variables.
type values [len(table)]Value

// Value implements expr.Source.
func (v *values) Value(i int) Value { return v[varOf(i)] }

// witness prints the values of what two rules read in common.
func (v *values) witness(apart map[VarID]bool, ids []VarID) string {
	var words []string
	for _, id := range ids {
		if w := id.String() + " = " + v[id].String(); !apart[id] && v[id].Known() && !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	if len(words) == 0 {
		return ""
	}
	return ", as with " + strings.Join(words, ", ")
}

// is tells whether a condition is want for all values that its variables can
// have.
func (l *linter) is(want expr.Truth, c *expr.Condition) bool {
	same := true
	decided := l.explore([]*expr.Condition{c}, nil, func(t []expr.Truth, _ *values) bool {
		same = t[0] == want
		return same
	})
	return decided && same
}

// explore tells visit what the conditions are, for every assignment that they
// can tell apart, until it returns false. Of a variable in apart each condition
// reads its own. It returns false if there are too many assignments.
func (l *linter) explore(list []*expr.Condition, apart map[VarID]bool, visit func([]expr.Truth, *values) bool) bool {
	type slot struct {
		id     VarID
		of     int // which condition reads it; -1: all
		points []Value
	}
	var slots []slot
	total := 1
	add := func(id VarID, of int, from ...*expr.Condition) {
		p := points(id, from...)
		slots = append(slots, slot{id, of, p})
		total = min(total*len(p), maxTries+1)
	}
	for i, c := range list {
		for _, n := range c.Reads() {
			id := varOf(n)
			switch {
			case apart[id]:
				add(id, i, c)
			case !slices.ContainsFunc(slots, func(s slot) bool { return s.id == id }):
				add(id, -1, list...)
			}
		}
	}
	if total > min(maxTries, l.tries) {
		return false
	}
	l.tries -= total
	vals := make([]values, len(list))
	truths := make([]expr.Truth, len(list))
	for n := range total {
		for _, s := range slots {
			p := s.points[n%len(s.points)]
			n /= len(s.points)
			for i := range vals {
				if s.of < 0 || s.of == i {
					vals[i][s.id] = p
				}
			}
		}
		for i, c := range list {
			truths[i] = c.Eval(&vals[i]).Truth
		}
		if !visit(truths, &vals[0]) {
			return true
		}
	}
	return true
}

// points are values of a variable that stand for all, as far as the conditions
// can tell: nothing known if they do more than compare it with constants.
func points(id VarID, list ...*expr.Condition) []Value {
	var consts []Value
	for _, c := range list {
		some, only := c.Compared(int(id) - 1)
		if !only {
			return []Value{{}}
		}
		consts = append(consts, some...)
	}
	switch id.Info().Type {
	case expr.BoolType:
		return []Value{Bool(false), Bool(true)}
	case expr.StringType:
		out := []Value{Text("(another)")}
		for _, c := range consts {
			if !slices.Contains(out, c) {
				out = append(out, c)
			}
		}
		return out
	}
	return numbers(id, consts)
}

// numbers are the constants, one number between each two of them, and the ends.
func numbers(id VarID, consts []Value) []Value {
	lo, hi := id.Info().bounds()
	marks := []float64{lo, hi}
	for _, c := range consts {
		marks = append(marks, c.AsFloat())
	}
	slices.Sort(marks)
	marks = slices.Compact(marks)
	var out []float64
	for i, m := range marks {
		out = append(out, m)
		if i+1 < len(marks) {
			out = append(out, m/2+marks[i+1]/2)
		}
	}
	whole := id.Info().Type == expr.IntType
	if whole {
		for _, m := range slices.Clone(out) {
			out = append(out, math.Floor(m)-1, math.Floor(m), math.Floor(m)+1)
		}
	}
	out = slices.DeleteFunc(out, func(f float64) bool { return f < lo || f > hi || whole && f != math.Trunc(f) })
	slices.SortFunc(out, cmp.Compare)
	list := make([]Value, 0, len(out))
	for _, f := range slices.Compact(out) {
		if whole {
			list = append(list, Int(int64(f)))
		} else {
			list = append(list, Float(f))
		}
	}
	return list
}

// bounds are the least and the greatest number that a variable can be.
func (v *Var) bounds() (lo, hi float64) {
	const far = 1 << 52
	switch v.Name {
	case "sense.value", "clock.step_seconds":
		return -far, far
	case "exit.code":
		return -1, 255
	case "peers.alive", "host.cpu.count":
		return 1, far
	case "app.mem_ratio", "app.cpu_ratio":
		return 0, far // what is asked for is no bound everywhere
	}
	switch {
	case v.Unit == "ratio":
		return 0, 1
	case v.Edge:
		return 1, far // it is asked for when there has been one
	}
	return 0, far
}
