package workload

import "time"

// State is a step of a copy's ladder, as users see it.
type State string

// The states of a copy under supervision.
const (
	StatePending  State = "pending"
	StateStarting State = "starting"
	StateRunning  State = "running"
	StateBackoff  State = "backoff"
	StateStopping State = "stopping"
	StateStopped  State = "stopped"
	StateFailed   State = "failed"
)

// Target is what one copy should be.
type Target struct {
	Version    string
	Generation uint64
	Policy     Policy
	Stopped    string // why it should not run although it is placed; empty: it should run
}

// Input is something that happened to a copy. It is one of Want, Adopted,
// Recalled, Started, StartFailed, Exited, StopEnded, Probed, RestartAsked and
// Tick.
type Input interface{ input() }

type (
	// Want is a new target. Nil means that this host should not have the copy.
	Want struct{ Target *Target }
	// Adopted is a running copy found from an earlier life of the agent. It is
	// the first input but for Recalled, if it comes at all.
	Adopted struct{ Instance Instance }
	// Recalled is what an earlier life of the agent remembered of the copy. It is
	// the first input, if it comes at all.
	Recalled struct{ Memory Memory }
	// Started answers a Start.
	Started struct{ Instance Instance }
	// StartFailed answers a Start that did not succeed.
	StartFailed struct {
		Kind Failure
		Why  string
	}
	// Exited is an end of the copy that no Stop asked for.
	Exited struct{ Exit Exit }
	// StopEnded answers a Stop. Err is why it did not succeed.
	StopEnded struct {
		Exit Exit
		Err  error
	}
	// Probed is the result of probing check number Check.
	Probed struct {
		Check   int
		Outcome Outcome
		Why     string
		Timeout bool // it failed because no answer came in time
	}
	// RestartAsked asks for a restart now, back-off or not. Why is told as the
	// reason of the stop; empty: somebody asked.
	RestartAsked struct{ Why string }
	// Tick is that time has passed.
	Tick struct{}
)

func (Want) input()         {}
func (Adopted) input()      {}
func (Recalled) input()     {}
func (Started) input()      {}
func (StartFailed) input()  {}
func (Exited) input()       {}
func (StopEnded) input()    {}
func (Probed) input()       {}
func (RestartAsked) input() {}
func (Tick) input()         {}

// Failure is what kind of thing kept a copy from starting.
type Failure int

// The kinds of failure.
const (
	// FailedNow may succeed next time: it counts like an exit.
	FailedNow Failure = iota
	// FailedForGood will fail again unless somebody changes something. It is
	// told at once and still tried again, slowly, in case it was fixed.
	FailedForGood
	// FailedPort is a dynamic port that something else holds. The leader picks
	// another; nothing is wrong with this version.
	FailedPort
	// FailedWaiting is something of our own that is about to make way.
	FailedWaiting
)

// Output is what a Step asks for: the actions in order, and when to Step again
// at the latest (zero: no need).
type Output struct {
	Actions []Action
	Wake    time.Time
}

// Action is one thing to do for a copy. It is one of Tell, Start, Stop and
// Probe.
type Action interface{ action() }

type (
	// Tell is an event for the story. It comes before the Start that it leads
	// to, and must not delay it.
	Tell struct{ Note Note }
	// Start asks for start number N; answer with Started or StartFailed. Fast
	// means that a copy which ran a moment ago is to run again: nothing may be
	// looked at before the exec.
	Start struct {
		N    int
		Fast bool
	}
	// Stop asks for the end of the running copy by its stop rule; answer with
	// StopEnded.
	Stop struct{ Rule StopRule }
	// Probe asks to probe a check; answer with Probed.
	Probe struct{ Check int }
)

func (Tell) action()  {}
func (Start) action() {}
func (Stop) action()  {}
func (Probe) action() {}

// NoteKind names an event in the life of a copy.
type NoteKind string

// The events of a copy, named as on the wire.
const (
	NoteStarted    NoteKind = "started"
	NoteReady      NoteKind = "ready"
	NoteUnhealthy  NoteKind = "unhealthy"
	NoteExited     NoteKind = "exited"
	NoteFenced     NoteKind = "fenced"
	NoteRestarted  NoteKind = "restarted"
	NoteStopped    NoteKind = "stopped"
	NoteNeedsHuman NoteKind = "needs_human"
)

// Note is an event: which of the fields hold depends on its kind.
type Note struct {
	Kind     NoteKind
	Cause    NoteKind      // the last event of that kind led to this one; empty: none did
	Instance Instance      // started, ready, restarted: what runs; else: what ran
	Exit     Exit          // exited, fenced, stopped
	After    time.Duration // ready: since the start; restarted: since the end before it
	By       string        // restarted: "agent", "pid1" or "keeper"
	Why      string        // unhealthy, stopped, needs_human
	Check    string        // unhealthy: which check
	Count    int           // unhealthy: failures in a row; needs_human: restarts within the window
}
