// Package pause waits, no longer than a context lives.
package pause

import (
	"context"
	"time"
)

// For waits for d, and returns whether it has passed: false if ctx ended before.
func For(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
