package senses

import "time"

// window keeps what a counter said over the last span, at steps, and tells how
// much it has grown since. It is pure; the instants are those of one clock that
// never goes back.
type window struct {
	span, step time.Duration
	ring       []reading // oldest at head
	head, n    int
}

type reading struct {
	at    time.Duration
	value int64
}

// newWindow returns a window that looks back over span, exact to a step.
func newWindow(span, step time.Duration) *window {
	return &window{span: span, step: step, ring: make([]reading, int(span/step)+2)}
}

// add takes a reading and returns by how much the counter has grown since the
// youngest reading that is a whole span old, and how long ago that was. It is
// false until there is one. After a pause the growth is that over the pause: the
// kernel has counted also while nobody looked.
func (w *window) add(at time.Duration, value int64) (grown int64, over time.Duration, ok bool) {
	if w.n > 0 && at < w.at(w.n-1).at {
		w.n = 0 // not the clock it was
	}
	for w.n > 1 && at-w.at(1).at >= w.span {
		w.head = (w.head + 1) % len(w.ring)
		w.n--
	}
	if w.n > 0 {
		if first := w.at(0); at-first.at >= w.span {
			grown, over, ok = value-first.value, at-first.at, true
		}
	}
	w.keep(at, value)
	return grown, over, ok
}

// since returns by how much the counter has grown since the oldest reading that
// is kept, which is about a span old at most, and how long ago that was. It is
// false if that is less than least.
func (w *window) since(at time.Duration, value int64, least time.Duration) (grown int64, over time.Duration, ok bool) {
	if w.n == 0 {
		return 0, 0, false
	}
	first := w.at(0)
	over = at - first.at
	return value - first.value, over, over >= least && over > 0
}

// keep stores a reading, unless one was stored less than a step ago.
func (w *window) keep(at time.Duration, value int64) {
	if w.n > 0 && at-w.at(w.n-1).at < w.step {
		return
	}
	if w.n == len(w.ring) { // cannot be, as long as readings are a step apart
		w.head = (w.head + 1) % len(w.ring)
		w.n--
	}
	w.ring[(w.head+w.n)%len(w.ring)] = reading{at, value}
	w.n++
}

// at returns the i-th reading, from the oldest.
func (w *window) at(i int) reading { return w.ring[(w.head+i)%len(w.ring)] }

// reset forgets all readings: the counter is another's.
func (w *window) reset() { w.n = 0 }

// ratio is the share of the time in which a counter of time grew, from 0 to 1.
func (w *window) ratio(at time.Duration, total time.Duration) (float64, bool) {
	grown, over, ok := w.add(at, int64(total))
	if grown < 0 { // it was not the same counter
		w.reset()
		return 0, false
	}
	return min(1, float64(grown)/float64(over)), ok
}
