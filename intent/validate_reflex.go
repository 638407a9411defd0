package intent

import (
	"fmt"
	"time"
)

// actionTargets tells for each action whether it has a target: a copy's app
// for some, the event, URL, program or name for others.
var actionTargets = map[string]targeting{
	"restart": targetOptional, "stop": targetOptional, "signal": targetOptional, "throttle": targetOptional,
	"evict": targetOptional, "drain_self": targetNone,
	"run": targetRequired, "emit": targetRequired, "webhook": targetRequired, "claim": targetRequired,
}

type targeting int

const (
	targetOptional targeting = iota // empty: the app that the reflex is bound to
	targetRequired
	targetNone
)

// ActionOps returns the names of all actions, sorted.
func ActionOps() []string { return sortedKeys(actionTargets) }

func checkReflexes(f field, list []Reflex) {
	if len(list) > MaxReflexes {
		f.fail("%d reflexes; at most %d are allowed", len(list), MaxReflexes)
		return
	}
	seen := make(map[string]bool)
	for i, r := range list {
		r.check(f.item(i))
		if seen[r.Name] && r.Name != "" {
			f.item(i).at("name").fail("%s is declared twice", quote(r.Name))
		}
		seen[r.Name] = true
	}
}

func (r Reflex) check(f field) {
	f.at("name").failIf(CheckName(r.Name))
	f.at("when").expression(r.When)
	if r.Clear != "" {
		f.at("clear").expression(r.Clear)
	}
	f.at("for").span(r.For)
	f.at("clear_for").span(r.ClearFor)
	f.at("max_age").span(r.MaxAge)
	f.at("cooldown").span(r.Cooldown)
	f.at("scope").text(r.Scope, MaxText)
	if r.Mode != "" {
		f.at("mode").word(r.Mode, ModeEnforce, ModeObserve)
	}
	if r.Limit != "" {
		f.at("limit").failIf(checkRate(r.Limit))
	}
	act := f.at("act")
	switch n := len(r.Act); {
	case n == 0:
		act.fail("at least one action is required, as in [restart(\"web\")]")
	case n > MaxActions:
		act.fail("%d actions; at most %d are allowed", n, MaxActions)
	default:
		for i, a := range r.Act {
			a.check(act.item(i))
		}
	}
}

func (a Action) check(f field) {
	targets, known := actionTargets[a.Op]
	if !known {
		f.at("op").fail("%s is not an action: %s", quote(a.Op), oneOf(a.Op, ActionOps()))
		return
	}
	switch {
	case targets == targetRequired && a.Target == "":
		f.at("target").fail("%s needs something to act on", a.Op)
	case targets == targetNone && a.Target != "":
		f.at("target").fail("%s acts on this host and takes no target", a.Op)
	}
	f.at("target").text(a.Target, MaxText)
	args := f.at("args")
	if len(a.Args) > MaxActions {
		args.fail("%d arguments; at most %d are allowed", len(a.Args), MaxActions)
		return
	}
	for _, k := range sortedKeys(a.Args) {
		args.text(k, MaxName)
		args.text(a.Args[k], MaxText)
	}
	switch a.Op {
	case "signal":
		args.word(a.Args["signal"], signals...)
	case "webhook":
		_, err := a.Webhook()
		f.at("target").failIf(err)
	case "run":
		_, err := a.Hook()
		f.failIf(err)
	case "throttle":
		_, err := a.Throttle()
		args.failIf(err)
	case "claim":
		args.failIf(a.known())
		if a.Target != "" {
			_, err := a.Address()
			f.at("target").failIf(err)
		}
	}
}

// checkRate judges "3/10m": so many within so long.
func checkRate(s string) error {
	m := limitForm.FindStringSubmatch(s)
	if m != nil {
		if d, err := time.ParseDuration(m[1]); err == nil && d > 0 && Duration(d) <= MaxSpan {
			return nil
		}
	}
	return fmt.Errorf("%s is not a limit such as 3/10m, three in ten minutes", quote(s))
}
