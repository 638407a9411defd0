package senses

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// Emit hands facts over, all at once and in order: no consumer sees some of them
// without the others. It never blocks and keeps nothing of the slice. It may be
// called from any goroutine.
type Emit func(facts []reflexes.Fact)

// Sense is one source of facts.
type Sense interface {
	// Name tells senses apart, in words for people.
	Name() string
	// Vars are the variables that it tells. No other sense of a Set tells any of
	// them of the same targets.
	Vars() []reflexes.VarID
	// Run emits facts until ctx ends, and has joined all that it started when it
	// returns. An error tells why it can tell nothing any more; it is run again
	// later, never twice at once. Facts of targets that are gone it emits once
	// more without a value.
	Run(ctx context.Context, emit Emit) error
}

// Clock is the boot clock. It may be called from any goroutine.
type Clock func() reflexes.Boot

var errNoClock = errors.New("needs the boot clock (Now)")

// every calls look at once and then each interval, until ctx ends or look fails.
// It is late rather than early, and skips what it misses. All that is done each
// so often is done at the same instants of the boot clock, so that the process
// wakes up once for all of it: what a wake-up costs is more than what most looks
// do.
func every(ctx context.Context, now Clock, interval time.Duration, look func() error) error {
	wait := untilNext(now(), interval)
	if wait < interval/2 { // what grew within a moment says nothing
		wait += interval
	}
	tick := time.NewTimer(wait)
	defer tick.Stop()
	for {
		if err := look(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			tick.Reset(untilNext(now(), interval))
		}
	}
}

// untilNext is how long it is until the next multiple of interval; that which is
// only a moment away is taken for the present one.
func untilNext(now reflexes.Boot, interval time.Duration) time.Duration {
	wait := interval - now%interval
	if wait < interval/8 {
		wait += interval
	}
	return wait
}

// hostFact is a fact about the host that nobody is known to have caused.
func hostFact(id reflexes.VarID, v reflexes.Value, at reflexes.Boot) reflexes.Fact {
	return reflexes.Fact{Var: id, Target: reflexes.Host(), Value: v, At: at}
}

// fact is one about a target that nobody is known to have caused.
func fact(id reflexes.VarID, t reflexes.Target, v reflexes.Value, at reflexes.Boot) reflexes.Fact {
	return reflexes.Fact{Var: id, Target: t, Value: v, At: at}
}

// gone appends that nothing is known any more of some variables of a target.
func gone(to []reflexes.Fact, t reflexes.Target, at reflexes.Boot, ids ...reflexes.VarID) []reflexes.Fact {
	for _, id := range ids {
		to = append(to, fact(id, t, reflexes.Value{}, at))
	}
	return to
}

// defaulted is v, or def where v was left out.
func defaulted[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func loggerOr(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
