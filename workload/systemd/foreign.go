//go:build linux

package systemd

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/pid1"
)

// RestartUnit has PID 1 restart a unit that is no copy of ours, or start it if it
// does not run, also one that it has given up on. It returns once the unit is up,
// by its own measure, or why it is not. It may be called from any goroutine, and
// needs no Driver.
func RestartUnit(ctx context.Context, unit string) error {
	return withUnit(ctx, "restart", unit, func(p errand) error {
		// Else PID 1 refuses what it has given up on. That there is nothing to reset is
		// no matter: whether there is such a unit is told by the next answer.
		_ = p.call(ctx, "ResetFailedUnit", unit).Err
		return p.job(ctx, "RestartUnit", unit)
	})
}

// StopUnit has PID 1 stop a unit that is no copy of ours, by the unit's own rule, and
// returns once it is down, as RestartUnit does. One that does not run is left as it is.
// Nothing keeps what else may start it from doing so.
func StopUnit(ctx context.Context, unit string) error {
	return withUnit(ctx, "stop", unit, func(p errand) error { return p.job(ctx, "StopUnit", unit) })
}

// SignalUnit has PID 1 send a signal to the main process of a service that is no copy
// of ours. That there is none is an error.
func SignalUnit(ctx context.Context, unit string, sig syscall.Signal) error {
	return withUnit(ctx, "send "+unix.SignalName(sig)+" to", unit, func(p errand) error {
		return p.call(ctx, "KillUnit", unit, "main", int32(sig)).Err
	})
}

// errand is a connection to PID 1 for what is done to one unit.
type errand struct{ pid1.Conn }

func withUnit(ctx context.Context, verb, unit string, do func(errand) error) error {
	conn, err := pid1.Dial(context.Background(), pid1.Socket)
	if err == nil {
		if err = conn.Greet(ctx); err == nil {
			err = do(errand{conn})
		}
		conn.Close()
	}
	if err != nil {
		return fmt.Errorf("%s unit %s: %w", verb, unit, err)
	}
	return nil
}

func (p errand) call(ctx context.Context, method string, args ...any) *dbus.Call {
	ctx, cancel := context.WithTimeout(ctx, pid1.Answers)
	defer cancel()
	return p.Object(pid1.Name, pid1.Manager).CallWithContext(ctx, pid1.OfManager+method, 0, args...)
}

// job has PID 1 begin a job of a unit, and waits for its end.
func (p errand) job(ctx context.Context, method, unit string) error {
	var job dbus.ObjectPath
	if err := p.call(ctx, method, unit, "replace").Store(&job); err != nil {
		return err
	}
	for {
		select {
		case s, ok := <-p.Signals:
			if !ok {
				return errDropped
			}
			if result, ours := jobResult(s, job); ours && result != "done" {
				return fmt.Errorf("systemd says %q; see journalctl -u %s", result, unit)
			} else if ours {
				return nil
			}
		case <-p.Context().Done():
			return errDropped
		case <-ctx.Done():
			return fmt.Errorf("systemd is not done with it yet: %w", ctx.Err())
		}
	}
}

// errDropped tells that the end of a job will not be heard of.
var errDropped = errors.New("PID 1 has dropped the connection: it is not known how it ended")

// jobResult is how a job ended, if that is what PID 1 says.
func jobResult(s *dbus.Signal, job dbus.ObjectPath) (result string, ours bool) {
	if s.Name != pid1.OfManager+"JobRemoved" || len(s.Body) < 4 || s.Body[1] != job {
		return "", false
	}
	result, ours = s.Body[3].(string)
	return result, ours
}
