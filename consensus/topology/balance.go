package topology

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// Bounds of the budget of rebalancing.
const (
	MaxRebalanceMoves  = 1000
	MaxRebalanceWindow = 24 * time.Hour
	MinRebalanceWindow = time.Second
)

// Rebalance is whether copies that are well may be moved for the sake of an even
// spread alone, as after a host has joined or come back, and how many of them
// within any window of time. The zero value, and the default of a mesh: none.
type Rebalance struct {
	Moves  int             `json:"moves,omitempty"` // 0: off
	Window intent.Duration `json:"window,omitempty"`
}

// DefaultRebalance is what "on" stands for.
func DefaultRebalance() Rebalance { return Rebalance{Moves: 10, Window: 10 * intent.Minute} }

// String is the setting as users write it: "off", or moves per window, "10/10m".
func (r Rebalance) String() string {
	if r.Moves == 0 {
		return "off"
	}
	return strconv.Itoa(r.Moves) + "/" + r.Window.String()
}

// ParseRebalance reads what users write: "off", "on", or moves per window.
func ParseRebalance(s string) (Rebalance, error) {
	switch s {
	case "off":
		return Rebalance{}, nil
	case "on":
		return DefaultRebalance(), nil
	}
	const want = "want off, on, or how many copies may be moved within how long, such as 10/10m"
	moves, window, ok := strings.Cut(s, "/")
	n, err := strconv.Atoi(moves)
	if !ok || err != nil {
		return Rebalance{}, fmt.Errorf("set rebalance to %q: %s", clip(s), want)
	}
	var d intent.Duration
	if err := d.UnmarshalText([]byte(window)); err != nil {
		return Rebalance{}, fmt.Errorf("set rebalance to %q: %w; %s", clip(s), err, want)
	}
	r := Rebalance{Moves: n, Window: d}
	if why := r.wrong(); why != "" || n == 0 {
		return Rebalance{}, fmt.Errorf("set rebalance to %q: %s; %s", clip(s), orText(why, "0 moves are none"), want)
	}
	return r, nil
}

// wrong says what is out of bounds, or "".
func (r Rebalance) wrong() string {
	switch {
	case r == Rebalance{}:
		return ""
	case r.Moves < 1 || r.Moves > MaxRebalanceMoves:
		return fmt.Sprintf("the number of moves is not within 1 and %d", MaxRebalanceMoves)
	case r.Window.Std() < MinRebalanceWindow || r.Window.Std() > MaxRebalanceWindow:
		return fmt.Sprintf("the window is not within %s and %s", MinRebalanceWindow, MaxRebalanceWindow)
	}
	return ""
}

// Relief makes a surge copy the one that is to take over from another: once it
// has been well for healthy_for it is one of those that are asked for, and the
// other is no more. So a copy gets to another host without being missed for a
// moment, under another number.
type Relief struct {
	N    int    `json:"n"`    // the copy it takes over from
	From string `json:"from"` // the host of that one
	Why  string `json:"why"`
	// Balance says that it was begun for an even spread alone, and paid for from
	// the budget of Rebalance.
	Balance bool `json:"balance,omitempty"`
}

// Unfit is a host on which a relief did not become well.
type Unfit struct {
	Host    string `json:"host"`
	Version string `json:"version"`
	Index   uint64 `json:"index"`
}

// UnfitHost says so of a relief of an app that is given up with the same Place.
type UnfitHost struct {
	App  string `json:"app"`
	Host string `json:"host"`
}

// SetRebalance changes the setting. What was spent of the budget stays spent.
type SetRebalance struct {
	Rebalance Rebalance `json:"rebalance"`
}

// Rebalance returns the mesh's setting.
func (s *State) Rebalance() Rebalance { return s.rebalance }

// Rebalanced returns what is spent of the budget: for each move that was begun,
// the index of the command that began it, in order. Those whose window is over go
// when the next one is begun.
func (s *State) Rebalanced() []uint64 { return s.moved }

func (t *txn) setRebalance(c SetRebalance) *Rejected {
	if why := c.Rebalance.wrong(); why != "" {
		return reject(RejectInvalid, "set rebalance: %s", why)
	}
	if c.Rebalance != t.rebalance {
		t.noteSetting(SettingRebalance, t.rebalance.String(), c.Rebalance.String())
		t.rebalance, t.changed = c.Rebalance, true
	}
	return nil
}

// spend charges the moves that a Place begins to the budget. It is the last
// guard of it, whoever decided; what has come back is the leader's to say, who
// knows how long ago each was.
func (t *txn) spend(c Place) *Rejected {
	begun := 0
	for _, p := range c.Put {
		if old, ok := t.copies.Get(copyKey(p.Key())); p.Relief != nil && p.Relief.Balance && (!ok || old.Relief == nil) {
			begun++
		}
	}
	if begun == 0 {
		return nil
	}
	left := slices.DeleteFunc(slices.Clone(t.moved), func(i uint64) bool { return slices.Contains(c.Returned, i) })
	for range begun {
		left = append(left, t.index)
	}
	if len(left) > t.rebalance.Moves {
		return reject(RejectConflict, "place: it would be the %d. copy moved to balance, %s is allowed", len(left), t.rebalance)
	}
	t.moved = left
	return nil
}

// markUnfit notes where reliefs did not become well.
func (t *txn) markUnfit(list []UnfitHost) {
	for _, u := range list {
		e, ok := t.apps.Get([]byte(u.App))
		if !ok {
			continue
		}
		next := e.App
		next.Unfit = append(next.unfit(), Unfit{Host: u.Host, Version: next.Version, Index: t.index})
		next.Unfit = next.Unfit[max(0, len(next.Unfit)-maxTried):]
		t.setApp(next)
	}
}

// unfit is what is still true of what was noted: of the present version, and
// since the user last changed the app.
func (a App) unfit() []Unfit {
	return slices.DeleteFunc(slices.Clone(a.Unfit), func(u Unfit) bool { return u.Version != a.Version || u.Index < a.Modified })
}

func checkRelief(p Placement) *Rejected {
	r := p.Relief
	switch {
	case r == nil:
	case !p.Surge || r.N < 0 || r.N >= intent.MaxCopies || r.N == p.N:
		return reject(RejectInvalid, "place copy %s: it cannot take over from %d", p.Key(), r.N)
	case len(r.Why) > maxReason || len(r.From) > maxReason:
		return reject(RejectInvalid, "place copy %s: what it says of the copy it takes over from is longer than %d bytes", p.Key(), maxReason)
	}
	return nil
}
