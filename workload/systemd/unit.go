//go:build linux

package systemd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/output"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

// How PID 1 restarts a copy by itself: at once, five times in ten seconds. After
// that the unit is over and the agent owns the back-off.
const (
	restartBurst    = 5
	restartInterval = 10 * time.Second
)

// What a unit's own stop rule is: PID 1 uses it when the host shuts down, and a
// Stop that fits it needs no change of the unit.
const (
	unitStopSignal = syscall.SIGTERM
	unitStopTime   = 30 * time.Second
)

// property is one property of a transient unit, as the bus takes it.
type property struct {
	Name  string
	Value dbus.Variant
}

func prop(name string, v any) property { return property{name, dbus.MakeVariant(v)} }

// execStart is a command.
type execStart struct {
	Path    string
	Argv    []string
	MayFail bool // a failure is none
}

type envFile struct {
	Path     string
	Optional bool
}

// exitSet is a set of statuses and signals.
type exitSet struct {
	Statuses []int32
	Signals  []int32
}

// prepared is all that a start of one Spec needs and that does not change from
// start to start.
type prepared struct {
	spec   workload.Spec
	path   string // of the program
	dir    string
	props  []property
	unset  []string // variables that PID 1 would add
	output [2]string
}

// prepare makes everything a spec needs.
func (d *Driver) prepare(ctx context.Context, spec workload.Spec) (*prepared, error) {
	if len(spec.Command) == 0 {
		return nil, &workload.StartError{ID: spec.ID, Err: errors.New("the command is empty")}
	}
	spec.Command, spec.Env = slices.Clone(spec.Command), maps.Clone(spec.Env)
	p, err := d.prepareCommand(ctx, spec, spec.Command)
	if err != nil {
		return nil, err
	}
	if err := d.dirs.prepareState(spec.ID); err != nil {
		return nil, fmt.Errorf("prepare directory of %s: %w", spec.ID, err)
	}
	stdout, stderr, err := d.out.Open(spec.ID, output.Self)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(stdout.Close(), stderr.Close()); err != nil {
		return nil, err
	}
	p.output[0], p.output[1] = d.out.Paths(spec.ID)
	p.props = append(p.props,
		prop("KillSignal", int32(unitStopSignal)),
		prop("TimeoutStopUSec", usec(unitStopTime)),
		prop("StandardOutputFileToAppend", p.output[0]),
		prop("StandardErrorFileToAppend", p.output[1]),
	)
	p.props = append(p.props, limits(spec)...)
	p.props = append(p.props, restart(spec)...)
	p.props = append(p.props, after(spec)...)
	return p, nil
}

// prepareCommand is what a copy and its checks have in common.
func (d *Driver) prepareCommand(ctx context.Context, spec workload.Spec, argv []string) (*prepared, error) {
	own := d.dirs.copyDir(spec.ID)
	p := &prepared{spec: spec, dir: program.WorkDir(spec, own)}
	var err error
	if p.path, err = program.Resolve(spec, argv[0], own); err != nil {
		return nil, &workload.StartError{ID: spec.ID, Err: err}
	}
	if err := checkUser(spec.User); err != nil {
		return nil, &workload.StartError{ID: spec.ID, Err: err}
	}
	env := d.environ(spec, 0)
	if _, err := encodeEnv(env); err != nil {
		return nil, &workload.StartError{ID: spec.ID, Err: err}
	}
	manager, err := d.bus.environment(ctx)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.ID, err)
	}
	p.unset = unwanted(env, manager)
	p.props = append([]property{
		prop("Slice", "ganglion.slice"),
		prop("Type", "exec"), // the start has succeeded when the exec has
		prop("ExecStart", []execStart{command(p.path, argv, spec)}),
		prop("WorkingDirectory", p.dir),
		prop("StateDirectory", []string{d.dirs.stateName(spec.ID)}),
		prop("StateDirectoryMode", uint32(0o700)),
		prop("UnsetEnvironment", p.unset),
		prop("KillMode", "control-group"),
		prop("UMask", uint32(0o077)),
	}, identity(spec)...)
	return p, nil
}

// identity says whom a copy runs as and takes from it what it has no use for.
func identity(spec workload.Spec) []property {
	confined := []property{prop("NoNewPrivileges", true), prop("CapabilityBoundingSet", uint64(0))}
	switch spec.User {
	case "":
		return append(confined, prop("DynamicUser", true), prop("User", dynamicUser(spec.ID.App)))
	case "root", "0":
		return []property{prop("User", "root")}
	}
	return append(confined, prop("User", spec.User))
}

// limits are enforced where PID 1 has the controllers.
func limits(spec workload.Spec) (props []property) {
	if spec.CPU > 0 {
		props = append(props, prop("CPUQuotaPerSecUSec", max(uint64(spec.CPU*1e6), 1000)))
	}
	if spec.Memory > 0 {
		props = append(props, prop("MemoryMax", uint64(spec.Memory)))
	}
	return props
}

func restart(spec workload.Spec) []property {
	if !spec.SelfHeal {
		return []property{prop("Restart", restartNo)}
	}
	var setup exitSet // a process that could not be set up will not be next time
	for s := int32(firstSetupStatus); s <= lastSetupStatus; s++ {
		setup.Statuses = append(setup.Statuses, s)
	}
	return []property{
		prop("Restart", restartAlways),
		prop("RestartUSec", uint64(0)),
		prop("RestartPreventExitStatus", setup),
		prop("StartLimitIntervalUSec", usec(restartInterval)),
		prop("StartLimitBurst", uint32(restartBurst)),
	}
}

// after says what PID 1 keeps of a unit that is over: nothing, so that there is
// nothing to clean up; but of a copy that runs once how it ended, until collect.
func after(spec workload.Spec) []property {
	if spec.Once {
		return []property{prop("CollectMode", "inactive"), prop("RemainAfterExit", true)}
	}
	return []property{prop("CollectMode", "inactive-or-failed")}
}

func usec(t time.Duration) uint64 { return uint64(t / time.Microsecond) }

func (d *Driver) environ(spec workload.Spec, n int) []string {
	return spec.Environ(d.cfg.Host, n, d.dirs.copyDir(spec.ID)+"/"+stateDir)
}

func equalSpecs(a, b *workload.Spec) bool {
	return a.ID == b.ID && a.Version == b.Version && a.Generation == b.Generation &&
		slices.Equal(a.Command, b.Command) && maps.Equal(a.Env, b.Env) &&
		a.User == b.User && a.Package == b.Package && a.Dir == b.Dir &&
		a.CPU == b.CPU && a.Memory == b.Memory && a.SelfHeal == b.SelfHeal && a.Once == b.Once && (a.Lease == nil) == (b.Lease == nil)
}
