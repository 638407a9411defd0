//go:build !linux

package bootclock

import "time"

// Now is 0: agents run on Linux alone.
func Now() time.Duration { return 0 }
