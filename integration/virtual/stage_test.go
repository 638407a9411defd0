package virtual

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/intent"
)

// steps are what leaders told of a staged reflex, and how often each host told what
// it would have done and is not yet to do.
func steps(t *testing.T, m *Mesh, rule string) (list []events.ReflexStaged, reverted []events.ReflexReverted, dry map[string]int) {
	t.Helper()
	dry = map[string]int{}
	for _, h := range m.Hosts {
		err := h.Stream(t.Context(), "/v1/local/events", url.Values{"since": {"24h"}, "filter": {"reflex." + rule + ".>"}}, func(line []byte) bool {
			var e events.Event
			var staged events.ReflexStaged
			var back events.ReflexReverted
			var seen events.ReflexObserved
			err := json.Unmarshal(line, &e)
			switch e.Type {
			case "dev.ganglion.reflex.staged":
				err = errors.Join(err, json.Unmarshal(e.Data, &staged))
				list = append(list, staged)
			case "dev.ganglion.reflex.reverted":
				err = errors.Join(err, json.Unmarshal(e.Data, &back))
				reverted = append(reverted, back)
			case "dev.ganglion.reflex.observed":
				err = errors.Join(err, json.Unmarshal(e.Data, &seen))
				if strings.HasPrefix(seen.Reason, "not yet in force on this host") {
					dry[h.Name]++
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return list, reverted, dry
}

// declare declares reflexes outside of apps.
func declare(t *testing.T, m *Mesh, list ...intent.Reflex) (resp api.ApplyResponse) {
	t.Helper()
	m.Await(20*time.Second, "declare", func(ctx context.Context) error {
		return m.Ask(ctx, func(ctx context.Context, h *Host) error {
			return h.Post(ctx, "/v1/apply", nil, api.ApplyRequest{Intents: intent.Intents{Reflexes: list}}, &resp)
		})
	})
	return resp
}

// stageOf is how far a reflex is, as the mesh says.
func stageOf(ctx context.Context, m *Mesh, name string) (string, error) {
	var list []api.Reflex
	if err := m.Get(ctx, "/v1/reflexes", nil, &list); err != nil {
		return "", err
	}
	for _, r := range list {
		if r.Name == name {
			return r.Stage, nil
		}
	}
	return "", fmt.Errorf("there is no reflex %s", name)
}

// TestStagedReflex: a rule that wants to act wherever an app is acts on the first host
// alone, and where the app went then only tells; it comes into force everywhere in its time though the leader
// dies, and a change of it that many hosts want at once is taken back by what the
// first host sees, before it has done anything, and leaves the former version.
func TestStagedReflex(t *testing.T) {
	zones := map[string]map[string]string{"h1": {"zone": "a"}, "h2": {"zone": "a"}, "h3": {"zone": "b"}, "h4": {"zone": "b"}, "h5": {"zone": "b"}}
	Run(t, Config{Hosts: 5, Seed: 18, Surge: 1, Labels: zones}, func(t *testing.T, m *Mesh) {
		m.Form()
		m.AwaitVoters(60*time.Second, 3)
		const bake = time.Minute
		if err := m.Set(t.Context(), api.MeshSettings{ReflexStage: bake.String()}); err != nil {
			t.Fatal(err)
		}
		app := App("web", 1)
		app.Place.Require = []string{"zone == 'b'"} // the first host is none that dies
		if m.Leader().Name > "h2" {
			app.Place.Require[0] = "zone == 'a'"
		}
		m.Apply(app)
		m.AwaitReady(30*time.Second, "web", 1)
		rule := intent.Reflex{
			Name: "flee", Scope: "app:web", When: "app.copies > 0", For: intent.Duration(5 * time.Second), Act: []intent.Action{{Op: "evict"}},
			Limit: "100/10m", Cooldown: intent.Duration(5 * time.Second),
		}
		if resp := declare(t, m, rule); len(resp.Staged) != 1 || resp.Staged[0] != "flee" || resp.Stage != "1m0s" && resp.Stage != "1m" {
			t.Errorf("apply says %+v", resp)
		}
		began := time.Now()
		m.Await(30*time.Second, "a first act", func(context.Context) error {
			if list, refused := acts(t, m); len(list) == 0 {
				return fmt.Errorf("refused: %v", refused)
			}
			return nil
		})
		m.Leader().Kill()
		Sleep(bake/2 - time.Since(began))
		for _, h := range m.Hosts {
			if !h.Up() {
				h.Start()
			}
		}
		list, dry := firstStage(t, m)
		m.Await(4*bake, "in force everywhere", func(ctx context.Context) error {
			stage, err := stageOf(ctx, m, "flee")
			if err == nil && stage != "" {
				err = errors.New(stage)
			}
			return err
		})
		if took := time.Since(began); took < 3*bake-time.Second || took > 3*bake+40*time.Second {
			t.Errorf("it took %s", took)
		}
		told, reverted, _ := steps(t, m, "flee")
		if len(reverted) > 0 || len(told) < 4 || told[0].Stage != "host" || dry == 0 {
			t.Errorf("told %+v, taken back %+v, dry %d", told, reverted, dry)
		}
		withinBudget(t, list, 5)
		takenBack(t, m, rule, len(list))
	})
}

// firstStage holds what was done while a rule is in force on one host alone.
func firstStage(t *testing.T, m *Mesh) (list []act, dry int) {
	t.Helper()
	told, _, quiet := steps(t, m, "flee")
	list, _ = acts(t, m)
	for _, s := range told {
		if s.Stage != "host" || len(s.Hosts) != 1 {
			t.Errorf("in half the time of the first stage: %+v", s)
		}
	}
	for _, a := range list {
		if len(told) == 0 || a.host != told[0].Hosts[0] || a.Result != "ok" {
			t.Errorf("%+v, of %+v", a, told)
		}
	}
	for host, n := range quiet {
		if host != told[0].Hosts[0] { // which tells too, while no host is chosen
			dry += n
		}
	}
	return list, dry
}

// takenBack changes the rule to one that all hosts want to act by, and holds that
// none does.
func takenBack(t *testing.T, m *Mesh, rule intent.Reflex, before int) {
	t.Helper()
	bad := rule
	bad.Scope, bad.When, bad.Act = "host", "peers.alive < 100", []intent.Action{{Op: "drain_self"}}
	declare(t, m, bad)
	m.Await(2*time.Minute, "taken back", func(ctx context.Context) error {
		stage, err := stageOf(ctx, m, "flee")
		if err == nil && !strings.HasPrefix(stage, "taken back: ") {
			err = errors.New(stage)
		}
		return err
	})
	Sleep(2 * time.Minute)
	_, reverted, _ := steps(t, m, "flee")
	if len(reverted) != 1 || !reverted[0].Former || !strings.Contains(reverted[0].Reason, "the same rule fires on other hosts") {
		t.Errorf("taken back: %+v", reverted)
	}
	list, _ := acts(t, m)
	for _, a := range list {
		if strings.HasPrefix(a.Action, "drain_self") {
			t.Errorf("%+v", a)
		}
	}
	withinBudget(t, list, 5)
	var local []api.LocalReflex
	if err := m.Hosts[0].Get(t.Context(), "/v1/local/reflexes", nil, &local); err != nil {
		t.Fatal(err)
	}
	if len(local) != 2 || local[0].Name != "flee" || local[0].Scope != rule.Scope || !strings.HasPrefix(local[1].Stage, "taken back") {
		t.Errorf("%d acts before; on the host: %+v", before, local)
	}
}
