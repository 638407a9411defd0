package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// declare applies reflexes outside of apps.
func (h *host) declare(t *testing.T, list ...intent.Reflex) {
	t.Helper()
	if err := h.Post(t.Context(), "/v1/apply", nil, api.ApplyRequest{Intents: intent.Intents{Reflexes: list}}, nil); err != nil {
		t.Fatal(err)
	}
}

// told returns the events that match filter, oldest first.
func (h *host) told(t *testing.T, filter string) (out []events.Event) {
	t.Helper()
	err := h.Stream(t.Context(), "/v1/local/events", url.Values{"since": {"1h"}, "filter": {filter}}, func(line []byte) bool {
		var e events.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Error(err)
		}
		out = append(out, e)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// fired waits for the first event that a rule fired and returns its data.
func (h *host) fired(t *testing.T, rule string) (data events.ReflexFired) {
	t.Helper()
	await(t, 30*time.Second, rule+" fired", func() error {
		list := h.told(t, "reflex."+rule+".*.fired")
		if len(list) == 0 {
			var rules []api.LocalReflex
			err := h.Get(t.Context(), "/v1/local/reflexes", nil, &rules)
			return fmt.Errorf("not yet: %+v, %v; all that was told: %s", rules, err, texts(h.told(t, "reflex.>")))
		}
		return json.Unmarshal(list[0].Data, &data)
	})
	return data
}

func texts(list []events.Event) string {
	var out strings.Builder
	for _, e := range list {
		fmt.Fprintf(&out, "\n%s %s %s", e.Type, e.Subject, e.Data)
	}
	return out.String()
}

// sickly is an app whose check fails, without restarting it, once the process of
// its copy was declared sick. What is new is well when it has said who it is.
func sickly(t *testing.T, name string) (intent.App, func(pid int)) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sick")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	no, one := false, 1
	app := intent.App{
		Name: name, Count: &one,
		Run: intent.Run{Command: []string{"sh", "-c", "echo $$ > " + dir + "/new; mv " + dir + "/new " + dir + "/pid; exec sleep 1000"}},
		Checks: []intent.Check{{
			Type: intent.CheckExec, Command: []string{"sh", "-c", "test -e " + dir + "/pid && test ! -e " + dir + "/sick.$(cat " + dir + "/pid)"}, Every: intent.Duration(100 * time.Millisecond),
			Grace: intent.Duration(time.Millisecond), Failures: 2, Live: &no, Timeout: 30 * intent.Second,
		}},
	}
	return app, func(pid int) {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("sick.%d", pid)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// another waits until the only copy of this host is ready with another process
// than pid.
func (h *host) another(t *testing.T, pid int) (c topology.CopyStatus) {
	t.Helper()
	await(t, 30*time.Second, "another process", func() error {
		var list []topology.AppStatus
		if err := h.Get(t.Context(), "/v1/local/status", nil, &list); err != nil {
			return err
		}
		if len(list) != 1 || list[0].Ready != 1 || list[0].Copies[0].Pid == pid {
			return fmt.Errorf("%+v", list)
		}
		c = list[0].Copies[0]
		return nil
	})
	return c
}

// TestReflexRestartsWhatIsSick: a copy runs and fails its check. The rule of its
// app restarts it, once, by the supervisor, and all of it is told.
func TestReflexRestartsWhatIsSick(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	app, sicken := sickly(t, "web")
	app.Reflexes = []intent.Reflex{
		{Name: "heal", When: "app.running && check.failures >= 3", Act: []intent.Action{{Op: "restart"}, {Op: "emit", Target: "gave-up", Args: map[string]string{"severity": "critical"}}}},
		{Name: "watch", When: "check.failures >= 3", Act: []intent.Action{{Op: "stop"}}, Mode: intent.ModeObserve},
	}
	h.apply(t, app)
	before := h.another(t, 0)
	sicken(before.Pid)
	fired := h.fired(t, "heal")
	after := h.another(t, before.Pid)
	if before.Pid == after.Pid || fired.Result != "ok" || fired.App != "web" || fired.Target != "copy:web/0" || string(fired.Facts["app.running"]) != "true" {
		t.Errorf("pid %d, then %d; fired: %+v", before.Pid, after.Pid, fired)
	}
	await(t, 20*time.Second, "the rule that only watches", func() error {
		if list := h.told(t, "reflex.watch.*.observed"); len(list) == 0 {
			return errors.New("told nothing")
		}
		return nil
	})
	stopped := h.told(t, "app.web.0.stopped")
	if len(stopped) != 1 || !strings.Contains(string(stopped[0].Data), "reflex web/heal (act 1)") {
		t.Errorf("stopped: %s", texts(stopped))
	}
	if list := h.told(t, "reflex.*.*.fired"); len(list) != 1 || list[0].CauseID == "" {
		t.Errorf("fired: %s", texts(list))
	}
}

// TestReflexOfAnExit: what a rule is asked for by an end of a copy. The built-in
// restart does what it always does; the rule finds it done.
func TestReflexOfAnExit(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	app := sleeper("web", 1)
	app.Reflexes = []intent.Reflex{
		{Name: "again", When: `exit.signal == "SIGKILL"`, Act: []intent.Action{{Op: "restart"}}},
		{Name: "say", When: `exit.code == -1 && exit.ran_seconds < 600.0`, Act: []intent.Action{{Op: "emit", Target: "died", Args: map[string]string{"severity": "warning"}}}},
	}
	h.apply(t, app)
	pid := h.another(t, 0).Pid
	awaitRules(t, h, 2)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	again, say := h.fired(t, "again"), h.fired(t, "say")
	if again.Result != "ok" || say.Result != "ok" || len(say.Emits) != 1 || say.Emits[0] != (events.ReflexEmit{Name: "died", Severity: "warning"}) {
		t.Errorf("fired: %+v, %+v", again, say)
	}
	st := h.another(t, pid)
	if st.Restarts != 1 {
		t.Errorf("after one kill: %d restarts", st.Restarts)
	}
	if exits := h.told(t, "app.web.0.exited"); len(exits) != 1 {
		t.Errorf("exits: %s", texts(exits))
	}
	// A stop that a user asks for is no reason to act.
	if err := h.Post(t.Context(), "/v1/apps/web/restart", nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	h.another(t, st.Pid)
	if list := h.told(t, "reflex.*.*.fired"); len(list) != 2 {
		t.Errorf("fired: %s", texts(list))
	}
}

// TestReflexHeldByFreeze: a rule that wants to act on what is frozen says so, and
// acts when it is thawed (S8).
func TestReflexHeldByFreeze(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	app, sicken := sickly(t, "web")
	app.Reflexes = []intent.Reflex{{Name: "heal", When: "check.failures >= 3", Act: []intent.Action{{Op: "restart"}}}}
	h.apply(t, app)
	before := h.another(t, 0)
	awaitRules(t, h, 1)
	if err := h.Post(t.Context(), "/v1/freeze", nil, api.FreezeRequest{Apps: []string{"web"}}, nil); err != nil {
		t.Fatal(err)
	}
	sicken(before.Pid)
	await(t, 30*time.Second, "the freeze", func() error {
		for _, e := range h.told(t, "reflex.heal.*.suppressed") {
			if strings.Contains(string(e.Data), `"reason":"frozen`) {
				return nil
			}
		}
		return errors.New(texts(h.told(t, "reflex.>")))
	})
	if list := h.told(t, "reflex.heal.*.fired"); len(list) != 0 {
		t.Errorf("fired while frozen: %s", texts(list))
	}
	if err := h.Post(t.Context(), "/v1/thaw", nil, api.ThawRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	h.fired(t, "heal")
	h.another(t, before.Pid)
}

// awaitRules waits until a host has n rules, each with something to be about.
func awaitRules(t *testing.T, h *host, n int) (list []api.LocalReflex) {
	t.Helper()
	await(t, 20*time.Second, "rules", func() error {
		if err := h.Get(t.Context(), "/v1/local/reflexes", nil, &list); err != nil {
			return err
		}
		ready := 0
		for _, l := range list {
			if len(l.Targets) > 0 {
				ready++
			}
		}
		if ready != n {
			return fmt.Errorf("%d of %d: %+v", ready, n, list)
		}
		return nil
	})
	return list
}

// TestReflexOfTheHost: a rule outside of apps acts on the copies that are here,
// says so where there are none, and goes with delete. What is not executed, or
// makes no sense, is refused.
func TestReflexOfTheHost(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	h.apply(t, sleeper("web", 1))
	before := h.another(t, 0)
	limit := func(r intent.Reflex) intent.Reflex {
		r.Cooldown, r.Limit = intent.Hour, "1/1h"
		return r
	}
	h.declare(t,
		limit(intent.Reflex{Name: "shed", When: "host.memory.available_ratio < 0.9999", Act: []intent.Action{{Op: "restart", Target: "web"}}}),
		limit(intent.Reflex{Name: "none", When: "host.cpu.count < 4096", Act: []intent.Action{{Op: "restart", Target: "cache"}}}))
	if got := h.fired(t, "shed"); got.Result != "ok" {
		t.Errorf("shed: %+v", got)
	}
	if got := h.fired(t, "none"); !strings.Contains(got.Result, "nothing of app:cache is on this host") {
		t.Errorf("none: %+v", got)
	}
	h.another(t, before.Pid)
	for _, name := range []string{"shed", "none"} {
		if err := h.Delete(t.Context(), "/v1/reflexes/"+name, nil); err != nil {
			t.Fatal(err)
		}
	}
	awaitRules(t, h, 0)
	for want, r := range map[string]intent.Reflex{
		"needs a limit and a cooldown":        {Name: "x", When: "host.cpu.count > 0", Act: []intent.Action{{Op: "evict", Target: "web"}}},
		"a unit is on its host alone":         limit(intent.Reflex{Name: "x", When: "unit.failures > 0", Scope: "unit:x.service", Cooldown: intent.Second, Act: []intent.Action{{Op: "evict"}}}),
		"throttle() of a unit needs its name": {Name: "x", When: "unit.failures > 0", Scope: "unit:x*", Act: []intent.Action{{Op: "throttle", Args: map[string]string{"cpu": "50%"}}}, Cooldown: intent.Minute, Limit: "1/30m"},
		"restart() of a unit needs its name":  limit(intent.Reflex{Name: "x", When: "unit.failures > 0", Scope: "unit:*", Cooldown: intent.Second, Act: []intent.Action{{Op: "restart"}}}),
		"did you mean host.cpu.count":         {Name: "x", When: "host.cpu.cont > 0", Act: []intent.Action{{Op: "emit", Target: "x"}}},
		"it holds whatever happens":           limit(intent.Reflex{Name: "x", When: "host.cpu.count > 0", Act: []intent.Action{{Op: "restart", Target: "web"}}}),
		"it can never hold":                   {Name: "x", When: "host.memory.available_ratio > 1.5", Act: []intent.Action{{Op: "emit", Target: "x"}}},
	} {
		err := h.Post(t.Context(), "/v1/apply", nil, api.ApplyRequest{Intents: intent.Intents{Reflexes: []intent.Reflex{r}}}, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", r, err, want)
		}
	}
}

// TestReflexesThatFight: what is let in and may be a mistake is said, of new rules
// beside those that there are.
func TestReflexesThatFight(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	rule := func(name, when, op string) intent.Reflex {
		return intent.Reflex{Name: name, When: when, Act: []intent.Action{{Op: op, Target: "web"}}, Cooldown: intent.Hour, Limit: "1/1h"}
	}
	declare := func(r intent.Reflex) []reflexes.Finding {
		var resp api.ApplyResponse
		if err := h.Post(t.Context(), "/v1/apply", nil, api.ApplyRequest{Intents: intent.Intents{Reflexes: []intent.Reflex{r}}}, &resp); err != nil {
			t.Fatal(err)
		}
		return resp.Warnings
	}
	if got := declare(rule("a", "host.memory.available_ratio < 0.001", "restart")); len(got) != 0 {
		t.Errorf("alone: %+v", got)
	}
	got := declare(rule("b", "host.swap.used_ratio > 0.999", "stop"))
	if len(got) != 1 || got[0].Kind != reflexes.LintFight || got[0].Rule != "b" && got[0].Other != "b" {
		t.Errorf("beside one that restarts what it stops: %+v", got)
	}
	if got := declare(rule("a", "host.memory.available_ratio < 0.001", "stop")); len(got) != 0 {
		t.Errorf("declared anew so that both stop: %+v", got)
	}
}

// TestReflexesOutliveTheAgent: without a leader and after a restart of the agent
// the rules of the last slice hold, with what they have spent.
func TestReflexesOutliveTheAgent(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	app, sicken := sickly(t, "web")
	app.Reflexes = []intent.Reflex{{
		Name: "heal", When: "check.failures >= 3", Act: []intent.Action{{Op: "restart"}}, Limit: "1/1h", Cooldown: intent.Duration(time.Millisecond),
	}}
	h.apply(t, app)
	first := h.another(t, 0)
	sicken(first.Pid)
	h.fired(t, "heal")
	second := h.another(t, first.Pid)
	h.stop(t)
	h.run(t)
	st := h.another(t, 0)
	if st.Pid != second.Pid {
		t.Errorf("pid %d, then %d: the agent's restart did it", second.Pid, st.Pid)
	}
	if list := awaitRules(t, h, 1); list[0].Targets[0].Left != 0 {
		t.Errorf("after the restart: %+v", list)
	}
	sicken(st.Pid)
	await(t, 30*time.Second, "the limit", func() error {
		for _, e := range h.told(t, "reflex.heal.*.suppressed") {
			if strings.Contains(string(e.Data), "limit is used up") {
				return nil
			}
		}
		return errors.New(texts(h.told(t, "reflex.>")))
	})
	var now []topology.AppStatus
	if err := h.Get(t.Context(), "/v1/local/status", nil, &now); err != nil || now[0].Copies[0].Pid != st.Pid {
		t.Errorf("pid %d, then %+v, %v", st.Pid, now, err)
	}
	if list := h.told(t, "reflex.heal.*.fired"); len(list) != 1 {
		t.Errorf("fired: %s", texts(list))
	}
}

// TestVariablesAreShown: with live values, though no rule reads them.
func TestVariablesAreShown(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	h.apply(t, sleeper("web", 1))
	h.awaitReady(t, "web", 1)
	await(t, 20*time.Second, "values", func() error {
		var list []api.ReflexVar
		if err := h.Get(t.Context(), "/v1/local/reflexes/vars", nil, &list); err != nil {
			t.Fatal(err)
		}
		known := map[string]string{}
		for _, v := range list {
			for _, x := range v.Values {
				known[v.Name+" "+x.Target] = x.Value.String()
			}
		}
		for _, want := range []string{"host.memory.available_ratio host", "app.running copy:web/0", "app.mem_bytes copy:web/0", "peers.alive host", "leader.self host", "exit.count_1m copy:web/0"} {
			if known[want] == "" || known[want] == "?" {
				return fmt.Errorf("%s is not known among %v", want, known)
			}
		}
		return nil
	})
}

// TestReflexesThatReachNowhere: what has no elsewhere is not evicted, and no app
// empties the host of others.
func TestReflexesThatReachNowhere(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	for want, change := range map[string]func(a *intent.App, r *intent.Reflex){
		"has no other host to go to":   func(a *intent.App, r *intent.Reflex) { a.PerHost, r.Act = true, []intent.Action{{Op: "evict"}} },
		"(once) has no other host":     func(a *intent.App, r *intent.Reflex) { a.Once, r.Act = true, []intent.Action{{Op: "evict"}} },
		"drain_self empties the whole": func(_ *intent.App, r *intent.Reflex) { r.Act = []intent.Action{{Op: "drain_self"}} },
	} {
		r := intent.Reflex{Name: "x", When: "check.failures > 3", Limit: "1/1h", Cooldown: intent.Second}
		a := intent.App{Name: "web", Run: intent.Run{Command: []string{"sleep", "1000"}}}
		change(&a, &r)
		a.Reflexes = []intent.Reflex{r}
		err := h.Post(t.Context(), "/v1/apply", nil, api.ApplyRequest{Intents: intent.Intents{Apps: []intent.App{a}}}, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", a, err, want)
		}
	}
}
