package reflexes

// Inbox keeps facts between two steps of the engine, so that a burst of them
// stays bounded and no edge is lost: of a variable that is not an edge's only
// the newest value waits, and when there are too many edges of one target they
// are folded into the last one, whose counter has them all.
//
// It is not safe for concurrent use: whoever collects from several senses holds
// a lock around it.
type Inbox struct {
	facts  []Fact
	spare  []Fact
	latest map[inboxKey]int // where in facts the only fact of a variable stands
	edges  map[inboxKey]int // edges that wait, by counter
	last   int              // how long facts was when the last edge came
	// Folded is how many edges were folded into others so far. They are counted,
	// but conditions do not see each by itself.
	Folded uint64
}

type inboxKey struct {
	id VarID
	t  Target
}

// maxEdges is how many edges of one counter wait one by one.
const maxEdges = 64

// NewInbox returns an empty inbox.
func NewInbox() *Inbox {
	return &Inbox{latest: map[inboxKey]int{}, edges: map[inboxKey]int{}}
}

// Put takes facts in. Those of one edge have to come in one call.
func (b *Inbox) Put(facts ...Fact) {
	for _, f := range facts {
		v := f.Var.Info()
		k := inboxKey{f.Var, f.Target}
		if v.Edge || v.With != 0 {
			b.putEdge(k, f, v)
			continue
		}
		// What was known when an edge came stays before it, for it is judged by
		// that; and an older report must not replace a newer one.
		if i, waits := b.latest[k]; waits && i >= b.last {
			if b.facts[i].At <= f.At {
				b.facts[i] = f
			}
			continue
		}
		b.latest[k] = len(b.facts)
		b.facts = append(b.facts, f)
	}
}

// putEdge appends f, or, when enough edges wait, puts it in the place of the
// last fact of its variable.
func (b *Inbox) putEdge(k inboxKey, f Fact, v *Var) {
	counter := k
	if v.With != 0 {
		counter.id = v.With
	}
	if b.edges[counter] < maxEdges {
		b.facts = append(b.facts, f)
		b.last = len(b.facts)
		if v.Edge {
			b.edges[counter]++
		}
		return
	}
	if v.Edge {
		b.Folded++
	}
	for i := len(b.facts) - 1; i >= 0; i-- {
		if b.facts[i].Var == f.Var && b.facts[i].Target == f.Target {
			b.facts[i] = f
			return
		}
	}
	b.facts = append(b.facts, f)
}

// Len returns how many facts wait.
func (b *Inbox) Len() int { return len(b.facts) }

// Take returns the facts that wait, in the order in which they came, and
// empties the inbox. The slice is good until the next Take.
func (b *Inbox) Take() []Fact {
	out := b.facts
	b.facts, b.spare = b.spare[:0], out
	b.last = 0
	clear(b.latest)
	clear(b.edges)
	return out
}
