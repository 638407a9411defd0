package reflexes

import (
	"fmt"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/intent/expr"
)

// Value is what a variable holds: flat, comparable, and made without
// allocating.
type Value = expr.Value

// Bool returns the value of b.
func Bool(b bool) Value { return expr.Bool(b) }

// Int returns the value of i.
func Int(i int64) Value { return expr.Int(i) }

// Float returns the value of f; of a NaN, nothing.
func Float(f float64) Value { return expr.Float(f) }

// Text returns the value of s. What senses report as text should be one of few
// strings that exist already: a new one is an allocation.
func Text(s string) Value { return expr.String(s) }

// Boot is an instant on the boot clock: the time since this host booted, which
// goes on while it is suspended. The wall clock takes no part in reflexes.
type Boot = time.Duration

// Scope is what a variable is a property of, and what a rule has one state
// machine for.
type Scope uint8

// The scopes. ScopeApp is all copies of an app on this host, ScopeCopy one of
// them.
const (
	ScopeHost Scope = iota + 1
	ScopeApp
	ScopeCopy
	ScopeLink
	ScopeDisk
	ScopeUnit
	ScopePeer
	ScopeSense
)

var scopeNames = [...]string{"", "host", "app", "copy", "link", "disk", "unit", "peer", "sense"}

// String returns the scope as it stands in a rule: "host", "link", ….
func (s Scope) String() string {
	if int(s) < len(scopeNames) && s != 0 {
		return scopeNames[s]
	}
	return fmt.Sprintf("scope %d", uint8(s))
}

// Target is one thing that facts are about and that rules act on: the host, a
// copy, a link. It is comparable.
type Target struct {
	Scope Scope
	// Name tells which: "" for the host, "web" for an app, "web/2" for a copy,
	// "eth0" for a link, the mount point of a disk, the name of a unit with its
	// suffix, the name of a peer's host, the name of a sense.
	Name string
}

// Host is the host itself.
func Host() Target { return Target{Scope: ScopeHost} }

// CopyTarget is the copy named id, as in "web/2".
func CopyTarget(id string) Target { return Target{ScopeCopy, id} }

// String prints the target as "copy:web/2", or "host".
func (t Target) String() string {
	if t.Name == "" {
		return t.Scope.String()
	}
	return t.Scope.String() + ":" + t.Name
}

// ParseTarget reads what String prints.
func ParseTarget(s string) (Target, error) {
	word, name, _ := strings.Cut(s, ":")
	for i, n := range scopeNames {
		if n == word && i != 0 && (name == "") == (Scope(i) == ScopeHost) {
			return Target{Scope(i), name}, nil
		}
	}
	return Target{}, fmt.Errorf("target %.60q: want host, or SCOPE:NAME as in copy:web/2 or link:eth0", s)
}

// MarshalText implements encoding.TextMarshaler.
func (t Target) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Target) UnmarshalText(b []byte) (err error) {
	*t, err = ParseTarget(string(b))
	return err
}

// app is the app that a copy is of, or an app itself; else "".
func (t Target) app() string {
	switch t.Scope {
	case ScopeApp:
		return t.Name
	case ScopeCopy:
		app, _, _ := strings.Cut(t.Name, "/")
		return app
	}
	return ""
}

// CauseKind tells why a fact is as it is, where somebody knows.
type CauseKind uint8

// The kinds of cause. Only what came by itself triggers rules; CauseAct and
// CauseChain may trigger other rules than those in the chain, if that is short.
const (
	CauseNone      CauseKind = iota // by itself, as far as anyone knows
	CauseRequested                  // a user asked for it: stop, restart, drain
	CauseDeploy                     // a rollout, a move or an update of ours did it
	CauseAct                        // an act of a reflex did it; Act tells which
	CauseChain                      // acts of reflexes led to it, on whatever host; Chain tells of which
)

var causeNames = [...]string{"", "requested", "deploy", "act", "chain"}

// String returns the kind as it stands in a story; "" for CauseNone.
func (k CauseKind) String() string {
	if int(k) < len(causeNames) {
		return causeNames[k]
	}
	return fmt.Sprintf("cause %d", uint8(k))
}

// Cause is why a fact is as it is.
type Cause struct {
	Kind CauseKind
	Act  ActID `json:",omitempty"` // of CauseAct
	// Chain, of CauseChain, are the names of the rules whose acts led to it, in
	// their order, with commas between.
	Chain string `json:",omitempty"`
}

// ActID names an act of this host's engine. It rises over restarts of the agent
// and boots, as long as the engine's state is kept.
type ActID uint64

// Fact is what a sense saw of one variable of one target. Facts are values: a
// sense that tells one twice, or tells again what it told before a restart,
// does no harm.
//
// Edges (an exit, a link going down) are told by a counter: a variable with
// Edge set, whose value is how many there have been of this target, and only
// rises. So none is lost whatever is dropped or folded on the way: a rise by
// three is three edges, of which the last is known in detail. A counter that
// falls began anew. The variables that tell of the last edge (those With the
// counter) come directly before their counter, with the same At.
type Fact struct {
	Var    VarID
	Target Target
	Value  Value // nothing known: the sense can no longer tell, at once Unknown
	At     Boot  // when it was seen, not when it was delivered
	Cause  Cause
}

// String prints the fact as it stands in a story: "copy:web/2 exit.count = 3".
func (f Fact) String() string {
	s := fmt.Sprintf("%s %s = %s", f.Target, f.Var, f.Value)
	switch f.Cause.Kind {
	case CauseNone:
		return s
	case CauseAct:
		return fmt.Sprintf("%s by act %d", s, f.Cause.Act)
	case CauseChain:
		return s + " by chain " + f.Cause.Chain
	}
	return s + " by " + f.Cause.Kind.String()
}

// Exit is how a copy's process ended.
type Exit struct {
	Copy   string // "web/2"
	Count  int64  // exits of this copy so far, this one among them
	Code   int64  // -1 where a signal ended it, or the kernel cannot say
	Signal string // "SIGKILL"; "" if none did, or the kernel cannot say
	Ran    time.Duration
	OOM    bool // the kernel killed it for want of memory
	At     Boot
	Cause  Cause
}

// Facts appends what e says, in the order that the engine asks for.
func (e Exit) Facts(to []Fact) []Fact {
	t := CopyTarget(e.Copy)
	return append(to,
		Fact{AppRunning, t, Bool(false), e.At, e.Cause},
		Fact{ExitCode, t, Int(e.Code), e.At, e.Cause},
		Fact{ExitSignal, t, Text(e.Signal), e.At, e.Cause},
		Fact{ExitRan, t, Float(e.Ran.Seconds()), e.At, e.Cause},
		Fact{ExitOOM, t, Bool(e.OOM), e.At, e.Cause},
		Fact{ExitCount, t, Int(e.Count), e.At, e.Cause},
	)
}
