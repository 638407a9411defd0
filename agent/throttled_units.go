package agent

import (
	"context"
	"errors"
	"reflect"

	"github.com/ganglion-mesh/ganglion/agent/reflexer"
	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/systemd"
)

// unitThrottler is systemd.ThrottleUnit, or what stands in for it.
type unitThrottler func(ctx context.Context, unit string, t workload.Throttle, was systemd.UnitHold, note func(systemd.UnitHold) error) (systemd.UnitHold, error)

func unitTarget(unit string) reflexes.Target {
	return reflexes.Target{Scope: reflexes.ScopeUnit, Name: unit}
}

// beginUnit holds a unit of systemd back as an order says.
func (t *throttles) beginUnit(ctx context.Context, unit string, o reflexer.Order) error {
	return t.hold(ctx, throttle{On: unitTarget(unit)}, o)
}

// tellUnit tells PID 1 what counts for a unit, or makes good what others have changed
// of it meanwhile. What has to come back when it is over is on the disk before. It is
// called with mu held.
func (t *throttles) tellUnit(ctx context.Context, unit string, all workload.Throttle) error {
	was := t.units[unit]
	if len(was) == 0 && all == (workload.Throttle{}) {
		return nil // PID 1 was told nothing
	}
	note := func(h systemd.UnitHold) error {
		t.keepUnit(unit, h)
		return t.save()
	}
	now, err := t.pid1(ctx, unit, all, was, note)
	if old := t.units[unit]; len(old)+len(now) > 0 && !reflect.DeepEqual(old, now) {
		t.keepUnit(unit, now)
		err = errors.Join(err, t.save())
	}
	return err
}

// keepUnit is called with mu held.
func (t *throttles) keepUnit(unit string, h systemd.UnitHold) {
	if len(h) == 0 {
		delete(t.units, unit)
		return
	}
	t.units[unit] = h
}

// lookAtUnits has it looked, now and then, whether PID 1 still knows of the units that
// are held back: a reload, or what an operator sets, may undo it. It is called with mu
// held.
func (t *throttles) lookAtUnits(now reflexes.Boot) {
	if now-t.looked < throttleLook {
		return
	}
	t.looked = now
	for _, one := range t.list {
		if _, due := t.due[one.On]; one.On.Scope == reflexes.ScopeUnit && !due {
			t.due[one.On] = ""
		}
	}
}
