package senses

import (
	"strings"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// unitTable is what is known of systemd's units, and turns reports about them
// into facts. It is pure. It outlives a run of the sense, so that a failure
// while none ran is found by comparing.
type unitTable struct {
	units  map[string]*unitState
	listed bool // once: a unit that is met later is a new one
}

type unitState struct {
	active, sub string
	failures    int64
	told        bool // since the run began
	seen        bool // in the list that is being compared
}

// maxUnits bounds the units of which anything is kept.
const maxUnits = 2048

func newUnitTable() *unitTable { return &unitTable{units: map[string]*unitState{}} }

// begin has all units told anew.
func (t *unitTable) begin() {
	for _, u := range t.units {
		u.told = false
	}
}

// set takes in the state of a unit. An empty word is one that was not said.
func (t *unitTable) set(name, active, sub string, at reflexes.Boot, to []reflexes.Fact) []reflexes.Fact {
	if strings.HasSuffix(name, ".device") { // there are hundreds, and nobody restarts them
		return to
	}
	u := t.units[name]
	known := u != nil
	if !known {
		if len(t.units) >= maxUnits {
			return to
		}
		u = &unitState{}
		t.units[name] = u
	}
	u.seen = true
	if active == "" {
		active = u.active
	}
	if sub == "" {
		sub = u.sub
	}
	target := reflexes.Target{Scope: reflexes.ScopeUnit, Name: name}
	failed := active == "failed" && u.active != "failed" && (known || t.listed)
	if failed {
		u.failures++
	}
	if u.active != active || !u.told {
		to = append(to, fact(reflexes.UnitState, target, reflexes.Text(strings.Clone(active)), at))
	}
	if u.sub != sub || !u.told {
		to = append(to, fact(reflexes.UnitSub, target, reflexes.Text(strings.Clone(sub)), at))
	}
	if failed || !u.told {
		to = append(to, fact(reflexes.UnitFailures, target, reflexes.Int(u.failures), at))
	}
	u.active, u.sub, u.told = active, sub, true
	return to
}

// compare begins to take in a whole list; what it does not set is gone when
// compared is called.
func (t *unitTable) compare() {
	for _, u := range t.units {
		u.seen = false
	}
}

func (t *unitTable) compared(at reflexes.Boot, to []reflexes.Fact) []reflexes.Fact {
	t.listed = true
	for name, u := range t.units {
		if u.seen {
			continue
		}
		delete(t.units, name)
		to = gone(to, reflexes.Target{Scope: reflexes.ScopeUnit, Name: name}, at, unitVars...)
	}
	return to
}

var unitVars = []reflexes.VarID{reflexes.UnitState, reflexes.UnitSub, reflexes.UnitFailures}

// unitPath is where PID 1 keeps its units.
const unitPath = "/org/freedesktop/systemd1/unit/"

// unitName returns the name of the unit at a path of the bus, in which all but
// letters and digits is written as _ and two hexadecimal digits.
func unitName(path string) (string, bool) {
	escaped, ok := strings.CutPrefix(path, unitPath)
	if !ok || escaped == "" || len(escaped) > 1024 {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(escaped); i++ {
		if escaped[i] != '_' {
			b.WriteByte(escaped[i])
			continue
		}
		if i+2 >= len(escaped) {
			return "", false
		}
		hi, ok1 := hexDigit(escaped[i+1])
		lo, ok2 := hexDigit(escaped[i+2])
		if !ok1 || !ok2 {
			return "", false
		}
		b.WriteByte(hi<<4 | lo)
		i += 2
	}
	return b.String(), true
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}
