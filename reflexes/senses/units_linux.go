package senses

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/ganglion-mesh/ganglion/pid1"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// UnitsConfig configures the sense of systemd's units.
type UnitsConfig struct {
	// Now is the boot clock; required.
	Now Clock
	// Socket is PID 1's own: no bus daemon stands between, and only root may use
	// it. Default: /run/systemd/private.
	Socket string
	// Relist is how often all units are listed, whatever was told. Default: 1 min.
	Relist time.Duration
	// Logger; default: discard.
	Logger *slog.Logger
}

// Units tells of the state of systemd's units, as PID 1 says it on each change.
type Units struct {
	cfg   UnitsConfig
	table *unitTable // belongs to the run
}

// NewUnits returns the sense of systemd's units.
func NewUnits(cfg UnitsConfig) (*Units, error) {
	cfg.Socket = defaulted(cfg.Socket, pid1.Socket)
	cfg.Relist = defaulted(cfg.Relist, time.Minute)
	cfg.Logger = loggerOr(cfg.Logger)
	if cfg.Now == nil {
		return nil, fmt.Errorf("set up the sense of units: %w", errNoClock)
	}
	if cfg.Relist < time.Second {
		return nil, fmt.Errorf("set up the sense of units: relist every %s: want at least 1s", cfg.Relist)
	}
	return &Units{cfg: cfg, table: newUnitTable()}, nil
}

// Name implements Sense.
func (u *Units) Name() string { return "units" }

// Vars implements Sense.
func (u *Units) Vars() []reflexes.VarID { return unitVars }

// Run implements Sense.
func (u *Units) Run(ctx context.Context, emit Emit) error {
	err := u.run(ctx, emit)
	if ctx.Err() != nil { // which ends the connection too
		return nil
	}
	return err
}

func (u *Units) run(ctx context.Context, emit Emit) error {
	conn, err := u.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	r := &unitsRun{Units: u, conn: conn, emit: emit}
	u.table.begin()
	if err := conn.Greet(ctx); err != nil {
		return err
	}
	return r.loop(ctx)
}

func (u *Units) connect(ctx context.Context) (pid1.Conn, error) {
	if _, err := os.Stat(u.cfg.Socket); err != nil {
		return pid1.Conn{}, fmt.Errorf("PID 1 is not systemd, or hides from us: %w", err)
	}
	return pid1.Dial(ctx, u.cfg.Socket)
}

// unitsRun is one connection.
type unitsRun struct {
	*Units
	conn  pid1.Conn
	emit  Emit
	facts []reflexes.Fact
	soon  *time.Timer // all are to be listed
	asked bool        // soon is set
}

var errDropped = errors.New("systemd has dropped the connection")

func (r *unitsRun) loop(ctx context.Context) error {
	relist := time.NewTicker(r.cfg.Relist)
	defer relist.Stop()
	r.soon, r.asked = time.NewTimer(0), true
	defer r.soon.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.conn.Context().Done():
			return errDropped
		case s, ok := <-r.conn.Signals:
			if !ok {
				return errDropped
			}
			r.take(s)
		case <-relist.C:
			if err := r.list(ctx); err != nil {
				return err
			}
		case <-r.soon.C:
			r.asked = false
			if err := r.list(ctx); err != nil {
				return err
			}
		}
	}
}

// take takes in what PID 1 says.
func (r *unitsRun) take(s *dbus.Signal) {
	if r.signal(s) && !r.asked {
		r.asked = true
		r.soon.Reset(settle)
	}
}

// signal tells of the unit that PID 1 speaks of, and whether all are to be listed: of
// their removal it speaks also when it reads its configuration anew.
func (r *unitsRun) signal(s *dbus.Signal) (list bool) {
	switch s.Name {
	case pid1.OfManager + "UnitRemoved":
		return true
	case pid1.OfManager + "Reloading":
		reloading, ok := first[bool](s.Body)
		return ok && !reloading
	case "org.freedesktop.DBus.Properties.PropertiesChanged":
	default:
		return false
	}
	iface, ok := first[string](s.Body)
	name, isUnit := unitName(string(s.Path))
	if !ok || iface != pid1.Unit || !isUnit || len(s.Body) < 2 {
		return false
	}
	props, _ := s.Body[1].(map[string]dbus.Variant)
	active, _ := props["ActiveState"].Value().(string)
	sub, _ := props["SubState"].Value().(string)
	if active == "" {
		return false
	}
	r.facts = r.table.set(name, active, sub, r.cfg.Now(), r.facts[:0])
	r.tell()
	return false
}

func first[T any](body []any) (v T, ok bool) {
	if len(body) == 0 {
		return v, false
	}
	v, ok = body[0].(T)
	return v, ok
}

// unitRow is one unit as ListUnits tells of it.
type unitRow struct {
	Name, Description, Load, Active, Sub, Following string
	Path                                            dbus.ObjectPath
	Job                                             uint32
	JobType                                         string
	JobPath                                         dbus.ObjectPath
}

// list asks for all units and compares. What was told before the answer is taken in
// before it: it leads to what is listed, and a failure on the way would else count
// twice.
func (r *unitsRun) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pid1.Answers)
	defer cancel()
	var rows []unitRow
	call := r.conn.Object(pid1.Name, pid1.Manager).CallWithContext(ctx, pid1.OfManager+"ListUnits", 0)
	if err := call.Store(&rows); err != nil {
		return fmt.Errorf("list units: %w", err)
	}
	since, err := r.takeUntil(call.ResponseSequence)
	if err != nil {
		return err
	}
	at := r.cfg.Now()
	r.table.compare()
	r.facts = r.facts[:0]
	for _, row := range rows {
		// Units that are only referred to are of no interest to anyone.
		if row.Load == "not-found" && row.Active == "inactive" {
			continue
		}
		r.facts = r.table.set(row.Name, row.Active, row.Sub, at, r.facts)
	}
	r.facts = r.table.compared(at, r.facts)
	r.tell()
	for _, s := range since {
		r.take(s)
	}
	return nil
}

// takeUntil takes in what PID 1 told before an answer that has come, and returns what
// it has told since.
func (r *unitsRun) takeUntil(answer dbus.Sequence) (since []*dbus.Signal, err error) {
	end := &dbus.Signal{}
	r.conn.Line.DeliverSignal("", "", end)
	for s := range r.conn.Signals {
		switch {
		case s == end:
			return since, nil
		case s.Sequence < answer:
			r.take(s)
		default:
			since = append(since, s)
		}
	}
	return nil, errDropped
}

func (r *unitsRun) tell() {
	if len(r.facts) > 0 {
		r.emit(r.facts)
	}
}
