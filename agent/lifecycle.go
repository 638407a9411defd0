package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// service is a part of the agent with a life of its own. run blocks until ctx
// ends or it cannot go on.
type service struct {
	name string
	run  func(ctx context.Context) error
}

// runServices starts the services in order and blocks until ctx ends or one of
// them fails. Then it ends them in the reverse order, each joined before the
// one that it builds on is told to end, and returns the first failure.
func runServices(ctx context.Context, log *slog.Logger, services []service) error {
	type ended struct {
		name string
		err  error
	}
	failed := make(chan ended, len(services))
	type running struct {
		service
		cancel context.CancelFunc
		done   chan struct{}
	}
	started := make([]running, 0, len(services))
	for _, s := range services {
		sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		r := running{service: s, cancel: cancel, done: make(chan struct{})}
		started = append(started, r)
		go func() {
			defer close(r.done)
			err := r.run(sctx)
			if sctx.Err() == nil {
				if err == nil {
					err = errors.New("ended by itself")
				}
				failed <- ended{r.name, err}
			}
		}()
	}
	var first error
	select {
	case <-ctx.Done():
	case e := <-failed:
		first = fmt.Errorf("%s: %w", e.name, e.err)
		if errors.Is(e.err, errLeft) {
			break
		}
		log.Error("a part of the agent cannot go on", "part", e.name, "error", e.err)
	}
	for i := len(started) - 1; i >= 0; i-- {
		begun := time.Now()
		started[i].cancel()
		<-started[i].done
		log.Debug("stopped", "part", started[i].name, "took", time.Since(begun))
	}
	return first
}
