//go:build linux

package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/godbus/dbus/v5"

	"github.com/ganglion-mesh/ganglion/pid1"
)

// holdFile is the drop-in that says whether PID 1 restarts a unit, where that is
// not as the unit was made.
const holdFile = "restart.conf"

// The values of Restart=.
const (
	restartNo     = "no"
	restartAlways = "always"
)

// Hold implements workload.Holder. PID 1 has no call that changes Restart= of a
// unit that runs, so it is told by a drop-in a unit and one reload for all.
func (d *Driver) Hold(ctx context.Context, held func(app string) bool) error {
	d.holding.Lock()
	defer d.holding.Unlock()
	d.held.Store(&held)
	if err := d.align(ctx, held); err != nil {
		return fmt.Errorf("hold restarts by PID 1: %w", err)
	}
	if !d.awaitStarts() {
		return nil
	}
	if err := d.align(ctx, held); err != nil { // these may have asked held before
		return fmt.Errorf("hold restarts by PID 1: %w", err)
	}
	return nil
}

// awaitStarts waits for the starts that are under way, and tells whether there
// were any.
func (d *Driver) awaitStarts() (any bool) {
	for _, s := range d.slots() {
		if !s.mu.TryLock() {
			any = true
			s.mu.Lock()
		}
		s.mu.Unlock() //nolint:staticcheck // it is the wait that counts
	}
	return any
}

// alignTries is how often a unit is changed until it is as it should be: a
// drop-in that was never read is removed first, and then written again.
const alignTries = 3

// align makes Restart= of all units that heal what held says. It goes by what PID
// 1 says, so that a reload that was lost with an agent is made up for.
func (d *Driver) align(ctx context.Context, held func(app string) bool) error {
	for range alignTries {
		var errs []error
		changed := false
		for _, s := range d.slots() {
			h := s.current.Load()
			if h == nil || !h.spec.SelfHeal || h.over() {
				continue
			}
			want := restartAlways
			if held(h.spec.ID.App) {
				want = restartNo
			}
			turned, err := d.turn(ctx, h, want)
			changed = changed || turned
			errs = append(errs, err)
		}
		if changed {
			errs = append(errs, d.bus.call(ctx, "Reload", nil))
		}
		if err := errors.Join(errs...); err != nil || !changed {
			return err
		}
	}
	return errors.New("units do not become what their drop-ins say")
}

// turn writes what is missing for a unit to be restarted as wanted, and tells
// whether PID 1 has to read it.
func (d *Driver) turn(ctx context.Context, h *handle, want string) (changed bool, err error) {
	is, err := d.bus.restartOf(ctx, h.unit)
	if err != nil || is == want {
		return false, err
	}
	if props, err := d.bus.getAll(ctx, h.unit, pid1.Unit); err != nil || unitStateOf(props).missing {
		return false, err // it has just ended, and of no unit PID 1 says that it restarts none
	}
	dir := filepath.Join(runtimeUnits, h.unit+".d")
	path := filepath.Join(dir, holdFile)
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return true, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	err = os.WriteFile(path, []byte("[Service]\nRestart="+want+"\n"), 0o644)
	if h.over() { // and what was kept of it removed: this comes too late
		_ = os.RemoveAll(dir)
	}
	return true, err
}

// restartOf asks whether PID 1 restarts a unit.
func (b *bus) restartOf(ctx context.Context, unit string) (string, error) {
	conn, err := b.get()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, pid1.Answers)
	defer cancel()
	var v dbus.Variant
	o := conn.Object(pid1.Name, dbus.ObjectPath(objectPath(unit)))
	if err := o.CallWithContext(ctx, pid1.Properties+"Get", 0, pid1.Service, "Restart").Store(&v); err != nil {
		return "", err
	}
	s, _ := v.Value().(string)
	return s, nil
}

// isHeld tells whether copies of an app are to be started so that PID 1 does not
// restart them.
func (d *Driver) isHeld(app string) bool {
	held := d.held.Load()
	return held != nil && (*held)(app)
}

// forgetDropIns removes what is left for units of ours that are gone.
func (d *Driver) forgetDropIns(known map[string]bool) {
	dirs, err := filepath.Glob(filepath.Join(runtimeUnits, unitPrefix+"*"+unitSuffix+".d"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		unit := strings.TrimSuffix(filepath.Base(dir), ".d")
		if _, ours := parseUnitName(unit, d.tag); ours && !known[unit] {
			_ = os.RemoveAll(dir)
		}
	}
}
