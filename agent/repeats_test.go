package agent

import (
	"strconv"
	"testing"

	"github.com/ganglion-mesh/ganglion/events"
)

// A reader gets each event once, however many have come since, up to a bound.
func TestRepeatsAreLeftOut(t *testing.T) {
	r := newRepeats()
	id := func(n int) events.Event { return events.Event{ID: strconv.Itoa(n)} }
	for n := range maxRepeats + 10 {
		if !r.first(id(n)) {
			t.Fatalf("event %d is new", n)
		}
	}
	if r.first(id(10)) || r.first(id(maxRepeats+9)) || len(r.had) != maxRepeats {
		t.Errorf("repeats come through, or %d are remembered", len(r.had))
	}
	if !r.first(id(9)) {
		t.Error("what is that old is forgotten")
	}
}
