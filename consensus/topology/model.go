// Package topology is the pure core of the mesh's decisions: the replicated
// State, the Commands that change it, and Decide, which turns a state and what
// is observed into the next commands, with reasons.
//
// Nothing here reads a clock, a random source, a file or a network, and no map
// order reaches a result: every voter computes the same.
package topology

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// CopyKey names a copy.
type CopyKey struct {
	App string `json:"app"`
	N   int    `json:"n"`
}

// Drain is whether a host is being emptied.
type Drain string

// The drain states. A draining host becomes drained when nothing is placed on
// it.
const (
	DrainNone     Drain = "none"
	DrainDraining Drain = "draining"
	DrainDrained  Drain = "drained"
)

// String returns the name as users see it: "web/2".
func (k CopyKey) String() string { return k.App + "/" + strconv.Itoa(k.N) }

// MarshalText implements encoding.TextMarshaler. (CBOR keeps the fields.)
func (k CopyKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *CopyKey) UnmarshalText(text []byte) error {
	app, num, ok := strings.Cut(string(text), "/")
	n, err := strconv.Atoi(num)
	if !ok || err != nil || app == "" || n < 0 {
		return fmt.Errorf("read copy %q: want APP/NUMBER", text)
	}
	*k = CopyKey{App: app, N: n}
	return nil
}

// App is a declared app as stored.
type App struct {
	Spec     intent.App `json:"spec"`    // as last applied
	Version  string     `json:"version"` // of Spec
	Set      string     `json:"set,omitempty"`
	Created  uint64     `json:"created"`
	Modified uint64     `json:"modified"` // index of the last change by a user: of Spec, Set, Stopped, or a second try of what had halted

	// Versions holds every version that a placement still names, the current
	// one, the stable one, and those in History.
	Versions map[string]intent.App `json:"versions"`
	// Stable is the last version that was proved: every copy had it and was
	// ready for healthy_for. Until Version is Stable, a change is under way.
	Stable string `json:"stable,omitempty"`

	Stopped       bool    `json:"stopped,omitempty"`
	StoppedCopies []int   `json:"stopped_copies,omitempty"` // stopped one by one; sorted
	RestartAt     uint64  `json:"restart_at,omitempty"`     // copies of an earlier generation are due for a restart
	Rollout       Rollout `json:"rollout,omitzero"`
	Job           Job     `json:"job,omitzero"` // of kinds once and schedule

	// History is the last versions that users asked for, oldest first, the
	// present one last: at most MaxHistory of them.
	History []Applied `json:"history,omitempty"`

	// Signed holds, for each of Versions that was declared while signatures were
	// required, the key whose signature let its package in.
	Signed map[string]string `json:"signed,omitempty"`

	// Unfit are hosts on which reliefs of the present version did not become well.
	// With as many as a copy is tried on no more of them are begun, until a user
	// changes the app.
	Unfit []Unfit `json:"unfit,omitempty"`
}

// Placement puts a copy on a host.
type Placement struct {
	App        string         `json:"app"`
	N          int            `json:"n"` // copies count from 0; numbers may have gaps after the count went down
	Host       string         `json:"host"`
	Version    string         `json:"version"`
	Ports      map[string]int `json:"ports,omitempty"`
	Generation uint64         `json:"generation"`        // set by Apply: the index at which this placement was made, re-versioned, started or asked to restart
	Stopped    bool           `json:"stopped,omitempty"` // set by Apply: the host keeps it stopped
	// Leaving says why the copy must go to another host. It is first stopped
	// here, and placed there only when its host has reported it gone, so that
	// a move never makes one copy too many.
	Leaving string `json:"leaving,omitempty"`
	// Surge marks a copy beside those that are asked for, which lives as long as
	// a rollout needs it. Its host need not know.
	Surge bool `json:"surge,omitempty"`
	// Relief makes a surge copy the one that is to take over from another.
	Relief *Relief `json:"relief,omitempty"`
	// Tried are hosts on which this version of the copy kept failing, so that it
	// was, or is to be, placed elsewhere.
	Tried []string `json:"tried,omitempty"`
	// Evicted says why a reflex wants the copy to go from its host, see Evict. It
	// runs there until that is seen to.
	Evicted string `json:"evicted,omitempty"`
	// EvictedChain are the rules whose acts led to that, for the story alone.
	EvictedChain string `json:"evicted_chain,omitempty"`
}

// Key names the copy that p places.
func (p Placement) Key() CopyKey { return CopyKey{App: p.App, N: p.N} }

// Host is a host of the roster.
type Host struct {
	Name     string `json:"name"`
	ID       string `json:"id"`
	Enrolled uint64 `json:"enrolled"`
	Drain    Drain  `json:"drain"`
	// DrainChain are the rules whose acts led to a drain, for the story alone.
	DrainChain string `json:"drain_chain,omitempty"`
	// Removing says that the host is being decommissioned: once it is empty it is
	// to remove all that it keeps of copies.
	Removing bool `json:"removing,omitempty"`
}

// Assignment is a copy that a host should run: its placement with the
// specification of its version, and the name by which others reach the host.
type Assignment struct {
	Placement Placement  `json:"placement"`
	Spec      intent.App `json:"spec"` // of Placement.Version; Stop, Restart, Update as last applied
	// Smoke, if not 0, asks the host to run the smoke checks of Spec against this
	// copy, once for each value, and to report how they ended.
	Smoke uint64 `json:"smoke,omitempty"`
}

// Slice is everything one host needs to know. Index is the host's own modified
// index: it moves only when this host's part changed.
type Slice struct {
	MeshID      string       `json:"mesh_id"`
	Host        string       `json:"host"`
	Era         uint64       `json:"era"`
	Term        uint64       `json:"term"` // of the voter that served it
	Index       uint64       `json:"index"`
	Drain       Drain        `json:"drain"`
	Assignments []Assignment `json:"assignments"`
	Packages    []Package    `json:"packages,omitempty"` // of every kept version of the apps assigned here
	Leases      []HeldLease  `json:"leases,omitempty"`   // of singletons and addresses that this host has, by app; also of apps it is to run no more

	Senses   []intent.Sense  `json:"senses,omitempty"`   // of users' own, by name
	Reflexes []intent.Reflex `json:"reflexes,omitempty"` // outside of apps, by name; those of apps are in Assignments
	Stages   []RuleStage     `json:"stages,omitempty"`   // of those of either that are staged, by name

	SignaturesRequired bool        `json:"signatures_required,omitempty"` // of packages, as of Signing
	Signatures         []Signature `json:"signatures,omitempty"`          // that let Packages in

	Removing bool        `json:"removing,omitempty"` // as of the Host
	Revoked  []string    `json:"revoked,omitempty"`  // ids of hosts that are to be refused, sorted
	Gone     *Revocation `json:"gone,omitempty"`     // this host was removed: it is to clear out and forget the mesh
}

// Trust is the mesh's secrets. CAKey and GossipKey never leave the voters in the
// clear, but in a file that local root of a voter, or an operator, asks for.
type Trust struct {
	CACert    []byte `json:"ca_cert"`
	CAKey     []byte `json:"ca_key"`
	GossipKey []byte `json:"gossip_key"`
}

// Observations is what the leader knows besides the state: soft, rebuilt after
// an election from reports.
type Observations struct {
	Hosts map[string]HostObs
	// Now is the time by the leader's wall clock, for schedules alone; zero: it is
	// not known, and nothing is due.
	Now time.Time
	// Settled is true once every alive host has reported to this leader, or the
	// time allowed for it has passed. Before it, Decide places nothing.
	Settled bool
	// GateShut is what the last decision said in Decision.GateShut, and CalmFor
	// for how long decisions have said Calm without a break. The gate shuts at
	// once and opens only after two calm minutes. Who does not lead keeps both by
	// Gate, and starts from there when it has to lead.
	GateShut bool
	CalmFor  time.Duration
	// Leases is what the leader knows of each lease, by app. One that is missing
	// here counts as just renewed.
	Leases map[string]LeaseObs
	Timers Timers // for the leases to grant; zero: the defaults
	// Waited is how long ago, at least, each entry of State.Waits was. One that is
	// missing here counts as just made.
	Waited map[uint64]time.Duration
	// Moved is how long ago, at least, each entry of State.Rebalanced was. One that
	// is missing here counts as just made.
	Moved map[uint64]time.Duration
	// Freeze is what is frozen.
	Freeze Freeze
	// Leader is the host that leads; empty: not known.
	Leader string
	// Staged is how long ago, at least, each entry of State.StageSteps was. One that
	// is missing here counts as just made.
	Staged map[uint64]time.Duration
}

// HostObs is what is known of one host. A host that gossip does not know at all
// is not Alive, and its ReportAge counts from when the leader took office. Ages are measured by the leader's own
// monotonic clock.
type HostObs struct {
	Alive     bool          // by gossip
	Suspect   bool          // gossip has doubts
	Hung      bool          // its kernel takes connections, though it is not Alive: its agent hangs, and its copies run on
	Asking    bool          // whether it is Hung is being found out
	Left      bool          // left by its own will
	DownFor   time.Duration // how long gossip has called it failed or left; known also from before the leader led
	Reported  bool          // whether it has reported to this leader at all
	ReportAge time.Duration // since its last report, or since this leader took office
	Labels    map[string]string
	CPU       float64 // cores
	Memory    int64   // bytes
	PortMin   int
	PortMax   int
	Ports     []int  // ports that cannot be assigned: found taken by something else, never by the copy they are assigned to
	CanUser   bool   // whether it can run copies as another user (root)
	Boot      string // of its kernel
	// WellFor is for how long this leader has found nothing wrong with the host, on
	// end. It never counts from before the leader led.
	WellFor time.Duration
	Slice   uint64     // index of the slice that its last report was made by
	Stages  []StageObs // of staged reflexes that it has
	Wants   []string   // addresses that it would take over, as leases name them
	// Copies is every copy the host has, from its first report on: one that is
	// missing here has no process there.
	Copies map[CopyKey]CopyObs
}

// CopyObs is a copy as its host reports it. A stopped copy may be left out or
// reported as stopped.
type CopyObs struct {
	Version    string
	Generation uint64 // of the placement that the copy runs, or is being brought to
	State      CopyState
	Ready      bool
	ReadyFor   time.Duration
	UnreadyFor time.Duration // since it was last ready, or else first worked on; 0: not known, Age stands in, and a short lapse of an old copy may look like a failure to become ready
	Age        time.Duration // since the host first worked on this generation
	BestReady  time.Duration // its longest stretch of being ready, the present one included; 0: not known
	Failed     bool          // this generation cannot work as it is: bad binary, limit of restarts reached, unhealthy past its grace
	Why        string
	// LapsedAfter is for how long this generation had been ready on end when it was
	// so no more by its own doing: it ended, or its checks failed. The longest such
	// time; 0: none, or none that its host remembers.
	LapsedAfter time.Duration
	LapsedWhy   string
	Done        uint64 // the last generation that ran to completion, of a job; 0: none

	Smoke    uint64     // of the Assignment whose smoke checks were last begun; 0: none
	SmokeEnd SmokeState // how they ended; empty: they run
	SmokeWhy string     // why they failed

	// For Status alone.
	Pid      int
	Restarts int
	Since    time.Time
}

// SmokeState is how the smoke checks of a copy ended.
type SmokeState string

// The ends of smoke checks. Why they failed is in CopyObs.SmokeWhy.
const (
	SmokePassed SmokeState = "passed"
	SmokeFailed SmokeState = "failed"
)

// CopyState is a step of a copy's ladder, as users see it.
type CopyState string

// The states of a copy.
const (
	CopyPending  CopyState = "pending"
	CopyFetching CopyState = "fetching"
	CopyStarting CopyState = "starting"
	CopyRunning  CopyState = "running"
	CopyBackoff  CopyState = "backoff"
	CopyStopping CopyState = "stopping"
	CopyStopped  CopyState = "stopped"
	CopyFailed   CopyState = "failed"
	CopyLost     CopyState = "lost"
)

// Decision is what Decide found: commands to propose, in order, and what to
// tell. Decide is level-triggered: whoever proposes may drop any command and
// decide again, and decides again after a Place in any case, because large
// changes come in several decisions.
type Decision struct {
	Commands []Command
	Moves    []Move
	Unplaced []Unplaced
	Held     string        // why nothing is moved although something seems lost; empty if not held
	Stages   []StageWait   // what staged reflexes wait for
	Balance  string        // what is done, or waited for, for the sake of an even spread alone; empty: nothing
	GateShut bool          // the population gate is shut: give it back in Observations
	Calm     bool          // few enough hosts are unhealthy for the gate to open in time
	Wake     time.Duration // look again after so long even if nothing changes; 0: no need
}

// Move is a copy that goes from one host to another.
type Move struct {
	Copy   CopyKey `json:"copy"`
	From   string  `json:"from"`
	To     string  `json:"to"`
	Reason string  `json:"reason"`
	// As is the name under which the copy goes on, if it gets another: where one
	// begins before the other ends.
	As *CopyKey `json:"as,omitempty"`
}

// Unplaced is a copy that has no host, or should leave its host and cannot, and
// why every host was refused.
type Unplaced struct {
	Copy   CopyKey `json:"copy"`
	Reason string  `json:"reason"`
}
