package agent

import (
	"sync"

	"github.com/ganglion-mesh/ganglion/events"
)

// repeats knows which events a reader has had: what was decided is told twice if
// the leader that told it died before that was recorded, by two hosts and with one
// id. It remembers the last of them: the two are told minutes apart at most, but
// for a mesh that was down as a whole.
type repeats struct {
	mu   sync.Mutex
	had  map[string]bool
	ring []string // ids of had, the oldest at next once it is full
	next int
}

const maxRepeats = 16_384

func newRepeats() *repeats { return &repeats{had: map[string]bool{}} }

// first reports whether the event comes for the first time.
func (r *repeats) first(e events.Event) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.had[e.ID]:
		return false
	case len(r.ring) < maxRepeats:
		r.ring = append(r.ring, e.ID)
	default:
		delete(r.had, r.ring[r.next])
		r.ring[r.next], r.next = e.ID, (r.next+1)%maxRepeats
	}
	r.had[e.ID] = true
	return true
}
