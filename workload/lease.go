package workload

import (
	"context"
	"syscall"
	"time"
)

// Lease is the right of the one copy of a singleton to run, until a moment on
// this host's CLOCK_BOOTTIME. A driver that starts a copy under a lease runs it
// below a keeper: a process apart from the agent that ends the copy when the
// lease does, whatever has become of the agent.
type Lease struct {
	// Token is the fencing token: the log index of the grant, GANGLION_TOKEN in
	// the copy's environment. Later grants have higher ones.
	Token uint64 `json:"token"`
	// Deadline is time since boot. The copy is killed at it, and nothing of it
	// runs the kill allowance (K) later.
	Deadline time.Duration `json:"deadline"`
	// Fence is how long before Deadline the stop signal is sent: the stop rule's
	// grace, at most MaxFence.
	Fence time.Duration `json:"fence"`
	// Signal is that of the stop rule.
	Signal syscall.Signal `json:"signal"`
}

// MaxFence is the longest that a copy whose lease ends is given to end by
// itself. The whole grace of its stop rule is for stops that somebody asked for.
const MaxFence = 3 * time.Second

// Live tells whether the lease is good at now, on CLOCK_BOOTTIME, for longer
// than its copy would be given to end: below that a copy would be started to be
// stopped.
func (l Lease) Live(now time.Duration) bool { return now < l.Deadline-l.Fence }

// Leased is what the Handle of a copy under a lease is as well. Its methods may
// be called from any goroutine.
type Leased interface {
	// Extend moves the deadline, and returns once the keeper has taken it. An
	// older deadline than the present one, or another token, changes nothing and
	// is an error, as is an ended keeper. Nothing is waited for longer than ctx.
	Extend(ctx context.Context, token uint64, deadline time.Duration) error
	// Lease returns the lease as the keeper holds it now.
	Lease() Lease
}

// fencedWhy is why a copy does not run whose lease has ended.
const fencedWhy = "its lease ended; waiting for it to be renewed"
