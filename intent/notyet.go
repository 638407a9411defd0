package intent

import "strings"

// NotYet lists what in declares that no agent executes yet. Such an intent is
// refused at apply, never accepted and ignored. It works on intents as written
// and as normalized.
func (in Intents) NotYet() []Problem {
	var out []Problem
	for i, a := range in.Apps {
		out = append(out, prefixed(appPath(i, a), a.NotYet())...)
	}
	for i, r := range in.Reflexes {
		out = append(out, prefixed(reflexPath(i, r), r.NotYet())...)
	}
	return out
}

// NotYet lists what of this app is not executed yet; its paths are relative to
// the app.
func (a App) NotYet() []Problem {
	var out []Problem
	for i, r := range a.Reflexes {
		out = append(out, prefixed(index("reflexes", i), r.NotYet())...)
	}
	return out
}

// laterOnUnits are the actions that no agent takes on a unit of systemd yet.
var laterOnUnits = map[string]bool{
	"throttle": true,
}

// NotYet lists what of this reflex is not executed yet; its paths are relative
// to the reflex.
func (r Reflex) NotYet() []Problem {
	var out []Problem
	scope, _, _ := strings.Cut(r.Scope, ":")
	for i, a := range r.Act {
		if scope == "unit" && laterOnUnits[a.Op] && a.Target == "" {
			out = append(out, Problem{index("act", i) + ".target", a.Op + " of a unit is not executed yet; name an app, or use restart(), stop() or signal"})
		}
	}
	return out
}
