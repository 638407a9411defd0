package copies

import (
	"context"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/packages"
	"github.com/ganglion-mesh/ganglion/workload"
)

// mail is what the Manager has for a runner: the order that counts, nil if the
// copy should not be here.
type mail struct {
	order   *order
	restart bool
}

// post leaves mail, replacing what has not been read. It is called with m.mu
// held and never blocks.
func (r *runner) post(in mail) {
	if r.inbox != nil {
		in.restart = in.restart || r.inbox.restart
	}
	r.inbox = &in
	select {
	case r.bell <- struct{}{}:
	default:
	}
}

// heed reads the mail and then does what reflexes want. Without mail nothing
// stands before that: not even what there would be to remember.
func (r *runner) heed(ctx context.Context) (wake time.Time) {
	r.m.mu.Lock()
	in := r.inbox
	r.inbox = nil
	r.m.mu.Unlock()
	if in != nil {
		wake = r.readMail(ctx, in)
	}
	if at, stepped := r.fulfil(ctx); stepped {
		return at
	}
	if in == nil {
		return r.step(ctx, workload.Tick{})
	}
	return wake
}

func (r *runner) readMail(ctx context.Context, in *mail) time.Time {
	if in.order == nil {
		r.awaited = nil
		return r.step(ctx, workload.Want{})
	}
	// Before the order, so that a copy which the order starts is not started
	// twice; another generation is a restart by itself.
	if in.restart && in.order.target.Generation == r.order.target.Generation {
		r.step(ctx, workload.RestartAsked{})
	}
	return r.consider(ctx, *in.order)
}

// takeOrder makes o the order, with its package if it is there: for a copy that
// already runs the next start may be a fast one.
func (r *runner) takeOrder(o order, st packages.State) {
	o.spec.Package = st.Dir
	r.order, r.prepared = o, st.Ready && o.fault == nil
	inst := r.sup.Status().Instance
	if r.probes == nil && inst != nil && inst.Spec.Generation == o.target.Generation {
		r.makeProbes()
	}
}
