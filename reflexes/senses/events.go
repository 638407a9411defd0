package senses

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// Message is an event of the story, as a sense hears it.
type Message struct {
	ID      string        // of the event: what is heard twice has it twice
	Subject string        // app.web.2.unhealthy
	Chain   string        // rules whose acts led to it, see reflexes.Cause
	Age     time.Duration // how old it was when it was told
}

// EventsConfig configures a sense of the story.
type EventsConfig struct {
	// Target is the sense's name, as rules know it; required.
	Target string
	// Listen hands over what is told, one message after the other, from ready on until
	// ctx ends, and returns why it could not go on; required.
	Listen func(ctx context.Context, ready func(), heard func(Message)) error
	// Now is the boot clock; required.
	Now Clock
}

const (
	// eventFresh is how old an event may be. What a host kept while it had no
	// connection is history when it comes: nobody is to act on it.
	eventFresh = time.Minute
	// heardKept is of how many events the ids are remembered. A publisher that
	// connected anew repeats at most 1,024.
	heardKept = 4096
)

// Events tells of events of the story: how many have been heard, and the subject of
// the last.
type Events struct {
	cfg    EventsConfig
	target reflexes.Target

	mu    sync.Mutex
	count int64            // over all runs
	last  [heardKept]heard // a ring, written at count%heardKept
	seen  map[string]bool  // ids in it
}

type heard struct {
	id string
	at reflexes.Boot
}

// NewEvents returns a sense of the story.
func NewEvents(cfg EventsConfig) (*Events, error) {
	err := errBadName
	switch {
	case cfg.Now == nil:
		err = errNoClock
	case cfg.Listen == nil:
		err = errors.New("there is nothing to listen to")
	case isName(cfg.Target):
		return &Events{cfg: cfg, target: reflexes.Target{Scope: reflexes.ScopeSense, Name: cfg.Target}, seen: map[string]bool{}}, nil
	}
	return nil, fmt.Errorf("set up the sense of events %q: %w", cfg.Target, err)
}

// Target is whom the sense tells of.
func (s *Events) Target() reflexes.Target { return s.target }

// Name implements Sense.
func (s *Events) Name() string { return "events:" + s.cfg.Target }

// Vars implements Sense.
func (s *Events) Vars() []reflexes.VarID {
	return []reflexes.VarID{reflexes.SenseCount, reflexes.SenseSubject}
}

// Run implements Sense.
func (s *Events) Run(ctx context.Context, emit Emit) error {
	ready := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		emit([]reflexes.Fact{fact(reflexes.SenseCount, s.target, reflexes.Int(s.count), s.cfg.Now())})
	}
	return s.cfg.Listen(ctx, ready, func(m Message) {
		at := s.cfg.Now()
		count, isNew := s.hear(m, at)
		if !isNew {
			return
		}
		told := fact(reflexes.SenseCount, s.target, reflexes.Int(count), at)
		if m.Chain != "" {
			told.Cause = reflexes.Cause{Kind: reflexes.CauseChain, Chain: m.Chain}
		}
		subject := fact(reflexes.SenseSubject, s.target, reflexes.Text(strings.ToValidUTF8(m.Subject, "�")), at)
		subject.Cause = told.Cause
		emit([]reflexes.Fact{subject, told})
	})
}

// hear counts a message, unless it is old or was heard before.
func (s *Events) hear(m Message, at reflexes.Boot) (count int64, isNew bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.Age > eventFresh || s.seen[m.ID] {
		return s.count, false
	}
	slot := &s.last[s.count%heardKept]
	delete(s.seen, slot.id)
	*slot = heard{m.ID, at}
	s.seen[m.ID] = true
	s.count++
	return s.count, true
}

// HeardAt is the id of the newest event that was heard by then; of the newest of
// all, if at is 0. It is empty if none is known.
func (s *Events) HeardAt(at reflexes.Boot) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := s.count; n > max(s.count-heardKept, 0); n-- {
		if h := s.last[(n-1)%heardKept]; at == 0 || h.at <= at {
			return h.id
		}
	}
	return ""
}
