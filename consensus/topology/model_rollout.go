package topology

// MaxHistory is how many versions of an app are remembered with what they
// embody, so that a user can go back to them.
const MaxHistory = 10

// Rollout is the change of an app that is under way, or how the last one ended:
// a change of its version, or a restart. It is all that a new leader needs to
// go on with it; how long copies have been ready or not, their hosts know.
type Rollout struct {
	Version string  `json:"version,omitempty"` // the version being rolled to: always the app's
	From    string  `json:"from,omitempty"`    // the version that was stable when it began
	Started uint64  `json:"started,omitempty"` // index of the command that began it
	Phase   Phase   `json:"phase,omitempty"`
	Outcome Outcome `json:"outcome,omitempty"` // empty: under way
	// Back is set on the way back to an earlier version, which needs no canary.
	Back   bool   `json:"back,omitempty"`
	Failed string `json:"failed,omitempty"` // the version that was given up, on the way back from it
	Reason string `json:"reason,omitempty"` // the first failure
	// InPlace is set when surge copies were found to take the room that the
	// copies to be changed need: there are none any more.
	InPlace bool `json:"in_place,omitempty"`
	// Waits is since which index it waits for room; 0: it does not.
	Waits uint64 `json:"waits,omitempty"`
	// SmokeN is the copy whose host runs the smoke checks and SmokeID what tells
	// this run from others; 0: none.
	SmokeN  int    `json:"smoke_n,omitempty"`
	SmokeID uint64 `json:"smoke_id,omitempty"`
}

// Phase is a step of a rollout.
type Phase string

// The phases of a rollout. A restart, a first placement, and what no leader has
// looked at yet have none.
const (
	PhaseCanary   Phase = "canary"   // the first few copies have to prove the version
	PhaseRolling  Phase = "rolling"  // the copies are changed, a few at a time
	PhaseBeside   Phase = "beside"   // blue-green: a second set of copies has to prove the version
	PhaseSmoke    Phase = "smoke"    // the copies are well, the smoke checks run
	PhaseRemoving Phase = "removing" // blue-green: the second set has taken over, the first one goes
)

// Outcome is how a rollout ended.
type Outcome string

// The outcomes of a rollout.
const (
	OutcomeDone       Outcome = "done"       // every copy has the version and is well
	OutcomeHeld       Outcome = "held"       // it failed, and nothing further is changed until a user says what
	OutcomeRolledBack Outcome = "rolledback" // it failed, and every copy has the version from before and is well
	OutcomeSuperseded Outcome = "superseded" // in a history: another version came before it ended
)

// Applied is one entry of an app's history: a version that a user asked for.
type Applied struct {
	Version string  `json:"version"`
	Index   uint64  `json:"index"`             // of the command
	At      int64   `json:"at,omitempty"`      // Unix seconds by the clock of the host that took the command; for display only
	Back    bool    `json:"back,omitempty"`    // by a rollback that a user asked for
	Outcome Outcome `json:"outcome,omitempty"` // empty: under way
	Reason  string  `json:"reason,omitempty"`  // why it failed
}

// Trial reports whether the rollout is under way and is of a version that has to
// prove itself against an earlier one.
func (r Rollout) Trial() bool { return r.Outcome == "" && r.Phase != "" && r.Failed == "" }

// onTrial reports whether the app's version has yet to prove itself against an
// earlier one that did.
func (a App) onTrial() bool {
	return a.Stable != "" && a.Stable != a.Version
}

// smoking reports whether the host of copy n is to run the smoke checks.
func (r Rollout) smoking(n int) bool {
	return r.Phase == PhaseSmoke && r.Outcome == "" && r.SmokeID != 0 && r.SmokeN == n
}
