package agent

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/ganglion-mesh/ganglion/pause"
)

const (
	backoffMin = 50 * time.Millisecond
	backoffMax = 5 * time.Second
)

// backoff paces retries of one loop with full jitter, so that a mesh that lost
// its leader does not come back as a herd. The zero value is ready.
type backoff struct{ ceiling time.Duration }

func (b *backoff) reset() { b.ceiling = 0 }

// wait sleeps a random part of a ceiling that doubles, and tells whether ctx
// has not ended.
func (b *backoff) wait(ctx context.Context) bool {
	b.ceiling = min(max(2*b.ceiling, backoffMin), backoffMax)
	return pause.For(ctx, backoffMin/2+rand.N(b.ceiling))
}

// ring has something to receive at a bell, which has room for one ring. It never
// blocks: of rings that nobody has answered yet one is enough.
func ring(bell chan<- struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}
