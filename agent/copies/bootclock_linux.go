package copies

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// BootClock tells which boot of the host this is, and for how long it has been
// up, suspension included. Without either nothing of an earlier life is taken
// up but what was completed.
func BootClock() (boot string, up time.Duration) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", 0
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return "", 0
	}
	return strings.TrimSpace(string(id)), time.Duration(ts.Nano())
}
