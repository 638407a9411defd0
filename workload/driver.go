// Package workload holds what is the same for every way of running a copy: the
// Driver contract, the supervision of one copy and the plan from desired to
// observed, both pure.
package workload

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// CopyID names one copy of an app: "web/2".
type CopyID struct {
	App string
	N   int
}

func (id CopyID) String() string { return id.App + "/" + strconv.Itoa(id.N) }

// ParseCopyID reads what String prints.
func ParseCopyID(s string) (CopyID, error) {
	app, n, ok := strings.Cut(s, "/")
	num, err := strconv.Atoi(n)
	if !ok || err != nil || app == "" || num < 0 {
		return CopyID{}, fmt.Errorf("copy %q: want APP/NUMBER", s)
	}
	return CopyID{App: app, N: num}, nil
}

// MarshalText implements encoding.TextMarshaler.
func (id CopyID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *CopyID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseCopyID(string(b))
	return err
}

// Spec is one copy as a driver runs it: nothing is left to choose, all
// placeholders are filled.
type Spec struct {
	ID         CopyID            `json:"id"`
	Version    string            `json:"version"`
	Generation uint64            `json:"generation"` // rises with each placement and each asked-for restart
	Command    []string          `json:"command"`
	Env        map[string]string `json:"env"`                // the user's and PORT_*; drivers add GANGLION_*, PATH and STATE_DIR
	User       string            `json:"user,omitempty"`     // empty: a private unprivileged user, or the agent's own where it is not root
	Package    string            `json:"package,omitempty"`  // directory of the unpacked artifact; empty: none
	Dir        string            `json:"dir,omitempty"`      // working directory; empty: Package, else the copy's own directory
	CPU        float64           `json:"cpu,omitempty"`      // cores, enforced where cgroups allow
	Memory     int64             `json:"memory,omitempty"`   // bytes, enforced where cgroups allow
	SelfHeal   bool              `json:"self_heal,omitzero"` // whether the driver's own manager (PID 1) may restart the copy
	// Once says that the copy is to run to its end, once: how it ended is worth
	// keeping for an agent that was not there (Ends).
	Once bool `json:"once,omitzero"`
	// Lease makes the copy that of a singleton: it runs below a keeper, which
	// ends it with its lease. Only a start reads it: it is not compared when two
	// Specs are, and later deadlines go through Leased.
	Lease *Lease `json:"lease,omitempty"`
	// Renewed tells the deadline of Lease as it is by now; nil: it is Lease's own.
	// It may be called from any goroutine while the start lasts.
	Renewed func() time.Duration `json:"-"`
}

// LeaseNow is the lease to start a copy under whose Lease is not nil, with the
// newest deadline. A driver asks when its keeper runs: on a busy host that takes
// its time, and the lease is renewed meanwhile.
func (s Spec) LeaseNow() Lease {
	lease := *s.Lease
	if s.Renewed != nil {
		lease.Deadline = max(lease.Deadline, s.Renewed())
	}
	return lease
}

// Instance is one running copy: what a driver found or started. Pid and
// StartTime together name the process for its whole life and after.
type Instance struct {
	Spec      Spec      `json:"spec"`
	Start     int       `json:"start"`      // 1, 2, … within a placement (GANGLION_START)
	Pid       int       `json:"pid"`        // of the copy's first process
	StartTime uint64    `json:"start_time"` // field 22 of /proc/PID/stat, clock ticks since boot
	Since     time.Time `json:"since"`      // for display only, never for a decision
}

// Exit tells how a copy's first process ended. Known is false where the kernel
// could not say (an adopted process on an old kernel).
type Exit struct {
	Known  bool
	Code   int            // exit status; meaningless if Signal is set or Known is false
	Signal syscall.Signal // 0 if it exited by itself
	Ran    time.Duration
	At     time.Time // carries the monotonic clock: when the driver saw it
	Fenced bool      // its keeper ended it, because its lease was over
	// Successor is set when PID 1, or the copy's keeper, has already restarted
	// the copy.
	Successor *Instance
}

// succeeded tells that the copy did what it was for: it ended by itself, with
// code 0.
func (e Exit) succeeded() bool { return e.Known && e.Signal == 0 && e.Code == 0 }

// DeliverExit puts e into a handle's buffered channel of exits without ever
// waiting for its reader: where there is no room the oldest exit makes it. Only one
// goroutine may deliver to a channel at a time.
func DeliverExit(exits chan Exit, e Exit) {
	for {
		select {
		case exits <- e:
			return
		default:
		}
		select {
		case <-exits:
		default:
		}
	}
}

// Handle is a running copy. Its methods may be called from any goroutine.
type Handle interface {
	// Instance returns the copy as it runs now.
	Instance() Instance
	// Exited yields each exit of the copy, in order. For a driver that does not
	// heal by itself there is exactly one, after which it is closed; where PID 1
	// restarts the copy there may be several, the last without Successor. It is
	// buffered: a slow reader delays nobody.
	Exited() <-chan Exit
	// Stop ends the copy and all its descendants: sig, up to grace, then kill of
	// the whole group. It returns when none of them runs. With grace zero it
	// kills at once. Before it returns nil, Exited has received the exit.
	Stop(ctx context.Context, sig syscall.Signal, grace time.Duration) error
	// Signal sends sig to the copy's first process.
	Signal(sig syscall.Signal) error
}

// Driver runs copies on this host. All methods may be called concurrently, for
// one copy only one at a time; save Exec, which may overlap with anything, so
// that a slow check never stands before a restart.
type Driver interface {
	// Start launches start number n of a copy and returns once its exec has
	// succeeded. What is slow (directories, users, output files) is prepared at
	// the first start of a Spec and kept, so that a further start of an equal
	// Spec is the exec alone. Before the exec the start is recorded, so that
	// Adopt of a later agent finds it.
	Start(ctx context.Context, spec Spec, n int) (Handle, error)
	// Adopt returns every copy that runs on this host from an earlier life of
	// the agent, recorded or found by its mark. It restarts and stops none, and
	// is called once, before any Start.
	Adopt(ctx context.Context) ([]Handle, error)
	// Exec runs a command as the copy would (same user, directory and
	// environment) and returns its combined output, at most 4 KiB, for exec
	// checks.
	Exec(ctx context.Context, spec Spec, argv []string) ([]byte, error)
	// Purge removes everything the host keeps for a copy that does not run: its
	// directory, state and output.
	Purge(ctx context.Context, id CopyID) error
}

// StartError is a start that will fail again unless something is changed: the
// binary is missing or cannot be executed, the user does not exist. Supervision
// reports it at once and does not spend restarts on it.
type StartError struct {
	ID  CopyID
	Err error
}

func (e *StartError) Error() string { return "start " + e.ID.String() + ": " + e.Err.Error() }

func (e *StartError) Unwrap() error { return e.Err }
