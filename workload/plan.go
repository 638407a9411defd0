package workload

import (
	"cmp"
	"slices"
)

// Desired is a copy that this host should have.
type Desired struct {
	ID         CopyID
	Version    string
	Generation uint64
	Stopped    bool // placed here, but asked not to run
}

// Observed is a running copy, as a driver reports it. There may be several of
// one ID, where an agent died between two steps.
type Observed struct {
	ID         CopyID
	Version    string
	Generation uint64
	Pid        int
}

// OpKind is what to do with a copy.
type OpKind string

// The operations. OpKeep changes nothing in a running copy, and OpStop without a
// desired copy is a removal.
const (
	OpStart   OpKind = "start"
	OpKeep    OpKind = "keep"
	OpReplace OpKind = "replace" // stop, then start
	OpStop    OpKind = "stop"
)

// Op is one operation, on the running copy Pid where there is one.
type Op struct {
	Kind OpKind
	ID   CopyID
	Pid  int
	Why  string
}

// Plan compares what should run with what runs. Each running copy is named by
// exactly one operation, and each copy that should run by exactly one besides
// OpStop of spares. The result is ordered by copy, spares first: they end
// before anything else of their copy is done.
func Plan(desired []Desired, observed []Observed) []Op {
	running := map[CopyID][]Observed{}
	for _, o := range observed {
		running[o.ID] = append(running[o.ID], o)
	}
	var ops []Op
	for _, d := range desired {
		ops = append(ops, planCopy(d, running[d.ID])...)
		delete(running, d.ID)
	}
	for id, rest := range running {
		for _, o := range rest {
			ops = append(ops, Op{Kind: OpStop, ID: id, Pid: o.Pid, Why: "no longer placed on this host"})
		}
	}
	slices.SortStableFunc(ops, func(a, b Op) int {
		return cmp.Or(cmp.Compare(a.ID.App, b.ID.App), cmp.Compare(a.ID.N, b.ID.N), rank(a)-rank(b), a.Pid-b.Pid)
	})
	return ops
}

func rank(op Op) int {
	if op.Kind == OpStop {
		return 0
	}
	return 1
}

// planCopy plans one desired copy. Of several that run the one that matches is
// kept, else the lowest pid is replaced; the others are spares.
func planCopy(d Desired, running []Observed) []Op {
	if d.Stopped {
		var ops []Op
		for _, o := range running {
			ops = append(ops, Op{Kind: OpStop, ID: d.ID, Pid: o.Pid, Why: "asked to stop"})
		}
		return ops
	}
	if len(running) == 0 {
		return []Op{{Kind: OpStart, ID: d.ID, Why: "not running"}}
	}
	main := slices.MinFunc(running, func(a, b Observed) int {
		return cmp.Or(boolRank(d.matches(b))-boolRank(d.matches(a)), a.Pid-b.Pid)
	})
	op := Op{Kind: OpKeep, ID: d.ID, Pid: main.Pid}
	switch {
	case main.Version != d.Version:
		op.Kind, op.Why = OpReplace, "runs version "+main.Version+", not "+d.Version
	case main.Generation != d.Generation:
		op.Kind, op.Why = OpReplace, "placed or asked to restart since"
	}
	ops := []Op{op}
	for _, o := range running {
		if o.Pid != main.Pid {
			ops = append(ops, Op{Kind: OpStop, ID: d.ID, Pid: o.Pid, Why: "a second one of this copy"})
		}
	}
	return ops
}

func (d Desired) matches(o Observed) bool {
	return o.Version == d.Version && o.Generation == d.Generation
}

func boolRank(b bool) int {
	if b {
		return 1
	}
	return 0
}
