package workload

import "time"

const firstBackoff = time.Second

// backoff decides how long a restart waits. The first is at once; those that
// follow without a stable period between them wait 1s, 2s, 4s … up to the
// maximum; once a whole limit of restarts falls into the window, every one
// waits the maximum. It never says stop.
//
// Waits are spread by jitter: over their upper half while they grow, and over
// the last twentieth once they are at the maximum. Jitter over the whole range
// would spread better, but at the maximum it would double the restarts that a
// crash loop costs.
type backoff struct {
	streak  int         // restarts since the last stable period
	history []time.Time // of the last restarts, at most Limit of them
}

// next counts a restart at now and returns how long it waits, and whether the
// limit was reached before it.
func (b *backoff) next(now time.Time, p Policy, jitter float64) (wait time.Duration, over bool) {
	over = b.over(now, p)
	switch {
	case over:
		wait = slow(p, jitter)
	case b.streak > 0:
		wait = grown(b.streak, p, jitter)
	}
	b.streak++
	b.history = append(b.history, now)
	if n := len(b.history) - p.Limit; n > 0 {
		b.history = append(b.history[:0], b.history[n:]...)
	}
	return wait, over
}

// over tells whether Limit restarts lie within the window that ends now.
func (b *backoff) over(now time.Time, p Policy) bool {
	n := len(b.history)
	return n >= p.Limit && n > 0 && now.Sub(b.history[n-p.Limit]) < p.Window
}

// stable forgets the streak; the history ages by itself.
func (b *backoff) stable() { b.streak = 0 }

// slow is the wait of what will hardly work: the maximum, a little jittered.
func slow(p Policy, jitter float64) time.Duration {
	return p.BackoffMax - time.Duration(jitter*float64(p.BackoffMax)/20)
}

// grown is the wait before restart number streak+1 of a streak.
func grown(streak int, p Policy, jitter float64) time.Duration {
	if streak > 30 || firstBackoff<<(streak-1) >= p.BackoffMax {
		return slow(p, jitter)
	}
	wait := firstBackoff << (streak - 1)
	return wait - time.Duration(jitter*float64(wait)/2)
}
