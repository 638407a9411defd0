package api

import (
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/intent/cron"
	"github.com/ganglion-mesh/ganglion/intent/expr"
)

// CheckIntents returns intents with all defaults filled in. It refuses what is wrong.
func CheckIntents(in intent.Intents) (intent.Intents, error) {
	if err := in.Validate(); err != nil {
		return in, Errorf(CodeInvalid, "%v", err)
	}
	for _, e := range in.Expressions() {
		if err := expr.Check(e.Source, e.Placement); err != nil {
			return in, Errorf(CodeInvalid, "%s: %v", e.Path, err)
		}
	}
	for _, a := range in.Apps {
		if a.Schedule == "" {
			continue
		}
		if _, err := cron.Parse(a.Schedule); err != nil {
			return in, Errorf(CodeInvalid, "app.%s.schedule: %v", a.Name, err)
		}
	}
	if p := in.LocalArtifacts(); len(p) > 0 {
		return in, Errorf(CodeInvalid, "%s", p[0].String())
	}
	if err := checkReflexes(in); err != nil {
		return in, err
	}
	for _, s := range in.Senses {
		for i, p := range s.Events {
			if _, err := events.CompileFilter(p); err != nil {
				return in, Errorf(CodeInvalid, "sense.%s.events[%d]: %v", s.Name, i, err)
			}
		}
	}
	return in.Normalize(), nil
}
