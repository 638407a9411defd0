package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/intent"
)

// TestReflexesHearTheStory: what a rule of one host tells, rules of all hosts answer,
// and what they do, others may not answer any more: two acts stand before it.
func TestReflexesHearTheStory(t *testing.T) {
	hosts := startMesh(t, 2)
	watched := filepath.Join(anybodysDir(t), "watched")
	app := sleeper("web", 0)
	app.Count, app.PerHost = nil, true
	emit := []intent.Action{{Op: "emit", Target: "so"}}
	in := intent.Intents{
		Apps: []intent.App{app},
		Senses: []intent.Sense{
			{Name: "conf", Files: []string{watched}},
			{Name: "signals", Events: []string{"reflex.signal.*.fired"}},
			{Name: "answers", Events: []string{"reflex.answer.*.fired", "reflex.echo.>"}},
		},
		Reflexes: []intent.Reflex{
			{Name: "signal", Scope: "sense:conf", When: "sense.count > 0", Act: emit},
			{Name: "answer", Scope: "sense:signals", When: `sense.subject.startsWith("reflex.signal.")`, Act: []intent.Action{{Op: "restart", Target: "web"}}},
			{Name: "echo", Scope: "sense:answers", When: "sense.count > 0", Act: emit},
		},
	}
	if err := hosts[0].Post(t.Context(), "/v1/apply", nil, api.ApplyRequest{Intents: in}, nil); err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts {
		awaitRules(t, h, 3) // all is watched, and heard
		h.another(t, 0)
	}
	if err := os.WriteFile(watched, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	var signals []string
	for _, h := range hosts {
		h.fired(t, "signal")
		for _, e := range h.told(t, "reflex.signal.*.fired") {
			signals = append(signals, e.ID)
			if e.Chain != "signal" {
				t.Errorf("the chain of a signal is %q", e.Chain)
			}
		}
	}
	for _, h := range hosts {
		if f := h.fired(t, "answer"); f.Result != "ok" || f.Target != "sense:signals" {
			t.Errorf("%s answered: %+v", h.cfg.Name, f)
		}
		answer := h.told(t, "reflex.answer.*.fired")[0]
		if answer.Chain != "signal,answer" || !slices.Contains(signals, answer.CauseID) {
			t.Errorf("%s answered with the chain %q and the cause %q of %q", h.cfg.Name, answer.Chain, answer.CauseID, signals)
		}
		var passed []events.Event
		await(t, 30*time.Second, h.cfg.Name+" does not echo", func() error {
			if passed = h.told(t, "reflex.echo.*.suppressed"); len(passed) == 0 {
				return errors.New("nothing is told of it")
			}
			return nil
		})
		if len(passed) != 1 || passed[0].Chain != "signal,answer,echo" || !strings.Contains(string(passed[0].Data), "two acts already stand") {
			t.Errorf("%s told: %s", h.cfg.Name, texts(passed))
		}
		if list := h.told(t, "reflex.echo.*.fired"); len(list) > 0 {
			t.Errorf("%s echoed: %s", h.cfg.Name, texts(list))
		}
		await(t, 30*time.Second, "the restart is told", func() error {
			for _, e := range h.told(t, "app.web.*.>") {
				if e.Chain == "signal,answer" {
					return nil
				}
			}
			return fmt.Errorf("%+v", h.told(t, "app.web.*.>"))
		})
	}
}

// TestPatternsOfNoEvent are refused when they are declared.
func TestPatternsOfNoEvent(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	for _, pattern := range []string{"app.web.*.sick", "ganglion.main.app.>", "app..x", "orders.>"} {
		in := intent.Intents{Senses: []intent.Sense{{Name: "x", Events: []string{"host.>", pattern}}}}
		err := h.Post(t.Context(), "/v1/apply", nil, api.ApplyRequest{Intents: in}, nil)
		if err == nil || !strings.Contains(err.Error(), "sense.x.events[1]: parse filter") {
			t.Errorf("%s: %v", pattern, err)
		}
	}
}

// TestPeersAreSensed: how another host is, as it says itself, and the way to it; of a
// host that has gone nothing is known any more.
func TestPeersAreSensed(t *testing.T) {
	hosts := startMesh(t, 2)
	known := func(want bool) error {
		var list []api.ReflexVar
		if err := hosts[0].Get(t.Context(), "/v1/local/reflexes/vars", nil, &list); err != nil {
			return err
		}
		for _, v := range list {
			i := slices.IndexFunc(v.Values, func(x api.ReflexFact) bool { return x.Target == "peer:h2" && x.Value.Known() })
			if v.Scope == "peer" && v.Kind == "sampled" && (i >= 0) != want {
				return fmt.Errorf("%s: %+v", v.Name, v.Values)
			}
			if i >= 0 && v.Scope == "peer" && v.Kind == "sampled" && (v.Values[i].Value.AsFloat() < 0 || v.Values[i].Value.AsFloat() > 1) {
				t.Errorf("%s is %s", v.Name, v.Values[i].Value)
			}
		}
		return nil
	}
	await(t, 30*time.Second, "h2 is sensed", func() error { return known(true) })
	hosts[1].stop(t)
	await(t, 40*time.Second, "nothing is known of h2", func() error { return known(false) })
}
