package intent

// Intents is a set of declarations, and the wire form of `apply`.
type Intents struct {
	Apps     []App    `json:"apps,omitempty"`
	Reflexes []Reflex `json:"reflexes,omitempty"`
	Senses   []Sense  `json:"senses,omitempty"`
}

// App declares one application: what to run, how many copies, where, and how to
// keep it well. At most one of Count, PerHost, Singleton and Schedule may be
// set; with none of them, and without Once, one copy runs.
type App struct {
	Name string `json:"name"`

	Count     *int   `json:"count,omitempty"`     // copies in the whole mesh; nil means the default
	PerHost   bool   `json:"per_host,omitempty"`  // one copy on every host that satisfies Place
	Singleton bool   `json:"singleton,omitempty"` // at most one copy, fenced by a lease
	Schedule  string `json:"schedule,omitempty"`  // cron expression, or @hourly and its like
	Once      bool   `json:"once,omitempty"`      // runs to completion and is not restarted on success

	Run        Run             `json:"run"`
	Ports      map[string]Port `json:"ports,omitempty"`
	Resources  Resources       `json:"resources,omitzero"`
	Place      Place           `json:"place,omitzero"`
	Checks     []Check         `json:"checks,omitempty"`
	Restart    Restart         `json:"restart,omitzero"`
	Update     Update          `json:"update,omitzero"`
	Disconnect Disconnect      `json:"disconnect,omitzero"`
	Stop       Stop            `json:"stop,omitzero"`
	Reflexes   []Reflex        `json:"reflexes,omitempty"`
}

// Run is the process of a copy.
type Run struct {
	Command  []string          `json:"command"`            // argv, no shell; a relative first word is inside the package
	Artifact string            `json:"artifact,omitempty"` // a path, sha256:…, or https://… with Digest
	Digest   string            `json:"digest,omitempty"`   // sha256:… of an https artifact
	Env      map[string]string `json:"env,omitempty"`
	User     string            `json:"user,omitempty"` // empty: a private unprivileged user
	Dir      string            `json:"dir,omitempty"`  // working directory; empty: the package, else the copy's own directory
}

// Port is a named TCP port of a copy. Static zero asks for a dynamic one.
type Port struct {
	Static int `json:"static,omitempty"`
}

// Resources is what a copy needs. Zero means unstated.
type Resources struct {
	CPU    float64 `json:"cpu,omitempty"`    // cores
	Memory Bytes   `json:"memory,omitempty"` // bytes
}

// Place says where copies may and should run.
type Place struct {
	Require []string `json:"require,omitempty"` // boolean expressions over labels; all must hold
	Prefer  []string `json:"prefer,omitempty"`  // as Require, but only preferred
	Spread  string   `json:"spread,omitempty"`  // a label whose values copies spread over
}

// CheckType is the kind of a check.
type CheckType string

// The kinds of check. CheckProcess, that the process exists, is what an app
// without any check is judged by.
const (
	CheckHTTP    CheckType = "http"
	CheckTCP     CheckType = "tcp"
	CheckExec    CheckType = "exec"
	CheckProcess CheckType = "process"
	CheckSmoke   CheckType = "smoke"
)

// Check decides whether a copy is ready and, when Live, whether it must be
// restarted.
type Check struct {
	Type     CheckType `json:"type"`
	Path     string    `json:"path,omitempty"`     // http: request path; default /
	Port     string    `json:"port,omitempty"`     // http, tcp: name of a port; default: the only one
	Command  []string  `json:"command,omitempty"`  // exec, smoke: argv, no shell
	Every    Duration  `json:"every,omitempty"`    // default 5s
	Timeout  Duration  `json:"timeout,omitempty"`  // default 1s
	Grace    Duration  `json:"grace,omitempty"`    // after a start, failures count only when it has passed; default 10s
	Failures int       `json:"failures,omitempty"` // consecutive failures that make it unhealthy; default 3
	Live     *bool     `json:"live,omitempty"`     // whether unhealthy also restarts; default true
}

// Restart limits local restarts. The first is at once, later ones back off with
// jitter; restarting never stops for good.
type Restart struct {
	Limit      int      `json:"limit,omitempty"`       // restarts within Window before it is told as needs_human; default 5
	Window     Duration `json:"window,omitempty"`      // default 10m
	BackoffMax Duration `json:"backoff_max,omitempty"` // default 60s
}

// The update strategies and the reactions to a failed one.
const (
	StrategyRolling   = "rolling"
	StrategyBlueGreen = "blue-green"

	OnFailureRollback = "rollback"
	OnFailureHold     = "hold"
	OnFailureForward  = "forward"
)

// Update says how a new version replaces an old one.
type Update struct {
	Strategy   string   `json:"strategy,omitempty"`    // default rolling
	Parallel   int      `json:"parallel,omitempty"`    // copies changed at a time; default 1
	Canary     int      `json:"canary,omitempty"`      // default 0
	HealthyFor Duration `json:"healthy_for,omitempty"` // ready for so long before the next; default 5s
	Deadline   Duration `json:"deadline,omitempty"`    // a copy not ready by then has failed; default 2m
	OnFailure  string   `json:"on_failure,omitempty"`  // default rollback
}

// The disconnect policies.
const (
	DisconnectReplace = "replace"
	DisconnectKeep    = "keep"
)

// Disconnect says what becomes of a lost host's copies.
type Disconnect struct {
	Policy string   `json:"policy,omitempty"` // default replace
	Grace  Duration `json:"grace,omitempty"`  // default 5s
}

// Stop says how a copy is stopped: Signal, Grace, then the whole group is
// killed.
type Stop struct {
	Signal string   `json:"signal,omitempty"` // default SIGTERM
	Grace  Duration `json:"grace,omitempty"`  // default 10s
}

// The modes of a reflex.
const (
	ModeEnforce = "enforce"
	ModeObserve = "observe"
)

// Reflex is a rule that a host runs by itself.
type Reflex struct {
	Name     string   `json:"name"`
	When     string   `json:"when"`
	Clear    string   `json:"clear,omitempty"`
	For      Duration `json:"for,omitempty"`
	ClearFor Duration `json:"clear_for,omitempty"`
	MaxAge   Duration `json:"max_age,omitempty"`
	Act      []Action `json:"act"`
	Cooldown Duration `json:"cooldown,omitempty"`
	Limit    string   `json:"limit,omitempty"` // "3/10m"
	Scope    string   `json:"scope,omitempty"`
	Mode     string   `json:"mode,omitempty"` // default enforce
}

// Action is one thing that a reflex does. Op is one of restart, stop, signal,
// throttle, run, drain_self, evict, emit, webhook and claim.
type Action struct {
	Op     string            `json:"op"`
	Target string            `json:"target,omitempty"`
	Args   map[string]string `json:"args,omitempty"`
}
