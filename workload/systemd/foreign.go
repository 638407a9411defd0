//go:build linux

package systemd

import (
	"context"
	"fmt"

	"github.com/godbus/dbus/v5"
)

// RestartUnit has PID 1 restart a unit that is no copy of ours, or start it if it
// does not run, also one that it has given up on. It returns once the unit is up,
// by its own measure, or why it is not. It may be called from any goroutine, and
// needs no Driver.
func RestartUnit(ctx context.Context, unit string) error {
	if err := restartUnit(ctx, unit); err != nil {
		return fmt.Errorf("restart unit %s: %w", unit, err)
	}
	return nil
}

func restartUnit(ctx context.Context, unit string) error {
	conn, signals, err := dial(privateSocket)
	if err != nil {
		return err
	}
	defer conn.Close()
	manager := conn.Object(busName, managerPath)
	call := func(method string, args ...any) *dbus.Call {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		return manager.CallWithContext(ctx, managerIface+method, 0, args...)
	}
	// Else PID 1 refuses what it has given up on. That there is nothing to reset is
	// no matter: whether there is such a unit is told by the next answer.
	_ = call("ResetFailedUnit", unit).Err
	var job dbus.ObjectPath
	if err := call("RestartUnit", unit, "replace").Store(&job); err != nil {
		return err
	}
	for {
		select {
		case s, ok := <-signals:
			if !ok {
				return fmt.Errorf("PID 1 has dropped the connection: it is not known whether it runs")
			}
			if result, ours := jobResult(s, job); ours && result != "done" {
				return fmt.Errorf("systemd says %q; see journalctl -u %s", result, unit)
			} else if ours {
				return nil
			}
		case <-conn.Context().Done():
			return fmt.Errorf("PID 1 has dropped the connection: it is not known whether it runs")
		case <-ctx.Done():
			return fmt.Errorf("it is not up yet: %w", ctx.Err())
		}
	}
}

// jobResult is how a job ended, if that is what PID 1 says.
func jobResult(s *dbus.Signal, job dbus.ObjectPath) (result string, ours bool) {
	if s.Name != managerIface+"JobRemoved" || len(s.Body) < 4 || s.Body[1] != job {
		return "", false
	}
	result, ours = s.Body[3].(string)
	return result, ours
}
