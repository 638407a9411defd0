//go:build linux

package systemd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runtimeUnits is where PID 1 looks for what belongs to units of this boot.
const runtimeUnits = "/run/systemd/system"

// changeStopRule makes PID 1 stop a unit by another signal, or with more
// patience, than the unit was made with. PID 1 has no call for that, so it is
// told by a drop-in and a reload, which is slow (tens of milliseconds) and rare:
// most apps stop by SIGTERM within half a minute. Anything quicker would race
// with a restart: a signal sent by ourselves ends a process that PID 1 has not
// yet been told to leave dead.
func (d *Driver) changeStopRule(ctx context.Context, unit string, sig syscall.Signal, grace time.Duration) (restore func(), err error) {
	dir := filepath.Join(runtimeUnits, unit+".d")
	path := filepath.Join(dir, "stop.conf")
	restore = func() { _, _ = os.Remove(path), os.Remove(dir) } // the directory if there is no more in it
	defer func() {
		if err != nil {
			restore()
			err = fmt.Errorf("change the stop rule of %s: %w", unit, err)
		}
	}()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	text := fmt.Sprintf("[Service]\nKillSignal=%d\nTimeoutStopSec=%dms\n", int(sig), (grace + unitStopTime).Milliseconds())
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return restore, d.bus.call(ctx, "Reload", nil)
}

// sinceUSec turns a time of the monotonic clock into one to show.
func sinceUSec(usec uint64) time.Time {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil || usec == 0 {
		return time.Now()
	}
	ago := time.Duration(now.Nano()) - time.Duration(usec)*time.Microsecond
	return time.Now().Add(-ago)
}
