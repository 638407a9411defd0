//go:build linux

package systemd

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/ganglion-mesh/ganglion/workload"
)

// unbounded is the value of a bound that holds nothing back, as PID 1 has it.
const unbounded = uint64(math.MaxUint64)

// percent is a hundredth of a core, in the microseconds a second in which PID 1 is told
// of processors. It writes down no less, and forgets at the next reload what is between.
const percent = 10_000

// bound is a property of units by which PID 1 holds them back.
type bound struct {
	property string // on the bus
	setting  string // in a drop-in
}

// bounds are those that a throttle is made of.
var bounds = [...]bound{{"CPUQuotaPerSecUSec", "CPUQuota"}, {"MemoryHigh", "MemoryHigh"}}

// boundsOf is what PID 1 is to be told for t, by the order of bounds.
func boundsOf(t workload.Throttle) (most [len(bounds)]uint64) {
	most = [...]uint64{unbounded, unbounded}
	if t.CPU > 0 {
		most[0] = max(uint64(math.Round(t.CPU*1e6))/percent, 1) * percent
	}
	if t.Memory > 0 {
		most[1] = uint64(t.Memory)
	}
	return most
}

// in reads the bound that a drop-in sets, as PID 1 writes it.
func (b bound) in(text string) (value uint64, ok bool) {
	for line := range strings.Lines(text) {
		s, is := strings.CutPrefix(strings.TrimSpace(line), b.setting+"=")
		if !is {
			continue
		}
		share, isShare := strings.CutSuffix(s, "%")
		n, err := strconv.ParseFloat(share, 64)
		switch {
		case s == "" || s == "infinity":
			value, ok = unbounded, true
		case err != nil || n < 0:
			ok = false
		case isShare:
			value, ok = uint64(math.Round(n*percent)), true
		default:
			value, ok = uint64(n), true
		}
	}
	return value, ok
}

// UnitHold is what PID 1 was told of a unit that is held back, by setting, and what has
// to come back when that is over. It is for whoever holds the unit back to keep, over
// its own death; an empty one says that nothing is held.
type UnitHold map[string]Held

// Held is one setting of a unit that is held back.
type Held struct {
	File   string   `json:"file"`             // the drop-in that PID 1 writes it to
	Before *string  `json:"before,omitempty"` // what that said before; nil: there was none
	Own    uint64   `json:"own"`              // what the unit was bound to without it, when last seen
	Told   []uint64 `json:"told"`             // what PID 1 may have been told
}

// found is how a setting of a unit is found.
type found struct {
	file  string  // the drop-in that PID 1 writes it to
	text  *string // what that says; nil: there is none
	shown uint64  // the bound that counts
}

// ours tells whether a drop-in says what PID 1 was told for us.
func (b bound) ours(was Held, text *string) bool {
	if text == nil {
		return false
	}
	v, ok := b.in(*text)
	return ok && slices.Contains(was.Told, v)
}

// next decides how a setting of which most is wanted is to be held, by how it was and
// how it is found. Not at all if hold is false: nobody wants that, or what the unit
// says itself is as tight. What others have said of it meanwhile is its own, and comes
// back when it is over. With tell, PID 1 has to be told.
func (b bound) next(was Held, held bool, is found, most uint64) (next Held, hold, tell bool) {
	if most == unbounded {
		return Held{}, false, false
	}
	next = Held{File: is.file, Before: was.Before, Own: was.Own, Told: []uint64{most}}
	ours := held && was.File == is.file && b.ours(was, is.text)
	if !ours {
		next.Before = is.text
	}
	if !held || !slices.Contains(was.Told, is.shown) {
		next.Own = is.shown
	}
	if next.Own <= most {
		return Held{}, false, false
	}
	if tell = !ours || is.shown != most; !tell {
		v, _ := b.in(*is.text)
		tell = v != most
	}
	if tell {
		for _, v := range was.Told {
			if v != most {
				next.Told = append(next.Told, v)
			}
		}
	}
	return next, true, tell
}
