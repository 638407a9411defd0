package copies

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/workload"
)

// A singleton that ends under a hard freeze stays down, also where its keeper
// would restart it and the agent has been restarted since; what a human asks for is
// done, and a thaw brings it back.
func TestHardFreezeHoldsKeepers(t *testing.T) {
	leased(t, func(t *testing.T, r *rig) {
		var hard atomic.Bool
		r.kill()
		r.cfg.Frozen = func(string) workload.Brake { return workload.Brake{Frozen: hard.Load(), Hard: hard.Load()} }
		r.boot()
		freeze := func(on bool) {
			hard.Store(on)
			r.m.Look()
			pass(time.Millisecond)
		}
		db := copyOf("db", 0)
		r.give(7, 7)
		r.renew(7)
		kill := func(back bool) {
			t.Helper()
			before := r.runs(true)
			r.host.Kill(db, syscall.SIGKILL)
			pass(time.Millisecond)
			for range 3 {
				r.renew(7)
			}
			if now := r.runs(back); back && now.Pid == before.Pid {
				t.Fatal("it was not killed")
			}
		}
		kill(true)
		freeze(true)
		kill(false)
		if rep := r.report(db); rep.State != topology.CopyBackoff && rep.State != topology.CopyPending {
			t.Errorf("held: %+v", rep)
		}
		freeze(false)
		r.renew(7)
		kill(true)
		freeze(true)
		r.kill()
		r.boot()
		r.give(7, 7)
		r.renew(7)
		kill(false) // its keeper was told by the life before
		r.give(7, 8)
		r.renew(7)
		r.runs(true) // another generation is somebody's word
		kill(false)
		freeze(false)
		r.renew(7)
		r.runs(true)
	})
}

// tellable is a driver whose manager restarts copies by itself.
type tellable struct {
	workload.Driver
	fails atomic.Int32 // how often it is yet to fail
	calls atomic.Int32
	last  atomic.Pointer[[2]bool] // whether web and db are held
}

func (d *tellable) Hold(_ context.Context, held func(app string) bool) error {
	d.calls.Add(1)
	if d.fails.Add(-1) >= 0 {
		return errors.New("not now")
	}
	d.last.Store(&[2]bool{held("web"), held("db")})
	return nil
}

// The driver's manager is told of a freeze when the agent begins, whenever that
// changes, and again until it has taken it.
func TestHardFreezeIsToldToTheDriver(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.kill()
		d := &tellable{Driver: r.cfg.Driver}
		r.cfg.Driver = d
		var hard atomic.Bool
		hard.Store(true)
		r.cfg.Frozen = func(app string) workload.Brake {
			return workload.Brake{Frozen: true, Hard: hard.Load() && app == "web"}
		}
		r.boot()
		look := func() {
			r.m.Look()
			pass(time.Millisecond)
		}
		pass(time.Millisecond)
		if got := d.last.Load(); got == nil || *got != [2]bool{true, false} {
			t.Fatalf("at the start it was told %v", got)
		}
		d.fails.Store(2)
		hard.Store(false)
		look()
		if got := d.last.Load(); *got != [2]bool{true, false} {
			t.Fatalf("it failed, and was told %v", got)
		}
		pass(2 * holdRetry)
		if got := d.last.Load(); *got != [2]bool{false, false} {
			t.Fatalf("thawed, and told %v", got)
		}
		before := d.calls.Load()
		pass(time.Hour)
		if now := d.calls.Load(); now != before {
			t.Errorf("told %d times for nothing", now-before)
		}
	})
}
