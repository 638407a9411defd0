package topology

import (
	"slices"
	"sync"

	"github.com/ganglion-mesh/ganglion/intent/cron"
	"github.com/ganglion-mesh/ganglion/intent/expr"
)

// rules are the placement expressions and the schedule of an app, compiled when
// first asked for: compiling is slow, voters that do not lead never need it, and
// the result depends on the text alone (and the data of a schedule's time zone).
type rules struct {
	once            sync.Once
	require, prefer []rule
	schedule        cron.Schedule // never due if it is none
}

// rule is one expression. One that does not compile matches no host.
type rule struct {
	source   string
	compiled *expr.Placement
}

// newAppEntry shares the compiled rules of an earlier entry of the same text.
func newAppEntry(a App, old *appEntry) *appEntry {
	if old != nil && slices.Equal(old.Spec.Place.Require, a.Spec.Place.Require) && slices.Equal(old.Spec.Place.Prefer, a.Spec.Place.Prefer) && old.Spec.Schedule == a.Spec.Schedule {
		return &appEntry{App: a, rules: old.rules}
	}
	return &appEntry{App: a, rules: &rules{}}
}

func (e *appEntry) compile() *rules {
	e.rules.once.Do(func() {
		e.rules.require = compileAll(e.Spec.Place.Require)
		e.rules.prefer = compileAll(e.Spec.Place.Prefer)
		if e.Spec.Schedule != "" {
			e.rules.schedule, _ = cron.Parse(e.Spec.Schedule) // one that cannot be read is refused at apply
		}
	})
	return e.rules
}

func compileAll(sources []string) []rule {
	list := make([]rule, len(sources))
	for i, src := range sources {
		compiled, err := expr.CompilePlacement(src)
		if err != nil {
			compiled = nil
		}
		list[i] = rule{source: src, compiled: compiled}
	}
	return list
}

func (r rule) matches(labels map[string]string) bool {
	if r.compiled == nil {
		return false
	}
	ok, err := r.compiled.Matches(labels)
	return err == nil && ok
}

// refusedBy returns the first required expression that labels do not satisfy,
// or "".
func (e *appEntry) refusedBy(labels map[string]string) string {
	for _, r := range e.compile().require {
		if !r.matches(labels) {
			return r.source
		}
	}
	return ""
}

// preferred is the share of the preferred expressions that labels satisfy.
func (e *appEntry) preferred(labels map[string]string) float64 {
	prefer := e.compile().prefer
	if len(prefer) == 0 {
		return 0
	}
	n := 0
	for _, r := range prefer {
		if r.matches(labels) {
			n++
		}
	}
	return float64(n) / float64(len(prefer))
}
