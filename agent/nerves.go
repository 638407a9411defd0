package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/addresses"
	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/agent/reflexer"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/reflexes/senses"
	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/hook"
)

const (
	dirReflexes = "reflexes"
	// watchFor is how long everything is sensed after somebody has asked to see it.
	watchFor = 30 * time.Second
	// deployFor is how long a deploy may keep a copy's reflexes quiet, where the app
	// does not say.
	deployFor = 2 * time.Minute
)

// nerves joins senses, rules and muscles: it compiles the reflexes of this
// host's slice, tells the engine what happens to copies and to the mesh, and does
// what it orders. All it needs is on this host.
type nerves struct {
	*member
	set      *senses.Set
	watched  *senses.Copies
	reflexer *reflexer.Reflexer
	stirred  chan struct{} // cap 1: the slice may have other reflexes
	rules    ruleBook      // of run's goroutine
	pulse    pulse
	held     *throttles
	own      *senses.Own
	listener *events.Listener
	staging  *staging

	addresses   *addresses.Keeper
	overAddress chan struct{} // cap 1: one may be over

	declaredSenses map[string]ownSense // by name; of run's goroutine

	crowd *crowd

	loanKey   string        // of the last question for tokens, while it is not answered; borrow's alone
	loanAsked reflexes.Boot // when it was asked first
	webhooks  *webhooks
	hooks     chan struct{} // a slot for each hook that runs at once

	mu       sync.Mutex
	heard    map[string]*senses.Events // the senses that listen, by name
	ruled    bool                      // the engine was given rules
	ruling   []*reflexes.Rule          // what the engine has
	guards   []reflexes.VarID          // what it reads whatever its rules read
	watching bool                      // everything is sensed, for somebody looks
	unwatch  *time.Timer
	shown    []api.LocalReflex // the rules that there are, without their targets
}

// newNerves puts the reflexes of this host together and starts nothing.
func newNerves(m *member) (_ *nerves, err error) {
	n := &nerves{member: m, watched: senses.NewCopies(), stirred: make(chan struct{}, 1), crowd: &crowd{pool: m.pool}, rules: ruleBook{rules: map[string]compiled{}}, heard: map[string]*senses.Events{}}
	n.staging = newStaging()
	n.pulse = pulse{copies: map[string]*copyPulse{}}
	n.webhooks = newWebhooks(n.undelivered)
	n.rules.able, n.hooks = n.able, make(chan struct{}, hooksAtOnce)
	clock := func() reflexes.Boot { return m.bootTime() }
	list, err := senses.Standard(senses.StandardConfig{Now: clock, Copies: n.watched, Logger: m.log})
	if err != nil {
		return nil, err
	}
	if n.own, err = senses.NewOwn(senses.OwnConfig{Now: clock, Logger: m.log}); err != nil {
		return nil, err
	}
	if n.listener, err = events.NewListener(events.ListenerConfig{Upstream: m.upstream(), Mesh: m.meshName(), Host: m.cfg.Name, Logger: m.log}); err != nil {
		return nil, err
	}
	list = append(list, &copySense{n}, &meshSense{n}, &peerSense{n}, n.own)
	if n.set, err = senses.New(senses.Config{Senses: list, Now: clock, Logger: m.log}); err != nil {
		return nil, err
	}
	n.reflexer, err = reflexer.New(reflexer.Config{
		Dir: m.store.path(dirReflexes), Host: m.cfg.Name, Senses: (*sensing)(n), Clock: m.cfg.bootClock(),
		Authority: n.authority, Wish: n.wish, Borrow: n.borrow, Lease: n.wantAddress, Act: n.act, Tell: n.tell, Logger: m.log,
	})
	if err != nil {
		return nil, err
	}
	if n.held, err = openThrottles(n); err != nil {
		return nil, err
	}
	if err = n.openAddresses(); err != nil {
		return nil, err
	}
	if n.slices.slice().MeshID != "" {
		n.look()
	}
	return n, nil
}

// bootTime is the time on this host's boot clock.
func (m *member) bootTime() time.Duration {
	_, up := m.cfg.bootClock()()
	return up
}

// look makes run look at the slice again. It never blocks.
func (n *nerves) look() {
	ring(n.stirred)
}

// run keeps the rules as the slice says until ctx ends.
func (n *nerves) run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { n.set.Run(ctx) })
	all.Go(func() { n.held.run(ctx) })
	all.Go(func() { n.keepAddresses(ctx) })
	all.Go(func() { n.webhooks.run(ctx) })
	all.Go(func() { n.crowd.run(ctx) })
	all.Go(func() { n.watchStages(ctx) })
	hook.Sweep(n.hookTag()) // what hooks of an agent that was killed have left
	judge, err := api.NewJudge()
	if err != nil {
		return err
	}
	n.rules.judge = judge
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.stirred:
			n.heed(n.slices.slice())
		}
	}
}

// heed makes the reflexes of a slice the rules of this host.
func (n *nerves) heed(sl topology.Slice) {
	n.deploying(sl)
	n.senseOwn(sl)
	rules, shown, changed := n.rules.of(sl, n.misunderstood)
	if !changed {
		return
	}
	n.mu.Lock()
	n.shown = shown
	n.mu.Unlock()
	n.reflexer.SetRules(rules)
	n.mu.Lock()
	n.ruled = true
	n.mu.Unlock()
	n.held.look() // a rule that is gone holds nothing back
	ring(n.staging.bell)
	n.lookAddresses()
}

// deploying mutes what is about copies that a deploy is at work on, until they
// are ready or have had their time.
func (n *nerves) deploying(sl topology.Slice) {
	for _, a := range sl.Assignments {
		id := workload.CopyID{App: a.Placement.App, N: a.Placement.N}.String()
		if !n.pulse.deployed(id, a.Placement.Generation, !n.rules.set) {
			continue
		}
		d := a.Spec.Update.Deadline.Std()
		if d <= 0 {
			d = deployFor
		}
		n.reflexer.Mute(reflexes.CopyTarget(id), n.bootTime()+d)
	}
}

// misunderstood tells of a rule that this release cannot compile, or this host
// cannot do.
func (n *nerves) misunderstood(name string, why error) {
	n.log.Warn("a reflex is off on this host", "reflex", name, "error", why)
	n.tell(reflexer.Told{Outcome: reflexes.Outcome{
		Kind: reflexes.Suppressed, Reason: reflexes.ReasonIncapable, Rule: name, Target: reflexes.Host(), Detail: why.Error(),
	}})
}

// ruleBook is the rules of a slice, compiled once each.
type ruleBook struct {
	judge *api.Judge
	able  func(*reflexes.Rule) error // why this host cannot do what a rule may
	rules map[string]compiled        // by name
	set   bool
}

type compiled struct {
	text string // of the reflex
	rule *reflexes.Rule
	err  error
}

// of compiles what is new in the reflexes of a slice. It reports whether they
// differ from those before.
func (b *ruleBook) of(sl topology.Slice, failed func(name string, why error)) (rules []*reflexes.Rule, shown []api.LocalReflex, changed bool) {
	next := map[string]compiled{}
	for _, d := range declared(sl) {
		for _, v := range variants(d, sl.Stages) {
			if _, twice := next[v.name]; twice {
				continue // of another copy of the app
			}
			c, known := b.compile(v, d.app)
			if changed = changed || !known; !known && c.err != nil {
				failed(v.name, c.err)
			}
			next[v.name] = c
			one := api.LocalReflex{Reflex: api.ShowReflex(v.reflex, d.app)}
			one.Name += strings.TrimPrefix(v.name, api.RuleName(d.reflex.Name, d.app))
			if v.stage.ID != 0 {
				one.Stage = cmp.Or(v.stage.Why, "in force on this host, on trial")
			}
			if c.err != nil {
				one.Error = c.err.Error()
			} else {
				rules = append(rules, c.rule)
				one.Class, one.Limit = c.rule.Class().String(), limitText(c.rule.Limit())
			}
			shown = append(shown, one)
		}
	}
	changed = changed || len(next) != len(b.rules) || !b.set
	b.rules, b.set = next, true
	return rules, shown, changed
}

// compile makes a rule of a variant, and reports whether it was known as it is.
func (b *ruleBook) compile(v variant, app string) (c compiled, known bool) {
	text, _ := json.Marshal(struct {
		Reflex intent.Reflex
		Stage  reflexes.Staging
	}{v.reflex, v.stage}) // what came as JSON
	if c, known = b.rules[v.name]; known && c.text == string(text) {
		return c, true
	}
	c = compiled{text: string(text)}
	if c.rule, c.err = b.judge.Rule(v.reflex, app); c.err != nil {
		return c, false
	}
	if c.rule = c.rule.Named(v.name).Staged(v.stage); !c.rule.Observe && !v.stage.Whole {
		c.err = b.able(c.rule)
	}
	return c, false
}

func limitText(l reflexes.Limit) string {
	if l.N == 0 {
		return ""
	}
	return l.String()
}

type declaredReflex struct {
	app    string
	reflex intent.Reflex
}

// declared lists the reflexes of a slice, those outside of apps first.
func declared(sl topology.Slice) (out []declaredReflex) {
	for _, r := range sl.Reflexes {
		out = append(out, declaredReflex{"", r})
	}
	for _, a := range sl.Assignments {
		for _, r := range a.Spec.Reflexes {
			out = append(out, declaredReflex{a.Placement.App, r})
		}
	}
	return out
}

// sensing is nerves as the reflexer sees them.
type sensing nerves

// Ready implements reflexer.Senses.
func (s *sensing) Ready() <-chan struct{} { return s.set.Ready() }

// Take implements reflexer.Senses.
func (s *sensing) Take(to []reflexes.Fact) []reflexes.Fact { return s.set.Take(to) }

// NeedFor implements reflexer.Senses.
func (s *sensing) NeedFor(rules []*reflexes.Rule, vars []reflexes.VarID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ruling, s.guards = rules, vars
	(*nerves)(s).need()
}

// reads tells whether a rule reads a variable.
func (n *nerves) reads(id reflexes.VarID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.ruling, func(r *reflexes.Rule) bool { return slices.Contains(r.Reads(), id) })
}

// need tells the senses what is read. It is called with mu held.
func (n *nerves) need() {
	leisure := n.guards
	if n.watching {
		leisure = reflexes.Vars()
	}
	n.set.NeedFor(n.ruling, leisure)
}

// watch has everything sensed for a while, and reports whether it is only now
// that it is.
func (n *nerves) watch() (began bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.watching {
		n.unwatch.Reset(watchFor)
		return false
	}
	n.watching = true
	n.unwatch = time.AfterFunc(watchFor, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.watching = false
		n.need()
	})
	n.need()
	return true
}
