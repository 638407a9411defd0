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
	past     map[string][]topology.Slice // all that differ in more than the term
	terms    map[uint64]bool
	accepted int
	wrong    []string

	lies, lied int // are yet to be told; have been told
}

func newFreshness() *freshness {
	return &freshness{last: map[string]topology.Slice{}, past: map[string][]topology.Slice{}, terms: map[uint64]bool{}}
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
	if past := f.past[sl.Host]; len(past) == 0 || past[len(past)-1].Index != sl.Index {
		f.past[sl.Host] = append(past, sl)
	}
}

// lie makes the next answers of voters, n of them, older than what who asks has
// accepted.
func (f *freshness) lie(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lies = n
}

// told is how many such answers have been given.
func (f *freshness) told() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lied
}

// serve gives a slice that host has accepted and should never accept again.
func (f *freshness) serve(host string) (topology.Slice, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	past := f.past[host]
	if f.lies == 0 || len(past) < 2 {
		return topology.Slice{}, false
	}
	f.lies--
	f.lied++
	return past[f.lied%(len(past)-1)], true // any but the last
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
