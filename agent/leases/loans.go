package leases

import (
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// LoanBook is a leader's, as Book is of leases: since when it has known of each loan
// of the budget (S7), and so which tokens are free again. It is not safe for
// concurrent use.
type LoanBook struct {
	seen map[loanKey]time.Duration
}

// loanKey is a loan as it stands: settled, it counts from then.
type loanKey struct{ id, settled uint64 }

// TakeOffice forgets everything: all loans count as made, or settled, now.
func (b *LoanBook) TakeOffice() { b.seen = nil }

// Look notes what is new in the loans of a state and returns those whose tokens are
// free again, rising: a window after the holder's word was committed, else a window
// after the last moment at which the holder can have spent them. Clocks may be a
// tenth fast or slow: the holder's slow one makes its time longer by 1/0.9, this
// host's fast one makes what it measures shorter by 1/1.1.
func (b *LoanBook) Look(loans []topology.Loan, now time.Duration) (free []uint64) {
	seen := make(map[loanKey]time.Duration, len(loans))
	for _, l := range loans {
		k := loanKey{l.ID, l.Settled}
		at, known := b.seen[k]
		if !known {
			at = now
		}
		seen[k] = at
		if now-at >= freeAfter(l) {
			free = append(free, l.ID)
		}
	}
	b.seen = seen
	return free
}

// freeAfter is for how long a loan's tokens are not free, by a clock that may be a
// tenth fast.
func freeAfter(l topology.Loan) time.Duration {
	if l.Settled > 0 {
		return fast(topology.BudgetWindow)
	}
	return fast(topology.BudgetWindow + l.Time*10/9)
}

// fast is what a clock that is a tenth fast measures of a true time, rounded up.
func fast(d time.Duration) time.Duration { return d*11/10 + 1 }
