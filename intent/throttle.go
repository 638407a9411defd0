package intent

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Throttle is what the arguments of a throttle action say: what a copy may use
// while it is held back. At least one of CPU and Memory is set.
type Throttle struct {
	CPU    float64  // cores; 0: as much as before
	Memory Bytes    // beyond it the copy is slowed down, not killed; 0: as before
	For    Duration // how long; 0: until the matter is over
}

// The least that a copy may be held back to.
const (
	minThrottleCPU    = 0.01
	minThrottleMemory = MiB
)

// Throttle reads the arguments of a throttle action: cpu as in "50%", of one
// core, or "0.5", cores; memory as in "256MiB"; for as in "5m".
func (a Action) Throttle() (t Throttle, err error) {
	if err := a.known("cpu", "memory", "for"); err != nil {
		return t, err
	}
	if s := a.Args["cpu"]; s != "" {
		if t.CPU, err = cores(s); err != nil {
			return t, err
		}
	}
	if s := a.Args["memory"]; s != "" {
		if err := t.Memory.UnmarshalText([]byte(s)); err != nil {
			return t, err
		}
		if t.Memory < minThrottleMemory {
			return t, fmt.Errorf("memory = %s is too little; want at least %s", quote(s), minThrottleMemory)
		}
	}
	if s := a.Args["for"]; s != "" {
		if err := t.For.UnmarshalText([]byte(s)); err != nil {
			return t, err
		}
		if t.For < Second || t.For > MaxSpan {
			return t, fmt.Errorf("for = %s is out of bounds; want 1s to %s", quote(s), MaxSpan)
		}
	}
	if t.CPU == 0 && t.Memory == 0 {
		return t, errors.New("throttle needs cpu or memory, as in throttle(\"web\", { cpu = \"50%\" })")
	}
	return t, nil
}

// cores reads a share of one core, "50%", or a number of cores.
func cores(s string) (float64, error) {
	number, percent := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v >= minThrottleCPU && v <= 4096) { // also refuses NaN
		return 0, fmt.Errorf("cpu = %s is not a share of a core such as 50%%, or cores such as 0.5", quote(s))
	}
	return v, nil
}

// known refuses arguments by other names than these.
func (a Action) known(names ...string) error {
	for _, k := range sortedKeys(a.Args) {
		if !slices.Contains(names, k) {
			return fmt.Errorf("%s takes no %s: %s", a.Op, quote(k), oneOf(k, names))
		}
	}
	return nil
}
