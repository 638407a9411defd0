package copies

import (
	"context"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/packages"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/workload"
)

// awaited is an order that is not carried out yet, because its package is on its
// way. What runs until then is kept by the order before: nothing old stops for
// something new that is not there.
type awaited struct {
	order   order
	since   time.Time
	state   packages.State
	arrival <-chan struct{}
}

// consider takes up an order, or puts it aside until its package is here. One
// that starts nothing needs none.
func (r *runner) consider(ctx context.Context, o order) time.Time {
	arrival := r.m.cfg.Packages.Changed()
	st := r.m.cfg.Packages.Get(o.run)
	if !st.Ready && o.target.Stopped == "" && o.fault == nil && !r.runs(o) {
		next := &awaited{order: o, since: time.Now(), state: st, arrival: arrival}
		told := false
		if a := r.awaited; a != nil && a.order.target.Generation == o.target.Generation {
			next.since, told = a.since, a.state.Failed
		}
		if r.awaited = next; st.Failed && !told {
			r.tell(workload.Note{Kind: workload.NoteNeedsHuman, Why: st.Why})
		}
		return r.step(ctx, workload.Tick{})
	}
	r.awaited = nil
	r.takeOrder(o, st)
	r.beginSmoke(ctx)
	return r.step(ctx, workload.Want{Target: &o.target})
}

// runs tells whether what runs is what o asks for, so that it has its package.
func (r *runner) runs(o order) bool {
	inst := r.sup.Status().Instance
	return inst != nil && inst.Spec.Generation == o.target.Generation
}

// arrival wakes the runner when it may go on with the order that it put aside.
func (r *runner) arrival() <-chan struct{} {
	if r.awaited == nil {
		return nil
	}
	return r.awaited.arrival
}

// amend tells in a report of the order that waits. Where something older runs, or
// is to run, the report stays about that, until the package proves not to be had:
// then it is the new generation that has failed, though the old runs on.
func (a *awaited) amend(rep *CopyReport, older bool, now time.Time) {
	t := a.order.target
	if older && !a.state.Failed {
		if rep.Why == "" {
			rep.Why = "version " + t.Version + " waits: " + a.state.Why
		}
		return
	}
	rep.Generation, rep.Failed, rep.Why = t.Generation, a.state.Failed, a.state.Why
	if a.state.Failed { // until then its time does not run
		rep.Age = now.Sub(a.since)
	}
	if older {
		return
	}
	rep.Version, rep.Ports, rep.Restarts, rep.Age = t.Version, a.order.ports, 0, 0
	if rep.State = topology.CopyFetching; a.state.Failed {
		rep.State, rep.Age = topology.CopyFailed, now.Sub(a.since)
	}
}
