package agent

import (
	"context"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/agent/leases"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

// leaseHolder is a host's side of the leases of singletons and addresses: it renews
// those it needs and tells the keepers of its copies, and of its addresses, how long
// they are good. What it does not get done, the keepers, and the kernel, answer for.
type leaseHolder struct {
	*member
	clock func() (boot string, up time.Duration)
	news  chan struct{} // cap 1: the leases may have changed

	mu     sync.Mutex // guards holder: answers come when they come
	holder leases.Holder
	asks   sync.WaitGroup
}

// run keeps the leases until ctx ends. It waits for nobody: while one request
// hangs, the next is sent.
func (t *leaseHolder) run(ctx context.Context) error {
	defer t.asks.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changed := t.copies.Changed()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-t.news:
		case <-timer.C:
		}
		again, after := t.step(ctx)
		if timer.Stop(); again {
			timer.Reset(after)
		}
	}
}

// look makes run look again. It never blocks.
func (t *leaseHolder) look() {
	ring(t.news)
}

// step does what is due and returns whether, and when, to look again although
// nothing has changed.
func (t *leaseHolder) step(ctx context.Context) (again bool, after time.Duration) {
	held := append(t.copies.Leases(), t.nerves.addresses.Leases()...)
	boot, now := t.clock() // before anything is sent
	tick := t.tick(now, held)
	if tick.Paused {
		t.log.Warn("this host or its agent stood still: singletons are killed, and addresses taken off, before their leases are asked for again")
		t.nerves.addresses.Fence()
		t.copies.Fence(ctx)
		return true, 0
	}
	if len(tick.Ask) == 0 {
		return tick.Next > 0, tick.Next
	}
	holds := make(map[topology.LeaseRef]time.Duration, len(held))
	var longest time.Duration
	for _, l := range held {
		holds[topology.LeaseRef{App: l.App, Token: l.Token}] = l.Hold
		longest = max(longest, l.Hold)
	}
	t.asks.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, longest) // later it is of no use
		defer cancel()
		t.renew(ctx, api.LeaseRequest{Host: t.cfg.Name, Boot: boot, Leases: tick.Ask}, tick.Sent, holds)
	})
	return true, tick.Next
}

func (t *leaseHolder) tick(now time.Duration, held []topology.HeldLease) leases.Tick {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.holder.Tick(now, held)
}

// renew asks for leases to be renewed and makes use of the answer: until so long
// after the request was sent, never after it was answered.
func (t *leaseHolder) renew(ctx context.Context, req api.LeaseRequest, sent leases.Sent, holds map[topology.LeaseRef]time.Duration) {
	good, err := t.ask(ctx, req)
	if err != nil {
		t.log.Debug("renew leases", "error", err)
		return
	}
	for _, ref := range good {
		t.mu.Lock()
		until, ok := t.holder.Deadline(sent, holds[ref])
		t.mu.Unlock()
		if !ok || holds[ref] == 0 {
			continue
		}
		if err := t.extend(ctx, ref, until); err != nil {
			t.log.Debug("renew leases", "error", err)
		}
	}
}

// extend hands a deadline to whoever lives by it.
func (t *leaseHolder) extend(ctx context.Context, ref topology.LeaseRef, until time.Duration) error {
	if topology.IsAddress(ref.App) {
		return t.nerves.addresses.Extend(ref.App, ref.Token, until)
	}
	return t.copies.Extend(ctx, ref.App, ref.Token, until)
}

// ask has leases renewed by whoever leads, by way of another voter if it cannot be
// reached from here.
func (t *leaseHolder) ask(ctx context.Context, req api.LeaseRequest) ([]topology.LeaseRef, error) {
	if t.leader.leading() {
		return t.lessor.renew(ctx, req, t.hostID())
	}
	deadline, _ := ctx.Deadline()
	var err error
	for _, addr := range t.sliceAddrs() {
		var out api.LeaseResponse
		// A third for each, so that a leader that hangs leaves time for another way.
		each, cancel := context.WithTimeout(ctx, time.Until(deadline)/3)
		err = t.links.client(addr).Post(each, "/v1/lease", nil, req, &out)
		cancel()
		if err == nil {
			return out.Leases, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}
