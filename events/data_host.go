package events

// HostJoined: a host has become a member of the mesh.
type HostJoined struct {
	ID string `json:"id"` // its identity, which no host of the same name after it has
}

// HostSuspect: the host's health is in doubt; nothing has been moved yet.
type HostSuspect struct {
	Reason string `json:"reason"` // what evidence raised the doubt
}

// HostFailed: the host is taken for lost.
type HostFailed struct {
	Reason   string `json:"reason"`              // evidence: gossip, missed reports
	SilentMS int64  `json:"silent_ms,omitempty"` // how long nothing was heard of it
}

// HostRecovered: a suspected or failed host is back.
type HostRecovered struct {
	AfterMS int64 `json:"after_ms"` // how long it was suspect or failed
}

// HostLeft: the host left by its own will.
type HostLeft struct {
	Reason string `json:"reason,omitempty"` // why, if it said so
}

// HostDraining: the host is being emptied.
type HostDraining struct {
	By     string `json:"by,omitempty"` // who asked for it
	Copies int    `json:"copies"`       // how many copies have to move
}

// HostDrained: nothing runs on the host any more.
type HostDrained struct {
	TookMS int64 `json:"took_ms"` // time from draining to drained
}

// HostRemoved: the host was decommissioned and may not come back by itself.
type HostRemoved struct {
	By       string   `json:"by,omitempty"` // who removed it
	ID       string   `json:"id"`           // of its identity, which is refused from now on
	Proved   []string `json:"proved"`       // what was seen to be gone: copies, files, peer (of the quorum), identity
	Unproved []string `json:"unproved"`     // what nobody could look at, because the host did not answer or could not do it
}

// HostVitals: the host's health digest; ratios are 0–1.
type HostVitals struct {
	CPU      float64 `json:"cpu"`      // share of all cores in use
	Memory   float64 `json:"memory"`   // share of memory in use
	Disk     float64 `json:"disk"`     // share of the data disk in use
	Pressure float64 `json:"pressure"` // highest of /proc/pressure
	Copies   int     `json:"copies"`   // copies on the host
}

// HostPaused: the host noticed that it had not been running for a while.
type HostPaused struct {
	GapMS int64 `json:"gap_ms"` // length of the gap between two clock ticks
}

// EventType implements Payload.
func (HostJoined) EventType() string { return "host.joined" }

// EventType implements Payload.
func (HostSuspect) EventType() string { return "host.suspect" }

// EventType implements Payload.
func (HostFailed) EventType() string { return "host.failed" }

// EventType implements Payload.
func (HostRecovered) EventType() string { return "host.recovered" }

// EventType implements Payload.
func (HostLeft) EventType() string { return "host.left" }

// EventType implements Payload.
func (HostDraining) EventType() string { return "host.draining" }

// EventType implements Payload.
func (HostDrained) EventType() string { return "host.drained" }

// EventType implements Payload.
func (HostRemoved) EventType() string { return "host.removed" }

// EventType implements Payload.
func (HostVitals) EventType() string { return "host.vitals" }

// EventType implements Payload.
func (HostPaused) EventType() string { return "host.paused" }
