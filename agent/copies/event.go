package copies

import (
	"fmt"
	"syscall"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// Event is something that happened to a copy of this host. Data is one of the
// structs of this package named after its type.
type Event struct {
	Type  string // "started", "ready", "unhealthy", "exited", "fenced", "restarted", "stopped" or "needs_human"
	Copy  workload.CopyID
	Cause string // id of the event that led to this one; empty: none
	Data  any
}

// Started is the data of started: the copy runs, not in answer to an end.
type Started struct {
	Pid     int            `json:"pid"`
	Version string         `json:"version"`
	Start   int            `json:"start"` // 1, 2, … within a placement
	Ports   map[string]int `json:"ports,omitempty"`
}

// Ready is the data of ready: the copy passes its checks.
type Ready struct {
	Version string `json:"version"`
	AfterMS int64  `json:"after_ms"` // since the start
}

// Unhealthy is the data of unhealthy: the copy runs and fails a check.
type Unhealthy struct {
	Check    string `json:"check"`
	Failures int    `json:"failures"` // in a row
	Error    string `json:"error,omitempty"`
}

// Exited is the data of exited: the copy ended without being asked to.
type Exited struct {
	Pid    int    `json:"pid"`
	Code   *int   `json:"code"`             // null if a signal ended it or it is not known
	Signal string `json:"signal,omitempty"` // "SIGKILL"
	RanMS  int64  `json:"ran_ms"`
}

// Fenced is the data of fenced: the copy was ended because its lease was over,
// or because this host was paused and cannot know whether it is.
type Fenced struct {
	Token  uint64 `json:"token"`
	Reason string `json:"reason"`
}

// Restarted is the data of restarted: the copy runs again.
type Restarted struct {
	Pid     int    `json:"pid"`
	AfterUS int64  `json:"after_us"` // from the end seen to the new process executing
	By      string `json:"by"`       // agent, pid1 or keeper
	Start   int    `json:"start"`
}

// Stopped is the data of stopped: the copy was ended on purpose.
type Stopped struct {
	Reason string `json:"reason"`
	Killed bool   `json:"killed"` // the grace ran out
	TookMS int64  `json:"took_ms,omitempty"`
}

// NeedsHuman is the data of needs_human: restarts do not help. They go on,
// slowly.
type NeedsHuman struct {
	Reason   string `json:"reason"`
	Restarts int    `json:"restarts,omitempty"` // within the window
}

// data returns the event data of a note. Took is how long the last stop did.
func data(n workload.Note, ports map[string]int, took time.Duration) any {
	inst := n.Instance
	switch n.Kind {
	case workload.NoteStarted:
		return Started{Pid: inst.Pid, Version: inst.Spec.Version, Start: inst.Start, Ports: ports}
	case workload.NoteReady:
		return Ready{Version: inst.Spec.Version, AfterMS: n.After.Milliseconds()}
	case workload.NoteUnhealthy:
		return Unhealthy{Check: n.Check, Failures: n.Count, Error: n.Why}
	case workload.NoteFenced:
		return fenced(inst, n.Exit)
	case workload.NoteExited:
		return exited(inst.Pid, n.Exit)
	case workload.NoteRestarted:
		return Restarted{Pid: inst.Pid, AfterUS: n.After.Microseconds(), By: n.By, Start: inst.Start}
	case workload.NoteStopped:
		return Stopped{Reason: n.Why, Killed: n.Exit.Signal == syscall.SIGKILL, TookMS: took.Milliseconds()}
	}
	return NeedsHuman{Reason: n.Why, Restarts: n.Count}
}

func fenced(inst workload.Instance, e workload.Exit) Fenced {
	how := "while no agent watched"
	if e.Known {
		how = fmt.Sprintf("ended by %s after %s", workload.SignalName(e.Signal), e.Ran.Round(time.Millisecond))
	}
	d := Fenced{Reason: "its lease was not renewed in time, or this host stood still (" + how + ")"}
	if l := inst.Spec.Lease; l != nil {
		d.Token = l.Token
	}
	return d
}

func exited(pid int, e workload.Exit) Exited {
	d := Exited{Pid: pid, RanMS: e.Ran.Milliseconds()}
	switch {
	case !e.Known:
	case e.Signal != 0:
		d.Signal = workload.SignalName(e.Signal)
	default:
		d.Code = &e.Code
	}
	return d
}

func (r *runner) tell(n workload.Note) {
	id, spread := r.m.cfg.Emit(Event{
		Type: string(n.Kind), Copy: r.id, Cause: r.told[n.Cause], Data: data(n, r.held, r.took),
	})
	r.told[n.Kind] = id
	r.unspread = append(r.unspread, spread)
}

// spread has those know who follow what happens, now that nothing is in a hurry: they
// would compete for the processor with a copy that is being started.
func (r *runner) spread() {
	for _, f := range r.unspread {
		f()
	}
	r.unspread = r.unspread[:0]
}
