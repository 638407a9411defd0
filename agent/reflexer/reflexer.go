// Package reflexer runs a host's reflexes: it owns the engine of package
// reflexes on one goroutine, hands it what senses tell, writes the journal
// before each act, has the acts done and tells what came of them. It needs no
// leader, no network and no wall clock.
package reflexer

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// snapshotEvery is how often the engine's state goes to disk while it changes.
const snapshotEvery = 5 * time.Second

// Senses is where facts come from: a *senses.Set.
type Senses interface {
	// Ready has something to receive when there are facts to take.
	Ready() <-chan struct{}
	// Take appends the facts that came since the last Take.
	Take(to []reflexes.Fact) []reflexes.Fact
	// NeedFor says which rules there are from now on, and what else is read, at
	// leisure.
	NeedFor(rules []*reflexes.Rule, vars []reflexes.VarID)
}

// Config of a Reflexer. All but Disabled, Wish, Borrow, Lease and Logger is required.
type Config struct {
	Dir    string // for state and journal; it is made
	Host   string // name of this host: back-offs of hosts differ by it
	Senses Senses
	// Clock names this boot of the host and tells for how long it has been up.
	Clock func() (boot string, up time.Duration)
	// Disabled are the actions that this host cannot or may not take, with the
	// reason.
	Disabled map[string]string
	// Authority tells, at the moment of an act, what the mesh allows. It waits for
	// nothing.
	Authority func(f reflexes.Firing) reflexes.Authority
	// Wish tells other hosts which rules want to disturb something here. It is called
	// every ten seconds while any does, and waits for nothing. nil: nobody is told.
	Wish func(rules []string)
	// Borrow asks a leader for tokens of the mesh's budget, on a goroutine of its
	// own: while it waits everything else goes on. nil: no leader is ever asked, and
	// nothing is done that reaches further than this host's own copies.
	Borrow func(ctx context.Context, b Borrowing) Answer
	// Lease is told, once a second, that an act wants nothing but its lease. It waits
	// for nothing; Leased tells when the lease has come. nil: none ever does.
	Lease func(f reflexes.Firing)
	// Act does what an order says and returns what there is to say of it, for the
	// record, and how it ended. It is called on a goroutine of its own, and gives up
	// when ctx ends.
	Act func(ctx context.Context, o Order) (said string, err error)
	// Tell is told what becomes of rules, in order, on the engine's goroutine: it
	// may do one plain write. It keeps nothing of its argument.
	Tell   func(Told)
	Logger *slog.Logger // default: none
}

// Order is an act that was permitted and recorded.
type Order struct {
	reflexes.Act
	Revives bool // see reflexes.Rung
}

// Told is one thing that became of a rule.
type Told struct {
	reflexes.Outcome
	Acted reflexes.Boot   // of Finished: when the act began; 0 if an earlier agent began it
	Tells []intent.Action // of Finished: what was to be told with the act
	Lost  bool            // of Finished: an earlier agent began it, and how it ended nobody knows
}

func (c *Config) validate() error {
	var missing []error
	for _, f := range []struct {
		name string
		none bool
	}{
		{"Dir", c.Dir == ""}, {"Host", c.Host == ""}, {"Senses", c.Senses == nil}, {"Clock", c.Clock == nil},
		{"Authority", c.Authority == nil}, {"Act", c.Act == nil}, {"Tell", c.Tell == nil},
	} {
		if f.none {
			missing = append(missing, errors.New(f.name+" is missing"))
		}
	}
	if err := errors.Join(missing...); err != nil {
		return fmt.Errorf("configure reflexes: %w", err)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Reflexer runs the reflexes of a host. Its methods may be called from any
// goroutine.
type Reflexer struct {
	cfg Config
	log *slog.Logger

	bell chan struct{} // cap 1: there are calls
	done chan struct{} // closed when Run has ended
	mu   sync.Mutex
	wait []call // what is to be done on the engine's goroutine, in order

	// The rest belongs to Run's goroutine.
	engine  *reflexes.Engine
	journal *journal
	ruled   bool // rules have been set once
	facts   []reflexes.Fact
	ended   chan ended
	flights map[reflexes.ActID]flight // acts that are being done
	acts    sync.WaitGroup            // and questions to a leader
	lost    []reflexes.Record         // results of acts of an earlier agent that are to be told
	purse   purse
	stored  string // what the last state on disk said
	touched bool   // something may have changed since it was looked at
	storing bool   // it will be looked at soon
}

// call is something to do with the engine.
type call func(e *reflexes.Engine, now reflexes.Boot)

// flight is an act that is being done: when what led to it was seen, and when it
// began.
type flight struct {
	sensed, acted reflexes.Boot
	facts         []reflexes.Fact // what the rule saw then
	tells         []intent.Action
}

// ended is how an act ended.
type ended struct {
	act  reflexes.ActID
	said string
	err  error
}

// New returns a Reflexer that does nothing before Run.
func New(cfg Config) (*Reflexer, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	boot, _ := cfg.Clock()
	seed := fnv.New64a()
	seed.Write([]byte(cfg.Host))
	r := &Reflexer{
		cfg: cfg, log: cfg.Logger, bell: make(chan struct{}, 1), done: make(chan struct{}),
		ended: make(chan ended), flights: map[reflexes.ActID]flight{},
		engine: reflexes.NewEngine(reflexes.Config{Boot: boot, Seed: seed.Sum64(), Disabled: cfg.Disabled}),
	}
	var err error
	r.journal, err = openJournal(cfg.Dir, r.log)
	if err != nil {
		return nil, fmt.Errorf("open journal of reflexes: %w", err)
	}
	return r, nil
}

// now is the time on the boot clock.
func (r *Reflexer) now() reflexes.Boot {
	_, up := r.cfg.Clock()
	return up
}

// post has f called on the engine's goroutine, soon and in order. It waits for
// nothing.
func (r *Reflexer) post(f call) {
	r.mu.Lock()
	r.wait = append(r.wait, f)
	r.mu.Unlock()
	select {
	case r.bell <- struct{}{}:
	default:
	}
}

// ask has f called on the engine's goroutine and waits for it. It reports
// whether f was called.
func (r *Reflexer) ask(ctx context.Context, f call) bool {
	called := make(chan struct{})
	r.post(func(e *reflexes.Engine, now reflexes.Boot) {
		f(e, now)
		close(called)
	})
	select {
	case <-called:
		return true
	case <-ctx.Done():
	case <-r.done:
	}
	return false
}

// SetRules exchanges the rules. One that says the same as before keeps its
// state.
func (r *Reflexer) SetRules(rules []*reflexes.Rule) {
	r.post(func(e *reflexes.Engine, now reflexes.Boot) {
		r.ruled = true
		e.SetRules(now, rules)
		r.cfg.Senses.NeedFor(rules, guards(rules))
	})
}

// guards is what the engine has to know to judge rules, whatever they read.
func guards(rules []*reflexes.Rule) []reflexes.VarID {
	if len(rules) == 0 {
		return nil
	}
	return []reflexes.VarID{
		reflexes.AppRunning, reflexes.AppReady, reflexes.AppReadyRatio, reflexes.CheckTimeouts, reflexes.ClockGaps,
		reflexes.HostPSICPUSome10s, reflexes.HostPSIMemoryFull10s, reflexes.HostPSIIOFull10s,
	}
}

// Mute keeps rules from acting on a target until a time, because a deploy is at
// work on it. A time that is past ends that.
func (r *Reflexer) Mute(t reflexes.Target, until reflexes.Boot) {
	r.post(func(e *reflexes.Engine, now reflexes.Boot) { e.Mute(now, "", t, until, true) })
}

// Leased has an act that waits for its lease tried at once.
func (r *Reflexer) Leased(rule string, t reflexes.Target) {
	r.post(func(e *reflexes.Engine, now reflexes.Boot) { e.Leased(now, rule, t) })
}

// Lapsed has a rule want again what it did under a lease that it has lost. Of one that
// does nothing under a lease it changes nothing.
func (r *Reflexer) Lapsed(rule string, t reflexes.Target) {
	r.post(func(e *reflexes.Engine, now reflexes.Boot) { e.Lapsed(now, rule, t) })
}

// Forget ends all rules about a target that is gone.
func (r *Reflexer) Forget(t reflexes.Target) {
	r.post(func(e *reflexes.Engine, now reflexes.Boot) { e.Forget(now, t) })
}

// Explain tells how a rule, or every one with "", stands with each target. It
// reports whether the engine could be asked.
func (r *Reflexer) Explain(ctx context.Context, rule string) (out []reflexes.Explanation, ok bool) {
	ok = r.ask(ctx, func(e *reflexes.Engine, now reflexes.Boot) {
		out = append(out, e.Explain(now, rule)...)
	})
	if !ok {
		return nil, false
	}
	return out, true
}

// Known tells what is known of variables, by target. It reports whether the
// engine could be asked.
func (r *Reflexer) Known(ctx context.Context, vars []reflexes.VarID) (out []reflexes.Seen, ok bool) {
	ok = r.ask(ctx, func(e *reflexes.Engine, now reflexes.Boot) {
		for _, id := range vars {
			out = append(out, e.Known(now, id)...)
		}
	})
	if !ok {
		return nil, false
	}
	return out, true
}
