package intent

// NotYet lists what in declares that no agent executes yet. Such an intent is
// refused at apply, never accepted and ignored. It works on intents as written
// and as normalized.
func (in Intents) NotYet() []Problem {
	var out []Problem
	for i, a := range in.Apps {
		out = append(out, prefixed(appPath(i, a), a.NotYet())...)
	}
	for i, r := range in.Reflexes {
		out = append(out, Problem{reflexPath(i, r), "reflexes are not executed yet; remove the block"})
	}
	return out
}

// NotYet lists what of this app is not executed yet; its paths are relative to
// the app.
func (a App) NotYet() []Problem {
	var out []Problem
	add := func(when bool, path, why string) {
		if when {
			out = append(out, Problem{path, why})
		}
	}
	for i := range a.Reflexes {
		add(true, index("reflexes", i), "reflexes are not executed yet; remove the block")
	}
	return out
}
