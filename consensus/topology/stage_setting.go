package topology

import (
	"fmt"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// Bounds of the time that a stage of a reflex lasts.
const (
	MinReflexStage = time.Second
	MaxReflexStage = 24 * time.Hour

	defaultReflexStage = 2 * time.Minute
)

// ReflexStage is for how long each stage of a new or changed reflex has to be calm
// before the next. The zero value is the default.
type ReflexStage struct {
	Off bool            `json:"off,omitempty"` // what is declared is in force everywhere at once
	For intent.Duration `json:"for,omitempty"` // 0: the default
}

// SetReflexStage changes the setting. Stages under way go by it too.
type SetReflexStage struct {
	ReflexStage ReflexStage `json:"reflex_stage"`
}

// ReflexStage returns the mesh's setting.
func (s *State) ReflexStage() ReflexStage { return s.reflexStage }

// Bake is how long a stage lasts; 0: there are none.
func (r ReflexStage) Bake() time.Duration {
	switch {
	case r.Off:
		return 0
	case r.For == 0:
		return defaultReflexStage
	}
	return r.For.Std()
}

// String is the setting as users write it: "off", or "2m".
func (r ReflexStage) String() string {
	if r.Off {
		return "off"
	}
	return intent.Duration(r.Bake()).String()
}

// ParseReflexStage reads what users write: "off" or "0", "on" for the default, or a
// time.
func ParseReflexStage(s string) (ReflexStage, error) {
	switch s {
	case "off", "0":
		return ReflexStage{Off: true}, nil
	case "on":
		return ReflexStage{}, nil
	}
	const want = "want off, on, or how long each stage has to be calm, such as 2m"
	var d intent.Duration
	if err := d.UnmarshalText([]byte(s)); err != nil {
		return ReflexStage{}, fmt.Errorf("set reflex_stage to %q: %w; %s", clip(s), err, want)
	}
	r := ReflexStage{For: d}
	if why := r.wrong(); why != "" || d == 0 {
		return ReflexStage{}, fmt.Errorf("set reflex_stage to %q: %s; %s", clip(s), orText(why, "off is off"), want)
	}
	return r, nil
}

// wrong says what is out of bounds, or "".
func (r ReflexStage) wrong() string {
	if r.For != 0 && (r.Off || r.For.Std() < MinReflexStage || r.For.Std() > MaxReflexStage) {
		return fmt.Sprintf("the time is not within %s and %s", MinReflexStage, MaxReflexStage)
	}
	return ""
}

func (t *txn) setReflexStage(c SetReflexStage) *Rejected {
	if why := c.ReflexStage.wrong(); why != "" {
		return reject(RejectInvalid, "set reflex_stage: %s", why)
	}
	if c.ReflexStage != t.reflexStage {
		t.noteSetting(SettingReflexStage, t.reflexStage.String(), c.ReflexStage.String())
		t.reflexStage, t.changed = c.ReflexStage, true
	}
	return nil
}
