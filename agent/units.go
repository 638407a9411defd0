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
	"github.com/ganglion-mesh/ganglion/workload/systemd"
)

// unitPatience is how long the restart of a unit is waited for. PID 1 goes on
// with it by the unit's own times.
const unitPatience = 2 * time.Minute

// unitRE is a unit that can be restarted, by its whole name.
var unitRE = regexp.MustCompile(`^[A-Za-z0-9:_.@\\-]{1,240}\.(service|socket|timer|mount|path)$`)

// checkReflexUnits judges the units that reflexes may restart.
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

// mayRestart tells why reflexes may not restart a unit of this host, or nil.
func (n *nerves) mayRestart(unit string) error {
	if !slices.Contains(n.cfg.ReflexUnits, unit) {
		return fmt.Errorf("this host does not let reflexes restart %s: it is not in reflex_units of its agent's configuration", unit)
	}
	if err := systemd.Available(); err != nil {
		return fmt.Errorf("restart %s: %w", unit, err)
	}
	return nil
}

// restartUnit restarts a unit of this host that is no copy. Its token was borrowed
// and counts as spent, whatever comes of it.
func (n *nerves) restartUnit(ctx context.Context, o reflexer.Order) error {
	if o.Do.Op != "restart" {
		return fmt.Errorf("this release cannot %s a unit", o.Do.Op)
	}
	if err := n.mayRestart(o.On.Name); err != nil {
		return err
	}
	if err := n.unfrozen("", false); err != nil {
		return err
	}
	if o.Stage != 0 { // on trial: the log says in which order this and its end come
		note := api.ActRequest{Host: n.cfg.Name, Loan: o.Loan, Op: api.ActNote, Rule: o.Rule, Stage: o.Stage, Why: fmt.Sprintf("%s of %s by reflex %s", o.Do.Op, o.On.Name, o.Rule)}
		if err := n.ask(ctx, o, note); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, unitPatience)
	defer cancel()
	return systemd.RestartUnit(ctx, o.On.Name)
}
