package topology

import "github.com/ganglion-mesh/ganglion/intent"

// Command is one change of the topology: exactly one field is set. It is what
// the leader proposes and what every voter applies.
type Command struct {
	Found        *Found          `json:"found,omitempty"`
	PutIntents   *PutIntents     `json:"put_intents,omitempty"`
	DeleteApp    *DeleteApp      `json:"delete_app,omitempty"`
	DeleteReflex *DeleteReflex   `json:"delete_reflex,omitempty"`
	DeleteSense  *DeleteSense    `json:"delete_sense,omitempty"`
	SetRunning   *SetRunning     `json:"set_running,omitempty"`
	RestartApp   *RestartApp     `json:"restart_app,omitempty"`
	EnrolHost    *EnrolHost      `json:"enrol_host,omitempty"`
	RemoveHost   *RemoveHost     `json:"remove_host,omitempty"`
	SetDrain     *SetDrain       `json:"set_drain,omitempty"`
	PutToken     *PutToken       `json:"put_token,omitempty"`
	DropToken    *DropToken      `json:"drop_token,omitempty"`
	Place        *Place          `json:"place,omitempty"`
	SetRollout   *SetRollout     `json:"set_rollout,omitempty"`
	Rollback     *Rollback       `json:"rollback,omitempty"`
	RenewLeases  *RenewLeases    `json:"renew_leases,omitempty"`
	EndLease     *EndLease       `json:"end_lease,omitempty"`
	GrantAddress *Grant          `json:"grant_address,omitempty"`
	RecordRuns   *RecordRuns     `json:"record_runs,omitempty"`
	Restore      *Restore        `json:"restore,omitempty"`
	Rebalance    *SetRebalance   `json:"set_rebalance,omitempty"`
	SetSigning   *SetSigning     `json:"set_signing,omitempty"`
	PutSignature *PutSignature   `json:"put_signature,omitempty"`
	Told         *Told           `json:"told,omitempty"`
	Sweep        *Sweep          `json:"sweep,omitempty"`
	Thaw         *Thaw           `json:"thaw,omitempty"`
	Lend         *Lend           `json:"lend,omitempty"`
	SettleLoan   *SettleLoan     `json:"settle_loan,omitempty"`
	Evict        *Evict          `json:"evict,omitempty"`
	ReflexStage  *SetReflexStage `json:"set_reflex_stage,omitempty"`
	SetStage     *SetStage       `json:"set_stage,omitempty"`
	NoteAct      *NoteAct        `json:"note_act,omitempty"`
	Heartbeat    *Heartbeat      `json:"heartbeat,omitempty"` // proves that the log commits; changes nothing

	// RequestID is the idempotency key of a client's write. A second command with
	// the key of one that was accepted changes nothing and answers what the first
	// did, as long as the first is among the last few thousand.
	RequestID string `json:"request_id,omitempty"`

	// By is who asked for it, empty for the mesh itself, and At when it was
	// proposed, in Unix milliseconds by the clock of that host. Both are for the
	// story alone: nothing is decided by them.
	By string `json:"by,omitempty"`
	At int64  `json:"at,omitempty"`
}

// Found gives a new mesh its identity and trust. Applied once.
type Found struct {
	MeshID    string `json:"mesh_id"`
	Name      string `json:"name"`
	CACert    []byte `json:"ca_cert"` // PEM
	CAKey     []byte `json:"ca_key"`  // PEM; never leaves the voters
	GossipKey []byte `json:"gossip_key"`
}

// PutIntents declares apps and reflexes. Expect holds, for each app, and by
// ReflexKey for each reflex, that the writer looked at, the Modified index it saw
// (0: absent); any other value rejects the whole command. With Prune, apps and
// reflexes of the same Set that Intents does not name are removed.
//
// The intents are normalized and validated by whoever proposes them: what is
// valid may differ between releases, and voters of two releases must not come
// to different states. Apply checks only what keeps the state sane.
type PutIntents struct {
	Intents intent.Intents    `json:"intents"`
	Expect  map[string]uint64 `json:"expect,omitempty"`
	Set     string            `json:"set,omitempty"`
	Prune   bool              `json:"prune,omitempty"`
	At      int64             `json:"at,omitempty"` // Unix seconds by the proposer's clock, for the history alone
	// Far are the reflexes of Intents, by RuleKey, that reach beyond the copies of
	// their host: what of them is new or changed is staged.
	Far     []string `json:"far,omitempty"`
	Differs Differs  `json:"differs,omitempty"`
}

// DeleteApp removes an app; its copies stop by its stop rule.
type DeleteApp struct {
	Name string `json:"name"`
}

// SetRunning stops or starts an app (N nil) or one copy of it.
type SetRunning struct {
	App     string `json:"app"`
	N       *int   `json:"n,omitempty"`
	Stopped bool   `json:"stopped"`
}

// RestartApp asks for a restart of all copies of an app (N nil) or of one. All
// copies restart by the app's update policy, one copy at once.
type RestartApp struct {
	App string `json:"app"`
	N   *int   `json:"n,omitempty"`
}

// EnrolHost adds a host to the roster, or updates its identity.
type EnrolHost struct {
	Name string `json:"name"`
	ID   string `json:"id"` // made by the host at enrolment; tells two hosts of one name apart
}

// RemoveHost takes a host off the roster and revokes its identity. Its
// placements become unplaced.
type RemoveHost struct {
	Name     string   `json:"name"`
	ID       string   `json:"id"`
	Drained  bool     `json:"drained,omitempty"`  // only if it is, still
	Left     bool     `json:"left,omitempty"`     // at its own wish: what it keeps is its own business
	Unproved []string `json:"unproved,omitempty"` // goes into the Revocation
}

// SetDrain sets a host's drain state: users ask for draining and for none,
// Decide for drained once nothing is placed there. Removing goes with draining,
// and ends with none. Loan, if not 0, pays for the drain of a host by its own
// reflex with a token; nothing is spent if the host is emptied already.
type SetDrain struct {
	Host     string `json:"host"`
	Drain    Drain  `json:"drain"`
	Removing bool   `json:"removing,omitempty"`
	Loan     uint64 `json:"loan,omitempty"`
	// For is the reflex whose wish it is, with Loan.
	For RuleRef `json:"for,omitzero"`
	// Chain are the rules whose acts led to it, for the story alone.
	Chain string `json:"chain,omitempty"`
}

// PutToken stores a join token by the hash of its secret.
type PutToken struct {
	ID   string `json:"id"`
	Role string `json:"role"`
	Hash []byte `json:"hash"`
}

// DropToken revokes a join token.
type DropToken struct {
	ID string `json:"id"`
}

// Place changes placements: Remove first, then Put. Every Put begins a new
// generation of its copy, even if nothing else differs: that is a restart. Only a
// Put that takes a surge copy as it is among those that are asked for begins none.
// Expect, if not zero, is the revision the decision was made at; the command is
// rejected if the revision has moved since.
type Place struct {
	Expect uint64      `json:"expect,omitempty"`
	Put    []Placement `json:"put,omitempty"`
	Remove []CopyKey   `json:"remove,omitempty"`
	Grant  []Grant     `json:"grant,omitempty"` // leases of singletons that Put begins
	// Unfit notes where reliefs that Remove gives up did not become well, and
	// Returned what has come back of the budget of Rebalance: indexes of Rebalanced
	// whose window is over.
	Unfit    []UnfitHost `json:"unfit,omitempty"`
	Returned []uint64    `json:"returned,omitempty"`
	// Moves says why Put changes hosts. It is for the story alone.
	Moves []Move `json:"moves,omitempty"`
}

// SetRollout records the progress of an app's rollout. It is rejected if the
// app's version or rollout is another by now.
type SetRollout struct {
	App     string  `json:"app"`
	Rollout Rollout `json:"rollout"`
	// Flip makes the surge copies those that are asked for, and the others surge
	// copies: the new set has taken over. The version is stable from then on.
	Flip bool `json:"flip,omitempty"`
	// Revert gives the version up, for Rollout.Reason: the app is to go back to
	// its stable version.
	Revert bool `json:"revert,omitempty"`
	// Wait says that it waits for room from now on.
	Wait bool `json:"wait,omitempty"`
}

// Rollback is a user's wish to go back to a version of the app's history; with
// To empty to the last one that was proved. Only what a version embodies goes
// back: count, place, update and stop rules stay as last applied.
type Rollback struct {
	App string `json:"app"`
	To  string `json:"to,omitempty"`
	At  int64  `json:"at,omitempty"` // Unix seconds by the proposer's clock, for the history alone
}

// Heartbeat is the no-op by which a leader proves that its log commits.
type Heartbeat struct{}
