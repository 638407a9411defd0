package copies

import (
	"context"
	"errors"
	"maps"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/workloadtest"
)

func TestAKilledCopyRunsAgainAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		web := copyOf("web", 0)
		r.set(assign("web", 0, 5))
		pass(time.Second)
		before := time.Now()
		r.host.Kill(web, syscall.SIGKILL)
		synctest.Wait()
		rep := r.report(web)
		if rep.State != topology.CopyRunning || rep.Restarts != 1 || !rep.Since.Equal(before) || rep.Generation != 5 {
			t.Fatalf("%+v", rep)
		}
		pass(time.Second)
		wantStrings(t, "events", r.told(web), "started", "ready", "exited", "restarted", "ready")
		ev := r.eventsOf(web)
		if x := ev[2].Data.(Exited); x.Signal != "SIGKILL" || x.Code != nil || x.RanMS != 1000 || x.Pid != 1 {
			t.Errorf("exited: %+v", x)
		}
		if x := ev[3].Data.(Restarted); x.By != "agent" || x.AfterUS != 0 || x.Pid != 2 || x.Start != 2 {
			t.Errorf("restarted: %+v", x)
		}
		if ev[3].Cause != id(3) || ev[4].Cause != id(4) || ev[0].Cause != "" {
			t.Errorf("causes: %q, %q, %q", ev[3].Cause, ev[4].Cause, ev[0].Cause)
		}
	})
}

func TestARestartOfTheAgentRestartsNoCopy(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		slice := []topology.Assignment{assign("web", 0, 5), assign("web", 1, 6), assign("db", 0, 7), assign("gone", 0, 8)}
		r.set(slice...)
		pass(time.Minute)
		r.host.Kill(copyOf("web", 1), syscall.SIGKILL)
		pass(time.Minute)
		before := r.pids()
		r.kill()
		if !maps.Equal(before, r.pids()) {
			t.Fatal("the end of the agent touched a copy")
		}
		r.host.Kill(copyOf("db", 0), syscall.SIGKILL) // while nobody looks
		r.boot()
		pass(time.Hour) // no leader, no slice: nothing is touched
		delete(before, copyOf("db", 0))
		if !maps.Equal(before, r.pids()) {
			t.Fatal("without a slice a copy was touched")
		}
		r.set(slice[:3]...) // gone/0 was unplaced meanwhile
		pass(time.Second)
		delete(before, copyOf("gone", 0))
		after := r.pids()
		if after[copyOf("db", 0)] == 0 {
			t.Error("the copy that ended meanwhile was not started")
		}
		delete(after, copyOf("db", 0))
		if !maps.Equal(before, after) {
			t.Errorf("pids %v became %v", before, after)
		}
		if rep := r.report(copyOf("web", 1)); rep.Restarts != 1 || !rep.Ready {
			t.Errorf("the count of restarts did not survive: %+v", rep)
		}
		r.host.Kill(copyOf("web", 1), syscall.SIGKILL)
		synctest.Wait()
		if rep := r.report(copyOf("web", 1)); rep.Restarts != 2 || rep.State != topology.CopyRunning {
			t.Errorf("an adopted copy is not restarted: %+v", rep)
		}
	})
}

func TestANewVersionIsReplacedStopFirst(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.set(assign("web", 0, 5, command("stubborn")))
		pass(time.Second)
		r.set(assign("web", 0, 9, version("v2")))
		rep := r.report(copyOf("web", 0))
		if rep.State != topology.CopyStopping || rep.Generation != 5 || rep.Version != "v1" || rep.Why != "replaced by version v2" {
			t.Fatalf("while the old one ends: %+v", rep)
		}
		pass(10 * time.Second)
		if rep := r.report(copyOf("web", 0)); rep.State != topology.CopyRunning || rep.Generation != 9 || rep.Version != "v2" || rep.Restarts != 0 {
			t.Fatalf("after the grace: %+v", rep)
		}
		stopped := r.eventsOf(copyOf("web", 0))[2].Data.(Stopped)
		if !stopped.Killed || stopped.TookMS != 10_000 {
			t.Errorf("%+v", stopped)
		}
	})
}

// Ten copies that ignore the signal to stop, and one whose start hangs, delay
// none of the others.
func TestSlowCopiesDelayNoOther(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var slow []topology.Assignment
		for n := range 10 {
			slow = append(slow, assign("slow", n, 1, command("stubborn")))
		}
		web := assign("web", 0, 2)
		r.set(append(slow, web)...)
		release := r.host.HoldStarts(copyOf("hung", 0))
		begun := time.Now()
		r.set(assign("hung", 0, 3), web, assign("web", 1, 4))
		r.host.Kill(copyOf("web", 0), syscall.SIGKILL)
		synctest.Wait()
		if a, b := r.report(copyOf("web", 0)), r.report(copyOf("web", 1)); a.Restarts != 1 || a.Pid == 0 || b.Pid == 0 || !time.Now().Equal(begun) {
			t.Fatalf("they waited: %+v, %+v", a, b)
		}
		if rep := r.report(copyOf("hung", 0)); rep.State != topology.CopyStarting {
			t.Errorf("%+v", rep)
		}
		pass(10 * time.Second)
		if n := len(r.host.Running()); n != 2 {
			t.Errorf("%d run, want web/0 and web/1", n)
		}
		release()
		synctest.Wait()
		if rep := r.report(copyOf("hung", 0)); rep.State != topology.CopyRunning {
			t.Errorf("%+v", rep)
		}
	})
}

func TestAnHourOfCrashLoop(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		bad, good := copyOf("bad", 0), copyOf("good", 0)
		r.set(assign("bad", 0, 1, command("exit", "3")), assign("good", 0, 2))
		pass(time.Hour)
		if n := r.startsOf(bad); n > 71 || n < 60 {
			t.Errorf("%d starts in an hour", n)
		}
		if n := r.startsOf(good); n != 1 {
			t.Errorf("the other copy was started %d times", n)
		}
		humans := 0
		for _, e := range r.eventsOf(bad) {
			if e.Type == "needs_human" {
				humans++
			}
		}
		if humans != 6 {
			t.Errorf("needs_human told %d times in six windows", humans)
		}
		rep := r.report(bad)
		if rep.State != topology.CopyBackoff || !rep.Failed || !strings.Contains(rep.Why, "exited with code 3") {
			t.Errorf("%+v", rep)
		}
	})
}

func TestPID1RestartsAreCountedOnly(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		web := copyOf("web", 0)
		r.set(assign("web", 0, 1))
		pass(time.Second)
		r.host.Heal(web, syscall.SIGSEGV)
		pass(time.Second)
		if rep := r.report(web); rep.Restarts != 1 || rep.Pid != 2 || !rep.Ready || r.startsOf(web) != 2 {
			t.Fatalf("%+v after %d starts", rep, r.startsOf(web))
		}
		wantStrings(t, "events", r.told(web), "started", "ready", "exited", "restarted", "ready")
		if by := r.eventsOf(web)[3].Data.(Restarted).By; by != "pid1" {
			t.Errorf("restarted by %q", by)
		}
		r.host.Kill(web, syscall.SIGKILL) // PID 1 gave up: ours again
		pass(2 * time.Second)
		if rep := r.report(web); rep.Restarts != 2 || !rep.Ready {
			t.Errorf("%+v", rep)
		}
	})
}

// twin is a driver that finds, besides what runs on its host, what runs on
// another one: second instances.
type twin struct {
	workload.Driver
	other workload.Driver
}

func (d twin) Adopt(ctx context.Context) ([]workload.Handle, error) {
	a, err1 := d.Driver.Adopt(ctx)
	b, err2 := d.other.Adopt(ctx)
	return append(b, a...), errors.Join(err1, err2)
}

func TestSecondInstancesEndFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		ctx := context.Background()
		other := workloadtest.NewHost("h1")
		mine, theirs := workloadtest.NewMemory(r.host), workloadtest.NewMemory(other)
		run := func(d workload.Driver, app string, generation uint64, argv ...string) {
			t.Helper()
			if _, err := d.Start(ctx, workload.Spec{ID: copyOf(app, 0), Version: "v1", Generation: generation, Command: argv}, 1); err != nil {
				t.Fatal(err)
			}
		}
		run(theirs, "web", 4, "stubborn")
		run(mine, "pad", 1, "exit", "0") // so that pids differ
		run(mine, "web", 5, "stubborn")
		r.cfg.Driver = twin{Driver: mine, other: theirs}
		r.boot()
		r.set(assign("web", 0, 5, command("stubborn")))
		if len(other.Running()) != 0 {
			t.Error("the second instance still runs")
		}
		if got := r.pids(); len(got) != 1 || got[copyOf("web", 0)] != 2 || r.report(copyOf("web", 0)).Pid != 2 {
			t.Errorf("running %v", got)
		}
		r.kill()
	})
}

func TestTheEndOfTheAgentDoesNotWaitForAStop(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.set(assign("web", 0, 1, command("stubborn")))
		r.set()
		before := time.Now()
		r.kill()
		if !time.Now().Equal(before) || len(r.pids()) != 1 {
			t.Fatalf("waited %s, %d run", time.Since(before), len(r.pids()))
		}
		r.boot()
		r.set()
		pass(11 * time.Second)
		if len(r.pids()) != 0 || len(r.m.Reports()) != 0 {
			t.Fatalf("the next agent does not finish the stop: %+v", r.m.Reports())
		}
	})
}

type blind struct{ workload.Driver }

func (blind) Adopt(context.Context) ([]workload.Handle, error) {
	return nil, errors.New("disk is gone")
}

func TestNothingStartsUnlessWhatRunsIsKnown(t *testing.T) {
	r := newRig(t)
	r.cfg.Driver = blind{r.cfg.Driver}
	m, err := New(r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	m.Set(topology.Slice{Assignments: []topology.Assignment{assign("web", 0, 1)}})
	if err := m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "disk is gone") || len(r.host.Starts()) != 0 {
		t.Fatalf("%v, %d starts", err, len(r.host.Starts()))
	}
}

func TestChangedIsLevelTriggered(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		ch := r.m.Changed()
		r.set(assign("web", 0, 1))
		select {
		case <-ch:
		default:
			t.Error("a start is no change")
		}
		pass(time.Minute)
		ch = r.m.Changed()
		r.set(assign("web", 0, 1))
		pass(time.Minute)
		select {
		case <-ch:
			t.Error("an equal slice and a minute of health are a change")
		default:
		}
	})
}

// Any sequence of slices, deaths and ends of the agent leads to exactly what the
// last slice says, without ever asking for a second instance.
func TestAnySequenceConverges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type move struct {
			Kind string
			Copy int
			Gen  int
			Wait time.Duration
		}
		moves := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) move {
			return move{
				rapid.SampledFrom([]string{"place", "remove", "stop", "kill", "reboot", "flush"}).Draw(rt, "kind"),
				rapid.IntRange(0, 3).Draw(rt, "copy"), rapid.IntRange(0, 1).Draw(rt, "gen"),
				time.Duration(rapid.SampledFrom([]int{0, 1, 5, 12}).Draw(rt, "wait")) * time.Second,
			}
		}), 1, 25).Draw(rt, "moves")
		var problem string
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.boot()
			placed, gen := map[int]topology.Assignment{}, uint64(1)
			flush := func() {
				var as []topology.Assignment
				for _, a := range placed {
					as = append(as, a)
				}
				r.set(as...)
			}
			for _, mv := range moves {
				a, on := placed[mv.Copy]
				switch mv.Kind {
				case "place":
					gen += uint64(mv.Gen)
					kind := []string{"sleep", "stubborn"}[mv.Copy%2]
					placed[mv.Copy] = assign("web", mv.Copy, gen, command(kind))
				case "remove":
					delete(placed, mv.Copy)
				case "stop":
					if a.Placement.Stopped = true; on {
						placed[mv.Copy] = a
					}
				case "kill":
					r.host.Kill(copyOf("web", mv.Copy), syscall.SIGKILL)
				case "reboot":
					r.kill()
					r.boot()
				case "flush":
					flush()
				}
				time.Sleep(mv.Wait)
			}
			flush()
			pass(5 * time.Minute)
			want := 0
			for n, a := range placed {
				rep := r.report(copyOf("web", n))
				if !a.Placement.Stopped {
					want++
				}
				if running := rep.State == topology.CopyRunning && rep.Ready; running == a.Placement.Stopped || rep.Generation != a.Placement.Generation {
					problem = "not as placed: " + rep.ID.String() + " " + string(rep.State) + " " + rep.Why
				}
			}
			if len(r.pids()) != want || len(r.m.Reports()) != len(placed) || len(r.host.Doubled()) > 0 {
				problem += " counts differ"
			}
			r.kill()
		})
		if problem != "" {
			rt.Fatal(problem)
		}
	})
}

func TestAnOldSliceStartsNothingUntilItIsConfirmed(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		slice := []topology.Assignment{assign("web", 0, 5), assign("web", 1, 6)}
		r.set(slice...)
		pass(time.Minute)
		r.kill()
		r.host.Kill(copyOf("web", 1), syscall.SIGKILL) // while nobody looks
		before := r.pids()
		r.boot()
		r.m.Resume(topology.Slice{MeshID: "m", Host: "h1", Assignments: slice})
		pass(time.Minute)
		if !maps.Equal(before, r.pids()) {
			t.Fatalf("an unconfirmed slice started a copy: %v became %v", before, r.pids())
		}
		// What runs of it is looked after all the same.
		r.host.Kill(copyOf("web", 0), syscall.SIGKILL)
		synctest.Wait()
		if r.pids()[copyOf("web", 0)] == 0 {
			t.Error("a copy that ran was not restarted")
		}
		// A later slice may be old too: it does not confirm by itself.
		r.set(append(slice, assign("db", 0, 7))...)
		pass(time.Minute)
		if len(r.pids()) != 1 {
			t.Fatalf("an unconfirmed slice started a copy: %v", r.pids())
		}
		r.m.Confirm()
		pass(time.Minute)
		if len(r.pids()) != 3 {
			t.Errorf("after it was confirmed: %v", r.pids())
		}
	})
}
