package agent

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/agent/reflexer"
	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/systemd"
)

// unitPatience is how long the restart or the stop of a unit is waited for. PID 1 goes on
// with it by the unit's own times.
const unitPatience = 2 * time.Minute

// unitRE is a unit that can be acted on, by its whole name.
var unitRE = regexp.MustCompile(`^[A-Za-z0-9:_.@\\-]{1,240}\.(service|socket|timer|mount|path)$`)

// checkReflexUnits judges the units on which reflexes may act.
func checkReflexUnits(units []string) error {
	for _, u := range units {
		switch {
		case !unitRE.MatchString(u):
			return fmt.Errorf("reflex_units: %q: want the whole name of a unit, such as nginx.service", shorten(u))
		case strings.HasPrefix(u, "ganglion-"), strings.HasPrefix(u, "ganglion."):
			return fmt.Errorf("reflex_units: %s is ganglion's own; reflexes restart copies by restart(\"APP\")", shorten(u))
		}
	}
	return nil
}

// mayOnUnit tells why reflexes may not do something to a unit of this host, or nil.
func (n *nerves) mayOnUnit(op, unit string) error {
	if !slices.Contains(n.cfg.ReflexUnits, unit) {
		return fmt.Errorf("this host does not let reflexes %s %s: it is not in reflex_units of its agent's configuration", op, unit)
	}
	if (op == "signal" || op == "throttle") && !strings.HasSuffix(unit, ".service") {
		return fmt.Errorf("%s %s: only a service has processes of its own", op, unit)
	}
	if err := systemd.Available(); err != nil {
		return fmt.Errorf("%s %s: %w", op, unit, err)
	}
	return nil
}

// actOnUnit acts on a unit of this host that is no copy. Its token was borrowed and
// counts as spent, whatever comes of it.
func (n *nerves) actOnUnit(ctx context.Context, o reflexer.Order) error {
	unit := o.On.Name
	if err := n.mayOnUnit(o.Do.Op, unit); err != nil {
		return err
	}
	if err := n.unfrozen("", false); err != nil {
		return err
	}
	if o.Stage != 0 { // on trial: the log says in which order this and its end come
		note := api.ActRequest{Host: n.cfg.Name, Loan: o.Loan, Op: api.ActNote, Rule: o.Rule, Stage: o.Stage, Why: fmt.Sprintf("%s of %s by reflex %s", o.Do.Op, unit, o.Rule)}
		if err := n.ask(ctx, o, note); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, unitPatience)
	defer cancel()
	switch o.Do.Op {
	case "restart":
		return systemd.RestartUnit(ctx, unit)
	case "stop":
		return systemd.StopUnit(ctx, unit)
	case "signal":
		sig, err := workload.ParseSignal(o.Do.Args["signal"])
		if err != nil {
			return err
		}
		return systemd.SignalUnit(ctx, unit, sig)
	case "throttle":
		return n.held.beginUnit(ctx, unit, o)
	}
	return fmt.Errorf("this release cannot %s a unit", o.Do.Op)
}
