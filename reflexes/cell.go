package reflexes

import (
	"time"

	"github.com/ganglion-mesh/ganglion/intent/expr"
)

// cell is what the engine knows of one variable of one target.
type cell struct {
	id     VarID
	target Target
	value  Value
	at     Boot          // when it was seen
	cause  Cause         // why it became what it is
	turn   uint64        // rises with each change of any cell: what changed last
	least  time.Duration // the shortest age at which it is too old for a reader; 0: never
	// readers are the instances whose conditions read the cell; askers those
	// that are asked for each edge of a counter.
	readers []*instance
	askers  []*instance
	window  *window // of a variable that counts edges within a time
}

// window counts edges within a time. Edges closer together than a 32nd of it
// are kept as one.
type window struct {
	per   time.Duration
	marks [40]mark // oldest first
	n     int
}

type mark struct {
	at Boot
	n  int64
}

func (w *window) add(at Boot, n int64) {
	w.drop(at)
	if w.n > 0 && (at-w.marks[w.n-1].at < w.per/32 || w.n == len(w.marks)) {
		w.marks[w.n-1].n += n
		return
	}
	w.marks[w.n] = mark{at, n}
	w.n++
}

// drop forgets what is older than the window.
func (w *window) drop(now Boot) {
	old := 0
	for old < w.n && now-w.marks[old].at >= w.per {
		old++
	}
	copy(w.marks[:], w.marks[old:w.n])
	w.n -= old
}

func (w *window) count(now Boot) int64 {
	var n int64
	for _, m := range w.marks[:w.n] {
		if now-m.at < w.per {
			n += m.n
		}
	}
	return n
}

// next is when the count falls, 0 if it cannot.
func (w *window) next(now Boot) Boot {
	for _, m := range w.marks[:w.n] {
		if now-m.at < w.per {
			return m.at + w.per
		}
	}
	return 0
}

type cellKey struct {
	id VarID
	t  Target
}

// cell returns the cell of a variable, and makes it if need be.
func (e *Engine) cell(id VarID, t Target) *cell {
	k := cellKey{id, t}
	c := e.cells[k]
	if c == nil {
		c = &cell{id: id, target: t}
		if v := id.Info(); v.Window > 0 {
			c.window = &window{per: v.Window}
		}
		e.cells[k] = c
	}
	return c
}

// cellOf returns the cell that a rule about t reads a variable from.
func (e *Engine) cellOf(id VarID, t Target) *cell {
	switch s := id.Info().Scope; {
	case s == ScopeHost:
		return e.cell(id, Host())
	case s == ScopeApp && t.Scope == ScopeCopy:
		return e.cell(id, Target{ScopeApp, t.app()})
	}
	return e.cell(id, t)
}

// windows are the variables that count the edges of a counter.
var windows = func() (out [len(table)][]VarID) {
	for i := range table {
		if of := table[i].Of; of != 0 {
			out[of] = append(out[of], VarID(i))
		}
	}
	return out
}()

// take takes in one fact and marks the instances that have to be judged anew.
func (e *Engine) take(now Boot, f *Fact) {
	v := f.Var.Info()
	value, fits := f.Value.Convert(v.Type)
	if f.Var == 0 || int(f.Var) >= len(table) || v.Window > 0 || !fits || f.Target.Name == "" && v.Scope != ScopeHost || f.Target.Scope != v.Scope {
		e.stats.Refused++
		return
	}
	at := min(f.At, now)
	e.meet(now, f.Target)
	c := e.cells[cellKey{f.Var, f.Target}]
	if c == nil {
		if len(e.cells) >= maxCells {
			e.stats.Refused++
			return
		}
		c = e.cell(f.Var, f.Target)
	}
	if at < c.at {
		return // what is newer is known already
	}
	if v.Edge {
		e.edge(now, c, at, value, f.Cause)
		return
	}
	old := c.least > 0 && now-c.at > c.least
	changed := value != c.value || f.Cause != c.cause
	c.at = at
	if changed {
		e.turns++
		c.value, c.cause, c.turn = value, f.Cause, e.turns
	}
	if !changed && !old {
		return
	}
	if v.With == 0 {
		e.mark(c)
	}
	e.watchHealth(now, c)
}

// edge takes in a new total of a counter.
func (e *Engine) edge(now Boot, c *cell, at Boot, total Value, cause Cause) {
	was := c.value.AsInt()
	if total.AsInt() < was {
		was = 0 // it began anew
	}
	n := total.AsInt() - was
	e.turns++
	c.value, c.at, c.cause, c.turn = total, at, cause, e.turns
	for _, id := range windows[c.id] {
		w := e.cell(id, c.target)
		w.at, w.value, w.turn = at, Int(0), e.turns // known from now on
		// What two acts stand behind nobody may answer. Were it counted, what is told of
		// that would be counted too, for ever.
		if n > 0 && (cause.Kind == CauseNone || cause.Kind == CauseChain && depth(cause.Chain) < maxDepth) {
			w.window.add(at, n)
			w.cause = cause // who answers a count goes on from there
		}
		e.mark(w)
	}
	if n <= 0 {
		return
	}
	if c.id == ClockGaps {
		e.doubt(now)
	}
	for _, in := range c.askers {
		e.ask(now, in, n)
		e.dirty(in)
	}
}

// aged tells that a sampled value was too old for its variable's own limit.
func (e *Engine) aged(c *cell, now Boot) bool {
	age := c.id.Info().MaxAge
	return age > 0 && now-c.at > age
}

func (e *Engine) mark(c *cell) {
	for _, in := range c.readers {
		e.dirty(in)
	}
}

func (e *Engine) dirty(in *instance) {
	if !in.dirty {
		in.dirty = true
		e.marked = append(e.marked, in)
	}
}

// watchHealth notes what tells that a target is well: what its back-off is
// reset by.
func (e *Engine) watchHealth(now Boot, c *cell) {
	var well bool
	switch c.id {
	case AppReady:
		well = c.value.AsBool()
	case AppRunning:
		if c.value.AsBool() {
			return // running alone is not health
		}
	case UnitState:
		well = c.value.AsString() == "active"
	case AppReadyRatio:
		well = c.value.AsFloat() >= 1
	default:
		return
	}
	if t := e.targets[c.target]; t != nil {
		t.seen(now, well)
	}
}

// maxAge is how old a value of c may be for the rule of in.
func (in *instance) maxAge(c *cell) time.Duration {
	age := c.id.Info().MaxAge
	if age > 0 && in.rule.maxAge > 0 {
		return in.rule.maxAge
	}
	return age
}

// Value implements expr.Source: what a condition of the instance reads.
func (in *instance) Value(index int) Value {
	id := varOf(index)
	for _, c := range in.cells {
		if c.id == id {
			return in.valueOf(c)
		}
	}
	return Value{}
}

func (in *instance) valueOf(c *cell) Value {
	if c.window != nil {
		if !c.value.Known() {
			return Value{}
		}
		return Int(c.window.count(in.now))
	}
	if age := in.maxAge(c); age > 0 && in.now-c.at > age {
		return Value{}
	}
	if in.engine.mistrusts(in.now, c) {
		return Value{}
	}
	return c.value
}

// conditionTruth evaluates one of the rule's conditions at now.
func (in *instance) conditionTruth(c *expr.Condition, now Boot) expr.Result {
	in.now = now
	return c.Eval(in)
}
