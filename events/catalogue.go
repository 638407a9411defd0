package events

import "strings"

// Kind describes one event of the catalogue.
type Kind struct {
	Type    string         // "app.started"
	Subject string         // form of its CloudEvents subject, "app/*/*"
	New     func() Payload // pointer to a fresh struct of its data
}

// Area is the first part of the type: host, app, rollout, ….
func (k Kind) Area() string { area, _, _ := strings.Cut(k.Type, "."); return area }

// What is the last part of the type: started, exited, ….
func (k Kind) What() string { _, what, _ := strings.Cut(k.Type, "."); return what }

// takes reports whether a CloudEvents subject has the kind's form.
func (k Kind) takes(subject string) bool {
	for {
		want, wantRest, wantMore := strings.Cut(k.Subject, "/")
		got, gotRest, gotMore := strings.Cut(subject, "/")
		if wantMore != gotMore || (want == "*" && !isName(got)) || (want != "*" && want != got) {
			return false
		}
		if !wantMore {
			return true
		}
		k.Subject, subject = wantRest, gotRest
	}
}

// isName reports whether s is a name as every name in a mesh has to be. It
// keeps subjects from gaining tokens, wildcards or escapes.
func isName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// kindOf builds the catalogue entry of one data struct.
func kindOf[T any, P interface {
	*T
	Payload
}](subject string) Kind {
	fresh := func() Payload { return P(new(T)) }
	return Kind{Type: fresh().EventType(), Subject: subject, New: fresh}
}

// Catalogue lists every event there is, in the order of EVENTS.md.
func Catalogue() []Kind {
	const (
		host, app, rollout = "host/*", "app/*/*", "rollout/*"
		reflex, leader     = "reflex/*/*", "leader/*"
		intent, freeze     = "intent/*", "freeze/*"
		mesh               = "mesh/*"
	)
	return []Kind{
		kindOf[HostJoined](host), kindOf[HostSuspect](host), kindOf[HostFailed](host),
		kindOf[HostRecovered](host), kindOf[HostLeft](host), kindOf[HostDraining](host),
		kindOf[HostDrained](host), kindOf[HostRemoved](host), kindOf[HostVitals](host),
		kindOf[HostPaused](host),

		kindOf[AppPlaced](app), kindOf[AppUnplaced](app), kindOf[AppStarted](app),
		kindOf[AppReady](app), kindOf[AppUnhealthy](app), kindOf[AppExited](app),
		kindOf[AppRestarted](app), kindOf[AppStopped](app), kindOf[AppMoved](app),
		kindOf[AppFenced](app), kindOf[AppNeedsHuman](app),

		kindOf[RolloutStarted](rollout), kindOf[RolloutProgressed](rollout), kindOf[RolloutDone](rollout),
		kindOf[RolloutFailed](rollout), kindOf[RolloutRolledback](rollout), kindOf[RolloutHeld](rollout),

		kindOf[ReflexFired](reflex), kindOf[ReflexObserved](reflex), kindOf[ReflexSuppressed](reflex),
		kindOf[ReflexCleared](reflex), kindOf[ReflexStaged](reflex), kindOf[ReflexReverted](reflex),

		kindOf[LeaderElected](leader), kindOf[LeaderLost](leader),
		kindOf[IntentApplied](intent), kindOf[IntentRemoved](intent),
		kindOf[FreezeFrozen](freeze), kindOf[FreezeThawed](freeze),
		kindOf[MeshChanged](mesh), kindOf[MeshMissed](mesh),
	}
}

// kindsByType indexes the catalogue.
func kindsByType() map[string]Kind {
	m := make(map[string]Kind)
	for _, k := range Catalogue() {
		m[k.Type] = k
	}
	return m
}
