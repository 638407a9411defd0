package topology

import (
	"errors"
	"fmt"
	"time"
)

// Lease is the right of one host to run the one copy of a singleton (S4), or to have
// an address. There is at most one for an app, and nobody else may run the app before
// it is over: given back by its holder, or not renewed for Grace on the leader's own
// clock. It outlives its app, if that is deleted first.
type Lease struct {
	App    string `json:"app"` // or the address: see IsAddress
	Host   string `json:"host"`
	HostID string `json:"host_id"`
	// Boot is that of the holder's kernel. What another boot of the same host
	// asks for is not this lease: the clock that its deadline is on is gone.
	Boot  string `json:"boot"`
	Token uint64 `json:"token"` // the index of the grant
	// Renewed is the index of the grant or of the last renewal. It moves no
	// revision and no slice.
	Renewed uint64 `json:"renewed"`
	// Timers are those of the leader that granted it. They hold for as long as
	// the lease does, whatever another leader is configured with.
	Timers Timers `json:"timers"`
	// Over says that nobody holds it any more. It is kept until the next grant,
	// to tell a singleton that has ended from one that never had a lease.
	Over bool `json:"over,omitempty"`
}

// HeldLease is a lease as its holder sees it.
type HeldLease struct {
	App   string        `json:"app"`
	Token uint64        `json:"token"`
	Boot  string        `json:"boot"`
	Hold  time.Duration `json:"hold"`  // a renewal lasts so long from when it was sent
	Fence time.Duration `json:"fence"` // the longest that the copy has between its stop signal and the deadline
}

// Timers are the times of leases.
type Timers struct {
	Hold  time.Duration `json:"hold"`  // L_h: how long a holder may run from when it sent the renewal
	Kill  time.Duration `json:"kill"`  // K: so long after the deadline nothing of the copy runs
	Grace time.Duration `json:"grace"` // L_g: how long a leader waits from when it applied the last renewal
}

// DefaultTimers are those of a mesh that is not told otherwise.
func DefaultTimers() Timers {
	return Timers{Hold: 10 * time.Second, Kill: 5 * time.Second, Grace: 20 * time.Second}
}

// The bounds of timers. Below, a busy host loses its leases for nothing; above,
// a failover takes longer than anyone waits.
const (
	minHold  = 500 * time.Millisecond
	maxGrace = time.Hour
	maxFence = 3 * time.Second
)

// Check refuses timers by which two hosts could run one singleton at a time,
// though both clocks are within a tenth of the true rate.
func (t Timers) Check() error {
	if t.Hold < minHold || t.Kill <= 0 || t.Grace > maxGrace {
		return fmt.Errorf("lease timers: hold %s, kill %s, grace %s: want hold of at least %s, kill above 0 and grace of at most %s", t.Hold, t.Kill, t.Grace, minHold, maxGrace)
	}
	var errs []error
	if fence := t.Fence(); fence+2*t.Hold/3 >= t.Hold {
		errs = append(errs, fmt.Errorf("lease timers: fence %s + 2/3 of hold %s is not below hold: one lost renewal would end the lease; make hold longer", fence, t.Hold))
	}
	// L_g >= (1+r)/(1-r) L_h + (1+r) K with r = 0.1, times 90
	if 90*t.Grace < 110*t.Hold+99*t.Kill {
		least := (110*t.Hold + 99*t.Kill + 89) / 90
		errs = append(errs, fmt.Errorf("lease timers: grace %s is too short for hold %s and kill %s: two copies could run at once; want at least %s", t.Grace, t.Hold, t.Kill, least.Round(time.Millisecond)))
	}
	return errors.Join(errs...)
}

// Fence is the longest that a copy has between the stop signal and the end of
// its lease: 3 s, less where leases are shorter than 10 s.
func (t Timers) Fence() time.Duration { return min(maxFence, t.Hold*3/10) }

// Renew is how often a holder renews.
func (t Timers) Renew() time.Duration { return t.Hold / 3 }

// Window is how long a singleton may be without a running copy after its host
// was lost; another LeaderWindow if the leader was lost with it.
func (t Timers) Window() time.Duration { return t.Grace + 2*time.Second }

// LeaderWindow is what the loss of the leader adds to a failover: its
// replacement waits anew for all leases from when it takes office.
const LeaderWindow = 5 * time.Second

// orDefault fills in the defaults for timers that are not set.
func (t Timers) orDefault() Timers {
	if t == (Timers{}) {
		return DefaultTimers()
	}
	return t
}

// Grant is the part of a Place by which a host gets the lease of a singleton:
// Put places a copy of App on Host in the same command. Alone it gives a host the
// lease of an address. Prev and Renewed are
// those of the lease that was seen to be over, zero if there was none; any other
// rejects the command.
type Grant struct {
	App     string `json:"app"`
	Host    string `json:"host"`
	Boot    string `json:"boot"`
	Prev    uint64 `json:"prev,omitempty"`
	Renewed uint64 `json:"renewed,omitempty"`
	Timers  Timers `json:"timers"`
}

// RenewLeases renews leases, each if its token is still the one that is good. It
// is never rejected: whoever proposed it looks at the state to see which are
// good now.
type RenewLeases struct {
	Leases []LeaseRef `json:"leases"`
}

// LeaseRef names one lease.
type LeaseRef struct {
	App   string `json:"app"`
	Token uint64 `json:"token"`
}

// EndLease says that nobody holds a lease any more, and nobody will under its
// token: its holder has said so, or, with Renewed that of the lease, it has not
// been renewed for its whole grace.
type EndLease struct {
	App     string `json:"app"`
	Token   uint64 `json:"token"`
	Renewed uint64 `json:"renewed,omitempty"`
}

// LeaseObs is what the leader knows of a lease besides the log.
type LeaseObs struct {
	Token   uint64        // of the lease it is about
	Renewed uint64        // likewise
	Age     time.Duration // since the leader saw that renewal applied, or took office, on its boot clock
	Ended   bool          // the holder says that its copy has ended and that it starts none under this token
}

// Lease returns the lease of an app, also of one that was deleted.
func (s *State) Lease(app string) (Lease, bool) { return found(s.leases, app) }

// Leases returns all leases by app.
func (s *State) Leases() []Lease { return listed(s.leases) }

// heldBy returns the leases of a host by app.
func (s *State) heldBy(host string) (list []HeldLease) {
	for l := range values(s.leases) {
		if l.Host == host && !l.Over {
			list = append(list, HeldLease{App: l.App, Token: l.Token, Boot: l.Boot, Hold: l.Timers.Hold, Fence: l.Timers.Fence()})
		}
	}
	return list
}

// grant gives a host a lease, as far as the lease alone is concerned.
func (t *txn) grant(g Grant, put []Placement) *Rejected {
	app, ok := t.apps.Get([]byte(g.App))
	if !ok || !app.Spec.Singleton {
		return reject(RejectConflict, "grant lease of %s: there is no such singleton", g.App)
	}
	if r := t.checkGrant(g); r != nil {
		return r
	}
	for _, p := range put {
		if p.App == g.App && p.Host == g.Host {
			t.let(g)
			return nil
		}
	}
	return reject(RejectInvalid, "grant lease of %s: no copy is placed on %s with it", g.App, g.Host)
}

// checkGrant refuses a grant that another has come before, or that no host could
// use safely, whatever it is of.
func (t *txn) checkGrant(g Grant) *Rejected {
	if _, ok := t.hosts.Get([]byte(g.Host)); !ok {
		return reject(RejectUnknown, "grant lease of %s: there is no host %q", g.App, clip(g.Host))
	}
	if err := g.Timers.Check(); err != nil {
		return reject(RejectInvalid, "grant lease of %s: %v", g.App, err)
	}
	if g.Boot == "" || len(g.Boot) > maxID {
		return reject(RejectInvalid, "grant lease of %s: boot id of host %s must have 1 to %d bytes", g.App, g.Host, maxID)
	}
	var now Lease
	if old, ok := t.leases.Get([]byte(g.App)); ok {
		now = *old
	}
	if now.Token != g.Prev || now.Renewed != g.Renewed {
		return reject(RejectConflict, "grant lease of %s: its token is %d, renewed at %d, not %d and %d; decide again", g.App, now.Token, now.Renewed, g.Prev, g.Renewed)
	}
	return nil
}

// let makes the lease of a grant that was checked.
func (t *txn) let(g Grant) {
	if old, ok := t.leases.Get([]byte(g.App)); ok {
		t.touched[old.Host] = true
	}
	host, _ := t.hosts.Get([]byte(g.Host))
	t.touched[g.Host] = true
	t.leases = insert(t.leases, g.App, &Lease{
		App: g.App, Host: g.Host, HostID: host.ID, Boot: g.Boot, Token: t.index, Renewed: t.index, Timers: g.Timers,
	})
}

// checkLease is the last guard of S4, whoever decided: a singleton's copy is put
// to work only where the lease is.
func (t *txn) checkLease(p Placement) *Rejected {
	app, _ := t.apps.Get([]byte(p.App))
	if !app.Spec.Singleton || app.stops(p) {
		return nil
	}
	if l, ok := t.leases.Get([]byte(p.App)); !ok || l.Over || l.Host != p.Host {
		return reject(RejectConflict, "place copy %s: host %s does not have the lease; decide again", p.Key(), p.Host)
	}
	return nil
}

// renewLeases moves no revision: nothing that was decided is another, and nobody
// is to be woken.
func (t *txn) renewLeases(c RenewLeases) *Rejected {
	for _, r := range c.Leases {
		l, ok := t.leases.Get([]byte(r.App))
		if !ok || l.Token != r.Token || l.Over {
			continue
		}
		next := *l
		next.Renewed = t.index
		t.leases = insert(t.leases, r.App, &next)
	}
	return nil
}

func (t *txn) endLease(c EndLease) *Rejected {
	l, ok := t.leases.Get([]byte(c.App))
	if !ok || l.Token != c.Token || c.Renewed != 0 && l.Renewed != c.Renewed {
		return reject(RejectConflict, "end lease of %s: token %d, renewed at %d, is not its lease any more; decide again", c.App, c.Token, c.Renewed)
	}
	app, ok := t.apps.Get([]byte(c.App))
	switch {
	case !ok || !app.Spec.Singleton:
		t.leases = remove(t.leases, c.App)
	case l.Over:
		return nil
	default:
		next := *l
		next.Over = true
		t.leases = insert(t.leases, c.App, &next)
	}
	t.touched[l.Host], t.changed = true, true
	return nil
}

// checkLeases holds the invariants of leases in a snapshot.
func (s *State) checkLeases(im image) error {
	if s.leases.Len() != len(im.Leases) {
		return errors.New("two leases are of one app")
	}
	for _, l := range im.Leases {
		if l.Token == 0 || l.Renewed < l.Token || l.Host == "" {
			return fmt.Errorf("lease of %s: token %d, renewed at %d on %q cannot be", l.App, l.Token, l.Renewed, l.Host)
		}
		if err := l.Timers.Check(); err != nil {
			return fmt.Errorf("lease of %s: %w", l.App, err)
		}
	}
	return nil
}
