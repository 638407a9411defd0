package agent

import (
	"context"
	"log/slog"
	"maps"
	"sync"

	"github.com/ganglion-mesh/ganglion/gossip"
)

// tagBoard collects what the parts of this host tell the mesh in its gossip
// tags, and passes it on from one goroutine: to set tags can take seconds, and
// nobody should wait for it.
type tagBoard struct {
	mu    sync.Mutex
	tags  map[string]string
	dirty chan struct{}
}

func newTagBoard(tags map[string]string) *tagBoard {
	return &tagBoard{tags: tags, dirty: make(chan struct{}, 1)}
}

// set changes one tag; an empty value removes it.
func (b *tagBoard) set(key, value string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tags[key] == value {
		return
	}
	if value == "" {
		delete(b.tags, key)
	} else {
		b.tags[key] = value
	}
	ring(b.dirty)
}

func (b *tagBoard) snapshot() map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.tags)
}

// run passes changes on until ctx ends.
func (b *tagBoard) run(ctx context.Context, pool *gossip.Pool, log *slog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.dirty:
			if err := pool.SetTags(b.snapshot()); err != nil {
				log.Warn("set gossip tags", "error", err)
			}
		}
	}
}
