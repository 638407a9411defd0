package copies

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/workloadtest"
)

// leased is a bubble with a rig whose clock is that of its host, and a slice by
// which it has the lease of a singleton.
func leased(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	bubble(t, func(t *testing.T, r *rig) {
		r.kill()
		r.cfg.BootClock = func() (string, time.Duration) { return "boot", r.host.Now() }
		r.boot()
		f(t, r)
	})
}

// give hands the Manager a slice with the singleton db and its lease; token 0:
// with none.
func (r *rig) give(token, generation uint64, edit ...func(*topology.Assignment)) {
	edit = append(edit, func(a *topology.Assignment) { a.Spec.Singleton = true })
	s := topology.Slice{MeshID: "m", Host: "h1", Assignments: []topology.Assignment{assign("db", 0, generation, edit...)}}
	if token != 0 {
		s.Leases = []topology.HeldLease{{App: "db", Token: token, Boot: "boot", Hold: 10 * time.Second, Fence: 3 * time.Second}}
	}
	r.m.Set(s)
	pass(time.Millisecond)
}

// renew acknowledges a renewal sent now.
func (r *rig) renew(token uint64) {
	r.t.Helper()
	if err := r.m.Extend(r.t.Context(), "db", token, r.host.Now()+10*time.Second); err != nil {
		r.t.Errorf("extend: %v", err)
	}
	pass(time.Second)
}

func (r *rig) runs(want bool) workload.Instance {
	r.t.Helper()
	all := r.host.Running()
	if (len(all) == 1) != want || len(all) > 1 {
		r.t.Fatalf("%d run, want one: %v", len(all), want)
	}
	if !want {
		return workload.Instance{}
	}
	return all[0]
}

func stopped(a *topology.Assignment) { a.Placement.Stopped = true }

func TestSingletonRunsUnderItsLeaseAlone(t *testing.T) {
	leased(t, func(t *testing.T, r *rig) {
		r.give(0, 5)
		pass(time.Minute)
		r.runs(false)
		if rep := r.m.Reports(); len(rep) != 1 || rep[0].State != topology.CopyStopped || rep[0].Why != noLease {
			t.Errorf("without a lease: %+v", rep)
		}
		r.give(7, 7)
		pass(time.Minute)
		r.runs(false) // it has one, of which nobody has said until when it is good
		if held := r.m.Leases(); len(held) != 1 || held[0].Token != 7 || len(r.m.Ended()) > 0 {
			t.Errorf("to be renewed: %+v, ended %+v", held, r.m.Ended())
		}
		r.renew(6) // another's
		r.runs(false)
		r.renew(7)
		inst := r.runs(true)
		if l := inst.Spec.Lease; l == nil || l.Token != 7 || l.Fence != 3*time.Second || l.Signal != syscall.SIGTERM {
			t.Errorf("it runs under %+v", l)
		}
		for range 10 {
			pass(3 * time.Second)
			r.renew(7)
		}
		if now := r.runs(true); now.Pid != inst.Pid || r.m.Reports()[0].Token != 7 {
			t.Errorf("a renewed lease did not keep it: %+v, %+v", now, r.m.Reports())
		}
	})
}

// Its keeper ends it, whatever the agent does, and that is no failure of its own.
func TestUnrenewedSingletonIsFenced(t *testing.T) {
	leased(t, func(t *testing.T, r *rig) {
		r.give(7, 7)
		r.renew(7)
		first := r.runs(true)
		pass(7 * time.Second)
		r.runs(false)
		if e := r.events[len(r.events)-1]; e.Type != "fenced" || e.Data.(Fenced).Token != 7 {
			t.Errorf("told %+v", e)
		}
		for range 20 { // never given up, never slower
			pass(20 * time.Second)
			r.runs(false)
			r.renew(7)
			if now := r.runs(true); now.Pid == first.Pid || now.Spec.Lease.Token != 7 {
				t.Fatalf("renewed: %+v", now)
			}
			pass(9 * time.Second)
			r.runs(false)
		}
		if rep := r.m.Reports()[0]; rep.Failed || rep.State != topology.CopyPending {
			t.Errorf("after it: %+v", rep)
		}
	})
}

// busy is a driver on a busy host: its keepers take long to start.
type busy struct {
	workload.Driver
	takes  time.Duration
	during func()
}

func (b *busy) Start(ctx context.Context, spec workload.Spec, n int) (workload.Handle, error) {
	if spec.Lease != nil {
		time.Sleep(b.takes / 2)
		b.during()
		time.Sleep(b.takes / 2)
		lease := spec.LeaseNow()
		spec.Lease = &lease
		h, err := b.Driver.Start(ctx, spec, n)
		b.during()
		return h, err
	}
	return b.Driver.Start(ctx, spec, n)
}

// A start that takes longer than the lease was good for when it began is made
// under the lease as it was renewed meanwhile, and nothing of that is lost.
func TestLeaseIsRenewedDuringTheStart(t *testing.T) {
	leased(t, func(t *testing.T, r *rig) {
		r.kill()
		slow := &busy{Driver: workloadtest.NewMemory(r.host), takes: 12 * time.Second}
		slow.during = func() {
			if err := r.m.Extend(t.Context(), "db", 7, r.host.Now()+10*time.Second); err != nil {
				t.Errorf("extend: %v", err)
			}
		}
		r.cfg.Driver = slow
		r.boot()
		r.give(7, 7)
		r.renew(7)
		pass(13 * time.Second)
		inst := r.runs(true)
		if left := inst.Spec.Lease.Deadline - r.host.Now(); left < 7*time.Second {
			t.Errorf("started with %s of its lease left, it was renewed for 10s a moment ago", left)
		}
		if len(r.m.Ended()) > 0 || r.m.Reports()[0].Restarts != 0 {
			t.Errorf("%+v, ended %+v", r.m.Reports(), r.m.Ended())
		}
	})
}

// A lease that was given back is given back for good, over restarts of the agent
// and against any slice.
func TestGivenBackIsForGood(t *testing.T) {
	leased(t, func(t *testing.T, r *rig) {
		r.give(7, 7)
		r.renew(7)
		r.runs(true)
		if len(r.m.Ended()) > 0 {
			t.Fatal("ended while it runs")
		}
		r.give(7, 8, stopped)
		pass(time.Second)
		r.runs(false)
		ended := r.m.Ended()
		if len(ended) != 1 || ended[0] != (topology.LeaseRef{App: "db", Token: 7}) || len(r.m.Leases()) > 0 {
			t.Fatalf("ended %+v, still renews %+v", ended, r.m.Leases())
		}
		for range 2 {
			r.give(7, 9) // a user starts it again, before the lease is seen to be over
			r.renew(7)
			pass(time.Minute)
			r.runs(false)
			if len(r.m.Ended()) != 1 {
				t.Error("it took back what it had given")
			}
			r.kill()
			r.boot()
		}
		r.give(12, 12)
		r.renew(12)
		if now := r.runs(true); now.Spec.Lease.Token != 12 {
			t.Errorf("under the next lease: %+v", now)
		}
	})
}

// A stop may take the whole grace, longer than a lease: it is renewed meanwhile.
func TestVoluntaryStopTakesItsWholeGrace(t *testing.T) {
	leased(t, func(t *testing.T, r *rig) {
		long := func(a *topology.Assignment) {
			a.Spec.Run.Command = []string{"stubborn"}
			a.Spec.Stop.Grace = 30_000_000_000
		}
		r.give(7, 7, long)
		r.renew(7)
		r.runs(true)
		r.give(7, 8, long, stopped)
		for range 9 {
			if held := r.m.Leases(); len(held) != 1 {
				t.Fatal("the lease of a copy that has yet to end is not renewed")
			}
			r.renew(7)
			pass(2 * time.Second)
			r.runs(true)
		}
		pass(5 * time.Second)
		r.runs(false)
		if len(r.m.Ended()) != 1 {
			t.Error("not given back after the stop")
		}
	})
}

// After a pause: kill first, ask later.
func TestFenceKillsAndForgets(t *testing.T) {
	leased(t, func(t *testing.T, r *rig) {
		r.give(7, 7)
		r.renew(7)
		r.runs(true)
		r.m.Fence(t.Context())
		r.runs(false)
		pass(5 * time.Second) // the old deadline is not over, and does not count
		r.runs(false)
		if e := r.events[len(r.events)-1]; e.Type != "fenced" {
			t.Errorf("told %+v", e)
		}
		r.renew(7)
		r.runs(true)
	})
}

// The next life of an agent finds the copy with its lease as the keeper has it.
func TestSingletonIsAdoptedWithItsLease(t *testing.T) {
	leased(t, func(t *testing.T, r *rig) {
		r.give(7, 7)
		r.renew(7)
		first := r.runs(true)
		r.kill()
		r.boot()
		if len(r.m.Ended()) > 0 {
			t.Error("ended before it is known what runs")
		}
		r.give(7, 7)
		if held := r.m.Leases(); len(held) != 1 || len(r.m.Ended()) > 0 {
			t.Errorf("to be renewed %+v, ended %+v", held, r.m.Ended())
		}
		pass(4 * time.Second)
		r.renew(7)
		pass(5 * time.Second)
		if now := r.runs(true); now.Pid != first.Pid {
			t.Error("it was restarted")
		}
		pass(10 * time.Second)
		r.runs(false)
	})
}

// The clock of another boot is not that of the lease.
func TestLeaseOfAnotherBootIsNone(t *testing.T) {
	leased(t, func(t *testing.T, r *rig) {
		r.give(7, 7)
		r.renew(7)
		r.runs(true)
		r.kill()
		r.host = workloadtest.NewHost("h1") // the copy is gone with its host
		r.cfg.Driver = workloadtest.NewMemory(r.host)
		r.cfg.BootClock = func() (string, time.Duration) { return "next", r.host.Now() }
		r.boot()
		r.give(7, 7)
		if err := r.m.Extend(t.Context(), "db", 7, r.host.Now()+time.Hour); err != nil {
			t.Error(err)
		}
		pass(time.Minute)
		r.runs(false)
		if len(r.m.Leases()) > 0 || len(r.m.Ended()) != 1 {
			t.Errorf("renews %+v, ended %+v; want it given back", r.m.Leases(), r.m.Ended())
		}
	})
}
