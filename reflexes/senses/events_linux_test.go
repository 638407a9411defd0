package senses

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// newEvents is a sense of what comes by a channel.
func newEvents(t testing.TB, told <-chan Message) *Events {
	t.Helper()
	return must[*Events](t)(NewEvents(EventsConfig{Target: "x", Now: bootNow, Listen: func(ctx context.Context, ready func(), heard func(Message)) error {
		ready()
		for {
			select {
			case <-ctx.Done():
				return nil
			case m := <-told:
				heard(m)
			}
		}
	}}))
}

// TestEventsAreCounted: each once, if it is fresh, with what led to it.
func TestEventsAreCounted(t *testing.T) {
	told := make(chan Message)
	s := newEvents(t, told)
	e := listen(t, s)
	e.waitFor(reflexes.SenseCount, "x", is(reflexes.Int(0)))
	count := int64(0)
	hears := func(m Message, isNew bool) {
		t.Helper()
		told <- m
		told <- Message{ID: "old", Age: 2 * time.Minute} // it has taken m in when it takes this
		if isNew {
			count++
		}
		facts := e.all()
		last := facts[len(facts)-1]
		if last.Var != reflexes.SenseCount || last.Value != reflexes.Int(count) {
			t.Fatalf("after %+v: %v", m, last)
		}
		if isNew && (last.Cause.Chain != m.Chain || (last.Cause.Kind == reflexes.CauseChain) != (m.Chain != "") || facts[len(facts)-2].Value != reflexes.Text(m.Subject)) {
			t.Errorf("after %+v: %v", m, facts[len(facts)-2:])
		}
	}
	hears(Message{ID: "1", Subject: "app.web.0.unhealthy"}, true)
	hears(Message{ID: "2", Subject: "host.a.failed", Chain: "a,b", Age: eventFresh}, true)
	hears(Message{ID: "1", Subject: "app.web.0.unhealthy"}, false)
	hears(Message{ID: "3", Subject: "host.a.failed", Age: eventFresh + 1}, false)
	after := bootNow()
	if s.HeardAt(0) != "2" || s.HeardAt(after) != "2" || s.HeardAt(1) != "" {
		t.Errorf("heard %q, %q, %q", s.HeardAt(0), s.HeardAt(after), s.HeardAt(1))
	}
	for n := range heardKept {
		hears(Message{ID: fmt.Sprint("n", n), Subject: "x"}, true)
	}
	if s.HeardAt(after) != "" || s.HeardAt(0) != fmt.Sprint("n", heardKept-1) || len(s.seen) != heardKept {
		t.Errorf("%q, %q, %d ids", s.HeardAt(after), s.HeardAt(0), len(s.seen))
	}
	hears(Message{ID: "n0", Subject: "x"}, false)

	// It is asked again after a while, and goes on counting.
	e.stop()
	e = listen(t, s)
	e.waitFor(reflexes.SenseCount, "x", is(reflexes.Int(count)))
	hears(Message{ID: "n1", Subject: "x"}, false)
	hears(Message{ID: "4", Subject: "x"}, true)
}

// TestEventsWithoutNATS: a sense that cannot listen says why.
func TestEventsWithoutNATS(t *testing.T) {
	want := errors.New("no server")
	s := must[*Events](t)(NewEvents(EventsConfig{Target: "x", Now: bootNow, Listen: func(context.Context, func(), func(Message)) error { return want }}))
	if err := s.Run(t.Context(), func(f []reflexes.Fact) { t.Errorf("told %v", f) }); !errors.Is(err, want) {
		t.Error(err)
	}
	for name, cfg := range map[string]EventsConfig{
		"clock": {Target: "x", Listen: s.cfg.Listen}, "listen": {Target: "x", Now: bootNow}, "name": {Target: "X", Now: bootNow, Listen: s.cfg.Listen},
	} {
		if _, err := NewEvents(cfg); err == nil {
			t.Errorf("no %s: accepted", name)
		}
	}
}
