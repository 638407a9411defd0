//go:build linux

package systemd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/ganglion-mesh/ganglion/pid1"
)

// watcher is told what PID 1 says about one unit, in order, on the goroutine
// that reads the connection: it must not block on the bus.
type watcher interface {
	properties(iface string, props map[string]dbus.Variant)
	jobDone(result string)
	removed()
}

// bus is the connection to PID 1: made when first needed, and made again when
// PID 1 drops it, as it does when it executes itself anew.
type bus struct {
	socket string
	log    *slog.Logger
	wg     sync.WaitGroup // readers

	mu       sync.Mutex
	conn     *dbus.Conn
	closed   chan struct{}
	watchers map[dbus.ObjectPath]watcher
}

func newBus(socket string, log *slog.Logger) *bus {
	return &bus{socket: socket, log: log, closed: make(chan struct{}), watchers: map[dbus.ObjectPath]watcher{}}
}

// get returns the connection, connecting if there is none.
func (b *bus) get() (*dbus.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.closed:
		return nil, ErrClosed
	default:
	}
	if b.conn != nil && b.conn.Connected() {
		return b.conn, nil
	}
	conn, err := pid1.Dial(context.Background(), b.socket)
	if err != nil {
		return nil, err
	}
	b.conn = conn.Conn
	b.wg.Go(func() { b.read(conn) })
	return b.conn, nil
}

// close ends the connection and joins its reader.
func (b *bus) close() {
	b.mu.Lock()
	select {
	case <-b.closed:
	default:
		close(b.closed)
	}
	conn := b.conn
	b.mu.Unlock()
	if conn != nil {
		_ = conn.Close() // of a connection that PID 1 has dropped: an error about nothing
	}
	b.wg.Wait()
}

// lookedAt names what look puts into the line. PID 1 sends nothing of that name.
const lookedAt = "ganglion.LookedAt"

// read hands signals to the watchers until the connection ends, and then sees
// to the next one. It begins with a look at every watched unit: what happened
// without a connection is no signal.
func (b *bus) read(conn pid1.Conn) {
	for _, path := range b.watched() {
		b.look(conn, path)
	}
	b.deliverAll(conn)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		if _, err := b.get(); err == nil || errors.Is(err, ErrClosed) {
			return
		}
		b.log.Warn("PID 1 has dropped the connection", "retry_in", pause)
		select {
		case <-b.closed:
			return
		case <-time.After(pause):
		}
	}
}

func (b *bus) deliverAll(conn pid1.Conn) {
	for {
		select {
		case s, ok := <-conn.Signals:
			if !ok {
				return
			}
			b.deliver(conn, s)
		case <-conn.Context().Done(): // also if it ended before it knew our channel
			return
		}
	}
}

func (b *bus) watched() []dbus.ObjectPath {
	b.mu.Lock()
	defer b.mu.Unlock()
	paths := make([]dbus.ObjectPath, 0, len(b.watchers))
	for p := range b.watchers {
		paths = append(paths, p)
	}
	return paths
}

// look reads a unit as it is now, for its watcher to be told, also what signals
// would have told that were lost: the end of its start, or its own. It is told in
// its turn, after the signals that PID 1 has sent before: else a unit could be gone
// before its end is heard of.
func (b *bus) look(conn pid1.Conn, path dbus.ObjectPath) {
	if b.watcher(path) == nil {
		return
	}
	seen := &dbus.Signal{Name: lookedAt, Path: path}
	for _, iface := range []string{pid1.Service, pid1.Unit} {
		var props map[string]dbus.Variant
		ctx, cancel := context.WithTimeout(context.Background(), pid1.Answers)
		err := conn.Object(pid1.Name, path).CallWithContext(ctx, pid1.Properties+"GetAll", 0, iface).Store(&props)
		cancel()
		if err != nil {
			b.log.Debug("look at a unit", "path", string(path), "error", err)
			return // the connection has ended again, and the next one will look
		}
		seen.Body = append(seen.Body, props)
	}
	conn.Line.DeliverSignal("", "", seen)
}

// tellLooked tells what look has seen.
func tellLooked(w watcher, service, unit any) {
	if props, ok := service.(map[string]dbus.Variant); ok {
		w.properties(pid1.Service, props)
	}
	if props, ok := unit.(map[string]dbus.Variant); ok {
		w.properties(pid1.Unit, props)
		tellLost(w, props)
	}
}

func tellLost(w watcher, props map[string]dbus.Variant) {
	switch u := unitStateOf(props); {
	case u.missing:
		w.removed()
	case u.active == "active":
		w.jobDone("done")
	case u.over():
		w.jobDone("failed")
	}
}

func (b *bus) watcher(path dbus.ObjectPath) watcher {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.watchers[path]
}

// deliver passes on what concerns a watched unit; PID 1 sends everything about
// every unit of the host.
func (b *bus) deliver(conn pid1.Conn, s *dbus.Signal) {
	switch s.Name {
	case lookedAt:
		if w := b.watcher(s.Path); w != nil && len(s.Body) == 2 {
			tellLooked(w, s.Body[0], s.Body[1])
		}
	case pid1.Properties + "PropertiesChanged":
		if len(s.Body) < 2 || !strings.HasPrefix(string(s.Path), string(pid1.Manager)+"/unit/ganglion") {
			return
		}
		iface, ok1 := s.Body[0].(string)
		props, ok2 := s.Body[1].(map[string]dbus.Variant)
		if w := b.watcher(s.Path); w != nil && ok1 && ok2 {
			w.properties(iface, props)
		}
	case pid1.OfManager + "JobRemoved":
		if len(s.Body) < 4 {
			return
		}
		unit, ok1 := s.Body[2].(string)
		result, ok2 := s.Body[3].(string)
		if w := b.watcher(dbus.ObjectPath(objectPath(unit))); w != nil && ok1 && ok2 {
			w.jobDone(result)
		}
	case pid1.OfManager + "UnitRemoved":
		if len(s.Body) < 2 {
			return
		}
		// PID 1 says this of every unit when it reads its configuration anew, so
		// it is asked whether the unit is gone.
		if path, ok := s.Body[1].(dbus.ObjectPath); ok {
			b.look(conn, path)
		}
	}
}

// watch tells w about unit from now on.
func (b *bus) watch(unit string, w watcher) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watchers[dbus.ObjectPath(objectPath(unit))] = w
}

func (b *bus) unwatch(unit string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.watchers, dbus.ObjectPath(objectPath(unit)))
}

// call calls the manager and stores its answer in out.
func (b *bus) call(ctx context.Context, method string, args []any, out ...any) error {
	conn, err := b.get()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pid1.Answers)
	defer cancel()
	return conn.Object(pid1.Name, pid1.Manager).CallWithContext(ctx, pid1.OfManager+method, 0, args...).Store(out...)
}

// getAll reads all properties of a unit, of one interface.
func (b *bus) getAll(ctx context.Context, unit, iface string) (props map[string]dbus.Variant, err error) {
	conn, err := b.get()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, pid1.Answers)
	defer cancel()
	// The bus answers for any name: a unit that is not there is inactive.
	err = conn.Object(pid1.Name, dbus.ObjectPath(objectPath(unit))).CallWithContext(ctx, pid1.Properties+"GetAll", 0, iface).Store(&props)
	return props, err
}

// environment reads PID 1's own environment, which services inherit.
func (b *bus) environment(ctx context.Context) (env []string, err error) {
	conn, err := b.get()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, pid1.Answers)
	defer cancel()
	var v dbus.Variant
	err = conn.Object(pid1.Name, pid1.Manager).CallWithContext(ctx, pid1.Properties+"Get", 0, strings.TrimSuffix(pid1.OfManager, "."), "Environment").Store(&v)
	if err != nil {
		return nil, fmt.Errorf("read PID 1's environment: %w", err)
	}
	env, _ = v.Value().([]string)
	return env, nil
}

// isNoUnit tells the answer that there is no such unit.
func isNoUnit(err error) bool {
	busErr, ok := errors.AsType[dbus.Error](err)
	return ok && (busErr.Name == "org.freedesktop.systemd1.NoSuchUnit" || busErr.Name == "org.freedesktop.systemd1.LoadFailed")
}

func number[T int32 | uint32 | uint64](props map[string]dbus.Variant, name string) T {
	n, _ := props[name].Value().(T)
	return n
}

func text(props map[string]dbus.Variant, name string) string {
	s, _ := props[name].Value().(string)
	return s
}

func flag(props map[string]dbus.Variant, name string) bool {
	b, _ := props[name].Value().(bool)
	return b
}

func serviceOf(props map[string]dbus.Variant) service {
	return service{
		mainPID:   number[uint32](props, "MainPID"),
		lastPID:   number[uint32](props, "ExecMainPID"),
		code:      number[int32](props, "ExecMainCode"),
		status:    number[int32](props, "ExecMainStatus"),
		startUSec: number[uint64](props, "ExecMainStartTimestampMonotonic"),
		exitUSec:  number[uint64](props, "ExecMainExitTimestampMonotonic"),
		restarts:  number[uint32](props, "NRestarts"),
		oom:       text(props, "Result") == "oom-kill",
		remains:   flag(props, "RemainAfterExit"),
	}
}

func unitStateOf(props map[string]dbus.Variant) unitState {
	return unitState{
		active: text(props, "ActiveState"), sub: text(props, "SubState"),
		changedUSec: number[uint64](props, "StateChangeTimestampMonotonic"),
		missing:     text(props, "LoadState") == "not-found",
	}
}
