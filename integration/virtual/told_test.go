package virtual

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/intent"
)

// decided are the kinds of events that tell what the log decided.
var decided = []string{
	"app.placed", "app.unplaced", "app.moved", "rollout.started", "rollout.progressed", "rollout.done", "rollout.failed",
	"rollout.rolledback", "rollout.held", "host.joined", "host.draining", "host.drained", "intent.applied", "intent.removed", "mesh.changed", "mesh.missed",
}

// telling is what the recorders of a mesh have of what was decided.
type telling struct {
	told  map[string]events.Event // by id
	order []events.Event          // of told, as it was decided
	twice int
}

// tellings reads all recorders. What is told twice must be the same.
func tellings(t *testing.T, m *Mesh) telling {
	t.Helper()
	out := telling{told: map[string]events.Event{}}
	for _, h := range m.Hosts {
		err := h.Stream(t.Context(), "/v1/local/events", url.Values{"since": {"24h"}}, func(line []byte) bool {
			e, err := events.Parse(line)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(decided, e.Kind()) || e.Kind() == "app.unplaced" && !strings.Contains(string(e.Data), `"host"`) {
				return true // seen, not decided
			}
			if first, again := out.told[e.ID]; again {
				if out.twice++; !same(first, e) {
					t.Errorf("one id, two events:\n%+v\n%+v", first, e)
				}
				return true
			}
			out.told[e.ID] = e
			out.order = append(out.order, e)
			return true
		})
		if err != nil {
			t.Fatalf("read the story of %s: %v", h.Name, err)
		}
	}
	slices.SortStableFunc(out.order, func(a, b events.Event) int { return strings.Compare(a.ID[10:], b.ID[10:]) })
	return out
}

// same reports whether two events tell the same. How long something took, and how
// many are ready, is what the one who tells it knows.
func same(a, b events.Event) bool {
	varies := slices.Contains([]string{"rollout.progressed", "rollout.done", "host.drained"}, a.Kind())
	return a.Type == b.Type && a.Subject == b.Subject && a.Revision == b.Revision && (varies || string(a.Data) == string(b.Data))
}

// TestDecisionsAreToldWhoeverLeads: leaders are killed right after commits, again
// and again. Whoever reads what was told, and nothing else, knows of every intent,
// of every copy where it is, and who asked for what; nothing is told by two ids.
// Once it is recorded that all is told, a leader that comes tells nothing again.
func TestDecisionsAreToldWhoeverLeads(t *testing.T) {
	twice := 0
	seeds(t, 4, func(t *testing.T, seed uint64) {
		Run(t, Config{Hosts: 5, Seed: seed, Surge: 1, Latency: 30 * time.Millisecond}, func(t *testing.T, m *Mesh) { // changes begin one beside
			m.Form()
			m.AwaitVoters(time.Minute, 3)
			r := toldRun{t: t, m: m, rng: mathrand.New(mathrand.NewPCG(seed, 9)), pick: mathrand.New(mathrand.NewPCG(seed, 10)), want: map[string]int{},
				after: []time.Duration{20, 40, 50, 60, 70, 80, 90, 100, 120, 150, 300, 3000}}
			for i := range r.after {
				r.after[i] *= time.Millisecond
			}
			for i := range 8 {
				done := make(chan struct{})
				go func() {
					defer close(done)
					r.change(i)
				}()
				r.killLeader()
				<-done
				r.mend()
			}
			r.settle()
			story := tellings(t, m)
			r.judge(story)
			twice += story.twice
			r.quiet(story)
		})
	})
	t.Logf("%d events were told twice", twice)
	if twice == 0 && !t.Failed() && !testing.Short() {
		t.Error("no leader died between telling and recording it: the faults did not bite")
	}
}

// quiet demands that a new leader tells nothing of what was told before it.
func (r *toldRun) quiet(before telling) {
	r.m.Leader().Kill()
	r.m.Await(time.Minute, "another leads", func(ctx context.Context) error {
		_, err := r.m.About(ctx, r.m.Up()...)
		return err
	})
	Sleep(10 * time.Second)
	r.mend()
	r.m.AwaitMembers(time.Minute, len(r.m.Hosts))
	after := tellings(r.t, r.m)
	for _, e := range after.order {
		if _, ok := before.told[e.ID]; !ok && e.Revision <= before.order[len(before.order)-1].Revision {
			r.t.Errorf("told anew: %+v", e)
		}
	}
	if after.twice > before.twice {
		r.t.Errorf("%d events were told again although it was recorded that they are told", after.twice-before.twice)
	}
}

type toldRun struct {
	t      *testing.T
	m      *Mesh
	rng    *mathrand.Rand // when to kill
	pick   *mathrand.Rand // what to change
	after  []time.Duration
	want   map[string]int // copies of each app
	writes []answered     // that were answered
}

type answered struct {
	kind, name string
	revision   uint64
}

// change has one thing changed, through whoever answers, and does not wait for what
// comes of it.
func (r *toldRun) change(i int) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	key, host := rand.Text(), r.m.Hosts[r.pick.IntN(len(r.m.Hosts))].Name
	var resp api.ApplyResponse
	post := func(path string, body any) bool {
		_, err := r.m.TryAwait(20*time.Second, func(context.Context) error {
			return r.m.Ask(ctx, func(ctx context.Context, h *Host) error { return h.PostOnce(ctx, path, key, body, &resp) })
		})
		return err == nil
	}
	switch what := r.pick.IntN(6); {
	case what == 0 && len(r.want) > 1:
		name := r.any()
		if err := r.m.Delete(ctx, name); err == nil { // the answer may be that of a second try
			delete(r.want, name)
		}
	case what == 1:
		if post("/v1/hosts/"+host+"/drain", nil) {
			r.writes = append(r.writes, answered{"host.draining", host, resp.Revision})
		}
	case what == 2:
		post("/v1/hosts/"+host+"/undrain", nil)
	default:
		name := fmt.Sprintf("app-%d", r.pick.IntN(4))
		app := App(name, 1+r.pick.IntN(6))
		app.Run.Env = map[string]string{"TRY": fmt.Sprint(i)}
		r.m.ledger.wantAtLeast(name, app.Copies())
		if post("/v1/apply", api.ApplyRequest{Intents: intent.Intents{Apps: []intent.App{app}}}) {
			r.writes = append(r.writes, answered{"intent.applied", name, resp.Revision})
			r.m.ledger.want(name, app.Copies())
			r.want[name] = app.Copies()
		}
	}
}

func (r *toldRun) any() string {
	names := make([]string, 0, len(r.want))
	for name := range r.want {
		names = append(names, name)
	}
	slices.Sort(names)
	return names[r.pick.IntN(len(names))]
}

// killLeader kills who leads: while what was asked for is on its way, so that it may
// be committed and the leader not know it, or once it has told it and has not yet
// recorded that, or some decisions later.
func (r *toldRun) killLeader() {
	Sleep(r.after[r.rng.IntN(len(r.after))])
	for _, h := range r.m.Up() {
		about, err := r.m.About(r.t.Context(), h)
		if err != nil || about.Leader == "" {
			continue
		}
		victim := r.m.Host(about.Leader)
		if victim.Up() {
			victim.Kill()
		}
		break
	}
	Sleep(time.Duration(r.rng.IntN(8000)) * time.Millisecond)
}

func (r *toldRun) mend() {
	for _, h := range r.m.Hosts {
		if !h.Up() {
			h.Start()
		}
	}
}

// settle waits until nothing is to be decided, and it is recorded that all is told.
func (r *toldRun) settle() {
	r.m.AwaitMembers(time.Minute, len(r.m.Hosts))
	for _, h := range r.m.Hosts {
		r.m.Await(time.Minute, "undrain", func(ctx context.Context) error { return r.m.Drain(ctx, h.Name, true) })
	}
	r.m.Await(5*time.Minute, "all run", func(ctx context.Context) error {
		var list []topology.AppStatus
		if err := r.m.Get(ctx, "/v1/status", nil, &list); err != nil {
			return err
		}
		for _, a := range list {
			if a.State != topology.AppSteady {
				return fmt.Errorf("app %s is %s", a.App, a.State)
			}
		}
		return nil
	})
	Sleep(10 * time.Second)
}

// judge holds what was told against what is.
func (r *toldRun) judge(s telling) {
	apps, copies := map[string]bool{}, map[string]string{}
	for _, e := range s.order {
		var d struct{ Host, From, To, As, By, Reason string }
		if err := json.Unmarshal(e.Data, &d); err != nil {
			r.t.Fatal(err)
		}
		name, _ := strings.CutPrefix(e.Subject, "app/")
		switch e.Kind() {
		case "intent.applied":
			apps[e.Subject] = true
		case "intent.removed":
			delete(apps, e.Subject)
		case "app.placed":
			copies[name] = d.Host
		case "app.unplaced":
			delete(copies, name)
		case "app.moved":
			if copies[name] = d.To; d.As != "" {
				delete(copies, name)
				copies[d.As] = d.To
			}
		case "mesh.missed":
			r.t.Errorf("something is not told: %s", e.Data)
		}
		if e.Type[len(events.TypePrefix):len(events.TypePrefix)+4] == "app." && d.Reason == "" {
			r.t.Errorf("told without a reason: %+v %s", e, e.Data)
		}
	}
	var list []topology.AppStatus
	r.m.Await(time.Minute, "status", func(ctx context.Context) error { return r.m.Get(ctx, "/v1/status", nil, &list) })
	is := 0
	for _, a := range list {
		if !apps["intent/"+a.App] {
			r.t.Errorf("that %s was applied is not told", a.App)
		}
		for _, c := range a.Copies {
			if is++; copies[c.ID] != c.Host {
				r.t.Errorf("copy %s is on %s, the last that was told is %q", c.ID, c.Host, copies[c.ID])
			}
		}
	}
	if len(apps) != len(list) || is != len(copies) {
		r.t.Errorf("told of apps %v and copies %v, there are %d and %d", apps, copies, len(list), is)
	}
	r.judgeWrites(s)
}

// judgeWrites demands that each write that was answered is told, and that it was
// asked for. One that was asked for again, and found to be so already, is answered
// by a later revision.
func (r *toldRun) judgeWrites(s telling) {
	from := map[string]uint64{} // of a kind and a name: which are accounted for
	for _, w := range r.writes {
		what := w.kind + " " + w.name
		told := slices.IndexFunc(s.order, func(e events.Event) bool {
			var d struct{ By string }
			return e.Kind() == w.kind && e.Revision > from[what] && e.Revision <= w.revision &&
				strings.HasSuffix(e.Subject, "/"+w.name) && json.Unmarshal(e.Data, &d) == nil && d.By == "local"
		})
		switch {
		case told < 0:
			r.t.Errorf("%+v was answered, and is told by nobody", w)
		case w.kind != "host.draining": // that was so already, maybe
			from[what] = s.order[told].Revision
		}
	}
}
