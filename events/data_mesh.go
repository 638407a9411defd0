package events

import "encoding/json"

// RolloutStarted: a new version of an app is being brought out.
type RolloutStarted struct {
	Version  string `json:"version"`            // new version
	Previous string `json:"previous,omitempty"` // version that runs now
	Copies   int    `json:"copies"`             // copies to change
}

// RolloutProgressed: one more step of a rollout is done.
type RolloutProgressed struct {
	Version string `json:"version"`         // new version
	Phase   string `json:"phase,omitempty"` // canary, rolling, beside, smoke or removing
	Updated int    `json:"updated"`         // copies that run it
	Ready   int    `json:"ready"`           // of these, how many pass their checks
	Want    int    `json:"want"`            // copies wanted in all
}

// RolloutDone: every wanted copy runs the version and is ready.
type RolloutDone struct {
	Version string `json:"version"` // version that now runs
	TookMS  int64  `json:"took_ms"` // time from started to done
}

// RolloutFailed: the new version failed; the rollout goes no further with it.
type RolloutFailed struct {
	Version string `json:"version"` // version that failed
	Reason  string `json:"reason"`  // which copy failed first, where, why, and its last output
}

// RolloutRolledback: the app is back on its earlier version.
type RolloutRolledback struct {
	Version string `json:"version"` // version that was given up
	To      string `json:"to"`      // version that runs again
	Reason  string `json:"reason"`  // why
}

// RolloutHeld: the rollout waits for a person.
type RolloutHeld struct {
	Version string `json:"version"` // version in question
	Reason  string `json:"reason"`  // why, and what would release it
}

// ReflexFired: a rule's condition held and its action was taken.
type ReflexFired struct {
	Rule            string                     `json:"rule"`               // name of the rule
	App             string                     `json:"app,omitempty"`      // app that the rule is in
	Target          string                     `json:"target,omitempty"`   // what it was about, e.g. copy:web/2
	Act             uint64                     `json:"act,omitempty"`      // number of the act on this host; none is used twice
	Facts           map[string]json.RawMessage `json:"facts"`              // values the rule saw
	Action          string                     `json:"action"`             // what was done, e.g. restart("cache")
	Emits           []ReflexEmit               `json:"emits,omitempty"`    // what the rule's emit actions say
	Result          string                     `json:"result"`             // ok, or the error
	Output          string                     `json:"output,omitempty"`   // end of what a hook wrote, at most 2 KiB
	SensedToActedUS int64                      `json:"sensed_to_acted_us"` // from the fact to the act
}

// ReflexEmit is what one emit action says.
type ReflexEmit struct {
	Name     string `json:"name"`               // as declared
	Severity string `json:"severity,omitempty"` // as declared
}

// ReflexObserved: a rule that only observes, or is not in force on this host yet, would
// have fired.
type ReflexObserved struct {
	Rule   string                     `json:"rule"`             // name of the rule
	App    string                     `json:"app,omitempty"`    // app that the rule is in
	Target string                     `json:"target,omitempty"` // what it was about
	Facts  map[string]json.RawMessage `json:"facts"`            // values the rule saw
	Action string                     `json:"action"`           // what it would have done
	Reason string                     `json:"reason,omitempty"` // which rail would have kept it from that
}

// ReflexSuppressed: a rule's condition held and a rail kept it from acting.
type ReflexSuppressed struct {
	Rule       string                     `json:"rule"`                  // name of the rule
	App        string                     `json:"app,omitempty"`         // app that the rule is in
	Target     string                     `json:"target,omitempty"`      // what it was about
	Facts      map[string]json.RawMessage `json:"facts"`                 // values the rule saw
	Action     string                     `json:"action"`                // what was not done
	Reason     string                     `json:"reason"`                // which rail, and its numbers
	NeedsHuman bool                       `json:"needs_human,omitempty"` // a person has to look
}

// ReflexCleared: the condition of a rule that had fired no longer holds.
type ReflexCleared struct {
	Rule   string `json:"rule"`             // name of the rule
	App    string `json:"app,omitempty"`    // app that the rule is in
	Target string `json:"target,omitempty"` // what it was about
	HeldMS int64  `json:"held_ms"`          // how long it had held
}

// ReflexStaged: a reflex that reaches beyond the copies of its host, and is new or was
// changed, is in force on other hosts than before.
type ReflexStaged struct {
	Rule  string   `json:"rule"`            // name of the rule
	App   string   `json:"app,omitempty"`   // app that the rule is in
	Stage string   `json:"stage"`           // none (another first host is looked for), host, part, all (for a last look) or done
	Hosts []string `json:"hosts,omitempty"` // on which it is in force, of host and part
	Zone  string   `json:"zone,omitempty"`  // that these are of
}

// ReflexReverted: a staged reflex was taken back: it is in force nowhere, until it is
// declared again.
type ReflexReverted struct {
	Rule   string `json:"rule"`             // name of the rule
	App    string `json:"app,omitempty"`    // app that the rule is in
	Reason string `json:"reason"`           // what went wrong, and on which host
	Former bool   `json:"former,omitempty"` // the version before is in force everywhere
}

// LeaderElected: the host became the leader.
type LeaderElected struct {
	Term   uint64 `json:"term"`             // Raft term
	Voters int    `json:"voters,omitempty"` // size of the quorum's set
}

// LeaderLost: the host is no longer the leader.
type LeaderLost struct {
	Term   uint64 `json:"term"`             // Raft term that ended
	Reason string `json:"reason,omitempty"` // why, if known
}

// IntentApplied: an intent was declared or changed.
type IntentApplied struct {
	Kind   string   `json:"kind"`             // app or reflex
	Op     string   `json:"op"`               // add or change
	Fields []string `json:"fields,omitempty"` // paths that changed
	By     string   `json:"by,omitempty"`     // who declared it
}

// IntentRemoved: an intent was taken back.
type IntentRemoved struct {
	Kind string `json:"kind"`         // app or reflex
	By   string `json:"by,omitempty"` // who removed it
}

// MeshChanged: a setting of the whole mesh is another now.
type MeshChanged struct {
	Setting string `json:"setting"`        // rebalance, reflex_stage, signatures (whether packages must be signed), or keys (whose signatures count)
	From    string `json:"from,omitempty"` // as users write it; of keys: name and key of one that is not trusted any more
	To      string `json:"to,omitempty"`   // likewise; of keys: name and key of one that is trusted from now on
	By      string `json:"by,omitempty"`   // who changed it
}

// MeshMissed: decisions were made of which nothing can be told any more.
type MeshMissed struct {
	Decisions uint64 `json:"decisions"` // how many events it would have been
}

// FreezeFrozen: the host has stopped all automatic action.
type FreezeFrozen struct {
	Epoch uint64   `json:"epoch"`          // freeze epoch
	Hard  bool     `json:"hard"`           // restarts in place stopped too
	Apps  []string `json:"apps,omitempty"` // only these; empty means all
	By    string   `json:"by,omitempty"`   // who froze it
}

// FreezeThawed: the host acts again.
type FreezeThawed struct {
	Epoch uint64 `json:"epoch"`        // epoch of the thaw
	By    string `json:"by,omitempty"` // who thawed it
}

// EventType implements Payload.
func (RolloutStarted) EventType() string { return "rollout.started" }

// EventType implements Payload.
func (RolloutProgressed) EventType() string { return "rollout.progressed" }

// EventType implements Payload.
func (RolloutDone) EventType() string { return "rollout.done" }

// EventType implements Payload.
func (RolloutFailed) EventType() string { return "rollout.failed" }

// EventType implements Payload.
func (RolloutRolledback) EventType() string { return "rollout.rolledback" }

// EventType implements Payload.
func (RolloutHeld) EventType() string { return "rollout.held" }

// EventType implements Payload.
func (ReflexFired) EventType() string { return "reflex.fired" }

// EventType implements Payload.
func (ReflexObserved) EventType() string { return "reflex.observed" }

// EventType implements Payload.
func (ReflexSuppressed) EventType() string { return "reflex.suppressed" }

// EventType implements Payload.
func (ReflexCleared) EventType() string { return "reflex.cleared" }

// EventType implements Payload.
func (ReflexStaged) EventType() string { return "reflex.staged" }

// EventType implements Payload.
func (ReflexReverted) EventType() string { return "reflex.reverted" }

// EventType implements Payload.
func (LeaderElected) EventType() string { return "leader.elected" }

// EventType implements Payload.
func (LeaderLost) EventType() string { return "leader.lost" }

// EventType implements Payload.
func (IntentApplied) EventType() string { return "intent.applied" }

// EventType implements Payload.
func (IntentRemoved) EventType() string { return "intent.removed" }

// EventType implements Payload.
func (MeshChanged) EventType() string { return "mesh.changed" }

// EventType implements Payload.
func (MeshMissed) EventType() string { return "mesh.missed" }

// EventType implements Payload.
func (FreezeFrozen) EventType() string { return "freeze.frozen" }

// EventType implements Payload.
func (FreezeThawed) EventType() string { return "freeze.thawed" }
