//go:build !linux

package copies

import "time"

// bootClock knows nothing where there is no agent.
func bootClock() (boot string, up time.Duration) { return "", 0 }
