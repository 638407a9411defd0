//go:build linux

package systemd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"

	"github.com/ganglion-mesh/ganglion/pid1"
	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/output"
)

// Start implements workload.Driver.
func (d *Driver) Start(ctx context.Context, spec workload.Spec, n int) (workload.Handle, error) {
	s, err := d.slot(spec.ID)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.live != nil && !s.live.over() {
		return nil, fmt.Errorf("start %s: it runs already as %s", spec.ID, s.live.unit)
	}
	if err := d.clearTheWay(ctx, s, spec.ID); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.ID, err)
	}
	if s.prep == nil || !equalSpecs(&s.prep.spec, &spec) {
		if s.prep, err = d.prepare(ctx, spec); err != nil {
			return nil, err
		}
	}
	if spec.Lease != nil {
		return d.startLeased(ctx, s, spec, n)
	}
	h, err := d.start(ctx, s, n)
	if err != nil {
		return nil, err
	}
	s.hold(h)
	d.ownOutput(s, h.Instance().Pid)
	return h, nil
}

// clearTheWay makes sure that no unit of this copy runs that this driver does
// not hold: of an earlier life, or of a start whose outcome is unknown.
func (d *Driver) clearTheWay(ctx context.Context, s *slot, id workload.CopyID) error {
	for len(s.doubt) > 0 {
		if err := d.endUnit(ctx, s.doubt[0]); err != nil {
			return fmt.Errorf("end a start whose outcome is unknown: %w", err)
		}
		s.doubt = s.doubt[1:]
	}
	if err := d.collect(ctx, s.live); err != nil {
		return err
	}
	if s.checked {
		return nil
	}
	units, err := d.list(ctx, unitPrefix+id.App+"-*"+unitSuffix)
	if err != nil {
		return err
	}
	for _, u := range units {
		if got, ok := parseUnitName(u.Name, d.tag); !ok || got != id {
			continue
		}
		if !u.ended() {
			return fmt.Errorf("%s runs from an earlier life of the agent and was not adopted", u.Name)
		}
		if err := d.endUnit(ctx, u.Name); err != nil {
			return err
		}
	}
	s.checked = true
	return nil
}

// endUnit kills a unit and waits until PID 1 calls it over and keeps nothing of it.
func (d *Driver) endUnit(ctx context.Context, unit string) error {
	w := &ending{done: make(chan struct{})}
	d.bus.watch(unit, w)
	defer d.bus.unwatch(unit)
	if err := d.stopUnit(ctx, unit); err != nil {
		return err
	}
	_ = d.kill(ctx, unit, "all", sigkill) // nothing to kill is fine; whether it is over is seen below
	props, err := d.bus.getAll(ctx, unit, pid1.Unit)
	if st := unitStateOf(props); err == nil && (st.missing || st.over()) {
		return d.resetFailed(ctx, unit)
	}
	select {
	case <-w.done:
		return d.resetFailed(ctx, unit)
	case <-d.bus.closed:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("%s is still there: %w", unit, ctx.Err())
	}
}

// start launches one unit and waits until its exec has succeeded.
func (d *Driver) start(ctx context.Context, s *slot, n int) (*handle, error) {
	p := s.prep
	unit := d.unitName(p.spec)
	if err := errors.Join(d.dirs.writeEnv(unit, d.environ(p.spec, n)), d.dirs.writeRecord(unit, record{Spec: p.spec, Start: n})); err != nil {
		d.dirs.forget(unit)
		return nil, fmt.Errorf("record start of %s: %w", p.spec.ID, err)
	}
	props := append(slices.Clone(p.props),
		prop("Description", describe(p.spec, n)),
		prop("EnvironmentFiles", []envFile{{Path: d.dirs.envFile(unit)}}),
	)
	if p.spec.SelfHeal && d.isHeld(p.spec.ID.App) {
		props = append(props, prop("Restart", restartNo)) // the last word counts
	}
	return d.startUnit(ctx, s, unit, p.spec, n, props)
}

// startUnit launches a unit that is recorded.
func (d *Driver) startUnit(ctx context.Context, s *slot, unit string, spec workload.Spec, n int, props []property) (*handle, error) {
	p := s.prep
	h := d.newHandle(unit, spec, n)
	d.bus.watch(unit, h)
	result, err := d.launch(ctx, unit, props, h.started)
	if err == nil && (result == "done" || h.ran()) {
		if err = h.begin(ctx); err == nil {
			return h, nil
		}
	}
	status, setup := h.setupFailure()
	d.abandon(ctx, s, h)
	switch {
	case err != nil:
		return nil, fmt.Errorf("start %s: %w", p.spec.ID, err)
	case setup:
		return nil, explain(p, status)
	}
	return nil, fmt.Errorf("start %s: systemd says %q", p.spec.ID, result)
}

// launch asks PID 1 for a transient unit and waits for the end of its start
// job, told by done.
func (d *Driver) launch(ctx context.Context, unit string, props []property, done <-chan string) (string, error) {
	var job dbus.ObjectPath
	type aux struct {
		Name  string
		Props []property
	}
	if err := d.bus.call(ctx, "StartTransientUnit", []any{unit, "fail", props, []aux{}}, &job); err != nil {
		return "", err
	}
	select {
	case result := <-done:
		return result, nil
	case <-ctx.Done():
		return "", ctx.Err()
	case <-d.bus.closed:
		return "", ErrClosed
	}
}

// abandon ends a unit whose start has failed, and the watching of it.
func (d *Driver) abandon(ctx context.Context, s *slot, h *handle) {
	if undo := d.undo(ctx, h.unit); undo != nil {
		s.doubt = append(s.doubt, h.unit)
		d.log.Warn("outcome of a start is unknown", "unit", h.unit, "error", undo)
	} else {
		d.dirs.forget(h.unit)
	}
	d.bus.unwatch(h.unit)
	h.release()
}

// undo ends what a failed start may have left, whatever has become of ctx.
func (d *Driver) undo(ctx context.Context, unit string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	return d.endUnit(ctx, unit)
}

// ownOutput gives the output files to the copy's user, so that it can open
// /dev/stdout again. A private user is known only once it runs.
func (d *Driver) ownOutput(s *slot, pid int) {
	uid, gid, ok := ownerOf(pid)
	if !ok || uid == s.uid {
		return
	}
	stdout, stderr, err := d.out.Open(s.prep.spec.ID, output.Owner{UID: uid, GID: gid})
	if err != nil {
		d.log.Warn("output of a copy stays root's", "copy", s.prep.spec.ID.String(), "error", err)
		return
	}
	stdout.Close()
	stderr.Close()
	s.uid = uid
}

// listed is an entry of PID 1's list of units.
type listed struct {
	Name, Description, Load, Active, Sub, Following string
	Path                                            dbus.ObjectPath
	JobID                                           uint32
	JobType                                         string
	JobPath                                         dbus.ObjectPath
}

func (l listed) state() unitState { return unitState{active: l.Active, sub: l.Sub, changedUSec: 1} }

// ended tells a unit in which no copy runs. One with a job is about to be started,
// for an agent that has died.
func (l listed) ended() bool { return l.state().exited() || l.state().over() && l.JobID == 0 }

func (d *Driver) list(ctx context.Context, pattern string) (units []listed, err error) {
	err = d.bus.call(ctx, "ListUnitsByPatterns", []any{[]string{}, []string{pattern}}, &units)
	if err != nil {
		return nil, fmt.Errorf("list units: %w", err)
	}
	return slices.DeleteFunc(units, func(u listed) bool { return !strings.HasSuffix(u.Name, unitSuffix) }), nil
}

// ending is a watcher that waits for a unit to be over.
type ending struct {
	done chan struct{}
	over bool // used by the reader of the bus alone
}

func (e *ending) properties(iface string, props map[string]dbus.Variant) {
	if iface == pid1.Unit && unitStateOf(props).over() {
		e.removed()
	}
}

func (e *ending) jobDone(string) {}

func (e *ending) removed() {
	if !e.over {
		e.over = true
		close(e.done)
	}
}
