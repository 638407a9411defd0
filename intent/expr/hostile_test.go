package expr

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// hostile are conditions that mean harm: to take long, or much memory.
func hostile() []string {
	nest := "app.restarts > 3"
	for range 8 {
		nest = "[1, 2, 3, 4, 5, 6, 7, 8, 9].all(x, " + nest + ")"
	}
	fill := func(piece, join string) string {
		n := (2048 - 20) / (len(piece) + len(join))
		return strings.TrimSuffix(strings.Repeat(piece+join, n), join)
	}
	list := []string{
		nest,
		"[1, 2, 3].map(x, [x, x]).size() > 1",
		"exit.signal.matches('((a*)*)*b')",
		"exit.signal.matches('(a|aa)+$')",
		"exit.signal.matches('(a{1000}){1000}')",
		"exit.signal.matches('" + strings.Repeat("(a?){50}", 100) + "')",
		"exit.signal.matches('" + strings.Repeat(".*a", 600) + "')",
		"exit.signal.matches(exit.signal)",
		fill("exit.signal.matches('^(a*)*b$')", " || "),
		fill("exit.signal.contains(unit.state)", " || "),
		fill("exit.signal", " + ") + " == 'x'",
		"(" + fill("exit.signal", " + ") + ").contains('x')",
		fill("(1 + app.restarts * 3) % 7 == 9", " || "),
		"app.restarts in [" + fill("1", ", ") + "]",
		strings.Repeat("!", 1000) + "link.up",
		strings.Repeat("(", 1000) + "link.up" + strings.Repeat(")", 1000),
		strings.Repeat("link.up ? (", 80) + "link.up" + strings.Repeat(") : link.up", 80),
		strings.Repeat("[", 500) + "1" + strings.Repeat("]", 500) + " == [1]",
		"'" + strings.Repeat("a", 2000) + "'.contains(exit.signal)",
		"string(app.restarts) + string(app.restarts) == '1' || exit.signal.size() > 3",
	}
	return list
}

// A condition that means harm is refused, or is done with, decided or not, within 5 ms,
// whatever it reads. The best of some tries is judged: this is about what it costs, and
// other work takes the machine now and then.
func TestHostileConditions(t *testing.T) {
	const limit, toRead = 5 * time.Millisecond, 250 * time.Millisecond
	vars := newVars(t)
	long := String(strings.Repeat("a", MaxText))
	worst := given{Float(0.01), Int(1 << 62), long, Bool(true), Float(0.3), Int(1 << 62), long, Bool(false)}
	refused, slowest := 0, time.Duration(0)
	for _, src := range hostile() {
		var c *Condition
		var err error
		if took := best(toRead, func() { c, err = vars.Compile(src) }); took > toRead { // once for each change of a rule
			t.Errorf("to read it takes %s: %.80s", took, src)
		}
		if err != nil {
			refused++
			continue
		}
		took := best(limit, func() { c.Eval(worst) })
		slowest = max(slowest, took)
		if took > limit {
			t.Errorf("%s: %.80s", took, src)
		}
	}
	said := fmt.Sprintf("%d of %d refused, the slowest of the others took %s", refused, len(hostile()), slowest)
	t.Log(said)
	if refused == 0 || refused == len(hostile()) {
		t.Errorf("nothing was tested: %s", said)
	}
}

// best is the least time of some tries, or the first that is short enough.
func best(enough time.Duration, f func()) time.Duration {
	least := time.Hour
	for range 20 {
		begun := time.Now()
		f()
		if least = min(least, time.Since(begun)); least <= enough {
			break
		}
	}
	return least
}
