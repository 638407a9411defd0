package events

// AppPlaced: the leader gave the copy a host.
type AppPlaced struct {
	Host    string         `json:"host"`            // where it will run
	Version string         `json:"version"`         // version to run
	Ports   map[string]int `json:"ports,omitempty"` // ports assigned by name
	Reason  string         `json:"reason"`          // why there
}

// AppUnplaced: the copy has no host, because none fits or it is not wanted.
type AppUnplaced struct {
	Host   string `json:"host,omitempty"` // where it was, if anywhere
	Reason string `json:"reason"`         // why
}

// AppStarted: the copy's process runs, for the first time in this placement.
type AppStarted struct {
	Pid     int            `json:"pid"`             // process id
	Version string         `json:"version"`         // version that runs
	Start   int            `json:"start"`           // 1, 2, … within a placement
	Ports   map[string]int `json:"ports,omitempty"` // ports by name
}

// AppReady: the copy passes its checks.
type AppReady struct {
	Version string `json:"version"`  // version that is ready
	AfterMS int64  `json:"after_ms"` // time from start to ready
}

// AppUnhealthy: the copy runs but fails a check.
type AppUnhealthy struct {
	Check    string `json:"check"`           // type of the check
	Failures int    `json:"failures"`        // failures in a row
	Error    string `json:"error,omitempty"` // last error
}

// AppExited: the copy's process ended without being asked to.
type AppExited struct {
	Pid    int    `json:"pid"`              // process id
	Code   *int   `json:"code"`             // exit code; null if killed by a signal or not known
	Signal string `json:"signal,omitempty"` // name of the signal that ended it
	RanMS  int64  `json:"ran_ms"`           // how long it ran
}

// AppRestarted: the copy runs again after an exit.
type AppRestarted struct {
	Pid     int    `json:"pid"`      // new process id
	AfterUS int64  `json:"after_us"` // from the exit being sensed to the new process executing
	By      string `json:"by"`       // agent, pid1 or keeper
	Start   int    `json:"start"`    // 1, 2, … within a placement
}

// AppStopped: the copy was stopped on purpose.
type AppStopped struct {
	Reason string `json:"reason"`            // why
	Killed bool   `json:"killed"`            // true if the grace ran out and the group was killed
	TookMS int64  `json:"took_ms,omitempty"` // from the signal to the end
}

// AppMoved: the copy's place changed from one host to another.
type AppMoved struct {
	From   string `json:"from"`         // host it was on
	To     string `json:"to"`           // host it is on now
	Reason string `json:"reason"`       // why
	As     string `json:"as,omitempty"` // name under which it goes on, if it has got another
}

// AppFenced: the copy was ended because its lease was.
type AppFenced struct {
	Token  uint64 `json:"token"`  // fencing token of the grant that ended
	Reason string `json:"reason"` // why the lease ended
}

// AppNeedsHuman: automatic action on the copy has given up for now.
type AppNeedsHuman struct {
	Reason   string `json:"reason"`             // what failed and what was tried
	Restarts int    `json:"restarts,omitempty"` // restarts within the window
}

// EventType implements Payload.
func (AppPlaced) EventType() string { return "app.placed" }

// EventType implements Payload.
func (AppUnplaced) EventType() string { return "app.unplaced" }

// EventType implements Payload.
func (AppStarted) EventType() string { return "app.started" }

// EventType implements Payload.
func (AppReady) EventType() string { return "app.ready" }

// EventType implements Payload.
func (AppUnhealthy) EventType() string { return "app.unhealthy" }

// EventType implements Payload.
func (AppExited) EventType() string { return "app.exited" }

// EventType implements Payload.
func (AppRestarted) EventType() string { return "app.restarted" }

// EventType implements Payload.
func (AppStopped) EventType() string { return "app.stopped" }

// EventType implements Payload.
func (AppMoved) EventType() string { return "app.moved" }

// EventType implements Payload.
func (AppFenced) EventType() string { return "app.fenced" }

// EventType implements Payload.
func (AppNeedsHuman) EventType() string { return "app.needs_human" }
