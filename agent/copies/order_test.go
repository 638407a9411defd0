package copies

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/workload"
)

func TestPlaceholdersAreFilledEverywhere(t *testing.T) {
	r := newRig(t)
	m, err := New(r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	o := m.newOrder(assign("web", 7, 1, command("web", "-l", "${host.addr}:${port.http-alt}", "$HOME", "${copy.n}"),
		port("http-alt", 20001, false), check(intent.Check{Type: intent.CheckExec, Command: []string{"c", "${copy.n}"}}),
		check(intent.Check{Type: intent.CheckHTTP, Path: "/${host.name}"}),
		func(a *topology.Assignment) {
			a.Spec.Run.Env = map[string]string{"ME": "${host.name}/${copy.n}", "PORT_HTTP_ALT": "lie"}
			a.Spec.Singleton = true
		}))
	if o.fault != nil {
		t.Fatal(o.fault)
	}
	wantStrings(t, "command", o.spec.Command, "web", "-l", "127.0.0.1:20001", "$HOME", "7")
	if want := map[string]string{"ME": "h1/7", "PORT_HTTP_ALT": "20001"}; !maps.Equal(o.spec.Env, want) {
		t.Errorf("env %v, want %v", o.spec.Env, want)
	}
	wantStrings(t, "exec check", o.checks[0].Command, "c", "7")
	wantStrings(t, "http check", []string{o.checks[1].Path}, "/h1")
	if o.spec.SelfHeal {
		t.Error("PID 1 may restart a singleton")
	}
	if !maps.Equal(portsOf(o.spec), map[string]int{"http-alt": 20001}) {
		t.Errorf("ports read back: %v", portsOf(o.spec))
	}
}

// What cannot run says so at once, is tried again slowly, and hurts nobody else.
func TestFaultsAreToldAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*topology.Assignment)
		why  string
	}{
		"binary":      {command("missing"), "does not exist"},
		"artifact":    {artifact("sha256:gone"), "nobody has it"},
		"placeholder": {command("sleep", "${port.nope}"), "port.nope"},
		"signal":      {func(a *topology.Assignment) { a.Spec.Stop.Signal = "SIGWHAT" }, "SIGWHAT"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				bad := copyOf("bad", 0)
				r.set(assign("bad", 0, 1, c.edit), assign("good", 0, 2))
				rep := r.report(bad)
				if rep.State != topology.CopyFailed || !rep.Failed || !strings.Contains(rep.Why, c.why) {
					t.Fatalf("%+v", rep)
				}
				wantStrings(t, "events", r.told(bad), "needs_human")
				if r.report(copyOf("good", 0)).Pid == 0 {
					t.Error("the other copy does not run")
				}
				r.set(assign("bad", 0, 3), assign("good", 0, 2))
				if rep := r.report(bad); rep.State != topology.CopyRunning || rep.Failed || rep.Why != "" {
					t.Errorf("once corrected: %+v", rep)
				}
			})
		})
	}
}

func TestPortsThatAreTaken(t *testing.T) {
	number, free := occupy(t)
	bubble(t, func(t *testing.T, r *rig) {
		dyn, static := copyOf("dyn", 0), copyOf("static", 0)
		r.set(assign("dyn", 0, 1, port("http", number, false)), assign("static", 0, 2, port("http", number, true)))
		rep := r.report(dyn)
		if rep.State != topology.CopyPending || rep.Failed || !slices.Equal(rep.PortTaken, []int{number}) || rep.Pid != 0 {
			t.Errorf("dynamic: %+v", rep)
		}
		rep = r.report(static)
		if rep.State != topology.CopyFailed || !rep.Failed || len(rep.PortTaken) > 0 || !strings.Contains(rep.Why, strconv.Itoa(number)) {
			t.Errorf("static: %+v", rep)
		}
		other, free2 := occupy(t)
		free2()
		r.set(assign("dyn", 0, 3, port("http", other, false)), assign("static", 0, 2, port("http", number, true)))
		if rep = r.report(dyn); rep.State != topology.CopyRunning || rep.Ports["http"] != other || !slices.Equal(rep.PortTaken, []int{number}) {
			t.Errorf("with another port, the taken one remembered: %+v", rep)
		}
		free()
		pass(61 * time.Second)
		if rep = r.report(static); rep.State != topology.CopyRunning || rep.Failed || rep.Why != "" {
			t.Errorf("static, once free: %+v", rep)
		}
		pass(portMemory)
		r.host.Kill(dyn, 9)
		pass(time.Second)
		if rep = r.report(dyn); len(rep.PortTaken) > 0 {
			t.Errorf("a port is remembered for ever: %+v", rep)
		}
	})
}

// A port of a copy of ours that is still ending is waited for, not failed on.
func TestAPortThatIsAboutToBeLeft(t *testing.T) {
	number, free := occupy(t)
	free()
	bubble(t, func(t *testing.T, r *rig) {
		r.set(assign("old", 0, 1, command("stubborn"), port("http", number, true)))
		_, free := occupyPort(t, number)
		r.set(assign("new", 0, 2, port("http", number, true)))
		rep := r.report(copyOf("new", 0))
		if rep.State != topology.CopyPending || rep.Failed || !strings.Contains(rep.Why, "old/0 is about to leave") {
			t.Fatalf("%+v", rep)
		}
		pass(5 * time.Second)
		free()
		pass(time.Second)
		if rep := r.report(copyOf("new", 0)); rep.State != topology.CopyRunning {
			t.Errorf("%+v", rep)
		}
	})
}

func TestLocalStopStartRestart(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		web := copyOf("web", 0)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if err := r.m.StopLocal(web); !errors.Is(err, ErrUnknownCopy) {
			t.Errorf("%v", err)
		}
		r.set(assign("web", 0, 1))
		must(r.m.StopLocal(web))
		if rep := r.report(web); rep.State != topology.CopyStopped || rep.Pid != 0 || !strings.Contains(rep.Why, "--local") {
			t.Fatalf("%+v", rep)
		}
		r.kill()
		r.boot()
		r.set(assign("web", 0, 1))
		if len(r.pids()) != 0 {
			t.Fatal("a restart of the agent forgot the stop")
		}
		must(r.m.RestartLocal(web))
		if rep := r.report(web); rep.State != topology.CopyRunning || r.startsOf(web) != 2 {
			t.Fatalf("restarted out of a stop: %+v, %d starts", rep, r.startsOf(web))
		}
		must(r.m.RestartLocal(web))
		if rep := r.report(web); rep.Restarts != 2 || r.startsOf(web) != 3 {
			t.Fatalf("%+v, %d starts", rep, r.startsOf(web))
		}
		must(r.m.StopLocal(web))
		must(r.m.StartLocal(web))
		must(r.m.StopLocal(web))
		r.set(assign("web", 0, 2)) // the mesh speaks later
		if rep := r.report(web); rep.State != topology.CopyRunning {
			t.Fatalf("%+v", rep)
		}
		r.set(assign("web", 0, 3, func(a *topology.Assignment) { a.Placement.Stopped = true }))
		if err := r.m.StartLocal(web); err == nil || r.report(web).State != topology.CopyStopped {
			t.Errorf("started what the mesh has stopped: %v", err)
		}
		if err := r.m.Purge(t.Context(), web); err == nil {
			t.Error("purged a copy that is placed here")
		}
		r.set()
		if err := r.m.Purge(t.Context(), web); err != nil {
			t.Error(err)
		}
	})
}

func TestChecksKeepActing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		web := copyOf("web", 0)
		recall := check(intent.Check{Type: intent.CheckExec, Command: []string{"recall"}, Every: intent.Second, Grace: 5 * intent.Second, Failures: 2})
		r.set(assign("web", 0, 1, recall))
		pass(2 * time.Second)
		if rep := r.report(web); rep.Ready || rep.State != topology.CopyRunning || !strings.Contains(rep.Why, "the check failed") {
			t.Fatalf("%+v", rep)
		}
		driver, spec := r.cfg.Driver, workload.Spec{ID: web}
		if _, err := driver.Exec(t.Context(), spec, []string{"remember"}); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		if rep := r.report(web); !rep.Ready || rep.Why != "" {
			t.Fatalf("%+v", rep)
		}
		pass(time.Minute)
		if rep := r.report(web); rep.ReadyFor < time.Minute {
			t.Errorf("ready for %s", rep.ReadyFor)
		}
	})
}

func TestACheckThatHangs(t *testing.T) {
	for _, starved := range []bool{false, true} {
		t.Run(strconv.FormatBool(starved), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.cfg.Starved = func() bool { return starved }
				r.boot()
				hang := check(intent.Check{Type: intent.CheckExec, Command: []string{"sleep"}, Every: intent.Second, Timeout: intent.Second, Grace: intent.Second, Failures: 2})
				r.set(assign("web", 0, 1, hang))
				pass(20 * time.Second)
				rep := r.report(copyOf("web", 0))
				if starved && (r.startsOf(rep.ID) != 1 || rep.Failed) {
					t.Errorf("killed for the hunger of its host: %+v", rep)
				}
				if !starved && (r.startsOf(rep.ID) < 2 || !rep.Failed || r.told(rep.ID)[1] != "unhealthy") {
					t.Errorf("%+v, told %q", rep, r.told(rep.ID))
				}
				r.kill()
			})
		})
	}
}
