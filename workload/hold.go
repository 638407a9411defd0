package workload

import "context"

// Holder is what a Driver is as well whose own manager restarts copies by itself
// (Spec.SelfHeal) and can be kept from it. Hold may be called from any goroutine.
type Holder interface {
	// Hold has the manager restart no copy of an app that held names, and those of
	// all others again. When it returns that is so of what runs; of what is started
	// later it is from the start. Held is asked from any goroutine, and must not
	// block; when it would answer differently, Hold is to be called again. It is
	// called after Adopt.
	Hold(ctx context.Context, held func(app string) bool) error
}

// Holdable is what the Handle of a copy is as well whose keeper restarts it by
// itself and can be kept from it.
type Holdable interface {
	// Hold says whether an end of the copy is left to the agent to answer. It
	// returns once the keeper has taken that, and nothing is waited for longer
	// than ctx.
	Hold(ctx context.Context, hold bool) error
}
