// Package bootclock reads the clock that leases, and all that has to outlive a
// suspension, are counted on, and the name of the boot in which it means something.
package bootclock

import (
	"os"
	"strings"
	"sync"
	"time"
)

// ID names this boot of the host. It is read once: it cannot change while a
// process lives, and it is asked for with every report.
var ID = sync.OnceValues(func() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
})

// Read tells which boot of the host this is, empty if that is not known, and for
// how long it has been up.
func Read() (boot string, up time.Duration) {
	boot, _ = ID()
	return boot, Now()
}
