package keeper

import (
	"syscall"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// Command is the one argument by which a binary of the project is asked to be a
// keeper.
const Command = "keeper"

// Allowance is how long after the deadline the kernel kills a keeper that has
// not killed its copy: the copy's first process dies with it. It is well below
// any kill allowance (K).
const Allowance = 150 * time.Millisecond

// Program is what a keeper starts, and starts again.
type Program struct {
	Path       string   `json:"path"`
	Argv       []string `json:"argv"`
	Env        []string `json:"env"` // all but GANGLION_START
	Dir        string   `json:"dir"`
	User       *Account `json:"user,omitempty"`        // nil: the user that the keeper was started as
	Plain      bool     `json:"plain,omitempty"`       // take nothing from it: its user is root
	KeepGroups bool     `json:"keep_groups,omitempty"` // the keeper's supplementary groups are the copy's
	// Cgroup is the directory of a v2 group of the copy's own; empty: none, and
	// the copy is all that descends from the keeper.
	Cgroup string `json:"cgroup,omitempty"`
	// Attach are files of v1 groups to write each started process into.
	Attach []string `json:"attach,omitempty"`
	// Grace is how long the copy is given, by the lease's signal, when the keeper
	// itself is told to end (SIGTERM, from PID 1).
	Grace time.Duration `json:"grace,omitempty"`
}

// Account is whom a program runs as.
type Account struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"` // nil: what the thread has
}

// Ended tells how a start ended.
type Ended struct {
	Start  int            `json:"start"`
	Code   int            `json:"code"`
	Signal syscall.Signal `json:"signal,omitempty"` // 0: it exited by itself
	Ran    time.Duration  `json:"ran"`
	Fenced bool           `json:"fenced,omitempty"` // its lease ended it
}

// Status is a keeper as it stands.
type Status struct {
	Phase     string         `json:"phase"` // idle, starting, running, ending, waiting, over
	Start     int            `json:"start"` // number of the last start
	Pid       int            `json:"pid,omitempty"`
	StartTime uint64         `json:"start_time,omitempty"` // clock ticks since boot
	Began     time.Duration  `json:"began,omitempty"`      // since boot
	Lease     workload.Lease `json:"lease"`
	Last      Ended          `json:"last,omitzero"` // the last end; Start 0: none yet
	// Delayed tells a wait that the agent may take over.
	Delayed bool   `json:"delayed,omitempty"`
	Why     string `json:"why,omitempty"` // a restart that failed
}

// Keeps tells whether there is a copy that the keeper runs, or will.
func (s Status) Keeps() bool { return s.Start > 0 && s.Phase != string(phaseOver) }

// request is one line to a keeper. A connection carries one, save that after a
// watch there may be takes.
type request struct {
	Op       string          `json:"op"`
	Program  *Program        `json:"program,omitempty"`
	Lease    *workload.Lease `json:"lease,omitempty"`
	Start    int             `json:"start,omitempty"`
	Token    uint64          `json:"token,omitempty"`
	Deadline time.Duration   `json:"deadline,omitempty"`
	Signal   syscall.Signal  `json:"signal,omitempty"`
	Grace    time.Duration   `json:"grace,omitempty"`
	Hold     bool            `json:"hold,omitempty"`
}

// The requests.
const (
	opStart  = "start"  // Program, Lease, Start: the first one
	opExtend = "extend" // Token, Deadline
	opStop   = "stop"   // Signal, Grace: for good
	opSignal = "signal" // Signal, to the first process
	opStatus = "status"
	opWatch  = "watch" // a line now and at each change, until the end
	opTake   = "take"  // Start: the agent restarts it after that start's end
	opHold   = "hold"  // Hold: whether no end is answered by a restart
)

// reply is one line from a keeper.
type reply struct {
	Status Status        `json:"status"`
	Err    string        `json:"err,omitempty"`
	Errno  syscall.Errno `json:"errno,omitempty"` // of an exec that failed
}

// Limits of the protocol.
const (
	startBytes = 4 << 20 // of a request; the kernel refuses larger environments
	replyBytes = 16 << 10
	maxConns   = 32
	ioTimeout  = 5 * time.Second
)
