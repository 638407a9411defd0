package bootclock

import (
	"time"

	"golang.org/x/sys/unix"
)

// Now is the time since boot on CLOCK_BOOTTIME, which counts the time that the
// host was suspended and which nobody sets. It may be called from anywhere.
func Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("read CLOCK_BOOTTIME: " + err.Error()) // Linux has it since 2.6.39
	}
	return time.Duration(ts.Nano())
}
