package reflexes

import (
	"fmt"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// Class is how far an action reaches, and so what has to hold before it is
// taken.
type Class uint8

// The classes. Tell only says something. A acts on what this host runs and
// needs this host's limits alone. B reaches further, and needs all rails.
const (
	ClassTell Class = iota + 1
	ClassA
	ClassB
)

var classNames = [...]string{"", "tell", "A", "B"}

// String returns "tell", "A" or "B".
func (c Class) String() string { return classNames[min(int(c), len(classNames)-1)] }

// MarshalText implements encoding.TextMarshaler.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Class) UnmarshalText(b []byte) error {
	for i, n := range classNames {
		if n == string(b) {
			*c = Class(i)
			return nil
		}
	}
	return fmt.Errorf("class %.20q: want tell, A or B", b)
}

// operation is what the engine knows of an action by its name.
type operation struct {
	class Class
	rank  uint8 // how much it disturbs: of two acts on one target the lesser goes first
	// against are operations that undo this one, or that it undoes.
	against []string
	onApp   bool // its target is an app, a copy or a unit
	durable bool // its record has to be on disk before it starts
	// leased says that a lease of the mesh stands for it, and that it lasts until the
	// matter is over. It takes nothing from anybody, for it has to be free to be leased:
	// it costs no token, and what several hosts want one of them gets.
	leased bool
}

var operations = map[string]operation{
	"emit":       {class: ClassTell},
	"webhook":    {class: ClassTell, rank: 1},
	"signal":     {class: ClassA, rank: 2, onApp: true},
	"throttle":   {class: ClassA, rank: 3, onApp: true},
	"run":        {class: ClassA, rank: 4, durable: true},
	"restart":    {class: ClassA, rank: 5, onApp: true, against: []string{"stop", "evict"}},
	"stop":       {class: ClassA, rank: 6, onApp: true, against: []string{"restart"}},
	"evict":      {class: ClassB, rank: 7, onApp: true, durable: true, against: []string{"restart"}},
	"claim":      {class: ClassB, rank: 8, durable: true, leased: true, against: []string{"drain_self"}},
	"drain_self": {class: ClassB, rank: 9, durable: true, against: []string{"claim"}},
}

// ClassOf returns the class of an action by its name; 0 if there is none.
func ClassOf(op string) Class { return operations[op].class }

// Rung is one step of a rule's ladder: at most one action that changes
// something, and what is told with it.
type Rung struct {
	Tell []intent.Action
	Do   intent.Action // Op "" on a rung that only tells
	op   operation
	text string
	// revives is what Revives tells.
	revives bool
	// app is the app, copy or unit that it acts on, where the rule's own target
	// is not it.
	app string
}

// Class is the class of what the rung does.
func (r *Rung) Class() Class { return r.op.class }

// Leased tells whether a lease of the mesh has to stand for what the rung does, which
// then lasts until the matter is over, or Lapsed is told.
func (r *Rung) Leased() bool { return r.op.leased }

// occupies tells whether an act of the rung keeps others from its target, and is kept
// by them: not one that only tells, nor one that only adds to it.
func (r *Rung) occupies() bool { return r.op.class != ClassTell && !r.op.leased }

// String prints the rung as users write it: restart("web").
func (r *Rung) String() string { return r.text }

// rungsOf orders the actions of a rule into its ladder. What tells stands with
// the next action that changes something, or makes a last rung of its own.
func rungsOf(list []intent.Action) []Rung {
	var out []Rung
	var tell []intent.Action
	for _, a := range list {
		op := operations[a.Op]
		if op.class == ClassTell {
			tell = append(tell, a)
			continue
		}
		out = append(out, Rung{Tell: tell, Do: a, op: op})
		tell = nil
	}
	if tell != nil {
		out = append(out, Rung{Tell: tell, op: operations["emit"]})
	}
	for i := range out {
		out[i].text = out[i].describe()
	}
	return out
}

func (r *Rung) describe() string {
	var words []string
	for _, a := range r.Tell {
		words = append(words, actionText(a))
	}
	if r.Do.Op != "" {
		words = append(words, actionText(r.Do))
	}
	return strings.Join(words, " + ")
}

func actionText(a intent.Action) string {
	s := a.Op + "("
	if a.Target != "" {
		s += `"` + a.Target + `"`
	}
	return s + ")"
}

// acts returns what the rung acts on when it is t's rule that fires.
func (r *Rung) acts(t Target) Target {
	switch {
	case !r.op.onApp || r.app == "":
		if r.op.class == ClassB && !r.op.onApp {
			return Host()
		}
		return t
	case strings.Contains(r.app, "/"):
		return Target{ScopeCopy, r.app}
	case t.app() == r.app:
		return t
	}
	return Target{ScopeApp, r.app}
}

// The times that rules do not say.
const (
	settle       = 5 * time.Second  // after an act the rule looks at nothing that the act may have caused
	resetAfter   = time.Minute      // of observed health until a target's back-off begins anew
	firstBackoff = time.Second      // wait before the second act on a target, doubling …
	maxBackoff   = time.Minute      // … up to this
	unanswered   = 10 * time.Second // a firing that nobody asked a permit for is fired anew
	actTimeout   = 5 * time.Minute  // an act whose result never came has an unknown one
	shoutEvery   = time.Minute      // how often a rule that is exhausted says so
	offEvery     = 10 * time.Minute // how often one that is off does
	tellEvery    = time.Minute      // how often the same refusal is told again
	noEffect     = 2                // acts on one rung without improvement, then the next rung or off
	manyTries    = 5                // ends of a copy in a row after which a person is called
	doubtFor     = time.Minute      // how long a host that did not run mistrusts itself
	gapDoubt     = 2 * time.Second  // how long it has to stand still for that
	deadMan      = 10 * time.Minute // a leader's permit older than this does not count
	listen       = 2 * time.Second  // how long it is listened, before what reaches further, whether others want the same
	tellOthers   = 10 * time.Second // how often others are told what is wanted
	correlated   = 3                // hosts on which one rule fires: a common cause
	maxDepth     = 2                // acts in a chain of causes
	maxLimit     = 1000             // acts that a limit may allow
)

// The limit of a host for acts that disturb something, whatever the rules, and
// of a rule that does not state its own.
var (
	hostLimit    = Limit{N: 20, Per: 10 * time.Minute}
	defaultLimit = Limit{N: 5, Per: 10 * time.Minute}
	tellLimit    = Limit{N: 30, Per: time.Minute}
)
