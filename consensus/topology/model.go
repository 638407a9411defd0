// Package topology is the pure core of the mesh's decisions: the replicated
// State, the Commands that change it, and Decide, which turns a state and what
// is observed into the next commands, with reasons.
//
// Nothing here reads a clock, a random source, a file or a network, and no map
// order reaches a result: every voter computes the same.
package topology

import (
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

// App is a declared app as stored.
type App struct {
	Spec     intent.App            `json:"spec"`    // as last applied
	Version  string                `json:"version"` // of Spec
	Set      string                `json:"set,omitempty"`
	Created  uint64                `json:"created"`
	Modified uint64                `json:"modified"` // index of the last change of Spec or Stopped
	Versions map[string]intent.App `json:"versions"` // every version that a placement still names, and the current one
	Stopped  bool                  `json:"stopped,omitempty"`
	Rollout  Rollout               `json:"rollout,omitzero"`
}

// Rollout is where an app's change of version stands.
type Rollout struct {
	Version string `json:"version,omitempty"` // the version being rolled to
	Halted  bool   `json:"halted,omitempty"`
	Reason  string `json:"reason,omitempty"` // why it halted
}

// Placement puts a copy on a host.
type Placement struct {
	App        string         `json:"app"`
	N          int            `json:"n"`
	Host       string         `json:"host"`
	Version    string         `json:"version"`
	Ports      map[string]int `json:"ports,omitempty"`
	Generation uint64         `json:"generation"` // set by Apply: the index at which this placement was made, re-versioned or asked to restart
	Stopped    bool           `json:"stopped,omitempty"`
}

// Host is a host of the roster.
type Host struct {
	Name     string `json:"name"`
	ID       string `json:"id"`
	Enrolled uint64 `json:"enrolled"`
	Drain    Drain  `json:"drain"`
}

// Assignment is a copy that a host should run: its placement with the
// specification of its version, and the name by which others reach the host.
type Assignment struct {
	Placement Placement  `json:"placement"`
	Spec      intent.App `json:"spec"` // of Placement.Version; Stop, Restart, Update as last applied
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
}

// Observations is what the leader knows besides the state: soft, rebuilt after
// an election from reports.
type Observations struct {
	Hosts map[string]HostObs
	// Settled is true once every alive host has reported to this leader, or the
	// time allowed for it has passed. Before it, Decide places nothing.
	Settled bool
}

// HostObs is what is known of one host. Ages are measured by the leader's own
// monotonic clock.
type HostObs struct {
	Alive     bool          // by gossip
	Suspect   bool          // gossip has doubts
	Left      bool          // left by its own will
	DownFor   time.Duration // how long gossip has called it failed or left
	Reported  bool          // whether it has reported to this leader at all
	ReportAge time.Duration // since its last report, or since this leader took office
	Labels    map[string]string
	CPU       float64 // cores
	Memory    int64   // bytes
	PortMin   int
	PortMax   int
	Ports     []int // ports that cannot be assigned: found taken by something else
	CanUser   bool  // whether it can run copies as another user (root)
	Copies    map[CopyKey]CopyObs
}

// CopyObs is a copy as its host reports it.
type CopyObs struct {
	Version    string
	Generation uint64
	State      CopyState
	Ready      bool
	ReadyFor   time.Duration
	Age        time.Duration // since the host first worked on this generation
	Failed     bool          // this generation cannot work as it is: bad binary, limit of restarts reached, unhealthy past its grace
	Why        string
}

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
// tell.
type Decision struct {
	Commands []Command
	Moves    []Move
	Unplaced []Unplaced
	Held     string        // why nothing is moved although something seems lost; empty if not held
	Wake     time.Duration // look again after so long even if nothing changes; 0: no need
}

// Move is a copy that goes from one host to another.
type Move struct {
	Copy   CopyKey
	From   string
	To     string
	Reason string
}

// Unplaced is a copy with no host, and why every host was refused.
type Unplaced struct {
	Copy   CopyKey
	Reason string
}
