package reflexes

import (
	"time"
)

// targetState is what the engine keeps of something that acts were taken on,
// whichever rule took them: the back-off belongs to the target.
type targetState struct {
	target Target
	streak int   // acts since the last stable period
	acting ActID // the act that is under way or proposed, 0 if none
	by     *instance
	acted  Boot // when the last act ended, or began
	ready  Boot // no act before
	well   Boot // since when it has been seen healthy without a break; unwell if it is not
}

// unwell stands for a time that does not exist.
const unwell Boot = -1

// seen takes in whether the target is healthy. Only a whole stable period
// forgets the streak.
func (t *targetState) seen(now Boot, healthy bool) {
	switch {
	case healthy && t.well == unwell:
		t.well = now
	case !healthy:
		t.settleStreak(now)
		t.well = unwell
	}
}

func (t *targetState) settleStreak(now Boot) {
	if t.well != unwell && now-t.well >= resetAfter {
		t.streak, t.ready = 0, 0
	}
}

// count counts an act at now and sets when the next may follow.
func (t *targetState) count(now Boot, seed uint64) {
	t.settleStreak(now)
	t.streak++
	t.acted = now
	t.ready = now + backoff(t.streak, jitter(seed, t.target, t.streak))
	if t.well != unwell {
		t.well = now // a stable period is counted from the last act
	}
}

// backoff is the wait between act number streak of a streak and the next one.
// Jitter, from 0 to 1, spreads the growing waits over their upper half and the
// last one over a fortieth: more of it would only add restarts to a crash loop.
func backoff(streak int, jitter float64) time.Duration {
	if streak > 16 || firstBackoff<<(streak-1) >= maxBackoff {
		return maxBackoff - time.Duration(jitter*float64(maxBackoff)/40)
	}
	wait := firstBackoff << (streak - 1)
	return wait - time.Duration(jitter*float64(wait)/2)
}

// jitter draws from 0 to 1, the same for the same arguments.
func jitter(seed uint64, t Target, n int) float64 {
	h := seed ^ uint64(t.Scope)<<56 ^ uint64(n)*0x9e3779b97f4a7c15
	for i := range len(t.Name) {
		h = (h ^ uint64(t.Name[i])) * 0x100000001b3
	}
	h ^= h >> 31
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 29
	return float64(h>>11) / (1 << 53)
}
