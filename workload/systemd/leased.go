//go:build linux

package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/keeper"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

// How long a keeper has to start its copy, and one that is found to answer: as
// long as the machine may starve it, since its copy ends with it.
const (
	keeperStart  = 10 * time.Second
	keeperAnswer = 5 * time.Second
)

// keeperCaps are what a keeper that PID 1 starts as the copy's user needs to be
// another, and to start and end the copy as what it was itself.
const keeperCaps = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETPCAP | 1<<unix.CAP_KILL | 1<<unix.CAP_SYS_NICE

// keptProps are the copy's with a keeper in its place. PID 1 starts it in the
// copy's sandbox, and when it ends kills what is left of the unit at once (with
// KillMode=mixed). A stop of the unit asks the keeper alone, which asks the copy.
func keptProps(props []property, argv []string, spec workload.Spec, orders *os.File) []property {
	changed := []property{
		prop("ExecStart", []execStart{command(argv[0], argv, workload.Spec{})}),
		prop("StandardInputFileDescriptor", dbus.UnixFD(orders.Fd())),
		prop("KillMode", "mixed"),
		prop("Restart", restartNo),
		prop("OOMPolicy", "continue"), // the keeper restarts what the kernel has ended
	}
	if spec.User != "root" && spec.User != "0" {
		changed = append(changed, prop("AmbientCapabilities", uint64(keeperCaps)), prop("CapabilityBoundingSet", uint64(keeperCaps)))
	}
	kept := slices.DeleteFunc(slices.Clone(props), func(p property) bool {
		return slices.ContainsFunc(changed, func(c property) bool { return c.Name == p.Name })
	})
	return append(kept, changed...)
}

// startLeased starts a unit whose process is a keeper, and has that start the
// copy. The caller holds the slot's lock.
func (d *Driver) startLeased(ctx context.Context, s *slot, spec workload.Spec, n int) (workload.Handle, error) {
	if len(d.cfg.Keeper) == 0 {
		return nil, fmt.Errorf("start %s: it is a singleton, and this driver was given no keeper to run it under", spec.ID)
	}
	if err := keeper.MayStart(*spec.Lease); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.ID, err)
	}
	p, unit := s.prep, d.unitName(spec)
	if err := d.dirs.writeRecord(unit, record{Spec: spec, Start: n}); err != nil {
		d.dirs.forget(unit)
		return nil, fmt.Errorf("record start of %s: %w", spec.ID, err)
	}
	orders, err := keeper.Listen(d.dirs.ordersFile(unit))
	if err != nil {
		d.dirs.forget(unit)
		return nil, fmt.Errorf("start %s: open its keeper's socket: %w", spec.ID, err)
	}
	defer orders.Close()
	props := append(keptProps(p.props, d.cfg.Keeper, spec, orders), prop("Description", describe(spec, n)))
	spec.SelfHeal = false // of the unit
	h, err := d.startUnit(ctx, s, unit, spec, n, props)
	if err != nil {
		return nil, err
	}
	orders.Close() // from now on it is the keeper's alone: its end is seen
	ctx, cancel := context.WithTimeout(ctx, keeperStart)
	defer cancel()
	watch, st, err := d.keeperClient(unit).Begin(ctx, d.program(p, spec), spec.LeaseNow, n)
	if err == nil {
		s.hold(h)
		d.ownOutput(s, st.Pid)
		return d.follow(h, spec, watch, st), nil
	}
	d.abandon(ctx, s, h)
	var exec *keeper.StartError
	if errors.As(err, &exec) {
		return nil, program.Attempt{ID: spec.ID, Path: p.path, Dir: p.dir, Who: "the copy's user"}.Explain(exec.Errno)
	}
	return nil, fmt.Errorf("start %s: %w", spec.ID, err)
}

func (d *Driver) keeperClient(unit string) *keeper.Client {
	return keeper.NewClient(d.dirs.ordersFile(unit))
}

// program is what a keeper is told to run. Its environment does not go by PID 1,
// and so needs no file.
func (d *Driver) program(p *prepared, spec workload.Spec) keeper.Program {
	env := slices.DeleteFunc(d.environ(spec, 0), func(kv string) bool { return kv == "GANGLION_START=0" })
	return keeper.Program{
		Path: p.path, Argv: spec.Command, Dir: p.dir, Env: env,
		Plain: spec.User == "root" || spec.User == "0", Grace: unitStopTime - 5*time.Second,
	}
}

// follow makes the handle of a copy whose keeper is the process of h's unit.
func (d *Driver) follow(h *handle, spec workload.Spec, watch *keeper.Watch, st keeper.Status) workload.Handle {
	h.renumber(st.Start)
	k := keeper.NewHandle(keeper.HandleConfig{
		Spec: spec, Client: d.keeperClient(h.unit), Watch: watch, Process: keeperUnit{h},
		Began: func(i workload.Instance) { h.renumber(i.Start) },
	}, st)
	d.mu.Lock()
	closed := d.closed
	if !closed {
		d.wg.Go(k.Run)
	}
	d.mu.Unlock()
	if closed {
		h.release()
		k.Run()
	}
	return k
}

// renumber tells checks of the copy which start it is.
func (h *handle) renumber(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inst.Start = n
}

// keeperUnit is the unit of a keeper as keeper.Handle asks for it.
type keeperUnit struct{ *handle }

func (u keeperUnit) Ended() <-chan struct{} { return u.ended }

func (u keeperUnit) Released() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.released
}

func (u keeperUnit) End(ctx context.Context) error { return u.stop(ctx, unix.SIGKILL, 0) }

// adoptKeeper makes the handle of an adopted unit whose process is a keeper. One
// that has nothing to keep, or does not answer, is ended with all that is in its
// unit, and nil is returned.
func (d *Driver) adoptKeeper(ctx context.Context, h *handle) (workload.Handle, error) {
	ask, cancel := context.WithTimeout(ctx, keeperAnswer)
	defer cancel()
	watch, err := d.keeperClient(h.unit).Watch(ask)
	if err == nil && watch.First().Keeps() {
		return d.follow(h, h.spec, watch, watch.First()), nil
	}
	if err == nil {
		watch.Close()
	}
	d.log.Warn("a keeper has nothing to keep or does not answer; it is ended", "unit", h.unit, "error", err)
	end, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	return nil, h.stop(end, unix.SIGKILL, 0)
}
