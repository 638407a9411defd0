package topology

import (
	"slices"

	"github.com/ganglion-mesh/ganglion/intent"
)

// Freeze is what is frozen, as the leader has heard: of that Decide begins
// nothing that nobody has asked for. Copies of lost hosts stay where they are,
// rollouts, drains and balance pause between steps, no schedule begins a run. What
// users ask for meanwhile is done: first placements, counts, stops, starts,
// restarts; and a copy that has left its host already is placed.
type Freeze struct {
	All  bool     // every app
	Apps []string // these apps
}

func (f Freeze) holds(app string) bool { return f.All || slices.Contains(f.Apps, app) }

// Any tells whether anything is frozen.
func (f Freeze) Any() bool { return f.All || len(f.Apps) > 0 }

// Thaw ends every freeze of a lower epoch. That it is in the log is the quorum
// that thawing needs. One that is not above the last changes nothing.
type Thaw struct {
	Epoch uint64 `json:"epoch"`
	By    string `json:"by,omitempty"` // the host at which it was asked for
}

// Thawed returns the last thaw; Epoch 0: there was none.
func (s *State) Thawed() Thaw { return s.thawed }

func (t *txn) thaw(c Thaw) *Rejected {
	if c.By != "" {
		if err := intent.CheckName(c.By); err != nil {
			return reject(RejectInvalid, "thaw: %v", err)
		}
	}
	if c.Epoch > t.thawed.Epoch {
		t.thawed, t.changed = c, true
	}
	return nil
}

// frozenWhy is what is told of what a freeze holds.
const frozenWhy = "frozen: ganglion thaw lets it go on"

// holdFrozen says that a freeze keeps a copy on a lost host.
func (p *planner) holdFrozen(lost *room) {
	if p.out.Held == "" {
		p.out.Held = "host " + lost.Name + " is lost, and its copies stay: " + frozenWhy
	}
}

// asked reports whether what changes about an app may go on though it is frozen:
// restarts and first placements, but not from one version to another.
func (a *appPlan) asked() bool {
	return !a.frozen || !a.onTrial() && !a.returning() &&
		!slices.ContainsFunc(a.all(), func(c *copyPlan) bool { return c.Version != a.Version })
}

// freeze notes that an app is frozen, and that it gets no further for it.
func (st *AppStatus) freeze(a *appPlan) {
	st.Frozen = a.frozen
	if !a.frozen || st.State == AppSteady || st.State == AppStopped || st.State == AppPending {
		return
	}
	if st.Why != "" {
		st.Why += "; "
	}
	st.Why += frozenWhy
}
