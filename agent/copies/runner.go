package copies

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

const (
	// exitGrace is how long the exit of a stopped copy is waited for.
	exitGrace = time.Second
	// saveDelay is how long it is neither saved nor reported that a copy ended which is
	// not restarted at once.
	saveDelay = 10 * time.Millisecond
)

// runner keeps one copy, on one goroutine: it feeds a workload.Supervisor and
// does what that asks for. An exit is read, decided and answered by a start
// without another goroutine in between.
type runner struct {
	m  *Manager
	id workload.CopyID

	inbox *mail         // guarded by m.mu; nil: none
	bell  chan struct{} // cap 1: there is mail
	view  view          // guarded by m.mu

	wishes []wish // guarded by m.mu: what reflexes want done

	// The rest belongs to the runner's goroutine.
	sup      *workload.Supervisor
	spares   []workload.Handle // second ones of this copy, found at adoption
	order    order
	awaited  *awaited // the order after it, whose package is on its way; nil: none
	prepared bool     // order.spec has its package
	handle   workload.Handle
	exits    <-chan workload.Exit
	held     map[string]int
	taken    portBook
	told     map[workload.NoteKind]string // id of the last event of each kind
	unspread []func()                     // of what was told since spread
	took     time.Duration                // of the last stop

	// Guarded by m.mu, of a copy under a lease:
	token   uint64          // what runs or is being started under; 0: nothing is
	leased  workload.Leased // nil: nothing runs
	fencing bool            // it is killed because this host was paused

	keeperKnows bool // whether keeperHolds is what the copy's keeper was told last
	keeperHolds bool

	memory memory
	end    *workload.End // that came while no agent ran; nil: none did
	owes   bool          // the driver may keep how it ended

	life      context.Context // of the running instance
	endLife   context.CancelFunc
	probes    []probe
	results   chan probed
	smoke     smoke
	smoked    chan smoke
	best      time.Duration  // longest time that bestOf was ready
	bestOf    uint64         // generation
	last      string         // last output of a generation that cannot work, or lapsed
	lapse     workload.Lapse // that last was read for
	lastStart int            // of the copy, when last was read
	probers   sync.WaitGroup
}

// newRunner is called with mu held. Main and spares are what runs of the copy.
func (m *Manager) newRunner(id workload.CopyID, main workload.Handle, spares []workload.Handle) *runner {
	leased, _ := main.(workload.Leased)
	r := &runner{
		m: m, id: id, spares: spares, handle: main, leased: leased,
		sup:     workload.NewSupervisor(m.cfg.Jitter),
		bell:    make(chan struct{}, 1),
		results: make(chan probed),
		smoked:  make(chan smoke),
		taken:   portBook{},
		told:    map[workload.NoteKind]string{},
		memory:  m.memoryOf(id),
	}
	if leased != nil { // before anybody is told what runs here
		r.token = leased.Lease().Token
	}
	if main != nil {
		inst := main.Instance()
		r.view = view{version: inst.Spec.Version, st: workload.Status{Generation: inst.Spec.Generation, State: workload.StateRunning, Instance: &inst}}
	}
	return r
}

// run keeps the copy until it is neither wanted nor running, or ctx ends; then
// the copy is left as it is.
func (r *runner) run(ctx context.Context) {
	r.life, r.endLife = context.WithCancel(ctx)
	defer r.probers.Wait()
	defer r.refuseWishes()
	defer func() { r.endLife() }()
	if !r.endSpares(ctx) {
		return
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var wake time.Time
	r.recall(ctx)
	r.learn(ctx)
	if r.handle != nil {
		r.exits = r.handle.Exited()
		r.held = portsOf(r.handle.Instance().Spec)
		wake = r.step(ctx, workload.Adopted{Instance: r.handle.Instance()})
	}
	for ctx.Err() == nil {
		setTimer(timer, wake)
		select {
		case exit, ok := <-r.exits:
			if !ok {
				r.lost()
				continue
			}
			wake = r.exited(ctx, exit)
		case <-r.bell:
			wake = r.heed(ctx)
		case <-r.arrival():
			wake = r.consider(ctx, r.awaited.order)
		case p := <-r.results:
			if p.life == r.life {
				wake = r.step(ctx, p.result)
			}
		case r.smoke = <-r.smoked:
			r.publish()
		case <-timer.C:
			wake = r.step(ctx, workload.Tick{})
		case <-ctx.Done():
		}
		if r.sup.Done() && r.m.retire(r) {
			r.settle()
			return
		}
	}
	r.remember()
}

// exited answers an end that nobody asked for.
func (r *runner) exited(ctx context.Context, exit workload.Exit) time.Time {
	if exit.Successor == nil {
		exit.Fenced = exit.Fenced || r.wasFenced()
		r.handle, r.held, r.owes = nil, nil, true
		r.keeps(nil)
	} else {
		r.beginLife(ctx)
	}
	return r.step(ctx, workload.Exited{Exit: exit})
}

func setTimer(t *time.Timer, at time.Time) {
	if at.IsZero() {
		t.Stop()
		return
	}
	t.Reset(time.Until(at))
}

// lost takes in that the driver closed the channel of exits. After an exit that
// is the normal end of it; without one the driver was closed, and the copy runs
// on unwatched until the next agent adopts it.
func (r *runner) lost() {
	r.exits = nil
	if r.handle != nil {
		r.m.log.Warn("the driver no longer watches this copy", "copy", r.id.String())
	}
}

// step feeds the supervisor and does what it asks for, until it asks for nothing
// more. It returns when to step again.
func (r *runner) step(ctx context.Context, in ...workload.Input) time.Time {
	var out workload.Output
	for queue := in; len(queue) > 0 && ctx.Err() == nil; queue = queue[1:] {
		brake := r.m.cfg.Frozen(r.id.App)
		r.sup.Hold(brake)
		r.holdKeeper(ctx, brake.Hard)
		out = r.sup.Step(time.Now(), queue[0])
		for _, a := range out.Actions {
			if next := r.do(ctx, a); next != nil {
				queue = append(queue, next)
			}
		}
		r.spread()
	}
	if _, ended := in[len(in)-1].(workload.Exited); ended && r.handle == nil && r.sup.Memory().Completed == r.memory.last.Completed {
		if soon := time.Now().Add(saveDelay); out.Wake.IsZero() || soon.Before(out.Wake) {
			return soon
		}
		return out.Wake
	}
	r.remember()
	r.publish()
	return out.Wake
}

// recall hands the supervisor what the last life of the agent knew of the copy.
func (r *runner) recall(ctx context.Context) {
	mem, err := r.memory.load(time.Now())
	if err != nil {
		r.m.log.Warn("recall how a copy was kept: its back-off starts afresh", "copy", r.id.String(), "error", err)
		return
	}
	r.memory.last = mem
	r.step(ctx, workload.Recalled{Memory: mem})
}

// remember saves what the next life of the agent must know. It comes after what
// the step had to do, so that no write stands before a start, and before anybody
// is told that the copy has completed. What ended and is to wait may be wanted at
// once by a reflex: that is saved, and reported, a moment later.
func (r *runner) remember() {
	mem := r.sup.Memory()
	if mem.Generation == 0 {
		return // nothing was asked for yet
	}
	if err := r.memory.save(time.Now(), mem); err != nil {
		r.m.log.Warn("remember how a copy is kept", "copy", r.id.String(), "error", err)
		return
	}
	r.settle()
}

func (r *runner) do(ctx context.Context, a workload.Action) workload.Input {
	switch a := a.(type) {
	case workload.Tell:
		r.tell(a.Note)
	case workload.Start:
		return r.start(ctx, a)
	case workload.Stop:
		return r.stop(ctx, a)
	case workload.Probe:
		r.look(a.Check)
	}
	return nil
}

// start executes the copy. On the fast path nothing is looked at before.
func (r *runner) start(ctx context.Context, a workload.Start) workload.Input {
	if !a.Fast || !r.prepared {
		r.spread()
		r.publish()
		if fail := r.prepare(); fail != nil {
			return *fail
		}
	}
	spec := r.order.spec
	if r.order.singleton {
		if spec.Lease = r.lease(); spec.Lease == nil {
			return workload.StartFailed{Kind: workload.FailedWaiting, Why: leaseNotGood}
		}
		token := spec.Lease.Token
		spec.Renewed = func() time.Duration { return r.m.renewed(r.id.App, token) }
	}
	h, err := r.m.cfg.Driver.Start(ctx, spec, a.N)
	if err != nil {
		r.keeps(nil)
		if spec.Lease != nil && !r.live(spec.Lease) { // it says nothing of the copy
			r.m.log.Debug("start", "copy", r.id.String(), "error", err)
			return workload.StartFailed{Kind: workload.FailedWaiting, Why: leaseNotGood}
		}
		r.m.log.Warn("start", "copy", r.id.String(), "error", err)
		return startFailed(err)
	}
	r.keeps(h)
	if leased, kept := h.(workload.Leased); kept {
		r.catchUp(ctx, leased)
	} else if r.order.singleton {
		return r.unkept(ctx, h)
	}
	r.handle, r.exits, r.held = h, h.Exited(), r.order.ports
	r.keeperKnows, r.keeperHolds = true, false
	r.beginLife(ctx)
	r.makeProbes()
	return workload.Started{Instance: h.Instance()}
}

func startFailed(err error) workload.StartFailed {
	var bad *workload.StartError
	if errors.As(err, &bad) {
		return workload.StartFailed{Kind: workload.FailedForGood, Why: bad.Err.Error()}
	}
	return workload.StartFailed{Kind: workload.FailedNow, Why: err.Error()}
}

// prepare looks at what may keep a copy from starting, and can be told better
// than by letting it fail.
func (r *runner) prepare() *workload.StartFailed {
	o := &r.order
	if o.fault != nil {
		return &workload.StartFailed{Kind: workload.FailedForGood, Why: o.fault.Error()}
	}
	st := r.m.cfg.Packages.Get(o.run)
	switch {
	case st.Failed:
		return &workload.StartFailed{Kind: workload.FailedForGood, Why: st.Why}
	case !st.Ready: // it was there, and somebody took it away
		return &workload.StartFailed{Kind: workload.FailedWaiting, Why: st.Why}
	}
	o.spec.Package, r.prepared = st.Dir, true
	return r.probePorts(o)
}

// stop ends the copy and waits for it. Nothing else of this copy happens
// meanwhile; other copies have their own runners.
func (r *runner) stop(ctx context.Context, a workload.Stop) workload.Input {
	r.spread()
	r.publish()
	r.endLife()
	begun := time.Now()
	if r.handle == nil {
		return workload.StopEnded{}
	}
	if err := r.handle.Stop(ctx, a.Rule.Signal, a.Rule.Grace); err != nil {
		r.m.log.Warn("stop", "copy", r.id.String(), "error", err)
		return workload.StopEnded{Err: err}
	}
	r.took = time.Since(begun)
	exit := r.lastExit()
	r.handle, r.exits, r.held, r.owes = nil, nil, nil, true
	r.keeps(nil)
	return workload.StopEnded{Exit: exit}
}

// lastExit reads how a stopped copy ended.
func (r *runner) lastExit() (last workload.Exit) {
	late := time.NewTimer(exitGrace)
	defer late.Stop()
	for {
		select {
		case exit, ok := <-r.exits:
			if !ok {
				return last
			}
			if last = exit; exit.Successor == nil {
				return last
			}
		case <-late.C:
			return last
		}
	}
}

// publish makes the present state what Reports shows.
func (r *runner) publish() {
	st := r.sup.Status()
	v := view{version: r.order.target.Version, st: st, held: r.held, ports: r.order.ports, taken: r.taken.current(time.Now())}
	if inst := st.Instance; inst != nil {
		copied := *inst
		v.st.Instance = &copied
		if v.version = inst.Spec.Version; inst.Spec.Generation != r.order.target.Generation {
			v.ports = r.held
		}
	}
	v.awaited = r.awaited
	if v.version == "" && v.awaited != nil {
		v.version = v.awaited.order.target.Version
	} else if v.awaited != nil {
		v.older = st.Instance != nil || r.order.target.Stopped == ""
	}
	v.smoke, v.best, v.last = r.smoke, r.bestReady(st), r.lastOutput(st)
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	if !v.same(&r.view) {
		r.view = v
		r.m.announce()
	}
}
