//go:build linux

package systemd

import (
	"context"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// tidyTimeout bounds how long a driver that is closed waits for PID 1 to forget
// what is over. What it does not forget is found by the next one.
const tidyTimeout = 3 * time.Second

// Ended implements workload.Ends.
func (d *Driver) Ended() []workload.End {
	d.mu.Lock()
	defer d.mu.Unlock()
	ends := d.ends
	d.ends = nil
	return ends
}

// Forget implements workload.Ends.
func (d *Driver) Forget(id workload.CopyID) {
	s, err := d.slot(id)
	if err != nil {
		return // closed: the next life asks again
	}
	if h := s.current.Load(); h == nil || !h.isKept() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.tidy.Go(func() { d.forgetEnd(s, id) })
	}
}

func (d *Driver) forgetEnd(s *slot, id workload.CopyID) {
	ctx, cancel := context.WithTimeout(context.Background(), tidyTimeout)
	defer cancel()
	if !s.mu.TryLock() {
		return // a Start or a Purge, which does the same first
	}
	defer s.mu.Unlock()
	if err := d.collect(ctx, s.live); err != nil {
		d.log.Warn("the unit of a copy that is over is left for later", "copy", id.String(), "error", err)
	}
}

// collect has PID 1 forget the unit of a copy that ran once and is over, and ends
// what the copy left in it. Of any other it does nothing.
func (d *Driver) collect(ctx context.Context, h *handle) error {
	if h == nil || !h.isKept() {
		return nil
	}
	if err := d.endUnit(ctx, h.unit); err != nil {
		return err
	}
	d.dirs.forget(h.unit)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept = false
	return nil
}

func (h *handle) isKept() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kept
}

// resetFailed lets PID 1 forget a unit that it keeps because it failed.
func (d *Driver) resetFailed(ctx context.Context, unit string) error {
	err := d.bus.call(ctx, "ResetFailedUnit", []any{unit})
	if isNoUnit(err) {
		return nil
	}
	return err
}

// adoptEnd reads how a copy that runs once ended while no agent ran, and tells
// whether its unit is kept for that. Of several units of a copy the last run
// counts, and none of a copy that runs.
func (d *Driver) adoptEnd(ctx context.Context, u listed) (kept bool, err error) {
	id, _ := parseUnitName(u.Name, d.tag)
	spec, n := d.specOf(u, id)
	spec.Once = true
	h := d.newHandle(u.Name, spec, n)
	if err := d.look(ctx, h); err != nil {
		return false, err
	}
	if !h.sawEnd() {
		return false, nil // PID 1 is about to forget it
	}
	s, err := d.slot(id)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checked = true
	if s.live != nil && !h.after(s.live) {
		return false, d.collect(ctx, h)
	}
	if err := d.collect(ctx, s.live); err != nil {
		return false, err
	}
	s.hold(h)
	d.noteEnd(workload.End{Instance: h.Instance(), Exit: <-h.exited})
	return true, nil
}

// sawEnd takes in the end of a unit that is known to be over; false if nothing is
// kept of it.
func (h *handle) sawEnd() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	svc := h.track.svc
	if !svc.remains || svc.lastPID == 0 || h.track.unit.missing {
		return false
	}
	h.track.begin()
	if h.track.exit != nil {
		h.track.exit.At = sinceUSec(svc.exitUSec)
	}
	h.inst = workload.Instance{Spec: h.spec, Start: h.inst.Start, Pid: int(svc.lastPID), Since: sinceUSec(svc.startUSec)}
	h.endLocked()
	return true
}

// after tells whether h, which is over, ran after o. What runs comes last.
func (h *handle) after(o *handle) bool {
	if !o.over() {
		return false
	}
	a, b := h.Instance(), o.Instance()
	if a.Spec.Generation != b.Spec.Generation {
		return a.Spec.Generation > b.Spec.Generation
	}
	return a.Start > b.Start
}

// noteEnd keeps an end for Ended, in place of an older one of its copy.
func (d *Driver) noteEnd(e workload.End) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.ends {
		if d.ends[i].Instance.Spec.ID == e.Instance.Spec.ID {
			d.ends[i] = e
			return
		}
	}
	d.ends = append(d.ends, e)
}
