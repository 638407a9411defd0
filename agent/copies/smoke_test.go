package copies

import (
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/workload"
)

// Smoke checks run once for each asking, and what came of them is reported,
// without the copy being touched.
func TestSmokeChecksRunOnceForEachAsking(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		web := copyOf("web", 0)
		asked := func(id uint64, argv ...string) topology.Assignment {
			return assign("web", 0, 1, check(intent.Check{Type: intent.CheckSmoke, Command: argv, Timeout: intent.Second}),
				func(a *topology.Assignment) { a.Smoke = id })
		}
		r.set(asked(0, "environ"))
		pass(2 * time.Second)
		if rep := r.report(web); rep.Smoke != 0 || !rep.Ready {
			t.Fatalf("before it is asked for: %+v", rep)
		}
		r.set(asked(7, "environ"))
		pass(2 * time.Second)
		if rep := r.report(web); rep.Smoke != 7 || rep.SmokeEnd != topology.SmokePassed {
			t.Errorf("a check that passes: %+v", rep)
		}
		r.set(asked(7, "nosuch"))
		pass(2 * time.Second)
		if rep := r.report(web); rep.SmokeEnd != topology.SmokePassed {
			t.Errorf("it was run again without being asked for: %+v", rep)
		}
		r.set(asked(9, "nosuch"))
		pass(2 * time.Second)
		if rep := r.report(web); rep.Smoke != 9 || rep.SmokeEnd != topology.SmokeFailed || rep.SmokeWhy == "" || rep.Restarts != 0 {
			t.Errorf("a check that fails: %+v", rep)
		}
	})
}

// A copy that cannot work says with its last words why.
func TestTheLastOutputOfACopyThatFails(t *testing.T) {
	v := view{version: "v", last: "no such database"}
	if rep := v.report(copyOf("web", 0), time.Now()); rep.Why != "" {
		t.Errorf("a copy that works: %+v", rep)
	}
	v.st.Failed, v.st.Why = true, "exited with code 1"
	if rep := v.report(copyOf("web", 0), time.Now()); rep.Why != "exited with code 1; its last output: no such database" {
		t.Errorf("why: %s", rep.Why)
	}
	v.st.Failed, v.st.Why, v.st.Lapse = false, "", workload.Lapse{After: 7 * time.Second, Why: "exited with code 1"}
	if rep := v.report(copyOf("web", 0), time.Now()); rep.Why != "" || rep.LapsedAfter != 7*time.Second || rep.LapsedWhy != "exited with code 1; its last output: no such database" {
		t.Errorf("a copy that died and is well again: %+v", rep)
	}
}

// Reading output is dear, and a copy in trouble publishes much: what is silent is
// read once for each start.
func TestTheLastOutputIsReadOnce(t *testing.T) {
	reads, said := 0, ""
	r := &runner{id: copyOf("web", 0), m: &Manager{cfg: Config{LastOutput: func(workload.CopyID) string { reads++; return said }}}}
	look := func(st workload.Status, text string, n int) {
		t.Helper()
		for range 3 {
			if got := r.lastOutput(st); got != text {
				t.Errorf("%+v: %q", st, got)
			}
		}
		if reads != n {
			t.Errorf("%+v: read %d times, want %d", st, reads, n)
		}
	}
	lapse := func(d time.Duration, starts int) workload.Status {
		return workload.Status{Starts: starts, Lapse: workload.Lapse{After: d}}
	}
	look(workload.Status{Starts: 1}, "", 0)
	look(workload.Status{Failed: true}, "", 0) // never started
	look(lapse(time.Minute, 1), "", 1)
	look(lapse(time.Minute, 2), "", 2) // silent: the next may say something
	said = "no such database"
	look(lapse(time.Minute, 3), said, 3)
	said = "later words"
	look(lapse(time.Minute, 4), "no such database", 3) // what was found first counts
	look(lapse(time.Hour, 4), "later words", 4)
	look(workload.Status{Starts: 5}, "", 4)
	look(lapse(time.Minute, 5), "later words", 5)
}
