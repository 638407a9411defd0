package copies

import (
	"context"
	"time"

	"github.com/ganglion-mesh/ganglion/pause"
	"github.com/ganglion-mesh/ganglion/workload"
)

// takeEnds asks the driver how copies that run once ended while no agent ran.
func (m *Manager) takeEnds() {
	keeps, ok := m.cfg.Driver.(workload.Ends)
	if !ok {
		return
	}
	ends := keeps.Ended()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ends = make(map[workload.CopyID]workload.End, len(ends))
	for _, e := range ends {
		m.ends[e.Instance.Spec.ID] = e
	}
}

// takeEnd returns how a copy ended while no agent ran, once; nil: it did not, or
// nobody knows. It is called with mu held.
func (m *Manager) takeEnd(id workload.CopyID) *workload.End {
	e, ok := m.ends[id]
	if !ok {
		return nil
	}
	delete(m.ends, id)
	return &e
}

// dropEnds lets go of the ends of copies that this host does not have any more.
// It is called with mu held.
func (m *Manager) dropEnds() {
	if m.waiting {
		return
	}
	for id := range m.ends {
		if _, wanted := m.orders[id]; !wanted {
			delete(m.ends, id)
			m.forgetEnd(id)
		}
	}
}

func (m *Manager) forgetEnd(id workload.CopyID) {
	if keeps, ok := m.cfg.Driver.(workload.Ends); ok {
		keeps.Forget(id)
	}
}

// learn takes in how the copy ended while no agent ran, unless the last life of
// the agent knew.
func (r *runner) learn(ctx context.Context) {
	if r.end == nil {
		return
	}
	r.owes = true
	if r.memory.last.Knows(r.end.Instance) {
		r.settle()
		return
	}
	r.step(ctx, workload.Adopted{Instance: r.end.Instance}, workload.Exited{Exit: r.end.Exit})
}

// settle lets the driver forget how the copy has ended, now that it is remembered
// here, or matters to nobody.
func (r *runner) settle() {
	if r.owes {
		r.owes = false
		r.m.forgetEnd(r.id)
	}
}

// endSpares kills second instances of this copy before anything else is done
// about it. It reports whether none is left.
func (r *runner) endSpares(ctx context.Context) bool {
	for _, h := range r.spares {
		for {
			err := h.Stop(ctx, 0, 0)
			if err == nil {
				break
			}
			r.m.log.Error("end a second instance", "copy", r.id.String(), "pid", h.Instance().Pid, "error", err)
			if !pause.For(ctx, time.Second) {
				return false
			}
		}
	}
	r.spares = nil
	return true
}
