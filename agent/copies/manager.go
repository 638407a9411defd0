// Package copies keeps the copies that the topology places on this host: it
// starts, checks, restarts, replaces and stops them, and says how they are.
//
// It needs nobody for that: the last slice it was given is carried out for as
// long as no other comes.
package copies

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/packages"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/bootclock"
)

// Config of a Manager.
type Config struct {
	Driver   workload.Driver
	Host     string // this host's name
	HostAddr string // where others reach this host
	Dir      string // existing directory for the little that must survive a restart
	// Packages provides the directories that copies run from. Nil: there are none.
	Packages Packages
	// Emit records an event and returns its id, empty if it could not be. It is
	// called from many goroutines, and for exited between an exit and the
	// restart: it may do one plain write and must not wait for anything, nor wake
	// anybody. That is for spread to do, which is called once a restart that the event
	// leads to is done.
	Emit func(Event) (id string, spread func())
	// Starved tells whether this host is so short of CPU, memory or I/O that a
	// check which timed out says nothing about the copy. Nil: never.
	Starved func() bool
	// Frozen tells what a freeze of the mesh holds of an app, now: it is asked just
	// before each step, and may not block. Nil: nothing. See Look.
	Frozen func(app string) workload.Brake
	Jitter func() float64 // in [0,1), for back-off; default random
	// BootClock names this boot of the host and tells for how long it has been up;
	// default the host's. An empty name: not known.
	BootClock func() (boot string, up time.Duration)
	Stable    time.Duration // ready for so long starts the back-off afresh; default workload.DefaultStable
	// LastOutput returns the last few lines that a copy wrote, in one; for the
	// reason of one that cannot work. Nil: not known.
	LastOutput func(workload.CopyID) string
	Logger     *slog.Logger // default: none
}

func (c *Config) validate() error {
	var errs []error
	for what, missing := range map[string]bool{
		"Driver": c.Driver == nil, "Host": c.Host == "", "HostAddr": c.HostAddr == "", "Dir": c.Dir == "", "Emit": c.Emit == nil,
	} {
		if missing {
			errs = append(errs, errors.New(what+" is missing"))
		}
	}
	if c.Stable < 0 {
		errs = append(errs, errors.New("Stable is negative"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("configure copies: %w", err)
	}
	if c.Starved == nil {
		c.Starved = func() bool { return false }
	}
	if c.Frozen == nil {
		c.Frozen = func(string) workload.Brake { return workload.Brake{} }
	}
	if c.Packages == nil {
		c.Packages = none{}
	}
	if c.Jitter == nil {
		c.Jitter = rand.Float64
	}
	if c.BootClock == nil {
		c.BootClock = bootclock.Read
	}
	if c.Stable == 0 {
		c.Stable = workload.DefaultStable
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Packages is where copies get what they run from. Neither method blocks.
type Packages interface {
	// Get tells how it stands with the package that run names, and sees to it that
	// it comes. Of a run that names none it is ready, in no directory.
	Get(run intent.Run) packages.State
	// Changed returns a channel that is closed when a Get may answer differently.
	Changed() <-chan struct{}
}

// none is a host without packages.
type none struct{}

func (none) Get(run intent.Run) packages.State {
	if run.Artifact == "" {
		return packages.State{Ready: true}
	}
	return packages.State{Failed: true, Why: "use artifact " + run.Artifact + ": this host has no packages"}
}

func (none) Changed() <-chan struct{} { return nil }

// Manager owns all copies of a host. Its methods may be called from any
// goroutine.
type Manager struct {
	cfg Config
	log *slog.Logger

	wake chan struct{} // cap 1: there is something to reconcile
	hold chan struct{} // cap 1: Frozen may answer differently
	wg   sync.WaitGroup

	mu       sync.Mutex
	decided  bool                      // a slice has been set
	index    uint64                    // of that slice
	waiting  bool                      // it is of an earlier life and not confirmed: nothing new is started
	orders   map[workload.CopyID]order // of the last slice
	restarts map[workload.CopyID]bool  // asked for, not yet handed on
	local    localStops
	held     heldLeases
	ends     map[workload.CopyID]workload.End // that no runner knows of yet
	runners  map[workload.CopyID]*runner
	changed  chan struct{}
}

// New returns a Manager. It does nothing before Run.
func New(cfg Config) (*Manager, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, memoryDir), 0o700); err != nil {
		return nil, fmt.Errorf("configure copies: %w", err)
	}
	local, err := loadLocalStops(cfg.Dir)
	if err != nil {
		return nil, err
	}
	held, err := loadHeldLeases(cfg.Dir)
	if err != nil {
		return nil, err
	}
	return &Manager{
		cfg: cfg, log: cfg.Logger, local: local, held: held,
		wake:     make(chan struct{}, 1),
		hold:     make(chan struct{}, 1),
		orders:   map[workload.CopyID]order{},
		restarts: map[workload.CopyID]bool{},
		runners:  map[workload.CopyID]*runner{},
		changed:  make(chan struct{}),
	}, nil
}

// Set makes s what this host should run. Only the last one counts; one that is
// equal to the last changes nothing. The caller sees to it that an older slice
// never follows a newer one.
func (m *Manager) Set(s topology.Slice) { m.set(s, false) }

// Resume is Set with the slice of the agent's last life: what still runs of it is
// looked after, restarts included, but nothing that does not run is started
// before Confirm, whatever slices follow. What was moved away meanwhile would
// run twice.
func (m *Manager) Resume(s topology.Slice) { m.set(s, true) }

// Confirm says that the present slice is known to hold now, or that nobody can
// be asked: all of it is to run.
func (m *Manager) Confirm() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiting {
		m.waiting = false
		m.signal()
	}
}

func (m *Manager) set(s topology.Slice, waiting bool) {
	orders := make(map[workload.CopyID]order, len(s.Assignments))
	for _, a := range s.Assignments {
		o := m.newOrder(a)
		orders[o.id] = o
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.orders { // nothing of it was begun: that is news by itself
		if _, wanted := orders[id]; !wanted && m.runners[id] == nil {
			m.announce()
			break
		}
	}
	m.decided, m.waiting, m.orders, m.index = true, m.waiting || waiting, orders, s.Index
	m.held.take(s.Leases)
	m.forgetLocal()
	m.signal()
}

// Look has every copy looked at anew: what Frozen answers has changed.
func (m *Manager) Look() {
	select {
	case m.hold <- struct{}{}:
	default:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.runners {
		select {
		case r.bell <- struct{}{}:
		default:
		}
	}
}

// signal makes Run reconcile. It never blocks.
func (m *Manager) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run adopts what runs and then keeps the copies until ctx ends, when it returns
// nil and leaves them running. Before the first Set it touches none. It fails
// only if what runs cannot be found: to start anything then could double it.
func (m *Manager) Run(ctx context.Context) error {
	adopted, err := m.cfg.Driver.Adopt(ctx)
	if err != nil {
		return fmt.Errorf("adopt running copies: %w", err)
	}
	m.takeEnds()
	defer m.wg.Wait()
	if d, ok := m.cfg.Driver.(workload.Holder); ok {
		m.wg.Go(func() { m.keepHold(ctx, d) })
	}
	for {
		if m.reconcile(ctx, adopted) {
			adopted = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
		}
	}
}

// reconcile brings what should run and what runs together and hands each copy
// its part. It reports whether it did: before the first slice it does not.
func (m *Manager) reconcile(ctx context.Context, adopted []workload.Handle) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.decided {
		return false
	}
	m.takeOver(ctx, adopted)
	m.held.met = true
	for id, o := range m.orders {
		r := m.runners[id]
		if r == nil && m.waiting {
			continue
		}
		if r == nil {
			r = m.newRunner(id, nil, nil)
			r.end = m.takeEnd(id)
			r.view = view{version: o.target.Version, st: workload.Status{Generation: o.target.Generation, State: workload.StatePending}}
			m.launch(ctx, r)
		}
		o := m.effective(o)
		r.post(mail{order: &o, restart: m.restarts[id]})
	}
	for id, r := range m.runners {
		if _, wanted := m.orders[id]; !wanted {
			r.post(mail{})
		}
	}
	m.dropEnds()
	clear(m.restarts)
	return true
}

// takeOver gives each adopted copy to a runner, by the plan of what is to become
// of it: spares end before their copy is looked after.
func (m *Manager) takeOver(ctx context.Context, adopted []workload.Handle) {
	if len(adopted) == 0 {
		return
	}
	byPid := map[int]workload.Handle{}
	var observed []workload.Observed
	for _, h := range adopted {
		inst := h.Instance()
		byPid[inst.Pid] = h
		observed = append(observed, workload.Observed{ID: inst.Spec.ID, Version: inst.Spec.Version, Generation: inst.Spec.Generation, Pid: inst.Pid})
	}
	var desired []workload.Desired
	for _, o := range m.orders {
		o = m.effective(o)
		desired = append(desired, workload.Desired{
			ID: o.id, Version: o.target.Version, Generation: o.target.Generation, Stopped: o.target.Stopped != "",
		})
	}
	main, spares := map[workload.CopyID]workload.Handle{}, map[workload.CopyID][]workload.Handle{}
	for _, op := range workload.Plan(desired, observed) {
		if h := byPid[op.Pid]; h != nil {
			m.log.Info("adopt", "copy", op.ID.String(), "pid", op.Pid, "then", string(op.Kind), "why", op.Why)
			if op.Kind == workload.OpStop {
				spares[op.ID] = append(spares[op.ID], h)
			} else {
				main[op.ID] = h
			}
		}
	}
	for id := range spares {
		if main[id] == nil { // nothing of it is to run: one is supervised to its end
			main[id], spares[id] = spares[id][0], spares[id][1:]
		}
	}
	for id, h := range main {
		m.launch(ctx, m.newRunner(id, h, spares[id]))
	}
}

// launch starts a runner. It is called with mu held. From now on its copy is
// reported.
func (m *Manager) launch(ctx context.Context, r *runner) {
	m.runners[r.id] = r
	m.announce()
	m.wg.Go(func() { r.run(ctx) })
}

// retire forgets a runner that has nothing left to do, unless new work has
// come.
func (m *Manager) retire(r *runner) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.inbox != nil && r.inbox.order != nil {
		return false
	}
	if err := r.memory.forget(); err != nil {
		m.log.Warn("forget a copy", "copy", r.id.String(), "error", err)
	}
	delete(m.runners, r.id)
	m.announce()
	return true
}

// holder returns the copy of ours, other than id, that still holds port but is
// not going to keep it.
func (m *Manager) holder(port int, id workload.CopyID) (workload.CopyID, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for other, r := range m.runners {
		if other == id || !contains(r.view.held, port) {
			continue
		}
		if o, wanted := m.orders[other]; !wanted || !contains(o.ports, port) {
			return other, true
		}
	}
	return workload.CopyID{}, false
}

func contains(ports map[string]int, port int) bool {
	for _, p := range ports {
		if p == port {
			return true
		}
	}
	return false
}

// Purge removes what this host keeps of a copy that it no longer has: its
// directory, state and output.
func (m *Manager) Purge(ctx context.Context, id workload.CopyID) error {
	m.mu.Lock()
	_, wanted := m.orders[id]
	_, runs := m.runners[id]
	decided := m.decided
	m.mu.Unlock()
	if wanted || runs || !decided {
		return fmt.Errorf("purge %s: it is, or may be, still placed on this host", id)
	}
	return m.cfg.Driver.Purge(ctx, id)
}
