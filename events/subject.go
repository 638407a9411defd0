package events

import (
	"fmt"
	"slices"
	"strings"
)

// subjectRoot is the first token of every NATS subject of ganglion.
const subjectRoot = "ganglion"

// NATSSubject is where an event is published: ganglion.<mesh>.<subject>.<what>,
// with the slashes of the CloudEvents subject as dots.
func NATSSubject(mesh string, e Event) string {
	return subjectRoot + "." + mesh + "." + storySubject(e)
}

// storySubject is the part of the NATS subject after ganglion.<mesh>.
func storySubject(e Event) string {
	_, what, _ := strings.Cut(e.Kind(), ".")
	return strings.ReplaceAll(e.Subject, "/", ".") + "." + what
}

// Filter selects events by a NATS subject pattern without its
// ganglion.<mesh>. prefix: tokens, "*" for one token, ">" for one or more at
// the end. The zero Filter selects everything. It is safe for concurrent use.
type Filter struct{ tokens []string }

// CompileFilter reads a pattern. Empty means everything. A pattern that no
// event can ever match is an error, because it would only ever be silent.
func CompileFilter(pattern string) (Filter, error) {
	if pattern == "" {
		return Filter{}, nil
	}
	tokens := strings.Split(pattern, ".")
	for i, t := range tokens {
		if t == "" || strings.ContainsAny(t, " \t\r\n/") || (t == ">" && i < len(tokens)-1) ||
			(len(t) > 1 && strings.ContainsAny(t, "*>")) {
			return Filter{}, fmt.Errorf("parse filter %q: it is not a subject pattern; write for example app.web.> or host.*.failed", pattern)
		}
	}
	for _, k := range Catalogue() {
		form := append(strings.Split(k.Subject, "/"), k.What())
		if overlap(tokens, form) {
			return Filter{tokens: tokens}, nil
		}
	}
	return Filter{}, fmt.Errorf("parse filter %q: no event has such a subject; write for example app.web.> or host.*.failed", pattern)
}

// Match reports whether the filter selects the event.
func (f Filter) Match(e Event) bool {
	return len(f.tokens) == 0 || matchTokens(f.tokens, strings.Split(storySubject(e), "."))
}

// String is the pattern; empty selects everything.
func (f Filter) String() string { return strings.Join(f.tokens, ".") }

// pattern is what a NATS client subscribes to for the filter, below ganglion.<mesh>.
func (f Filter) pattern() string {
	if len(f.tokens) == 0 {
		return ">"
	}
	return f.String()
}

func matchTokens(pattern, tokens []string) bool {
	for i, p := range pattern {
		if p == ">" {
			return len(tokens) > i
		}
		if i >= len(tokens) || (p != "*" && p != tokens[i]) {
			return false
		}
	}
	return len(pattern) == len(tokens)
}

// overlap reports whether some subject of a form, whose "*" stand for names,
// matches the pattern.
func overlap(pattern, form []string) bool {
	filled := slices.Clone(form)
	for i, t := range filled {
		if t == "*" && i < len(pattern) && isName(pattern[i]) {
			filled[i] = pattern[i]
		}
	}
	return matchTokens(pattern, filled)
}
