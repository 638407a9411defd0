package virtual

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/intent"
)

// restless is an app of one copy that wants to be elsewhere, wherever it runs: a
// condition that is bad everywhere and that no act makes better.
func restless(name string) intent.App {
	a := App(name, 1)
	a.Update.HealthyFor = intent.Duration(time.Second)
	a.Reflexes = []intent.Reflex{{
		Name: "flee", When: "app.running", For: intent.Duration(5 * time.Second), Act: []intent.Action{{Op: "evict"}},
		Limit: "100/10m", Cooldown: intent.Duration(time.Second),
	}}
	return a
}

// act is one act of a reflex, as its host told it.
type act struct {
	host string
	at   time.Time
	events.ReflexFired
}

// acts collects what reflexes of a class did on the hosts that answer, in order of
// time.
func acts(t *testing.T, m *Mesh) (out []act, refused map[string]int) {
	t.Helper()
	refused = map[string]int{}
	for _, h := range m.Hosts {
		err := h.Stream(t.Context(), "/v1/local/events", url.Values{"since": {"24h"}, "filter": {"reflex.>"}}, func(line []byte) bool {
			var e events.Event
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatal(err)
			}
			a := act{host: h.Name, at: e.Time}
			switch e.Type {
			case "dev.ganglion.reflex.fired":
				if err := json.Unmarshal(e.Data, &a.ReflexFired); err != nil {
					t.Fatal(err)
				}
				out = append(out, a)
			case "dev.ganglion.reflex.suppressed":
				var s events.ReflexSuppressed
				if err := json.Unmarshal(e.Data, &s); err != nil {
					t.Fatal(err)
				}
				refused[s.Reason]++
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(out, func(a, b act) int { return a.at.Compare(b.at) })
	return out, refused
}

// withinBudget holds acts against the budget of the mesh (S7).
func withinBudget(t *testing.T, list []act, hosts int) {
	t.Helper()
	most := topology.Budget(hosts)
	for i := most; i < len(list); i++ {
		if list[i].at.Sub(list[i-most].at) < topology.BudgetWindow {
			t.Errorf("%d acts within %s, %d are allowed: %+v to %+v", most+1, list[i].at.Sub(list[i-most].at), most, list[i-most], list[i])
		}
	}
}

// TestEvict: a copy goes elsewhere by the ordinary way, once, for a token; and a
// host that wants to be emptied is.
func TestEvict(t *testing.T) {
	Run(t, Config{Hosts: 4, Seed: 1, Surge: 1}, func(t *testing.T, m *Mesh) {
		m.Form()
		m.AwaitVoters(60*time.Second, 3)
		m.Apply(restless("web"))
		m.AwaitReady(30*time.Second, "web", 1)
		st, err := m.Status(t.Context(), "web")
		if err != nil {
			t.Fatal(err)
		}
		from := st.Copies[0].Host
		m.Await(60*time.Second, "web elsewhere", func(ctx context.Context) error {
			st, err := m.Status(ctx, "web")
			if err == nil && (len(st.Copies) != 1 || st.Copies[0].Host == from || st.Ready != 1) {
				err = fmt.Errorf("%+v", st.Copies)
			}
			return err
		})
		Sleep(2 * time.Minute)
		list, refused := acts(t, m)
		if len(list) != 1 || list[0].Result != "ok" || list[0].host != from {
			t.Errorf("acts: %+v", list)
		}
		if len(refused) == 0 {
			t.Error("nothing was said of what was not done")
		}
		withinBudget(t, list, 4)
		emptied(t, m, from)
	})
}

// emptied has a host that has a token again drain itself, and holds that it is.
func emptied(t *testing.T, m *Mesh, host string) {
	t.Helper()
	if err := m.Delete(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	m.Apply(App("rest", 6))
	m.AwaitReady(30*time.Second, "rest", 6)
	Sleep(topology.BudgetWindow - time.Minute)
	last := intent.Reflex{
		Name: "last", When: "leader.self", For: intent.Duration(5 * time.Second), Act: []intent.Action{{Op: "drain_self"}},
		Limit: "1/1h", Cooldown: intent.Duration(time.Hour),
	}
	leader := m.Leader().Name
	err := m.Ask(t.Context(), func(ctx context.Context, h *Host) error {
		return h.Post(ctx, "/v1/apply", nil, api.ApplyRequest{Intents: intent.Intents{Reflexes: []intent.Reflex{last}}}, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	m.Await(4*time.Minute, leader+" drained", func(ctx context.Context) error {
		var hosts []api.Host
		err := m.Get(ctx, "/v1/hosts", nil, &hosts)
		for _, h := range hosts {
			if err == nil && (h.Drain == topology.DrainDrained) != (h.Name == leader) {
				err = fmt.Errorf("%s is %s", h.Name, h.Drain)
			}
		}
		return err
	})
	m.AwaitReady(30*time.Second, "rest", 6)
}
