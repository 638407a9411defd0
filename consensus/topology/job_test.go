package topology

import (
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// jobWorld is a mesh of healthy hosts on which a test says what becomes of
// copies.
type jobWorld struct {
	*world
	now   time.Time
	hosts []string
	obs   map[string]HostObs

	freeze Freeze
}

func newJobWorld(t *testing.T, hosts ...string) *jobWorld {
	w := &jobWorld{world: newWorld(t), now: noon, hosts: hosts, obs: map[string]HostObs{}}
	w.enrol(hosts...)
	for _, h := range hosts {
		w.obs[h] = HostObs{Alive: true, Reported: true, Slice: upToDate, CPU: 4, Memory: 8 << 30, PortMin: 20000, PortMax: 20010, Copies: map[CopyKey]CopyObs{}}
	}
	return w
}

func (w *jobWorld) observations() Observations {
	return Observations{Hosts: w.obs, Settled: true, Now: w.now, Freeze: w.freeze}
}

// settle decides until there is nothing left to decide.
func (w *jobWorld) settle() {
	w.t.Helper()
	for range 20 {
		d := Decide(w.state, w.observations())
		if len(d.Commands) == 0 {
			return
		}
		for _, c := range d.Commands {
			w.must(c)
		}
	}
	w.t.Fatal("decisions do not come to an end")
}

// at lets time pass until now and decides.
func (w *jobWorld) at(now string) {
	w.t.Helper()
	t, err := time.Parse("2006-01-02 15:04:05", now)
	if err != nil {
		w.t.Fatal(err)
	}
	w.now = t
	w.settle()
}

// is makes the host of an app's copy report it.
func (w *jobWorld) is(app string, state CopyState, change ...func(*CopyObs)) {
	w.t.Helper()
	p, ok := w.state.Placement(CopyKey{App: app})
	if !ok {
		w.t.Fatalf("%s has no place", app)
	}
	o := CopyObs{Version: p.Version, Generation: p.Generation, State: state, Ready: state == CopyRunning}
	for _, f := range change {
		f(&o)
	}
	for _, h := range w.hosts {
		delete(w.obs[h].Copies, p.Key())
	}
	w.obs[p.Host].Copies[p.Key()] = o
	w.settle()
}

func (w *jobWorld) done(app string) {
	w.is(app, CopyStopped, func(o *CopyObs) { o.Done, o.Why = o.Generation, "exited with code 0 after 1s" })
}

func (w *jobWorld) fails(app string) {
	w.is(app, CopyFailed, func(o *CopyObs) { o.Failed, o.Why = true, "exited with code 1; tried 6 times" })
}

func (w *jobWorld) run(app string) Run { return w.app(app).Job.Run }

func (w *jobWorld) status(app string) AppStatus {
	w.t.Helper()
	for _, st := range Status(w.state, w.observations()) {
		if st.App == app {
			return st
		}
	}
	w.t.Fatalf("%s has no status", app)
	return AppStatus{}
}

func once(name string, change ...func(*intent.App)) intent.App {
	return app(name, 0, append(change, func(a *intent.App) { a.Count, a.Once = nil, true })...)
}

func scheduled(name, when string, change ...func(*intent.App)) intent.App {
	return app(name, 0, append(change, func(a *intent.App) { a.Count, a.Schedule = nil, when })...)
}

func env(v string) func(*intent.App) {
	return func(a *intent.App) { a.Run.Env = map[string]string{"V": v} }
}

func TestOneShotRunsOnceAVersion(t *testing.T) {
	w := newJobWorld(t, "h1", "h2")
	w.put(once("job"))
	if st := w.status("job"); st.State != AppPending {
		t.Fatalf("%+v", st)
	}
	w.settle()
	first := w.run("job")
	w.is("job", CopyRunning)
	if st := w.status("job"); st.State != AppRolling || st.Want != 1 || st.Ready != 1 {
		t.Fatalf("running: %+v", st)
	}
	w.done("job")
	check := func(when string) {
		t.Helper()
		st := w.status("job")
		if st.State != AppSteady || st.Want != 0 || len(st.Copies) != 1 || st.Copies[0].State != CopyStopped || st.Last == nil || st.Last.Outcome != RunDone {
			t.Fatalf("%s: %+v", when, st)
		}
		if w.run("job").Index != first.Index {
			t.Fatalf("%s: it ran again", when)
		}
	}
	check("done")
	if a := w.app("job"); a.History[0].Outcome != OutcomeDone {
		t.Fatalf("history %+v", a.History)
	}
	w.put(once("job"))                                                                          // the same
	w.put(once("job", func(a *intent.App) { a.Stop.Grace = 3 * intent.Second; a.Once = true })) // the same version
	w.settle()
	check("applied again")
	w.is("job", CopyStopped) // by an agent that has forgotten
	check("reported again")
	w.must(Command{SetRunning: &SetRunning{App: "job", Stopped: true}})
	w.must(Command{SetRunning: &SetRunning{App: "job"}})
	w.settle()
	check("stopped and started")
	w.must(Command{RestartApp: &RestartApp{App: "job"}})
	if st := w.status("job"); st.State != AppPending {
		t.Fatalf("a restart was asked for: %+v", st)
	}
	w.settle()
	if w.run("job").Index == first.Index || w.status("job").State != AppRolling {
		t.Fatal("a restart runs it again")
	}
	w.put(once("job", env("2"))) // while it runs
	w.settle()
	if a := w.app("job"); a.Job.Last.Outcome != RunReplaced || a.Job.Run.Version != a.Version {
		t.Fatalf("%+v", a.Job)
	}
}

func TestFailedOneShotIsTriedAgainWhenApplied(t *testing.T) {
	w := newJobWorld(t, "h1")
	w.put(once("job", func(a *intent.App) { a.Ports = map[string]intent.Port{"http": {}} }))
	w.settle()
	w.fails("job")
	st := w.status("job")
	if st.State != AppDegraded || st.Copies[0].State != CopyFailed || !strings.Contains(st.Why, "tried 6 times") {
		t.Fatalf("%+v", st)
	}
	if p, _ := w.state.Placement(CopyKey{App: "job"}); !p.Stopped || len(p.Ports) > 0 {
		t.Fatalf("what has failed keeps its ports, or is not stopped: %+v", p)
	}
	failed := w.run("job")
	w.put(once("job", func(a *intent.App) { a.Ports = map[string]intent.Port{"http": {}} }))
	if st := w.status("job"); st.State != AppPending || st.Copies[0].State == CopyFailed {
		t.Fatalf("applied again: %+v", st)
	}
	w.settle()
	if w.run("job").Index == failed.Index {
		t.Fatal("it was not tried again")
	}
	if p, _ := w.state.Placement(CopyKey{App: "job"}); p.Stopped || p.Ports["http"] == 0 {
		t.Fatalf("%+v", p)
	}
}

func TestScheduleIsUpheld(t *testing.T) {
	w := newJobWorld(t, "h1", "h2")
	w.put(scheduled("job", "@hourly"))
	if st := w.status("job"); st.State != AppPending {
		t.Fatalf("%+v", st)
	}
	w.settle()
	if st := w.status("job"); st.State != AppSteady || st.Want != 0 || !st.Next.Equal(noon.Add(time.Hour)) || w.run("job").Index != 0 {
		t.Fatalf("declared at noon: %+v", st)
	}
	w.at("2026-03-01 12:59:59")
	if w.run("job").Index != 0 {
		t.Fatal("it began before it was due")
	}
	w.at("2026-03-01 13:00:00")
	first := w.run("job")
	if first.Due != noon.Add(time.Hour).Unix() {
		t.Fatalf("%+v", first)
	}
	w.is("job", CopyRunning)
	w.at("2026-03-01 14:00:10")
	if w.run("job").Index != first.Index {
		t.Fatal("two runs overlap")
	}
	w.done("job")
	w.at("2026-03-01 14:59:00")
	if w.run("job").Index != first.Index {
		t.Fatal("what was skipped was made up for")
	}
	if st := w.status("job"); st.State != AppSteady || st.Ready != 0 || st.Last.Outcome != RunDone || !strings.Contains(st.Why, "next due at 2026-03-01 15:00:00 UTC; the last run: done") {
		t.Fatalf("%+v", st)
	}
	w.at("2026-03-01 15:00:00")
	second := w.run("job")
	w.fails("job")
	if st := w.status("job"); second.Index == first.Index || st.State != AppDegraded || st.Last.Outcome != RunFailed {
		t.Fatalf("%+v", st)
	}
	w.put(scheduled("job", "@hourly")) // to apply again is no reason to run
	w.at("2026-03-01 15:30:00")
	if w.run("job").Index != second.Index {
		t.Fatal("an apply began a run")
	}
	w.must(Command{RestartApp: &RestartApp{App: "job"}}) // a restart is one
	w.settle()
	if r := w.run("job"); r.Index == second.Index || r.Due != 0 {
		t.Fatalf("%+v", r)
	}
	w.is("job", CopyBackoff, func(o *CopyObs) { o.Why = "exited with code 1" })
	w.at("2026-03-01 16:00:00")
	if a := w.app("job"); a.Job.Run.Due != noon.Add(4*time.Hour).Unix() || a.Job.Last.Outcome != RunFailed || !strings.Contains(a.Job.Last.Why, "exited with code 1") {
		t.Fatalf("a run between two tries keeps the next from beginning: %+v", a.Job)
	}
}

func TestMissedRuns(t *testing.T) {
	cases := []struct {
		schedule, back string
		due            string // of the one run that is begun at the return; empty: none
	}{
		{"@every 10s", "2026-03-01 18:00:03", "2026-03-01 18:00:00"}, // one, not two thousand
		{"0 3 * * *", "2026-03-02 09:00:00", "2026-03-02 03:00:00"},
		{"0 3 * * *", "2026-03-05 02:00:00", "2026-03-04 03:00:00"},
		{"0 0 3 * *", "2026-03-05 00:00:00", ""},
		{"@hourly", "2026-03-01 12:59:59", ""},
	}
	for _, c := range cases {
		w := newJobWorld(t, "h1")
		w.put(scheduled("job", c.schedule))
		w.settle()
		w.at(c.back)
		r := w.run("job")
		if c.due == "" {
			if r.Index != 0 {
				t.Errorf("%s at %s: begun for %s", c.schedule, c.back, unix(r.Due))
			}
			continue
		}
		if got := unix(r.Due).Format("2006-01-02 15:04:05"); got != c.due {
			t.Errorf("%s at %s: begun for %s, want %s", c.schedule, c.back, got, c.due)
		}
		w.done("job")
		w.now = w.now.Add(time.Second)
		w.settle()
		if w.run("job").Index != r.Index {
			t.Errorf("%s at %s: more than one run was made up for", c.schedule, c.back)
		}
	}
}

func TestClockSetBackRepeatsNothing(t *testing.T) {
	w := newJobWorld(t, "h1")
	w.put(scheduled("job", "@hourly"))
	w.settle()
	w.at("2026-03-01 13:00:00")
	first := w.run("job")
	w.done("job")
	for _, now := range []string{"2026-03-01 12:30:00", "2026-03-01 13:00:00", "2026-02-01 00:00:00", "2026-03-01 13:59:59"} {
		w.at(now)
		if w.run("job").Index != first.Index {
			t.Fatalf("at %s it ran again", now)
		}
	}
	w.at("2026-03-01 14:00:00")
	if w.run("job").Index == first.Index {
		t.Fatal("it does not go on")
	}
	w.done("job")
	// A clock that was far ahead and is right again would keep it from running for
	// years: a changed schedule counts from now.
	w.at("2036-03-01 14:00:00")
	w.done("job")
	w.at("2026-03-01 20:00:00")
	if next := w.status("job").Next; next.Year() != 2036 {
		t.Fatalf("next due at %s", next)
	}
	w.put(scheduled("job", "0 * * * *"))
	w.settle()
	if next := w.status("job").Next; !next.Equal(noon.Add(9 * time.Hour)) {
		t.Fatalf("next due at %s", next)
	}
}

func TestScheduleChangesAtOnceAndStops(t *testing.T) {
	w := newJobWorld(t, "h1")
	w.put(scheduled("job", "@daily"))
	w.settle()
	w.put(scheduled("job", "CRON_TZ=Europe/Berlin 30 13 * * *")) // 12:30 UTC
	w.settle()
	if next := w.status("job").Next; !next.Equal(noon.Add(30 * time.Minute)) {
		t.Fatalf("next due at %s", next)
	}
	w.must(Command{SetRunning: &SetRunning{App: "job", Stopped: true}})
	w.at("2026-03-01 18:00:00")
	if st := w.status("job"); st.State != AppStopped || !st.Next.IsZero() || w.run("job").Index != 0 {
		t.Fatalf("%+v", st)
	}
	w.must(Command{SetRunning: &SetRunning{App: "job"}})
	w.settle()
	if w.run("job").Index != 0 || w.status("job").Next.Day() != 2 {
		t.Fatal("what was due while it was stopped was made up for")
	}
	w.at("2026-03-02 12:30:00")
	first := w.run("job")
	w.is("job", CopyRunning)
	w.must(Command{SetRunning: &SetRunning{App: "job", Stopped: true}})
	w.must(Command{SetRunning: &SetRunning{App: "job"}})
	w.settle()
	if a := w.app("job"); a.Job.Last.Outcome != RunStopped || a.Job.Run.Index != first.Index || a.Job.active() {
		t.Fatalf("%+v", a.Job)
	}
}

func TestJobLeavesADrainedHost(t *testing.T) {
	w := newJobWorld(t, "h1", "h2")
	w.put(once("job"), once("old"))
	w.settle()
	w.done("old")
	w.is("job", CopyRunning)
	p, _ := w.state.Placement(CopyKey{App: "job"})
	other := map[string]string{"h1": "h2", "h2": "h1"}[p.Host]
	for _, h := range w.hosts {
		w.must(Command{SetDrain: &SetDrain{Host: h, Drain: DrainDraining}})
	}
	w.settle()
	if now, _ := w.state.Placement(p.Key()); now.Generation != p.Generation || !strings.Contains(w.status("job").Copies[0].Why, "no host will do") {
		t.Fatalf("it was stopped though no other host takes it: %+v", now)
	}
	if _, ok := w.state.Placement(CopyKey{App: "old"}); ok {
		t.Fatal("what a run has left keeps a host from being drained")
	}
	w.must(Command{SetDrain: &SetDrain{Host: other, Drain: DrainNone}})
	w.settle()
	if now, _ := w.state.Placement(p.Key()); now.Leaving == "" || now.Host != p.Host {
		t.Fatalf("%+v", now)
	}
	w.is("job", CopyStopping)
	w.is("job", CopyStopped)
	if now, _ := w.state.Placement(p.Key()); now.Host != other || now.Stopped || w.run("job").Outcome != "" {
		t.Fatalf("%+v", now)
	}
	if h, _ := w.state.Host(p.Host); h.Drain != DrainDrained {
		t.Fatalf("%s is %s", p.Host, h.Drain)
	}
}

// A run that ends just when it is told to leave has ended.
func TestJobDoneWhileLeaving(t *testing.T) {
	w := newJobWorld(t, "h1", "h2")
	w.put(once("job"))
	w.settle()
	w.is("job", CopyRunning)
	p, _ := w.state.Placement(CopyKey{App: "job"})
	w.must(Command{SetDrain: &SetDrain{Host: p.Host, Drain: DrainDraining}})
	w.settle()
	w.is("job", CopyStopped, func(o *CopyObs) { o.Done = p.Generation })
	if r := w.run("job"); r.Outcome != RunDone {
		t.Fatalf("%+v", r)
	}
	if _, ok := w.state.Placement(p.Key()); ok {
		t.Fatalf("it keeps the host from being drained: %+v", w.app("job").Job)
	}
}

func TestJobOfALostHost(t *testing.T) {
	for _, policy := range []string{intent.DisconnectReplace, intent.DisconnectKeep} {
		w := newJobWorld(t, "h1", "h2", "h3", "h4")
		w.put(once("job", func(a *intent.App) { a.Disconnect.Policy = policy }), once("old"))
		w.settle()
		w.done("old")
		w.is("job", CopyRunning)
		p, _ := w.state.Placement(CopyKey{App: "job"})
		spent, _ := w.state.Placement(CopyKey{App: "old"})
		for _, h := range []string{p.Host, spent.Host} {
			o := w.obs[h]
			o.Alive, o.DownFor, o.ReportAge = false, time.Minute, time.Minute
			w.obs[h] = o
			if p.Host != spent.Host {
				break
			}
		}
		w.settle()
		now, _ := w.state.Placement(p.Key())
		if moved := now.Host != p.Host; moved != (policy == intent.DisconnectReplace) {
			t.Fatalf("%s: %+v", policy, now)
		}
		if policy == intent.DisconnectReplace {
			w.done("job")
			if r := w.run("job"); r.Outcome != RunDone || r.Host != now.Host {
				t.Fatalf("%+v", r)
			}
		}
		if w.run("old").Outcome != RunDone {
			t.Fatalf("%+v", w.run("old"))
		}
	}
}

func TestKindChanges(t *testing.T) {
	w := newJobWorld(t, "h1", "h2")
	w.put(app("job", 3))
	w.settle()
	for n := range 3 {
		p, _ := w.state.Placement(CopyKey{"job", n})
		w.obs[p.Host].Copies[p.Key()] = CopyObs{Version: p.Version, Generation: p.Generation, State: CopyRunning, Ready: true, ReadyFor: time.Hour}
	}
	w.settle()
	w.must(Command{RestartApp: &RestartApp{App: "job"}})
	w.put(once("job"))
	w.settle()
	if ps := w.state.PlacementsOf("job"); len(ps) != 1 || !ps[0].Stopped {
		t.Fatalf("its copy is still to stop, the others are gone: %+v", ps)
	}
	w.is("job", CopyStopped)
	if ps := w.state.PlacementsOf("job"); len(ps) != 1 || ps[0].Stopped {
		t.Fatalf("%+v", ps)
	}
	w.done("job")
	w.put(scheduled("job", "@daily"))
	w.settle()
	if a := w.app("job"); a.Job.Run.Index != 0 || a.Job.Schedule == "" {
		t.Fatalf("%+v", a.Job)
	}
	w.put(app("job", 1))
	w.settle()
	if ps := w.state.PlacementsOf("job"); len(ps) != 1 || ps[0].Stopped || w.app("job").Job != (Job{}) {
		t.Fatalf("%+v, %+v", ps, w.app("job").Job)
	}
}

func TestRecordRunsRefused(t *testing.T) {
	w := newJobWorld(t, "h1")
	w.put(once("job"), scheduled("cron", "@daily"), app("web", 1))
	w.settle()
	index, version := w.run("job").Index, w.app("job").Version
	refuse := func(kind RejectKind, r ...RunRecord) {
		t.Helper()
		w.refuse(kind, Command{RecordRuns: &RecordRuns{Runs: r}})
	}
	refuse(RejectUnknown, RunRecord{App: "none"})
	refuse(RejectConflict, RunRecord{App: "web"})
	refuse(RejectConflict, RunRecord{App: "job", Of: index + 1, Outcome: RunDone})
	refuse(RejectConflict, RunRecord{App: "job", Of: index, Begin: true, Ver: version})
	refuse(RejectConflict, RunRecord{App: "job", Of: index, Begin: true, Ver: "other", Outcome: RunReplaced})
	refuse(RejectConflict, RunRecord{App: "cron", Schedule: "@hourly", From: 1})
	refuse(RejectConflict, RunRecord{App: "cron", Outcome: RunDone})
	refuse(RejectInvalid, RunRecord{App: "job", Of: index, Outcome: "perhaps"})
	refuse(RejectInvalid, RunRecord{App: "job", Of: index, Outcome: RunDone}, RunRecord{App: "job", Of: index})
	refuse(RejectInvalid, RunRecord{App: "job", Of: index, Outcome: RunDone, Why: strings.Repeat("x", 2000)})
	w.must(Command{SetRunning: &SetRunning{App: "cron", Stopped: true}})
	refuse(RejectConflict, RunRecord{App: "cron", Begin: true, Ver: w.app("cron").Version})
	if n := 1; true {
		w.refuse(RejectUnknown, Command{RestartApp: &RestartApp{App: "job", N: &n}})
	}
}
