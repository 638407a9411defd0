package senses

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// keeper runs one sense whenever it is wanted, again and again when it fails: after
// a pause that doubles each time, until the sense has been well for a while.
type keeper struct {
	sense Sense
	log   *slog.Logger
	emit  Emit
	// wish tells whether the sense is wanted, and what is closed when that changes.
	wish func() (wanted bool, changed <-chan struct{})
	// mark is told how the sense is from now on, and why.
	mark func(state State, reason string)
	// forget is called when nothing is known any more of what it told.
	forget func()
}

// run returns when ctx has ended, and the sense too.
func (k *keeper) run(ctx context.Context) {
	pause := firstRetry
	for {
		wanted, changed := k.wish()
		if !wanted {
			k.mark(StateIdle, "")
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			pause = firstRetry
			continue
		}
		k.mark(StateRunning, "")
		well, err := k.whileWanted(ctx, pause > firstRetry)
		k.forget()
		if ctx.Err() != nil {
			return
		}
		if well {
			pause = firstRetry
		}
		if err == nil {
			continue
		}
		k.failed(err, pause)
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-wait.C:
		}
		wait.Stop()
		pause = min(2*pause, slowestRetry)
	}
}

// whileWanted runs the sense until it fails or is not wanted any more, which is
// no error. It is well when it has worked for a while, which is said if it had
// failed before.
func (k *keeper) whileWanted(ctx context.Context, again bool) (well bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		works := time.NewTimer(slowestRetry)
		defer works.Stop()
		for wanted, changed := k.wish(); wanted; wanted, changed = k.wish() {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			case <-works.C:
				well = true
				if again {
					k.log.Info("a sense works again", "sense", k.sense.Name())
				}
			}
		}
		cancel()
	})
	err = k.once(ctx)
	if ctx.Err() != nil {
		err = nil
	} else if err == nil {
		err = errors.New("ended by itself")
	}
	cancel()
	watch.Wait()
	return well, err
}

// once runs the sense once; a panic is one of its failures.
func (k *keeper) once(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			k.log.Error("a sense panicked", "sense", k.sense.Name(), "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return k.sense.Run(ctx, k.emit)
}

// failed tells of a failure, aloud if it is the first of a row.
func (k *keeper) failed(err error, retry time.Duration) {
	reason, _, _ := strings.Cut(err.Error(), "\n")
	k.mark(StateUnavailable, reason)
	level := slog.LevelDebug
	if retry == firstRetry {
		level = slog.LevelWarn
	}
	k.log.Log(context.Background(), level, "a sense is unavailable", "sense", k.sense.Name(), "error", err, "retry_in", retry)
}
