package intent

import (
	"path/filepath"
	"strings"
)

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
	add(a.Singleton, "singleton", "singletons are not executed yet; use count = 1 if two at once do no harm")
	if a.Run.Artifact != "" {
		why := artifactNotYet(a.Run.Artifact)
		add(why != "", "run.artifact", why)
	}
	for i, c := range a.Checks {
		add(c.Type == CheckSmoke, index("checks", i), "smoke checks are not executed yet")
	}
	for i := range a.Reflexes {
		add(true, index("reflexes", i), "reflexes are not executed yet; remove the block")
	}
	return out
}

// artifactNotYet explains why an artifact cannot be used yet; it is empty for a
// directory or a plain file that is already on the hosts.
func artifactNotYet(artifact string) string {
	const instead = "; for now name the absolute path of a directory or a plain file that is on the hosts"
	switch {
	case !filepath.IsAbs(artifact):
		return "artifacts are not pushed or fetched yet" + instead
	case isArchive(artifact):
		return "archives are not unpacked yet" + instead
	}
	return ""
}

func isArchive(name string) bool {
	for _, suffix := range []string{".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst", ".tar.bz2", ".zip"} {
		if strings.HasSuffix(strings.ToLower(name), suffix) {
			return true
		}
	}
	return false
}
