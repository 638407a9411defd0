package copies

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/workload"
)

const leaseFile = "leases-ended.json"

// killTime bounds the wait for copies that are killed because their leases are
// not to be believed any more. Their keepers need nobody for it.
const killTime = 5 * time.Second

// heldLeases is what a Manager knows of leases. It is guarded by Manager.mu.
type heldLeases struct {
	path   string
	leases map[string]topology.HeldLease // of the last slice, by app
	until  map[string]time.Duration      // deadlines on the boot clock, of the present leases
	// ended is the highest token of each app that this host gave back. It is on
	// disk before anybody is told, and no copy is started under it again: the
	// leader may have given the app to another host on the strength of it.
	ended map[string]uint64
	met   bool // what runs from earlier lives is known
}

func loadHeldLeases(dir string) (heldLeases, error) {
	t := heldLeases{
		path: filepath.Join(dir, leaseFile), leases: map[string]topology.HeldLease{},
		until: map[string]time.Duration{}, ended: map[string]uint64{},
	}
	if err := readFile(t.path, &t.ended); err != nil {
		return t, fmt.Errorf("load leases that were given back: %w", err)
	}
	return t, nil
}

// take makes the leases of a slice the present ones. Those of addresses are another's
// business.
func (t *heldLeases) take(held []topology.HeldLease) {
	next := make(map[string]topology.HeldLease, len(held))
	for _, l := range held {
		if topology.IsAddress(l.App) {
			continue
		}
		next[l.App] = l
		if t.leases[l.App].Token != l.Token {
			delete(t.until, l.App)
		}
	}
	for app := range t.leases {
		if _, ok := next[app]; !ok {
			delete(t.until, app)
		}
	}
	t.leases = next
}

// good returns the lease of an app if this host may still run under it.
func (t *heldLeases) good(app, boot string) (topology.HeldLease, bool) {
	l, ok := t.leases[app]
	return l, ok && boot != "" && l.Boot == boot && l.Token > t.ended[app]
}

// giveBack makes it durable that nothing runs under a token ever again. Entries
// of apps that have no lease here any more go with it: a token never comes back.
func (t *heldLeases) giveBack(app string, token uint64) error {
	next := maps.Clone(t.ended)
	maps.DeleteFunc(next, func(app string, token uint64) bool { return t.leases[app].Token > token })
	next[app] = max(token, next[app])
	if err := writeFile(t.path, next); err != nil {
		return err
	}
	t.ended = next
	return nil
}

// Leases returns the leases that this host needs: those of copies that it is to
// run, and those of copies that have yet to end. They are to be renewed.
func (m *Manager) Leases() []topology.HeldLease {
	boot, _ := m.cfg.BootClock()
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []topology.HeldLease
	for _, app := range slices.Sorted(maps.Keys(m.held.leases)) {
		if l, ok := m.held.good(app, boot); ok && (m.wants(app) || m.runsUnder(l)) {
			list = append(list, l)
		}
	}
	return list
}

// Ended returns the leases of this host under which nothing runs and nothing
// will: the leader may give them to others at once.
func (m *Manager) Ended() []topology.LeaseRef {
	boot, _ := m.cfg.BootClock()
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []topology.LeaseRef
	if boot == "" || !m.held.met || m.waiting {
		return nil
	}
	for _, app := range slices.Sorted(maps.Keys(m.held.leases)) {
		l, good := m.held.good(app, boot)
		switch {
		case m.runsUnder(l):
			continue
		case good && m.wants(app):
			continue
		case good:
			if err := m.held.giveBack(app, l.Token); err != nil {
				m.log.Warn("give lease back: it has to run out", "app", app, "error", err)
				continue
			}
		}
		list = append(list, topology.LeaseRef{App: app, Token: l.Token})
	}
	return list
}

// wants tells whether the mesh wants this host to run a singleton, whatever is
// stopped here alone. It is called with mu held.
func (m *Manager) wants(app string) bool {
	for id, o := range m.orders {
		if id.App == app && o.singleton && o.target.Stopped == "" {
			return true
		}
	}
	return false
}

// runsUnder tells whether something runs, or is being started, under a lease. It
// is called with mu held.
func (m *Manager) runsUnder(l topology.HeldLease) bool {
	for id, r := range m.runners {
		if id.App == l.App && r.token == l.Token && r.token != 0 {
			return true
		}
	}
	return false
}

// Extend says until when a lease is good, on the boot clock. It tells the keeper
// of a copy that runs under it, and returns when that has taken it.
func (m *Manager) Extend(ctx context.Context, app string, token uint64, until time.Duration) error {
	boot, _ := m.cfg.BootClock()
	m.mu.Lock()
	l, ok := m.held.good(app, boot)
	if !ok || l.Token != token || until <= m.held.until[app] {
		m.mu.Unlock()
		return nil // late, or of another lease: it says nothing
	}
	m.held.until[app] = until
	var leased []workload.Leased
	for id, r := range m.runners {
		if id.App != app {
			continue
		}
		if r.token == token && r.leased != nil {
			leased = append(leased, r.leased)
		}
		r.nudge()
	}
	m.mu.Unlock()
	var errs []error
	for _, h := range leased {
		if err := h.Extend(ctx, token, until); err != nil {
			errs = append(errs, fmt.Errorf("extend lease of %s: %w", app, err))
		}
	}
	return errors.Join(errs...)
}

// Fence kills every copy under a lease and forgets until when the leases are
// good: this host was paused, and who knows what others were told meanwhile. It
// returns when none runs, or after some seconds: the keepers go on.
func (m *Manager) Fence(ctx context.Context) {
	m.mu.Lock()
	clear(m.held.until)
	var running []workload.Handle
	for _, r := range m.runners {
		if h, ok := r.leased.(workload.Handle); ok {
			r.fencing = true
			running = append(running, h)
		}
	}
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	var wg sync.WaitGroup
	for _, h := range running {
		wg.Go(func() {
			if err := h.Stop(ctx, 0, 0); err != nil {
				m.log.Warn("end a copy after a pause", "copy", h.Instance().Spec.ID.String(), "error", err)
			}
		})
	}
	wg.Wait()
}

// lease returns the lease to start a singleton under, and from then on counts the
// copy as running; nil if there is none that is good for long enough.
func (r *runner) lease() *workload.Lease {
	m := r.m
	boot, now := m.cfg.BootClock()
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.held.good(r.id.App, boot)
	until, known := m.held.until[r.id.App]
	rule := r.order.target.Policy.Stop
	lease := workload.Lease{Token: l.Token, Deadline: until, Fence: min(rule.Grace, l.Fence), Signal: rule.Signal}
	// On a busy host the start of a keeper takes its time: half of the lease is
	// left to it, or it waits for the next renewal.
	if !ok || !known || !lease.Live(now) || until-now < l.Hold/2 {
		return nil
	}
	r.token = l.Token
	return &lease
}

// renewed is until when a lease is good by now; 0 if it is not the app's any more.
func (m *Manager) renewed(app string, token uint64) time.Duration {
	boot, _ := m.cfg.BootClock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if l, ok := m.held.good(app, boot); !ok || l.Token != token {
		return 0
	}
	return m.held.until[app]
}

// catchUp tells the keeper of a copy that was just started of what was renewed
// during the start: the next renewal may come too late for it.
func (r *runner) catchUp(ctx context.Context, h workload.Leased) {
	lease := h.Lease()
	if until := r.m.renewed(r.id.App, lease.Token); until > lease.Deadline {
		if err := h.Extend(ctx, lease.Token, until); err != nil {
			r.m.log.Debug("extend the lease of a copy that was just started", "copy", r.id.String(), "error", err)
		}
	}
}

// live tells whether a lease is good now.
func (r *runner) live(l *workload.Lease) bool {
	_, now := r.m.cfg.BootClock()
	return l.Live(now)
}

// keeps notes what runs under a lease; nil: nothing does.
func (r *runner) keeps(h workload.Handle) {
	leased, _ := h.(workload.Leased)
	m := r.m
	m.mu.Lock()
	defer m.mu.Unlock()
	r.leased, r.token, r.fencing = leased, 0, false
	if leased != nil {
		r.token = leased.Lease().Token
	}
}

// unkept ends a singleton that a driver has started without a keeper: nothing
// would end it with its lease.
func (r *runner) unkept(ctx context.Context, h workload.Handle) workload.Input {
	why := errors.New("this driver cannot run singletons")
	if err := h.Stop(ctx, 0, 0); err != nil {
		why = errors.Join(why, err)
	}
	r.keeps(nil)
	return workload.StartFailed{Kind: workload.FailedForGood, Why: why.Error()}
}

// nudge makes a runner look again, as if time had passed. It never blocks.
func (r *runner) nudge() {
	select {
	case r.bell <- struct{}{}:
	default:
	}
}

// wasFenced tells whether the copy was just killed by Fence.
func (r *runner) wasFenced() bool {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	return r.fencing
}

const (
	noLease      = "waiting for its lease"
	leaseNotGood = "waiting for its lease to be renewed"
)

// underLease returns an order as leases allow it. A singleton without a lease is
// stopped, also one that runs because its app was none before. It is called with
// mu held.
func (m *Manager) underLease(o order) order {
	if !o.singleton || o.target.Stopped != "" {
		return o
	}
	boot, _ := m.cfg.BootClock()
	if _, ok := m.held.good(o.id.App, boot); !ok {
		o.target.Stopped = noLease
	}
	return o
}
