//go:build linux

package program

import (
	"os"
	"os/signal"
	"syscall"
)

// lastSignal is the last of the signals that programs send each other; those above
// belong to libraries and real-time programs.
const lastSignal = syscall.SIGSYS

// CatchIgnored catches, for the whole process and for good, the signals that it
// was started to ignore, as nohup has SIGHUP ignored, and drops them. To the
// process that is the same; but what is ignored its children would inherit, and
// what is caught they find as it is by default.
func CatchIgnored() {
	drop := make(chan os.Signal, 1)
	for sig := syscall.Signal(1); sig <= lastSignal; sig++ {
		if signal.Ignored(sig) {
			signal.Notify(drop, sig)
		}
	}
}
