package virtual

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// seeds runs f for a number of seeds, GANGLION_SEEDS times more where that is
// set. Each is a test of its own, so that -run can pick the one that failed.
func seeds(t *testing.T, n int, f func(t *testing.T, seed uint64)) {
	t.Helper()
	times := 1
	if s := os.Getenv("GANGLION_SEEDS"); s != "" {
		var err error
		if times, err = strconv.Atoi(s); err != nil || times < 1 {
			t.Fatalf("GANGLION_SEEDS=%q: want how many times as many seeds", s)
		}
	}
	for seed := uint64(1); seed <= uint64(n*times); seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { f(t, seed) })
	}
}

// figures collects one duration a run and holds a bound on their 99th percentile.
type figures []time.Duration

func (f *figures) add(d time.Duration) { *f = append(*f, d) }

func (f figures) hold(t *testing.T, what string, bound time.Duration) {
	t.Helper()
	if len(f) == 0 {
		t.Errorf("%s: nothing was measured", what)
		return
	}
	slices.Sort(f)
	at := func(share float64) time.Duration { return f[min(len(f)-1, int(share*float64(len(f))))] }
	t.Logf("%s: %d times, p50 %s, p99 %s, most %s", what, len(f), at(0.5), at(0.99), f[len(f)-1])
	if at(0.99) > bound {
		t.Errorf("%s: p99 %s, want at most %s", what, at(0.99), bound)
	}
}
