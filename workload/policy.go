package workload

import (
	"cmp"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

const (
	// DefaultStable is how long a copy must be seen ready before its back-off
	// starts afresh. It is short because it is not what bounds a crash loop: the
	// limit of restarts in a window is, and a stable period does not clear that.
	DefaultStable = 10 * time.Second
	// DefaultSettle is how long a copy without checks must run to count as
	// ready: long enough to tell a program that refuses its arguments from one
	// that works.
	DefaultSettle = 500 * time.Millisecond
)

// Policy is how a copy is kept: what Supervisor needs of an app.
type Policy struct {
	Once       bool          // it runs to completion: an end with code 0 is final, and so is being over the limit
	Limit      int           // restarts within Window before it is told as needs_human; of a copy that runs once, in all
	Window     time.Duration //
	BackoffMax time.Duration // longest wait between restarts, and the wait of a copy over its limit
	Stable     time.Duration // ready for so long: the back-off starts afresh
	Settle     time.Duration // a copy without checks is ready after so long
	Stop       StopRule
	Checks     []CheckPolicy
}

// StopRule is how a copy is stopped: Signal, Grace, then the kill of the whole
// group.
type StopRule struct {
	Signal syscall.Signal
	Grace  time.Duration
}

// CheckPolicy is when a check probes and what its results mean.
type CheckPolicy struct {
	Name     string // for people: "http /healthz"
	Every    time.Duration
	Timeout  time.Duration
	Grace    time.Duration // after a start, failures count only when it has passed
	Failures int           // consecutive failures that make it unhealthy
	Live     bool          // whether unhealthy also restarts
}

// PolicyOf reads the policy out of an app. A check of type process is what the
// supervisor does anyway, so it yields none; Checks therefore lines up with
// Probes(app). Values that are not set get the defaults of the reference.
func PolicyOf(app intent.App) (Policy, error) {
	signal, err := ParseSignal(cmp.Or(app.Stop.Signal, "SIGTERM"))
	if err != nil {
		return Policy{}, fmt.Errorf("read stop rule of app %q: %w", app.Name, err)
	}
	p := Policy{
		Once:       app.Once || app.Schedule != "",
		Limit:      cmp.Or(max(app.Restart.Limit, 0), 5),
		Window:     cmp.Or(app.Restart.Window.Std(), 10*time.Minute),
		BackoffMax: cmp.Or(app.Restart.BackoffMax.Std(), time.Minute),
		Stable:     DefaultStable,
		Settle:     DefaultSettle,
		Stop:       StopRule{Signal: signal, Grace: cmp.Or(app.Stop.Grace.Std(), 10*time.Second)},
	}
	for _, c := range Probes(app) {
		p.Checks = append(p.Checks, CheckPolicy{
			Name:     checkName(c),
			Every:    cmp.Or(c.Every.Std(), 5*time.Second),
			Timeout:  cmp.Or(c.Timeout.Std(), time.Second),
			Grace:    cmp.Or(c.Grace.Std(), 10*time.Second),
			Failures: cmp.Or(max(c.Failures, 0), 3),
			Live:     c.Live == nil || *c.Live,
		})
	}
	return p, nil
}

// Probes returns the checks of an app that something has to carry out while a
// copy runs: all but process, which is supervision itself, and smoke, which
// belongs to a rollout.
func Probes(app intent.App) []intent.Check {
	var out []intent.Check
	for _, c := range app.Checks {
		if c.Type != intent.CheckProcess && c.Type != intent.CheckSmoke {
			out = append(out, c)
		}
	}
	return out
}

func checkName(c intent.Check) string {
	switch c.Type {
	case intent.CheckHTTP:
		return "http " + cmp.Or(c.Path, "/")
	case intent.CheckExec:
		return "exec " + strings.Join(c.Command, " ")
	}
	return strings.TrimSpace(string(c.Type) + " " + c.Port)
}

// signals are those that a stop rule may name. SIGSTOP is not among them: it
// would not end anything.
var signals = map[string]syscall.Signal{
	"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "ABRT": syscall.SIGABRT,
	"KILL": syscall.SIGKILL, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "PIPE": syscall.SIGPIPE,
	"ALRM": syscall.SIGALRM, "TERM": syscall.SIGTERM, "CONT": syscall.SIGCONT, "WINCH": syscall.SIGWINCH,
}

// ParseSignal reads a signal's name, with or without SIG.
func ParseSignal(name string) (syscall.Signal, error) {
	if sig, ok := signals[strings.TrimPrefix(strings.ToUpper(name), "SIG")]; ok {
		return sig, nil
	}
	return 0, fmt.Errorf("signal %q: unknown; want one such as SIGTERM, SIGINT or SIGUSR1", name)
}

// SignalName returns the name of sig: "SIGTERM", or "signal 34".
func SignalName(sig syscall.Signal) string {
	for name, s := range signals {
		if s == sig {
			return "SIG" + name
		}
	}
	switch sig {
	case syscall.SIGSEGV:
		return "SIGSEGV"
	case syscall.SIGBUS:
		return "SIGBUS"
	case syscall.SIGILL:
		return "SIGILL"
	case syscall.SIGFPE:
		return "SIGFPE"
	case syscall.SIGTRAP:
		return "SIGTRAP"
	case syscall.SIGSYS:
		return "SIGSYS"
	}
	return fmt.Sprintf("signal %d", int(sig))
}
