package packages

import (
	"context"
	"maps"
	"time"

	"github.com/ganglion-mesh/ganglion/workload/artifact"
)

// settling is for how long what nobody needs is left alone even if space is
// short: it may have been pushed for an intent that is about to be committed.
const settling = 5 * time.Minute

// tend flushes what was unpacked, and removes what nobody needs beyond the bound.
func (k *Keeper) tend(ctx context.Context) {
	if err := k.cfg.Store.Settle(ctx); err != nil && ctx.Err() == nil {
		k.log.Warn("flush unpacked packages", "error", err)
	}
	k.collect(k.cfg.Bound, k.cfg.Grace)
}

// makeSpace removes all that nobody needs.
func (k *Keeper) makeSpace() { k.collect(0, min(settling, k.cfg.Grace)) }

func (k *Keeper) collect(bound int64, grace time.Duration) {
	pinned, fresh, ok := k.needed(grace)
	if !ok {
		return // what is needed is not known yet
	}
	gone, err := k.cfg.Store.Collect(artifact.Keep{Pinned: pinned, Fresh: fresh, Bound: bound})
	for _, g := range gone {
		k.log.Info("removed a package that nobody needs", "package", g.Digest.Short(), "name", g.Name, "bytes", g.Size+g.Unpacked)
	}
	if err != nil {
		k.log.Warn("remove packages", "error", err)
	}
}

// needed tells what must stay, and what may not go yet. Ages begin anew with the
// agent: it then keeps too much, for a while.
func (k *Keeper) needed(grace time.Duration) (pinned, fresh map[artifact.Digest]bool, ok bool) {
	list := k.cfg.Store.List()
	k.mu.Lock()
	defer k.mu.Unlock()
	pinned, fresh = maps.Clone(k.pinned), map[artifact.Digest]bool{}
	for ref := range k.asked {
		pinned[ref.Digest] = true
	}
	for ref := range k.running {
		pinned[ref.Digest] = true
	}
	now := time.Now()
	idle := map[artifact.Digest]time.Time{}
	for _, i := range list {
		if pinned[i.Digest] {
			continue
		}
		since, known := k.idle[i.Digest]
		if !known {
			since = now
		}
		idle[i.Digest] = since
		if now.Sub(since) < grace {
			fresh[i.Digest] = true
		}
	}
	k.idle = idle
	return pinned, fresh, k.informed
}
