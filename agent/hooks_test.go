package agent

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// hookOf is a rule about the copies of web that runs a script as soon as one is
// ready.
func hookOf(name, script string, args map[string]string) intent.Reflex {
	all := map[string]string{"1": "-c", "2": script}
	for k, v := range args {
		all[k] = v
	}
	return intent.Reflex{
		Name: name, Scope: "copy:web", When: "app.running && app.ready", Cooldown: intent.Hour, Limit: "1/1h",
		Act: []intent.Action{{Op: "run", Target: "/bin/sh", Args: all}},
	}
}

// TestReflexRunsAHook where the host lets it: with the evidence in its
// environment, as nobody in particular, and what it said in the event. Its record
// is on the disk when it starts.
func TestReflexRunsAHook(t *testing.T) {
	h := startHost(t, "h1", func(c *Config) { c.AllowRun = true })
	h.init(t)
	h.apply(t, sleeper("web", 1))
	h.another(t, 0)
	h.declare(t,
		hookOf("look", `echo "$GANGLION_HOST $GANGLION_REFLEX $GANGLION_TARGET $GANGLION_APP $GANGLION_COPY $GANGLION_ACT $GANGLION_FACTS"; id -u >&2`, nil),
		hookOf("fail", `echo it is broken; exit 7`, nil),
		hookOf("slow", `echo begun; exec sleep 1000`, map[string]string{"timeout": "300ms"}))
	look, fail, slow := h.fired(t, "look"), h.fired(t, "fail"), h.fired(t, "slow")
	who := "799999"
	if os.Geteuid() != 0 {
		who = ""
	}
	if !strings.HasPrefix(look.Output, "h1 look copy:web/0 web 0 ") || !strings.Contains(look.Output, ` {"app.ready":true,"app.running":true}`) ||
		!strings.HasSuffix(look.Output, who) || look.Result != "ok" {
		t.Errorf("look: %+v", look)
	}
	if fail.Result != "/bin/sh: it ended with status 7; its output: it is broken" || fail.Output != "" {
		t.Errorf("fail: %+v", fail)
	}
	if !strings.HasPrefix(slow.Result, "/bin/sh: it did not end in time and was killed") {
		t.Errorf("slow: %+v", slow)
	}
	h.stop(t)
	// The journal, or the snapshot that follows it, has each intent as one that was flushed first.
	var text string
	files, _ := filepath.Glob(filepath.Join(h.cfg.DataDir, dirReflexes, "*"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text += string(b)
	}
	for _, want := range []string{`"durable":true`, `look copy:web/0`, "it is broken"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not recorded: %s", want, text)
		}
	}
	h.run(t)
}

// TestHooksAreOff unless the host's configuration lets them be: such a rule is off
// there and says why, and one that only observes is not.
func TestHooksAreOff(t *testing.T) {
	h := startHost(t, "h1", nil)
	h.init(t)
	h.apply(t, sleeper("web", 1))
	h.another(t, 0)
	watch := hookOf("watch", "true", nil)
	watch.Mode = intent.ModeObserve
	h.declare(t, hookOf("look", "true", nil), watch)
	await(t, readyPatience, "observed, and off", func() error {
		if len(h.told(t, "reflex.watch.*.observed")) == 0 {
			return errors.New("not observed")
		}
		for _, e := range h.told(t, "reflex.look.*.suppressed") {
			var data struct{ Reason string }
			if err := json.Unmarshal(e.Data, &data); err != nil {
				return err
			}
			if strings.HasPrefix(data.Reason, reflexes.ReasonIncapable.String()) && strings.Contains(data.Reason, "allow_run is off") {
				return nil
			}
		}
		return errors.New(texts(h.told(t, "reflex.look.>")))
	})
	var list []api.LocalReflex
	if err := h.Get(t.Context(), "/v1/local/reflexes", nil, &list); err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		if off := strings.Contains(r.Error, "allow_run is off"); off != (r.Name == "look") {
			t.Errorf("%+v", r)
		}
	}
	if fired := h.told(t, "reflex.*.*.fired"); len(fired) > 0 {
		t.Error(texts(fired))
	}
	for want, a := range map[string]intent.Action{
		"not the absolute path": {Op: "run", Target: "reboot"},
		"takes no \"3\"":        {Op: "run", Target: "/bin/x", Args: map[string]string{"1": "a", "3": "c"}},
		"not the name or":       {Op: "run", Target: "/bin/x", Args: map[string]string{"user": "a b"}},
		"out of bounds":         {Op: "run", Target: "/bin/x", Args: map[string]string{"timeout": "1h"}},
	} {
		r := intent.Reflex{Name: "x", When: "host.load.per_core > 99.0", Act: []intent.Action{a}}
		err := h.Post(t.Context(), "/v1/apply", nil, api.ApplyRequest{Intents: intent.Intents{Reflexes: []intent.Reflex{r}}}, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", a, err, want)
		}
	}
}
