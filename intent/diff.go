package intent

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
)

// The operations of a Change, and the kinds of what changes.
const (
	OpAdd    = "add"
	OpChange = "change"
	OpRemove = "remove"

	ChangeApp    = "app"
	ChangeReflex = "reflex"
	ChangeSense  = "sense"
)

// Change is what would become of one intent.
type Change struct {
	Op     string        `json:"op"`   // add, change or remove
	Kind   string        `json:"kind"` // app or reflex
	Name   string        `json:"name"`
	Fields []FieldChange `json:"fields"` // of an added intent: what differs from the defaults; of a removed one: none
}

// FieldChange is one field that differs. From and To are what JSON makes of the
// values; nil means that there is none.
type FieldChange struct {
	Path string `json:"path"` // run.env.MODE, checks[0].every
	From any    `json:"from"`
	To   any    `json:"to"`
}

// Diff lists what turns old into new, apps before reflexes before senses and each
// by name.
// Both sides are compared with their defaults filled, so that writing a default
// out changes nothing.
func Diff(old, new Intents) []Change {
	apps := diffNamed(ChangeApp, old.Normalize().Apps, new.Normalize().Apps,
		func(a App) string { return a.Name },
		func(a App) App {
			return App{Name: a.Name, PerHost: a.PerHost, Singleton: a.Singleton, Schedule: a.Schedule, Once: a.Once}.WithDefaults()
		})
	reflexes := diffNamed(ChangeReflex, normalReflexes(old.Reflexes), normalReflexes(new.Reflexes),
		func(r Reflex) string { return r.Name },
		func(r Reflex) Reflex { return Reflex{Name: r.Name, Mode: ModeEnforce} })
	senses := diffNamed(ChangeSense, normalSenses(old.Senses), normalSenses(new.Senses),
		func(s Sense) string { return s.Name },
		func(s Sense) Sense { return Sense{Name: s.Name} })
	return append(append(apps, reflexes...), senses...)
}

// diffNamed compares two lists by name. blank gives what an added item is
// compared with, so that only what it says itself is shown.
func diffNamed[T any](kind string, old, new []T, name func(T) string, blank func(T) T) []Change {
	was, is := make(map[string]T), make(map[string]T)
	for _, v := range old {
		was[name(v)] = v
	}
	for _, v := range new {
		is[name(v)] = v
	}
	both := make(map[string]bool, len(was)+len(is))
	for n := range was {
		both[n] = true
	}
	for n := range is {
		both[n] = true
	}
	changes := []Change{}
	for _, n := range sortedKeys(both) {
		from, before := was[n]
		to, after := is[n]
		switch {
		case !before:
			fields := diffFields(blank(to), to)
			for i := range fields {
				fields[i].From = nil
			}
			changes = append(changes, Change{OpAdd, kind, n, fields})
		case !after:
			changes = append(changes, Change{OpRemove, kind, n, []FieldChange{}})
		default:
			if fields := diffFields(from, to); len(fields) > 0 {
				changes = append(changes, Change{OpChange, kind, n, fields})
			}
		}
	}
	return changes
}

func diffFields(old, new any) []FieldChange {
	was, is := make(map[string]any), make(map[string]any)
	flatten(was, "", asJSON(old))
	flatten(is, "", asJSON(new))
	both := make(map[string]bool, len(was)+len(is))
	for p := range was {
		both[p] = true
	}
	for p := range is {
		both[p] = true
	}
	fields := []FieldChange{}
	for _, p := range sortedKeys(both) {
		if !reflect.DeepEqual(was[p], is[p]) {
			fields = append(fields, FieldChange{Path: p, From: was[p], To: is[p]})
		}
	}
	return fields
}

// asJSON returns v as the generic values of encoding/json, so that the paths
// and values of a diff are those that users write and scripts read.
func asJSON(v any) any {
	data, err := json.Marshal(v)
	if err != nil { // only what Validate refuses, a NaN
		return fmt.Sprint(v)
	}
	var out any
	_ = json.Unmarshal(data, &out) // what Marshal has just written
	return out
}

// flatten puts the leaves of v into out by path. A list of plain values is one
// leaf, as half a command line tells nobody anything.
func flatten(out map[string]any, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 && path != "" {
			out[path] = v // a dynamic port says nothing but that it is there
			return
		}
		for k, e := range v {
			if path == "" {
				flatten(out, k, e)
			} else {
				flatten(out, path+"."+k, e)
			}
		}
	case []any:
		if !slices.ContainsFunc(v, isObject) {
			out[path] = v
			return
		}
		for i, e := range v {
			flatten(out, path+"["+strconv.Itoa(i)+"]", e)
		}
	default:
		out[path] = v
	}
}

func isObject(v any) bool { _, ok := v.(map[string]any); return ok }
