//go:build linux

package systemd

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/pid1"
	"github.com/ganglion-mesh/ganglion/workload"
)

// Adopt implements workload.Driver. PID 1's list is what counts; the record of
// a unit adds what its list does not tell.
func (d *Driver) Adopt(ctx context.Context) ([]workload.Handle, error) {
	units, err := d.list(ctx, unitPrefix+"*"+unitSuffix)
	if err != nil {
		return nil, fmt.Errorf("adopt: %w", err)
	}
	known := map[string]bool{}
	var over []listed
	var handles []workload.Handle
	for _, u := range units {
		id, ok := parseUnitName(u.Name, d.tag)
		if !ok {
			continue
		}
		if u.ended() {
			over = append(over, u)
			continue
		}
		known[u.Name] = true
		h, ended, err := d.adoptRunning(ctx, u, id)
		switch {
		case err != nil:
			return nil, fmt.Errorf("adopt %s: %w", u.Name, err)
		case ended:
			over = append(over, u)
		case h != nil:
			handles = append(handles, h)
		}
	}
	for _, u := range over {
		kept, err := d.adoptEnd(ctx, u)
		if err != nil {
			return nil, fmt.Errorf("adopt %s: %w", u.Name, err)
		}
		known[u.Name] = kept
	}
	d.endChecks(ctx)
	slices.SortFunc(handles, func(a, b workload.Handle) int {
		x, y := a.Instance(), b.Instance()
		return cmp.Or(cmp.Compare(x.Spec.ID.App, y.Spec.ID.App), x.Spec.ID.N-y.Spec.ID.N, x.Pid-y.Pid)
	})
	d.forgetDropIns(known)
	return handles, d.dirs.forgetAllBut(known)
}

// adoptRunning returns the handle of a unit that PID 1 lists as running, nil if there
// is nothing in it to adopt, and whether it has ended since.
func (d *Driver) adoptRunning(ctx context.Context, u listed, id workload.CopyID) (_ workload.Handle, ended bool, err error) {
	h, err := d.adopt(ctx, u, id)
	switch {
	case err != nil:
		return nil, false, err
	case h == nil:
		return nil, true, nil
	case h.spec.Lease == nil:
		return h, false, nil
	}
	k, err := d.adoptKeeper(ctx, h)
	if k == nil || err != nil {
		return nil, false, err
	}
	return k, false, nil
}

// settle is how long an adopted unit may be between two processes.
const settle = 2 * time.Second

// adopt takes one unit over; nil if it has ended meanwhile.
func (d *Driver) adopt(ctx context.Context, u listed, id workload.CopyID) (*handle, error) {
	spec, n := d.specOf(u, id)
	h := d.newHandle(u.Name, spec, n)
	d.bus.watch(u.Name, h)
	for deadline := time.Now().Add(settle); ; {
		if err := d.look(ctx, h); err != nil {
			h.release()
			return nil, err
		}
		h.mu.Lock()
		over := h.track.unit.missing || h.track.unit.ended()
		runs := h.track.svc.mainPID != 0
		h.mu.Unlock()
		if over {
			h.release()
			return nil, nil
		}
		if runs || time.Now().After(deadline) {
			break
		}
		// PID 1 is about to start it again.
		select {
		case <-ctx.Done():
			h.release()
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	if err := h.begin(ctx); err != nil {
		h.release()
		return nil, err
	}
	s, err := d.slot(id)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checked = true
	if s.live != nil { // a second one of this copy: the planner will choose
		d.log.Warn("two units of one copy", "copy", id.String(), "unit", u.Name)
	}
	s.hold(h)
	d.out.Track(id)
	return h, nil
}

// look reads a unit's state into its handle.
func (d *Driver) look(ctx context.Context, h *handle) error {
	for _, iface := range []string{pid1.Service, pid1.Unit} {
		props, err := d.bus.getAll(ctx, h.unit, iface)
		if err != nil {
			return err
		}
		h.properties(iface, props)
	}
	return nil
}

// specOf is what a unit runs: by its record, or if that is lost by its
// description, which is enough to keep or to end it.
func (d *Driver) specOf(u listed, id workload.CopyID) (workload.Spec, int) {
	r, err := d.dirs.readRecord(u.Name)
	if err == nil && r.Spec.ID == id {
		return r.Spec, r.Start
	}
	d.log.Warn("record of a unit is lost", "unit", u.Name, "error", err)
	if spec, n, ok := parseDescription(u.Description); ok && spec.ID == id {
		return spec, n
	}
	return workload.Spec{ID: id}, 1
}

// Purge implements workload.Driver.
func (d *Driver) Purge(ctx context.Context, id workload.CopyID) error {
	s, err := d.slot(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live != nil && !s.live.over() {
		return fmt.Errorf("purge %s: it runs; stop it first", id)
	}
	if err := d.clearTheWay(ctx, s, id); err != nil {
		return fmt.Errorf("purge %s: %w", id, err)
	}
	s.prep, s.uid = nil, 0
	s.hold(nil)
	if err := d.dirs.removeState(id); err != nil {
		return fmt.Errorf("purge %s: %w", id, err)
	}
	return d.out.Purge(id)
}
