package copies

import (
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/packages"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

var (
	coming  = packages.State{Why: "fetching package: 1 of 9"}
	arrived = packages.State{Dir: "/trees/new", Ready: true}
	failed  = packages.State{Failed: true, Why: "nobody has it"}
)

func TestACopyWaitsForItsPackage(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		web := copyOf("web", 0)
		r.stock("sha256:new", coming)
		r.set(assign("web", 0, 5, artifact("sha256:new")))
		pass(time.Hour)
		rep := r.report(web)
		if rep.State != topology.CopyFetching || rep.Generation != 5 || rep.Version != "v1" || rep.Failed || rep.Why != coming.Why || rep.Age != 0 || rep.Pid != 0 {
			t.Fatalf("while it comes: %+v", rep)
		}
		r.stock("sha256:new", failed)
		pass(time.Minute)
		if rep = r.report(web); rep.State != topology.CopyFailed || !rep.Failed || rep.Why != failed.Why || rep.Age < time.Minute {
			t.Fatalf("when it cannot come: %+v", rep)
		}
		r.stock("sha256:new", arrived)
		if rep = r.report(web); rep.State != topology.CopyRunning || rep.Failed || rep.Age > time.Second || r.host.Running()[0].Spec.Package != arrived.Dir {
			t.Fatalf("when it is here: %+v", rep)
		}
		wantStrings(t, "events", r.told(web), "needs_human", "started")
	})
}

// TestNothingOldStopsForWhatIsNotHere: the old version runs on, is restarted when
// it dies, and ends only when the new package is here.
func TestNothingOldStopsForWhatIsNotHere(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		web := copyOf("web", 0)
		r.set(assign("web", 0, 1))
		pass(2 * time.Second)
		pid := r.pids()[web]
		r.stock("sha256:new", coming)
		next := assign("web", 0, 2, artifact("sha256:new"), version("v2"))
		r.set(next)
		pass(time.Minute)
		rep := r.report(web)
		if rep.Pid != pid || !rep.Ready || rep.Version != "v1" || rep.Generation != 1 || !strings.Contains(rep.Why, "v2 waits: fetching") {
			t.Fatalf("while it comes: %+v", rep)
		}
		r.host.Kill(web, 9)
		pass(2 * time.Second)
		if rep = r.report(web); rep.Pid == pid || rep.Pid == 0 || !rep.Ready || rep.Restarts != 1 || r.startsOf(web) != 2 {
			t.Fatalf("the old one died: %+v", rep)
		}
		pid = rep.Pid
		r.stock("sha256:new", failed)
		if rep = r.report(web); rep.Pid != pid || !rep.Ready || rep.Generation != 2 || !rep.Failed || rep.Why != failed.Why || rep.State != topology.CopyRunning {
			t.Fatalf("it cannot come: %+v", rep)
		}
		r.set(assign("web", 0, 1)) // taken back
		if rep = r.report(web); rep.Pid != pid || rep.Failed || rep.Why != "" || rep.Generation != 1 {
			t.Fatalf("taken back: %+v", rep)
		}
		r.set(next)
		r.stock("sha256:new", arrived)
		if rep = r.report(web); rep.Version != "v2" || rep.Generation != 2 || rep.Pid == pid || rep.Pid == 0 || rep.Failed {
			t.Fatalf("it is here: %+v", rep)
		}
	})
}

// TestStopsNeedNoPackage: who is stopped or moved away does not wait for what it
// will not run.
func TestStopsNeedNoPackage(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		web := copyOf("web", 0)
		r.set(assign("web", 0, 1))
		r.stock("sha256:new", coming)
		stopped := func(a *topology.Assignment) { a.Placement.Stopped = true }
		r.set(assign("web", 0, 2, artifact("sha256:new"), version("v2"), stopped))
		pass(time.Second)
		if rep := r.report(web); rep.State != topology.CopyStopped || len(r.pids()) != 0 {
			t.Fatalf("stopped: %+v", rep)
		}
		r.set(assign("web", 0, 3, artifact("sha256:new"), version("v2")))
		if rep := r.report(web); rep.State != topology.CopyFetching {
			t.Fatalf("started again: %+v", rep)
		}
		r.set()
		pass(time.Second)
		if len(r.m.Reports()) != 0 {
			t.Fatalf("moved away: %+v", r.m.Reports())
		}
	})
}

// TestAnAdoptedCopyOutlivesTheFetch: the agent restarts while the next version is
// on its way, or the package of what runs is being looked for again.
func TestAnAdoptedCopyOutlivesTheFetch(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		web := copyOf("web", 0)
		r.stock("sha256:old", packages.State{Dir: "/trees/old", Ready: true})
		old, next := assign("web", 0, 1, artifact("sha256:old")), assign("web", 0, 2, artifact("sha256:new"), version("v2"))
		r.set(old)
		pid := r.pids()[web]
		for _, as := range []topology.Assignment{old, next} {
			r.stock("sha256:old", packages.State{Why: "it is looked for"})
			r.stock("sha256:new", coming)
			r.kill()
			r.boot()
			r.set(as)
			pass(time.Minute)
			if rep := r.report(web); rep.Pid != pid || rep.State != topology.CopyRunning {
				t.Fatalf("%s: %+v", as.Placement.Version, rep)
			}
		}
		r.stock("sha256:new", arrived)
		if rep := r.report(web); rep.Version != "v2" || rep.Pid == pid || rep.Pid == 0 {
			t.Fatalf("it is here: %+v", rep)
		}
	})
}

// TestAPackageThatIsTakenAway: a restart that finds its package gone waits until
// it is back.
func TestAPackageThatIsTakenAway(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		web := copyOf("web", 0)
		r.stock("sha256:new", arrived)
		r.set(assign("web", 0, 1, artifact("sha256:new")))
		r.set(assign("web", 0, 1, artifact("sha256:new"), func(a *topology.Assignment) { a.Placement.Stopped = true }))
		pass(time.Second)
		r.set(assign("web", 0, 2, artifact("sha256:new")))
		r.stock("sha256:new", coming)
		r.set(assign("web", 0, 3, artifact("sha256:new")))
		pass(time.Second)
		r.stock("sha256:new", arrived)
		if rep := r.report(web); rep.State != topology.CopyRunning || rep.Pid == 0 || rep.Generation != 3 {
			t.Fatalf("%+v", rep)
		}
	})
}
