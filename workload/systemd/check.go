//go:build linux

package systemd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/ganglion-mesh/ganglion/pid1"
	"github.com/ganglion-mesh/ganglion/workload"
)

const (
	outputBytes = 4 << 10
	drainFor    = 100 * time.Millisecond // for output that is in the pipe when the command has ended
	checkLimit  = 10 * time.Minute       // a check whose agent has died ends by itself
)

// Exec implements workload.Driver: a unit of its own, as the same user and with
// the same directories as the copy, which PID 1 ends when we say so. The copy's
// limits do not hold for it.
func (d *Driver) Exec(ctx context.Context, spec workload.Spec, argv []string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := d.slot(spec.ID)
	if err != nil {
		return nil, err
	}
	if len(argv) == 0 {
		return nil, &workload.StartError{ID: spec.ID, Err: errors.New("the check's command is empty")}
	}
	spec.SelfHeal, spec.Once = false, false // of the check's unit
	p, err := d.prepareCommand(ctx, spec, argv)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", spec.ID, err)
	}
	defer r.Close()
	out := make(chan []byte, 1)
	go func() { out <- readCapped(r) }()
	err = d.check(ctx, s, p, w)
	_ = r.SetReadDeadline(time.Now().Add(drainFor))
	return <-out, err
}

// check runs the unit and waits for its end. It closes w.
func (d *Driver) check(ctx context.Context, s *slot, p *prepared, w *os.File) error {
	unit := checkPrefix + d.tag + nonce() + unitSuffix
	n, props := d.checkProps(s, p)
	if err := d.dirs.writeEnv(unit, d.environ(p.spec, n)); err != nil {
		return errors.Join(fmt.Errorf("check %s: %w", p.spec.ID, err), w.Close())
	}
	defer d.dirs.forget(unit)
	fd := dbus.UnixFD(w.Fd())
	props = append(props,
		prop("EnvironmentFiles", []envFile{{Path: d.dirs.envFile(unit)}}),
		prop("StandardOutputFileDescriptor", fd), prop("StandardErrorFileDescriptor", fd))
	c := &checkWatch{started: make(chan string, 1), done: make(chan service, 1)}
	d.bus.watch(unit, c)
	defer d.bus.unwatch(unit)
	result, err := d.launch(ctx, unit, props, c.started)
	_ = w.Close() // PID 1 has its own by now
	if err != nil {
		return errors.Join(d.checkEnded(ctx, err), d.undo(ctx, unit))
	}
	select {
	case svc := <-c.done:
		return checkOutcome(p, result, svc)
	case <-ctx.Done():
		return errors.Join(d.checkEnded(ctx, ctx.Err()), d.undo(ctx, unit))
	case <-d.bus.closed:
		return ErrClosed
	}
}

func (d *Driver) checkEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("the check was ended: %w", err)
}

// checkProps are what a check's unit has besides its files, and the start
// number that its environment tells.
func (d *Driver) checkProps(s *slot, p *prepared) (n int, props []property) {
	n = 1
	props = append(append(p.props, after(p.spec)...), prop("Description", "ganglion check of "+p.spec.ID.String()),
		prop("Restart", restartNo), prop("RuntimeMaxUSec", usec(checkLimit)), prop("TimeoutStopUSec", usec(time.Second)))
	if h := s.running(); h != nil {
		n = h.Instance().Start
		props = append(props, prop("JoinsNamespaceOf", []string{h.unit})) // the same private /tmp
	}
	return n, props
}

// running is the slot's unit, also while a Start is under way.
func (s *slot) running() *handle { return s.current.Load() }

func checkOutcome(p *prepared, result string, svc service) error {
	switch {
	case result != "done" && svc.setupFailed():
		return explain(p, svc.status)
	case svc.code == cldExited && svc.status == 0:
		return nil
	case svc.code == cldExited:
		return fmt.Errorf("the check exited with status %d", svc.status)
	case svc.code == 0:
		return fmt.Errorf("the check did not run: systemd says %q", result)
	}
	return fmt.Errorf("the check was ended by %s", syscall.Signal(svc.status))
}

// checkWatch waits for the start and the end of a check's unit.
type checkWatch struct {
	started chan string
	done    chan service
	svc     service // used by the reader of the bus alone
	began   bool
	over    bool
}

func (c *checkWatch) properties(iface string, props map[string]dbus.Variant) {
	switch iface {
	case pid1.Service:
		c.svc = serviceOf(props)
		c.began = c.began || c.svc.lastPID != 0
	case pid1.Unit:
		if c.began && unitStateOf(props).over() {
			c.removed()
		}
	}
}

func (c *checkWatch) jobDone(result string) {
	select {
	case c.started <- result:
	default:
	}
}

func (c *checkWatch) removed() {
	if c.over {
		return
	}
	c.over = true
	c.jobDone("removed")
	c.done <- c.svc
}

// readCapped reads to the end and keeps the first bytes, so that a command that
// prints much is cut and not blocked.
func readCapped(r io.Reader) []byte {
	b, _ := io.ReadAll(io.LimitReader(r, outputBytes))
	_, _ = io.Copy(io.Discard, r)
	return b
}

// endChecks ends checks that an earlier life of the agent was running.
func (d *Driver) endChecks(ctx context.Context) {
	units, err := d.list(ctx, checkPrefix+d.tag+"*"+unitSuffix)
	for _, u := range units {
		err = errors.Join(err, d.stopUnit(ctx, u.Name), d.kill(ctx, u.Name, "all", sigkill))
	}
	if err != nil {
		d.log.Debug("end checks of an earlier life", "error", err)
	}
}
