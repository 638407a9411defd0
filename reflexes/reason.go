package reflexes

import "fmt"

// Reason is why something was not done, or is not decided.
type Reason uint8

// The reasons. Each has a text for people.
const (
	ReasonNone        Reason = iota
	ReasonRequested          // a user asked for what happened
	ReasonDeploying          // a deploy did it, or is going on
	ReasonOwnAct             // this rule itself did it, perhaps by way of others
	ReasonDepth              // two acts stand before it in the chain of causes
	ReasonMuted              // maintenance
	ReasonSettling           // an act has just been taken on the target
	ReasonCooldown           // the rule's cooldown
	ReasonBackoff            // the target's back-off
	ReasonLimit              // the rule's limit
	ReasonHostLimit          // the host's limit
	ReasonBusy               // another act on the target is under way
	ReasonPriority           // another rule acts on the target
	ReasonNoEffect           // acts brought no improvement
	ReasonFrozen             // the mesh, or the app, is frozen
	ReasonDoubt              // this host did not run for a while and mistrusts itself
	ReasonCorrelated         // the same rule fires on other hosts
	ReasonGate               // too many hosts look unhealthy
	ReasonDeadMan            // no leader has permitted it for too long
	ReasonTokens             // no token of the mesh's budget is held
	ReasonDisruption         // too few copies would be left
	ReasonWitness            // nobody else has seen it
	ReasonLease              // the lease for it is not held
	ReasonUnknown            // what the condition depends on is not known
	ReasonOver               // the condition no longer holds
	ReasonGone               // the rule or its target is gone or has changed
	ReasonIncapable          // this host cannot do it
	ReasonMeaningless        // the condition has no meaning for the values there are
	ReasonObserve            // the rule only observes
	ReasonAsking             // a leader is being asked
	ReasonNeedless           // there is nothing to do
	ReasonListening          // other hosts may be about to say that they want the same
	ReasonStaged             // the rule is new, or was changed, and not in force on this host
)

var reasonTexts = [...]string{
	ReasonNone:        "",
	ReasonRequested:   "it was asked for",
	ReasonDeploying:   "a deploy is at work",
	ReasonOwnAct:      "the rule's own act caused it",
	ReasonDepth:       "two acts already stand in the chain of causes",
	ReasonMuted:       "muted for maintenance",
	ReasonSettling:    "the target settles after an act",
	ReasonCooldown:    "the rule cools down",
	ReasonBackoff:     "the target's back-off",
	ReasonLimit:       "the rule's limit is used up",
	ReasonHostLimit:   "the host's limit is used up",
	ReasonBusy:        "an act on the target is under way",
	ReasonPriority:    "another rule acts on the target",
	ReasonNoEffect:    "its acts brought no improvement; a person has to look",
	ReasonFrozen:      "frozen",
	ReasonDoubt:       "this host did not run for a while and mistrusts itself",
	ReasonCorrelated:  "the same rule fires on other hosts: a common cause",
	ReasonGate:        "too many hosts look unhealthy",
	ReasonDeadMan:     "no leader has permitted it for ten minutes",
	ReasonTokens:      "no token of the mesh's budget is held",
	ReasonDisruption:  "too few ready copies would be left",
	ReasonWitness:     "nobody else has seen it",
	ReasonLease:       "the lease for it is not held",
	ReasonUnknown:     "a variable is not known",
	ReasonOver:        "the condition no longer holds",
	ReasonGone:        "the rule or its target is gone or has changed",
	ReasonIncapable:   "this host cannot do it",
	ReasonMeaningless: "the condition has no meaning for the values there are",
	ReasonObserve:     "the rule only observes",
	ReasonAsking:      "a leader is being asked for a token of the mesh's budget",
	ReasonListening:   "listening whether other hosts want the same",
	ReasonStaged:      "not yet in force on this host",
	ReasonNeedless:    "what it would do is done, or under way",
}

// String returns the reason for people.
func (r Reason) String() string {
	if int(r) < len(reasonTexts) {
		return reasonTexts[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// OutcomeKind is what happened to a rule.
type OutcomeKind uint8

// The kinds of outcome. The first four are events of the same name; Unknown,
// Exhausted and Off are told as suppressed, with a call for a person.
const (
	Fired      OutcomeKind = iota + 1 // an act has begun
	Observed                          // a rule that only observes would have acted
	Suppressed                        // it wants to act and may not, for Reason
	Cleared                           // it is over
	Undecided                         // the condition has been Unknown for long
	Exhausted                         // it goes on, slowly; a person has to look
	Off                               // it acts no more on the target; a person has to look
	Finished                          // an act has ended
)

var outcomeNames = [...]string{"", "fired", "observed", "suppressed", "cleared", "undecided", "exhausted", "off", "finished"}

// String returns the kind as it stands in a story.
func (k OutcomeKind) String() string { return outcomeNames[min(int(k), len(outcomeNames)-1)] }

// Outcome is one thing to tell of a rule and a target. It is a value; its
// slices are good until the next call of the engine.
type Outcome struct {
	Kind   OutcomeKind
	Reason Reason // of what was not done; of Observed, what would have kept it
	Rule   string
	Target Target // what the rule was about
	Action string // "restart(\"web\")"; "" if none is meant
	Act    ActID  // of Fired and Finished
	At     Boot
	Sensed Boot   // of Fired: when the last fact that led to it was seen
	Held   Boot   // of Cleared: for how long it had held
	Retry  Boot   // of Suppressed: when it is tried again; 0 if that depends on others
	Since  int    // of Suppressed: how often it was refused for Reason since that was last told
	Facts  []Fact // what the rule saw
	Var    VarID  // of Undecided: what is not known
	OK     bool   // of Finished
	Detail string // of Finished: what went wrong; of ReasonPriority: the other rule; of ReasonTokens: what the leader said; of ReasonStaged: how far the rule is
	Stage  uint64 // Staging.ID of the rule
	Chain  string // rules whose acts led to it and, last, Rule, with commas between
}

// NeedsHuman tells that a person has to look.
func (o *Outcome) NeedsHuman() bool {
	return o.Kind == Exhausted || o.Kind == Off
}
