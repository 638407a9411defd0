package intent

import (
	"strings"
	"testing"
)

func TestSenses(t *testing.T) {
	good := Intents{Senses: []Sense{
		{Name: "warm", Command: []string{"/bin/warm", "-c"}, Every: 2 * Second, Timeout: Second, User: "ops"},
		{Name: "conf", Files: []string{"/etc/x", "/etc/y.d"}},
		{Name: "bare", Command: []string{"/bin/x"}},
		{Name: "story", Events: []string{"app.db.*.unhealthy", "host.*.failed"}},
	}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	filled := good.Normalize().Senses
	if filled[2].Every != 10*Second || filled[2].Timeout != 10*Second || filled[0].Timeout != Second || filled[1].Every != 0 || good.Senses[2].Every != 0 {
		t.Errorf("normalized: %+v", filled)
	}
	if got := Diff(Intents{}, good); len(got) != 4 || got[0].Kind != ChangeSense || got[0].Name != "bare" {
		t.Errorf("changes: %+v", got)
	}
	for want, s := range map[string]Sense{
		"sense.x: a command, files or events are required": {Name: "x"},
		"one of them alone":            {Name: "x", Command: []string{"/x"}, Files: []string{"/x"}},
		"and one of them alone":        {Name: "x", Files: []string{"/x"}, Events: []string{"app.>"}},
		"user belong to a command":     {Name: "x", Events: []string{"app.>"}, User: "ops"},
		"17 patterns; at most 16":      {Name: "x", Events: make([]string, 17)},
		"sense.x.events[0]: a pattern": {Name: "x", Events: []string{""}},
		"sense.x.command: \"warm\" is": {Name: "x", Command: []string{"warm"}},
		"sense.x.every: 100ms is out":  {Name: "x", Command: []string{"/x"}, Every: 100 * Millisecond},
		"sense.x.timeout: 2m is out":   {Name: "x", Command: []string{"/x"}, Timeout: 2 * Minute},
		"not the name or number of a":  {Name: "x", Command: []string{"/x"}, User: "a b"},
		"sense.x.files[0]: \"x\" is":   {Name: "x", Files: []string{"x"}},
		"sense.x.files[0]: \"/../x\"":  {Name: "x", Files: []string{"/../x"}},
		"belong to a command":          {Name: "x", Files: []string{"/x"}, Every: Second},
		"senses[0].name: ":             {Name: "X", Files: []string{"/x"}},
		"65 paths; at most 64":         {Name: "x", Files: make([]string, 65)},
		"257 words; at most 256":       {Name: "x", Command: make([]string, 257)},
		"sense.x.command[1]: ":         {Name: "x", Command: []string{"/x", strings.Repeat("a", MaxText+1)}},
	} {
		if err := (Intents{Senses: []Sense{s}}).Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", s, err, want)
		}
	}
	if err := (Intents{Senses: []Sense{good.Senses[0], good.Senses[0]}}).Validate(); err == nil || !strings.Contains(err.Error(), "declared twice") {
		t.Error(err)
	}
}
