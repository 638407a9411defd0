//go:build linux

package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/ganglion-mesh/ganglion/durable"
	"github.com/ganglion-mesh/ganglion/pid1"
	"github.com/ganglion-mesh/ganglion/workload"
)

// ThrottleUnit has PID 1 hold a unit that is no copy of ours back, all its processes,
// also over its restarts and never above what it says itself. The zero Throttle ends
// that: what the unit's files say comes back. Called again it makes good what others
// have changed meanwhile.
//
// was is what it returned for the unit before, on this boot. It returns what is held
// now, also beside an error; note is given as much before PID 1 is told of it, and has
// to keep it over the death of the caller, or nothing is done. A unit that does not
// run, or whose control group lacks the controller, is an error, and left as it is.
func ThrottleUnit(ctx context.Context, unit string, t workload.Throttle, was UnitHold, note func(UnitHold) error) (UnitHold, error) {
	h := unitHolder{unit: unit, dir: controlUnits, hold: maps.Clone(was), note: note, able: CanThrottle, kernel: kernelHas}
	if h.hold == nil {
		h.hold = UnitHold{}
	}
	verb := "throttle"
	if t == (workload.Throttle{}) {
		verb = "end the throttle of"
	}
	err := withUnit(ctx, verb, unit, func(p errand) error {
		h.manager = p
		return h.to(ctx, t)
	})
	return h.hold, err
}

// unitHolder holds one unit back.
type unitHolder struct {
	manager unitManager
	unit    string
	dir     string // where PID 1 writes down what it was told
	hold    UnitHold
	note    func(UnitHold) error
	// What of the host tests look away from.
	able   func(workload.Throttle) error
	kernel func(group string, b bound, most uint64) bool
}

// unitManager is what of PID 1 a unit is held back by.
type unitManager interface {
	bounds(ctx context.Context, unit string) (unitBounds, error)
	bind(ctx context.Context, unit string, props []property) error
	reload(ctx context.Context) error
}

// unitBounds is what PID 1 says of a unit.
type unitBounds struct {
	id      string // the name that it goes by
	missing bool
	group   string // its control group; empty: it does not run
	shown   [len(bounds)]uint64
}

func (p errand) bounds(ctx context.Context, name string) (u unitBounds, err error) {
	var unit, service map[string]dbus.Variant
	o := p.Object(pid1.Name, dbus.ObjectPath(objectPath(name)))
	ctx, cancel := context.WithTimeout(ctx, pid1.Answers)
	defer cancel()
	if err := o.CallWithContext(ctx, pid1.Properties+"GetAll", 0, pid1.Unit).Store(&unit); err != nil {
		return u, err
	}
	if err := o.CallWithContext(ctx, pid1.Properties+"GetAll", 0, pid1.Service).Store(&service); err != nil {
		return u, err
	}
	u = unitBounds{id: text(unit, "Id"), missing: text(unit, "LoadState") == "not-found", group: text(service, "ControlGroup")}
	for i, b := range bounds {
		u.shown[i] = number[uint64](service, b.property)
	}
	return u, nil
}

func (p errand) bind(ctx context.Context, unit string, props []property) error {
	return p.call(ctx, "SetUnitProperties", unit, true, props).Err
}

func (p errand) reload(ctx context.Context) error { return p.call(ctx, "Reload").Err }

func (h *unitHolder) to(ctx context.Context, t workload.Throttle) error {
	most := boundsOf(t)
	group, is, err := h.look(ctx)
	if err != nil {
		return err
	}
	if back := h.over(is, most); len(back) > 0 {
		if err := h.giveBack(ctx, back); err != nil {
			return err
		}
		if group, is, err = h.look(ctx); err != nil { // PID 1 has read anew what everybody says
			return err
		}
	}
	return h.tell(ctx, group, is, t)
}

// look finds how a unit is bound.
func (h *unitHolder) look(ctx context.Context) (group string, is [len(bounds)]found, err error) {
	u, err := h.manager.bounds(ctx, h.unit)
	if err == nil && u.missing && len(h.hold) == 0 {
		err = errors.New("there is no such unit")
	}
	for i, b := range bounds {
		if err != nil {
			return "", is, err
		}
		is[i] = found{file: filepath.Join(h.dir, u.id+".d", "50-"+b.setting+".conf"), shown: u.shown[i]}
		is[i].text, err = readIf(is[i].file)
	}
	return u.group, is, err
}

// readIf reads a file if there is one.
func readIf(path string) (*string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	s := string(data)
	return &s, err
}

// over lists the settings that are held and not to be any more.
func (h *unitHolder) over(is [len(bounds)]found, most [len(bounds)]uint64) (back []bound) {
	for i, b := range bounds {
		was, held := h.hold[b.setting]
		if _, hold, _ := b.next(was, held, is[i], most[i]); held && !hold {
			back = append(back, b)
		}
	}
	return back
}

// giveBack ends what is held of some settings. What the drop-ins of PID 1 said before
// they say again, where they say what is ours, and it reads anew all that is said of
// its units: what was changed there meanwhile counts too.
func (h *unitHolder) giveBack(ctx context.Context, back []bound) error {
	for _, b := range back {
		was := h.hold[b.setting]
		now, err := readIf(was.File)
		switch {
		case err != nil:
			return err
		case !b.ours(was, now): // somebody else has said something since
		case was.Before != nil:
			if err := durable.Swap(was.File, []byte(*was.Before), 0o644); err != nil {
				return err
			}
		default:
			if err := os.Remove(was.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			_ = os.Remove(filepath.Dir(was.File)) // which fails, as it should, if others have something there
		}
	}
	if err := h.manager.reload(ctx); err != nil {
		return err
	}
	for _, b := range back {
		delete(h.hold, b.setting)
	}
	return nil
}

// tell tells PID 1 what it does not know yet, and sees that it is so.
func (h *unitHolder) tell(ctx context.Context, group string, is [len(bounds)]found, t workload.Throttle) error {
	most := boundsOf(t)
	var told []int // of bounds
	var fresh []bound
	var props []property
	next := maps.Clone(h.hold)
	for i, b := range bounds {
		was, held := h.hold[b.setting]
		now, hold, tell := b.next(was, held, is[i], most[i])
		if !hold {
			continue
		}
		if next[b.setting] = now; !tell {
			continue
		}
		if told, props = append(told, i), append(props, prop(b.property, most[i])); !held {
			fresh = append(fresh, b)
		}
	}
	switch {
	case len(fresh) > 0 && group == "":
		return errors.New("it does not run")
	case len(fresh) > 0:
		if err := h.able(t); err != nil {
			return err
		}
	}
	if len(told) > 0 {
		if err := h.note(maps.Clone(next)); err != nil {
			return err
		}
	}
	h.hold = next
	if len(told) == 0 {
		return nil
	}
	err := h.manager.bind(ctx, h.unit, props)
	if err == nil {
		err = h.inForce(ctx, group, told, most)
	}
	if err != nil && len(fresh) > 0 {
		return errors.Join(err, h.giveBack(ctx, fresh))
	}
	for _, i := range told {
		if now := next[bounds[i].setting]; err == nil {
			now.Told = []uint64{most[i]}
			next[bounds[i].setting] = now
		}
	}
	return err
}

// The kernel is told by PID 1 a moment after that has answered.
const (
	inForceBy   = 2 * time.Second
	inForceLook = 5 * time.Millisecond
)

// inForce waits until the kernel holds a control group to what PID 1 was told. PID 1
// says nothing where the group has no such controller.
func (h *unitHolder) inForce(ctx context.Context, group string, told []int, most [len(bounds)]uint64) error {
	if group == "" { // it does not run: the next process that it starts is held back
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, inForceBy)
	defer cancel()
	tick := time.NewTicker(inForceLook)
	defer tick.Stop()
	for _, i := range told {
		for !h.kernel(group, bounds[i], most[i]) {
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s is without effect: its control group %s lacks the controller, or it has ended", bounds[i].setting, group)
			case <-tick.C:
			}
		}
	}
	return nil
}

// kernelHas tells whether the kernel holds a control group to no more than most.
func kernelHas(group string, b bound, most uint64) bool {
	const root = "/sys/fs/cgroup"
	if b.setting == "MemoryHigh" {
		n := numbers(filepath.Join(root, group, "memory.high"))
		return len(n) == 1 && n[0] <= most
	}
	q := numbers(filepath.Join(root, group, "cpu.max")) // of version 2: quota and period
	for _, v1 := range []string{"cpu,cpuacct", "cpu"} {
		if dir := filepath.Join(root, v1, group); len(q) == 0 {
			q = append(numbers(filepath.Join(dir, "cpu.cfs_quota_us")), numbers(filepath.Join(dir, "cpu.cfs_period_us"))...)
		}
	}
	// The kernel and PID 1 round what is small.
	return len(q) == 2 && q[1] > 0 && float64(q[0])/float64(q[1])*1e6 <= float64(most)*1.01
}

// numbers reads the numbers in a file of the kernel's; none where it says something
// else, such as max or -1.
func numbers(path string) (out []uint64) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	for f := range strings.FieldsSeq(string(b)) {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return nil
		}
		out = append(out, n)
	}
	return out
}
