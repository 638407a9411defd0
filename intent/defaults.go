package intent

import "slices"

// The kinds of app.
const (
	KindReplicated = "replicated"
	KindPerHost    = "per_host"
	KindSingleton  = "singleton"
	KindSchedule   = "schedule"
	KindOnce       = "once"
)

// Kind tells how the app's copies are counted: replicated, per_host,
// singleton, schedule or once.
func (a App) Kind() string {
	switch {
	case a.PerHost:
		return KindPerHost
	case a.Singleton:
		return KindSingleton
	case a.Schedule != "":
		return KindSchedule
	case a.Once:
		return KindOnce
	}
	return KindReplicated
}

// Copies is how many copies the whole mesh should run: Count of a replicated
// app, 1 of a singleton and a one-shot. It is 0 where the number is not the
// declaration's to say: per_host depends on the hosts, schedule on the time.
func (a App) Copies() int {
	switch a.Kind() {
	case KindReplicated:
		if a.Count != nil {
			return *a.Count
		}
		return 1
	case KindSingleton, KindOnce:
		return 1
	}
	return 0
}

// Normalize returns in with every default filled. It does not change in.
func (in Intents) Normalize() Intents {
	in.Apps = slices.Clone(in.Apps)
	for i := range in.Apps {
		in.Apps[i] = in.Apps[i].WithDefaults()
	}
	in.Reflexes, in.Senses = normalReflexes(in.Reflexes), normalSenses(in.Senses)
	return in
}

func normalReflexes(list []Reflex) []Reflex {
	list = slices.Clone(list)
	for i := range list {
		orElse(&list[i].Mode, ModeEnforce)
	}
	return list
}

// WithDefaults returns a with every default of the reference filled. It is
// idempotent, and shares no memory that it changes with a.
func (a App) WithDefaults() App {
	if a.Kind() == KindReplicated && a.Count == nil {
		one := 1
		a.Count = &one
	}
	a.Checks = slices.Clone(a.Checks)
	for i := range a.Checks {
		a.Checks[i] = a.Checks[i].withDefaults(a.onlyPort())
	}
	orElse(&a.Restart.Limit, 5)
	orElse(&a.Restart.Window, 10*Minute)
	orElse(&a.Restart.BackoffMax, 60*Second)
	orElse(&a.Update.Strategy, StrategyRolling)
	orElse(&a.Update.Parallel, 1)
	orElse(&a.Update.HealthyFor, 5*Second)
	orElse(&a.Update.Deadline, 2*Minute)
	orElse(&a.Update.OnFailure, OnFailureRollback)
	orElse(&a.Disconnect.Policy, DisconnectReplace)
	orElse(&a.Disconnect.Grace, 5*Second)
	orElse(&a.Stop.Signal, "SIGTERM")
	orElse(&a.Stop.Grace, 10*Second)
	a.Reflexes = normalReflexes(a.Reflexes)
	return a
}

// withDefaults fills a check. A smoke check runs once after a rollout, so that
// how often, how patiently and to what end a standing check repeats is not for
// it.
func (c Check) withDefaults(onlyPort string) Check {
	orElse(&c.Timeout, Second)
	if c.Type == CheckSmoke {
		return c
	}
	orElse(&c.Every, 5*Second)
	orElse(&c.Grace, 10*Second)
	orElse(&c.Failures, 3)
	if c.Live == nil {
		yes := true
		c.Live = &yes
	}
	if c.Type == CheckHTTP {
		orElse(&c.Path, "/")
	}
	if c.Type == CheckHTTP || c.Type == CheckTCP {
		orElse(&c.Port, onlyPort)
	}
	return c
}

// onlyPort is the name of the app's port if it has exactly one.
func (a App) onlyPort() string {
	if len(a.Ports) == 1 {
		for name := range a.Ports {
			return name
		}
	}
	return ""
}

func orElse[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}
