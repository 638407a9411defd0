package agent

import (
	"context"

	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses"
)

// newEvents makes a sense of what is told on NATS.
func (n *nerves) newEvents(s intent.Sense) (*senses.Events, error) {
	filters := make([]events.Filter, len(s.Events))
	for i, p := range s.Events {
		var err error
		if filters[i], err = events.CompileFilter(p); err != nil {
			return nil, err // of a later version, which has other events
		}
	}
	sense, err := senses.NewEvents(senses.EventsConfig{
		Target: s.Name, Now: func() reflexes.Boot { return n.bootTime() },
		Listen: func(ctx context.Context, ready func(), heard func(senses.Message)) error {
			return n.listener.Listen(ctx, filters, ready, func(h events.Heard) {
				heard(senses.Message{ID: h.Event.ID, Subject: h.Subject, Chain: h.Event.Chain, Age: h.Age})
			})
		},
	})
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heard[s.Name] = sense
	return sense, nil
}

// hearOnly forgets senses of the story that are not declared any more.
func (n *nerves) hearOnly(declared map[string]ownSense) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, s := range n.heard {
		if declared[name].sense != senses.Targeted(s) {
			delete(n.heard, name)
		}
	}
}

// heardAt is the event that a sense heard last, at a time or before; 0 is now.
func (n *nerves) heardAt(name string, at reflexes.Boot) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.heard[name]; s != nil {
		return s.HeardAt(at)
	}
	return ""
}
