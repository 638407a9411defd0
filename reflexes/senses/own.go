package senses

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// Targeted is a sense of one target.
type Targeted interface {
	Sense
	// Target is whom the sense tells of.
	Target() reflexes.Target
}

// OwnConfig configures an Own.
type OwnConfig struct {
	// Now is the boot clock; required.
	Now Clock
	// Logger is told of a sense that fails as that of a Set is. Default: discard.
	Logger *slog.Logger
}

// Own is the senses of users' own as one sense: they come and go while a Set
// runs. Each fails alone.
type Own struct {
	cfg OwnConfig

	mu      sync.Mutex
	list    []Targeted
	changed chan struct{} // closed when list is another
}

// NewOwn returns one that has no senses yet.
func NewOwn(cfg OwnConfig) (*Own, error) {
	if cfg.Now == nil {
		return nil, fmt.Errorf("set up the senses of users: %w", errNoClock)
	}
	cfg.Logger = loggerOr(cfg.Logger)
	return &Own{cfg: cfg, changed: make(chan struct{})}, nil
}

// Set says which senses there are from now on, with targets of their own. One
// that was there before, the very same, goes on undisturbed.
func (o *Own) Set(list []Targeted) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list = list
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *Own) wanted() (list []Targeted, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.list, o.changed
}

// Name implements Sense.
func (o *Own) Name() string { return "own" }

// Vars implements Sense.
func (o *Own) Vars() []reflexes.VarID {
	return []reflexes.VarID{reflexes.SenseOK, reflexes.SenseValue, reflexes.SenseText, reflexes.SenseSubject, reflexes.SenseCount}
}

// Run implements Sense.
func (o *Own) Run(ctx context.Context, emit Emit) error {
	running := map[Targeted]func(){} // what ends each, and waits for that
	defer func() {
		for _, end := range running {
			end()
		}
	}()
	for {
		list, changed := o.wanted()
		there := map[Targeted]bool{}
		for _, s := range list {
			there[s] = true
		}
		for s, end := range running {
			if !there[s] {
				end()
				delete(running, s)
				emit(gone(nil, s.Target(), o.cfg.Now(), s.Vars()...))
			}
		}
		for _, s := range list {
			if running[s] == nil {
				running[s] = o.begin(ctx, s, emit)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (o *Own) begin(ctx context.Context, s Targeted, emit Emit) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	k := keeper{
		sense: s, log: o.cfg.Logger, emit: emit,
		wish:   func() (bool, <-chan struct{}) { return true, nil }, // it ends when it is not
		mark:   func(State, string) {},
		forget: func() { emit(gone(nil, s.Target(), o.cfg.Now(), levels(s.Vars())...)) },
	}
	var running sync.WaitGroup
	running.Go(func() { k.run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

// levels are the variables of which nothing is known while their sense cannot tell.
func levels(ids []reflexes.VarID) []reflexes.VarID {
	return slices.DeleteFunc(slices.Clone(ids), counts)
}
