package intent

import (
	"net/url"
	"strings"
)

// LocalArtifact tells whether the artifact is a path where the declaration is
// applied: apply pushes what is there and names it by its digest instead. On the
// wire there is none.
func (r Run) LocalArtifact() bool {
	return r.Artifact != "" && !strings.HasPrefix(r.Artifact, "sha256:") && !strings.HasPrefix(r.Artifact, "https://")
}

// LocalArtifacts lists the artifacts that have yet to be pushed.
func (in Intents) LocalArtifacts() []Problem {
	var out []Problem
	for i, a := range in.Apps {
		if a.Run.LocalArtifact() {
			out = append(out, Problem{appPath(i, a) + ".run.artifact", quote(a.Run.Artifact) +
				" is a path, and hosts know packages by their digest alone: ganglion apply pushes it; or push it with ganglion artifact push and name the sha256:… that it prints"})
		}
	}
	return out
}

// checkAddress judges an https artifact.
func checkAddress(f field, raw string) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "":
		f.fail("%s is not an address that can be fetched", quote(raw))
	case u.User != nil:
		f.fail("an address with a user or password in it is not fetched: everyone who may read the declaration could read them")
	}
}
