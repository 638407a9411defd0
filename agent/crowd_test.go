package agent

import (
	"testing"
	"time"
)

// TestCrowd: by how many look alive of those that there should be, a host tells
// whether it is the sick one, and does not believe at once that it is well again.
func TestCrowd(t *testing.T) {
	var c crowd
	now := time.Now()
	at := func(d time.Duration, alive, known int) bool { return c.judge(alive, known, now.Add(d)) }
	if at(0, 1, 1) {
		t.Error("a mesh of one is shut")
	}
	c.heard(5, now)
	for _, step := range []struct {
		at           time.Duration
		alive, known int
		want         bool
	}{
		{0, 5, 5, false},
		{time.Second, 4, 5, false},    // one of five is within the bound
		{2 * time.Second, 3, 5, true}, // two are 40 %
		{3 * time.Second, 5, 5, true}, // well, for how long?
		{100 * time.Second, 5, 5, true},
		{110 * time.Second, 3, 5, true},
		{120 * time.Second, 5, 5, true}, // calm from here on
		{239 * time.Second, 4, 5, true},
		{241 * time.Second, 4, 5, false},
		{250 * time.Second, 1, 1, true}, // restarted alone: the roster has five
		{rosterFor + time.Second, 1, 1, true},
		{rosterFor + 3*time.Minute, 1, 1, false}, // nothing is known of a roster; nothing is lent either
	} {
		if got := at(step.at, step.alive, step.known); got != step.want {
			t.Errorf("%s: %d of %d alive: shut %t", step.at, step.alive, step.known, got)
		}
	}
}
