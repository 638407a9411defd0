package virtual

import (
	"fmt"
	"sync"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// freshness watches that no agent ever accepts a slice older than one it has
// accepted, across its lives (S3). It may be used from any goroutine.
type freshness struct {
	mu       sync.Mutex
	last     map[string]topology.Slice
	terms    map[uint64]bool
	accepted int
	wrong    []string
}

func newFreshness() *freshness {
	return &freshness{last: map[string]topology.Slice{}, terms: map[uint64]bool{}}
}

func (f *freshness) accept(sl topology.Slice) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.accepted++
	f.terms[sl.Term] = true
	if last, ok := f.last[sl.Host]; ok && !rises(last, sl) {
		f.wrong = append(f.wrong, fmt.Sprintf("%s accepted (%d, %d, %d) after (%d, %d, %d)",
			sl.Host, sl.Era, sl.Term, sl.Index, last.Era, last.Term, last.Index))
	}
	f.last[sl.Host] = sl
}

// rises tells whether b may follow a: nothing in it is older and something is
// newer.
func rises(a, b topology.Slice) bool {
	if a.Era != b.Era {
		return b.Era > a.Era
	}
	return b.Term >= a.Term && b.Index >= a.Index && (b.Term > a.Term || b.Index > a.Index)
}

// elections counts the terms in which slices were given out.
func (f *freshness) elections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.terms)
}

func (f *freshness) problems() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.wrong...)
}
