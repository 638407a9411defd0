package main

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/intent/hcl"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

var updateGolden = flag.Bool("update", false, "rewrite the golden files")

// TestReflexTestPrintsTheTimeline: through the command, as a user would.
func TestReflexTestPrintsTheTimeline(t *testing.T) {
	got := invocation{}.run(t, "reflex", "test", "testdata/reflex/heal.hcl", "--story", "testdata/reflex/story.txt")
	const golden = "testdata/reflex/timeline.txt"
	if *updateGolden {
		if err := os.WriteFile(golden, []byte(got.out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || got.out != string(want) || got.code != 0 {
		t.Errorf("exit %d, %s (%v); got:\n%s", got.code, got.firstLine(), err, got.out)
	}
}

// TestRecordedStory: what a host recorded of a copy is a story for its rules.
func TestRecordedStory(t *testing.T) {
	begun := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var list []events.Event
	for i, e := range [][2]string{
		{"started", `{"pid":1}`}, {"ready", `{}`}, {"exited", `{"pid":1,"code":null,"signal":"SIGKILL","ran_ms":9000}`},
		{"restarted", `{"pid":2}`}, {"unhealthy", `{"failures":3}`}, {"stopped", `{"reason":"asked to restart"}`}, {"exited", `{"code":3}`},
	} {
		list = append(list, events.Event{Type: "dev.ganglion.app." + e[0], Subject: "app/web/0", Time: begun.Add(time.Duration(i) * 10 * time.Second), Data: []byte(e[1])})
	}
	story, err := recordedStory(list)
	if err != nil {
		t.Fatal(err)
	}
	judge, err := api.NewJudge()
	if err != nil {
		t.Fatal(err)
	}
	in, err := hcl.Parse("r.hcl", []byte(`reflex "r" {
  scope = "copy:web"
  when  = "exit.code == 3 || exit.signal == \"SIGKILL\""
  act   = [restart("web")]
}
reflex "sick" {
  scope = "copy:web"
  when  = "check.failures >= 3"
  act   = [emit("sick")]
}`))
	if err != nil {
		t.Fatal(err)
	}
	var rules []*reflexes.Rule
	for _, r := range in.Reflexes {
		rule, err := judge.Rule(r, "")
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, rule)
	}
	got, err := reflexes.Replay(rules, story, reflexes.ReplayOptions{Tail: 2 * time.Second})
	const want = `   20.000s  r copy:web/0: fired restart("web") (act 1); exit.code = -1, exit.signal = "SIGKILL"
   20.010s  r copy:web/0: finished restart("web") (act 1), ok
   40.000s  sick copy:web/0: fired emit("sick") (act 2); check.failures = 3
   40.010s  sick copy:web/0: finished emit("sick") (act 2), ok
   60.000s  r copy:web/0: fired restart("web") (act 3); exit.code = 3, exit.signal = ""
   60.010s  r copy:web/0: finished restart("web") (act 3), ok
   62.000s  end: 3 acts; 2 cooling
`
	if err != nil || got != want {
		t.Errorf("%v; got:\n%s", err, got)
	}
}
