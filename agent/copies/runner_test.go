package copies

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/workload"
)

// What a probe found of an instance that is gone does not count against the one
// that runs.
func TestResultsOfAnEarlierLifeDoNotCount(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		web := copyOf("web", 0)
		r.set(assign("web", 0, 1, check(intent.Check{Type: intent.CheckExec, Command: []string{"environ"}, Every: intent.Hour, Failures: 1, Grace: intent.Second})))
		pass(2 * time.Second)
		r.m.mu.Lock()
		run := r.m.runners[web]
		r.m.mu.Unlock()
		earlier, cancel := context.WithCancel(context.Background())
		defer cancel()
		run.results <- probed{life: earlier, result: workload.Probed{Outcome: workload.Failed, Why: "refused"}}
		synctest.Wait()
		if rep := r.report(web); !rep.Ready || rep.Restarts != 0 {
			t.Errorf("%+v", rep)
		}
	})
}

// A copy that is placed again in the moment its runner ends is not forgotten.
func TestARunnerWithMailDoesNotRetire(t *testing.T) {
	m, err := New(newRig(t).cfg)
	if err != nil {
		t.Fatal(err)
	}
	web := copyOf("web", 0)
	run := m.newRunner(web, nil, nil)
	m.runners[web] = run
	o := m.newOrder(assign("web", 0, 1))
	run.post(mail{order: &o})
	if m.retire(run) || m.runners[web] == nil {
		t.Fatal("retired with an order unread")
	}
	run.post(mail{})
	if !m.retire(run) || m.runners[web] != nil {
		t.Fatal("did not retire although nothing is wanted")
	}
}

// Mail that was not read yet gives way to newer mail, but a restart that was
// asked for is not lost.
func TestNewMailKeepsTheRestartAskedFor(t *testing.T) {
	m, err := New(newRig(t).cfg)
	if err != nil {
		t.Fatal(err)
	}
	run := m.newRunner(copyOf("web", 0), nil, nil)
	a, b := m.newOrder(assign("web", 0, 1)), m.newOrder(assign("web", 0, 2))
	run.post(mail{order: &a, restart: true})
	run.post(mail{order: &b})
	if run.inbox.order != &b || !run.inbox.restart {
		t.Fatalf("%+v", run.inbox)
	}
}

func TestConfigIsValidated(t *testing.T) {
	for name, edit := range map[string]func(*Config){
		"driver": func(c *Config) { c.Driver = nil }, "emit": func(c *Config) { c.Emit = nil },
		"dir": func(c *Config) { c.Dir = "" }, "stable": func(c *Config) { c.Stable = -1 },
	} {
		cfg := newRig(t).cfg
		edit(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
