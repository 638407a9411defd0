package copies

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/workload"
)

// CopyReport is how one copy of this host is.
type CopyReport struct {
	ID         workload.CopyID    `json:"id"`
	Version    string             `json:"version"`    // of what runs, else of what is being worked on
	Generation uint64             `json:"generation"` // likewise
	State      topology.CopyState `json:"state"`
	Ready      bool               `json:"ready"`
	ReadyFor   time.Duration      `json:"ready_for"`
	Age        time.Duration      `json:"age"`            // since this host began to work on the generation that is placed here
	Failed     bool               `json:"failed"`         // the generation cannot work as it is
	Done       uint64             `json:"done,omitempty"` // the last generation that ran to completion
	Why        string             `json:"why,omitempty"`
	Pid        int                `json:"pid,omitempty"`
	Token      uint64             `json:"token,omitempty"` // of the lease that what runs has
	Restarts   int                `json:"restarts"`        // within the generation
	Since      time.Time          `json:"since,omitzero"`  // start of what runs; for display
	Ports      map[string]int     `json:"ports,omitempty"` // not to be changed
	PortTaken  []int              `json:"port_taken,omitempty"`
	Failures   int                `json:"failures,omitempty"` // in a row, of the check that fails longest
	Timeouts   int                `json:"timeouts,omitempty"` // of these, how many of the last got no answer in time

	BestReady time.Duration `json:"best_ready"` // the longest time it was ready on end, within the generation and this agent's life
	// LapsedAfter is for how long it had been ready when it ended by itself, or its
	// checks failed; the longest such time, within the generation and this agent's life.
	LapsedAfter time.Duration `json:"lapsed_after,omitempty"`
	LapsedWhy   string        `json:"lapsed_why,omitempty"`

	Smoke    uint64              `json:"smoke,omitempty"`     // the run of smoke checks that was asked for last
	SmokeEnd topology.SmokeState `json:"smoke_end,omitempty"` // empty: it goes on
	SmokeWhy string              `json:"smoke_why,omitempty"` // why it failed
}

// view is what a runner last published of its copy.
type view struct {
	version string
	st      workload.Status
	held    map[string]int // ports of what runs
	ports   map[string]int // ports to show
	taken   []int

	awaited *awaited // an order that waits for its package; nil: none
	older   bool     // besides it, there is one before it that is carried out
	smoke   smoke
	best    time.Duration // see bestReady
	last    string        // see lastOutput
}

// Reports returns all copies of this host, ordered by app and number.
func (m *Manager) Reports() []CopyReport {
	out, _ := m.Survey()
	return out
}

// Survey returns what Reports does, with the index of the slice that it is about:
// a copy that is not among them, and that this slice does not ask for, neither runs
// here nor begins before a later slice asks for it. The index is 0 while it is not
// known what runs.
func (m *Manager) Survey() (copies []CopyReport, slice uint64) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]CopyReport, 0, len(m.runners))
	for id, r := range m.runners {
		rep := r.view.report(id, now)
		rep.Token = r.token
		out = append(out, rep)
	}
	slices.SortFunc(out, func(a, b CopyReport) int {
		return cmp.Or(cmp.Compare(a.ID.App, b.ID.App), cmp.Compare(a.ID.N, b.ID.N))
	})
	if m.held.met {
		slice = m.index
	}
	return out, slice
}

// Of returns the copies of an app on this host, by number.
func (m *Manager) Of(app string) (ids []workload.CopyID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, r := range m.runners {
		if id.App == app && r.view.version != "" { // as Reports
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b workload.CopyID) int { return cmp.Compare(a.N, b.N) })
	return ids
}

// Changed returns a channel that is closed when a report differs from what it
// was. Get the channel first, then Reports: then no change is missed.
func (m *Manager) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// announce wakes all who wait on Changed. It is called with mu held.
func (m *Manager) announce() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (v *view) report(id workload.CopyID, now time.Time) CopyReport {
	rep := CopyReport{
		ID: id, Version: v.version, Generation: v.st.Generation,
		State: topology.CopyState(v.st.State), Ready: v.st.Ready,
		Failed: v.st.Failed, Done: v.st.Completed, Why: v.st.Why, Restarts: max(v.st.Starts-1, 0),
		Ports: v.ports, PortTaken: v.taken, Failures: v.st.Failures, Timeouts: v.st.Timeouts,
		BestReady: v.best, Smoke: v.smoke.id, SmokeEnd: v.smoke.end, SmokeWhy: v.smoke.why,
	}
	rep.LapsedAfter, rep.LapsedWhy = v.st.Lapse.After, v.st.Lapse.Why
	if v.last != "" {
		if rep.Failed {
			rep.Why += "; its last output: " + v.last
		}
		if rep.LapsedAfter > 0 {
			rep.LapsedWhy += "; its last output: " + v.last
		}
	}
	if !v.st.Born.IsZero() {
		rep.Age = now.Sub(v.st.Born)
	}
	if v.st.Ready {
		rep.ReadyFor = now.Sub(v.st.ReadySince)
		rep.BestReady = max(rep.BestReady, rep.ReadyFor)
	}
	if inst := v.st.Instance; inst != nil {
		rep.Generation, rep.Pid, rep.Since = inst.Spec.Generation, inst.Pid, inst.Since
		if inst.Spec.Generation != v.st.Generation {
			rep.Failed, rep.Restarts = false, max(inst.Start-1, 0)
			rep.LapsedAfter, rep.LapsedWhy = 0, ""
		}
	}
	if v.awaited != nil {
		v.awaited.amend(&rep, v.older, now)
	}
	return rep
}

// same tells whether two views would be reported alike, ages apart.
func (v *view) same(o *view) bool {
	a, b := v.report(workload.CopyID{}, time.Time{}), o.report(workload.CopyID{}, time.Time{})
	return a.Version == b.Version && a.Generation == b.Generation && a.State == b.State && a.Ready == b.Ready &&
		v.st.ReadySince.Equal(o.st.ReadySince) && v.st.Born.Equal(o.st.Born) && a.Failed == b.Failed && a.Done == b.Done && a.Why == b.Why && a.Pid == b.Pid &&
		a.Restarts == b.Restarts && maps.Equal(v.held, o.held) && maps.Equal(a.Ports, b.Ports) && slices.Equal(a.PortTaken, b.PortTaken) &&
		v.smoke == o.smoke && a.LapsedAfter == b.LapsedAfter && a.Failures == b.Failures && a.Timeouts == b.Timeouts
}

// portsOf reads the ports of a running copy out of its environment, for one
// whose assignment this host no longer has.
func portsOf(spec workload.Spec) map[string]int {
	var out map[string]int
	for k, v := range spec.Env {
		name, ok := strings.CutPrefix(k, "PORT_")
		port, err := strconv.Atoi(v)
		if !ok || err != nil {
			continue
		}
		if out == nil {
			out = map[string]int{}
		}
		out[strings.ReplaceAll(strings.ToLower(name), "_", "-")] = port
	}
	return out
}
