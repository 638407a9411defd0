//go:build !linux

package copies

import "time"

// BootClock knows nothing where there is no agent.
func BootClock() (boot string, up time.Duration) { return "", 0 }
