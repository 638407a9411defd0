package api

import (
	"slices"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// refusals is what a rule is not declared for, though it compiles: it holds
// always or never, or would act on everything. Hosts do not ask: what was let in
// by an older release runs on.
func refusals(rule *reflexes.Rule) error {
	bad := &intent.ValidationError{}
	for _, f := range reflexes.Lint([]*reflexes.Rule{rule}) {
		if f.Refuse {
			bad.Problems = append(bad.Problems, f.Problem())
		}
	}
	if len(bad.Problems) == 0 {
		return nil
	}
	return bad
}

// Warnings is what is to be said against the reflexes of in, which are let in: each
// alone, and beside those that the mesh has otherwise.
func Warnings(in, mesh intent.Intents) ([]reflexes.Finding, error) {
	if !hasReflexes(in) {
		return nil, nil
	}
	j, err := NewJudge()
	if err != nil {
		return nil, err
	}
	rules := j.rules(in)
	mine := map[string]bool{}
	for _, r := range rules {
		mine[r.Name] = true
	}
	var rest intent.Intents
	for _, a := range mesh.Apps {
		if !slices.ContainsFunc(in.Apps, func(b intent.App) bool { return a.Name == b.Name }) {
			rest.Apps = append(rest.Apps, a)
		}
	}
	for _, r := range mesh.Reflexes {
		if !mine[r.Name] {
			rest.Reflexes = append(rest.Reflexes, r)
		}
	}
	found := reflexes.Lint(append(rules, j.rules(rest)...))
	return slices.DeleteFunc(found, func(f reflexes.Finding) bool { return f.Refuse || !mine[f.Rule] && !mine[f.Other] }), nil
}

// rules compiles the reflexes of in, less those that this release does not
// understand.
func (j *Judge) rules(in intent.Intents) (out []*reflexes.Rule) {
	add := func(list []intent.Reflex, app string) {
		for _, r := range list {
			if rule, err := j.Rule(r, app); err == nil {
				out = append(out, rule)
			}
		}
	}
	add(in.Reflexes, "")
	for _, a := range in.Apps {
		add(a.Reflexes, a.Name)
	}
	return out
}
