package workloadtest

import (
	"maps"
	"slices"
	"strings"

	"github.com/ganglion-mesh/ganglion/workload"
)

// noteEnd keeps how a copy that runs once has ended. It is called with mu held.
func (h *Host) noteEnd(inst workload.Instance, e workload.Exit) {
	if inst.Spec.Once && e.Known {
		h.ends[inst.Spec.ID] = workload.End{Instance: inst, Exit: e}
	}
}

// Ends returns the copies of which an end is kept, in order.
func (h *Host) Ends() []workload.CopyID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.SortedFunc(maps.Keys(h.ends), func(a, b workload.CopyID) int { return strings.Compare(a.String(), b.String()) })
}

// Ended implements workload.Ends.
func (m *Memory) Ended() []workload.End {
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	var out []workload.End
	for id, e := range m.host.ends {
		if m.host.procs[id] == nil {
			out = append(out, e)
		}
	}
	return out
}

// Forget implements workload.Ends.
func (m *Memory) Forget(id workload.CopyID) {
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	if m.host.procs[id] == nil {
		delete(m.host.ends, id)
	}
}
