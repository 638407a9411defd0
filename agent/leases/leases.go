// Package leases is the bookkeeping of singleton leases (S4) on the boot clocks
// of those who take part: since when a leader has known of each renewal, and when
// a holder renews and until when it may run. It is pure: time is passed in, as
// read from CLOCK_BOOTTIME, which counts what a suspended host sleeps through
// and which nobody sets.
package leases

import (
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// Book is a leader's: since when it has known that each lease was renewed. It is
// not safe for concurrent use.
//
// It is level-triggered. What it notes is when it first looked at a state that
// has the renewal, which is not before the renewal was applied: the longer it
// takes to look, the longer it waits.
type Book struct {
	seen map[string]renewal
}

type renewal struct {
	token, index uint64
	at           time.Duration
}

// TakeOffice forgets everything. A leader calls it when its first barrier has
// passed and before it looks at any lease: what the leaders before it have
// acknowledged until then is in the state, when they did is not known, and so
// each lease counts as renewed now.
func (b *Book) TakeOffice() { b.seen = nil }

// Look notes what is new in the leases of a state and returns, by app, for how
// long each has not been renewed.
func (b *Book) Look(leases []topology.Lease, now time.Duration) map[string]topology.LeaseObs {
	seen := make(map[string]renewal, len(leases))
	obs := make(map[string]topology.LeaseObs, len(leases))
	for _, l := range leases {
		r, ok := b.seen[l.App]
		if !ok || r.token != l.Token || r.index < l.Renewed {
			r = renewal{l.Token, l.Renewed, now}
		}
		seen[l.App] = r
		obs[l.App] = topology.LeaseObs{Token: l.Token, Renewed: r.index, Age: now - r.at}
	}
	b.seen = seen
	return obs
}

// MaxGap is the longest time between two ticks of a holder. After a longer one
// it was paused, and nothing it believed before holds any more.
const MaxGap = 2 * time.Second

// tick is how often a holder of leases looks at its clock, if they do not ask for
// more.
const tick = 500 * time.Millisecond

// Holder is a host's: when it renews the leases it has. It is not safe for
// concurrent use.
type Holder struct {
	began bool
	last  time.Duration // of the last tick
	life  int           // counts the pauses
	asked map[string]asked
}

type asked struct {
	token uint64
	at    time.Duration
}

// Sent is when a renewal was sent. The clock was read before.
type Sent struct {
	at   time.Duration
	life int
}

// Tick is what a holder is to do now.
type Tick struct {
	// Paused says that the host, or its agent, stood still: every copy under a
	// lease is to be killed, and its deadline forgotten, before Tick is called
	// again. Nothing else is to be done.
	Paused bool
	Ask    []topology.LeaseRef // to be renewed now
	Sent   Sent                // of that request
	Next   time.Duration       // tick again after so long at the latest; 0: when the leases have changed
}

// Tick is called when Next has passed, or the leases have changed. Now must be
// read just before, and the request be sent after.
func (h *Holder) Tick(now time.Duration, held []topology.HeldLease) Tick {
	if len(held) == 0 { // nothing to lose: the clock is not looked at until there is
		h.began, h.asked = false, nil
		return Tick{}
	}
	gap := now - h.last
	paused := h.began && (gap > MaxGap || gap < 0)
	h.began, h.last = true, now
	if paused {
		h.life++
		h.asked = nil
		return Tick{Paused: true}
	}
	out := Tick{Sent: Sent{now, h.life}, Next: tick}
	next := make(map[string]asked, len(held))
	for _, l := range held {
		every := l.Hold / 3
		a, ok := h.asked[l.App]
		if !ok || a.token != l.Token || now-a.at >= every {
			a = asked{l.Token, now}
			out.Ask = append(out.Ask, topology.LeaseRef{App: l.App, Token: l.Token})
		}
		next[l.App] = a
		out.Next = min(out.Next, a.at+every-now)
	}
	h.asked = next
	return out
}

// Deadline is until when a lease may be used that was acknowledged in answer to
// what was sent; false if the holder was paused since.
func (h *Holder) Deadline(s Sent, hold time.Duration) (time.Duration, bool) {
	return s.at + hold, s.life == h.life
}
