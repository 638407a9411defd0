package workloadtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ganglion-mesh/ganglion/workload"
)

// Host is a make-believe host: it has what outlives an agent, the running copies
// and their state. Tests look at it and harm it. It needs no real time: its
// timers follow the bubble it is used in.
type Host struct {
	mu       sync.Mutex
	name     string
	booted   time.Time
	pids     int
	procs    map[workload.CopyID]*proc
	state    map[workload.CopyID]bool
	starts   []workload.Instance
	faults   map[workload.CopyID][]error // of the next starts
	gates    map[workload.CopyID]chan struct{}
	doubled  []workload.CopyID
	ends     map[workload.CopyID]workload.End // of copies that run once, until forgotten
	hideExit bool
	watch    func(workload.Instance, *workload.Exit)
}

// proc is a running copy.
type proc struct {
	inst     workload.Instance
	begun    time.Time
	kind     string // its program
	gone     chan struct{}
	exit     workload.Exit // valid when gone is closed
	keeper   *kept         // of a copy under a lease
	stopping bool          // a Stop has asked for its end
	healed   []func(workload.Exit)
	ended    []func(workload.Exit)
}

// NewHost returns a host on which nothing runs.
func NewHost(name string) *Host {
	return &Host{
		name: name, booted: time.Now().Add(-time.Hour), procs: map[workload.CopyID]*proc{}, state: map[workload.CopyID]bool{},
		faults: map[workload.CopyID][]error{}, gates: map[workload.CopyID]chan struct{}{},
		ends: map[workload.CopyID]workload.End{},
	}
}

// FailStarts makes the next starts of a copy fail, each with one of errs; a nil
// among them succeeds.
func (h *Host) FailStarts(id workload.CopyID, errs ...error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults[id] = append(h.faults[id], errs...)
}

// HoldStarts makes starts of a copy wait until the returned function is called.
func (h *Host) HoldStarts(id workload.CopyID) (release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	gate := make(chan struct{})
	h.gates[id] = gate
	return sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.gates, id)
		close(gate)
	})
}

// Watch makes f be told of each beginning of an instance, with no exit, and of
// each end, in order. It is called with the host locked, and must not call it.
func (h *Host) Watch(f func(workload.Instance, *workload.Exit)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watch = f
}

func (h *Host) told(inst workload.Instance, e *workload.Exit) {
	if h.watch != nil {
		h.watch(inst, e)
	}
}

// HideExits makes the exits from now on unknown, as on an old kernel.
func (h *Host) HideExits() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hideExit = true
}

// Exit ends a running copy by itself, with a status. It tells whether one ran.
func (h *Host) Exit(id workload.CopyID, code int) bool {
	return h.end(id, workload.Exit{Known: true, Code: code})
}

// Kill ends a running copy with a signal. It tells whether one ran.
func (h *Host) Kill(id workload.CopyID, sig syscall.Signal) bool {
	return h.end(id, workload.Exit{Known: true, Signal: sig})
}

// Heal ends a copy and has "PID 1" restart it at once, as a driver with SelfHeal
// reports it.
func (h *Host) Heal(id workload.CopyID, sig syscall.Signal) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.procs[id]
	if p == nil {
		return false
	}
	h.heal(p, workload.Exit{Known: true, Signal: sig})
	return true
}

// heal ends a copy and restarts it. It is called with mu held.
func (h *Host) heal(p *proc, e workload.Exit) {
	e = p.fill(e)
	h.told(p.inst, &e)
	h.pids++
	p.inst.Pid, p.inst.StartTime, p.inst.Start, p.begun = h.pids, uint64(h.pids), p.inst.Start+1, time.Now()
	next := p.inst
	e.Successor = &next
	h.starts = append(h.starts, next)
	h.told(next, nil)
	for _, f := range p.healed {
		f(e)
	}
}

// Running returns what runs, ordered by copy.
func (h *Host) Running() []workload.Instance {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []workload.Instance
	for _, p := range h.procs {
		all = append(all, p.inst)
	}
	slices.SortFunc(all, func(a, b workload.Instance) int {
		if c := strings.Compare(a.Spec.ID.App, b.Spec.ID.App); c != 0 {
			return c
		}
		return a.Spec.ID.N - b.Spec.ID.N
	})
	return all
}

// Starts returns every start there has been, in order.
func (h *Host) Starts() []workload.Instance {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.starts)
}

// Doubled returns the copies of which a driver was asked for a second at once.
func (h *Host) Doubled() []workload.CopyID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.doubled)
}

func (h *Host) end(id workload.CopyID, e workload.Exit) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.procs[id]
	if p == nil {
		return false
	}
	h.endProc(p, e)
	return true
}

// endProc is called with mu held.
func (h *Host) endProc(p *proc, e workload.Exit) {
	if h.procs[p.inst.Spec.ID] != p {
		return
	}
	if h.restarts(p) {
		h.heal(p, e)
		if p.kind == progExit {
			h.endProc(p, e)
		}
		return
	}
	delete(h.procs, p.inst.Spec.ID)
	p.keeper.letGo()
	e = p.fill(e)
	if h.hideExit {
		e.Known, e.Code, e.Signal = false, 0, 0
	}
	p.exit = e
	h.noteEnd(p.inst, e)
	h.told(p.inst, &e)
	close(p.gone)
	for _, f := range p.ended {
		f(e)
	}
}

func (p *proc) fill(e workload.Exit) workload.Exit {
	e.At = time.Now()
	e.Ran = e.At.Sub(p.begun)
	e.Fenced = p.keeper != nil && p.keeper.fenced
	return e
}

// Memory is a workload.Driver for one life of an agent on a Host. It runs the
// programs that MemoryPrograms names. A second Memory on the same host is the
// next life; handles of the first must not be used any more.
type Memory struct {
	host *Host
}

// NewMemory returns a driver for a host.
func NewMemory(h *Host) *Memory { return &Memory{host: h} }

// exitBuffer is how many exits nobody has read are kept.
const exitBuffer = 1 << 10

// Start implements workload.Driver.
func (m *Memory) Start(ctx context.Context, spec workload.Spec, n int) (workload.Handle, error) {
	if err := m.host.admit(ctx, spec); err != nil {
		return nil, err
	}
	h := m.host
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.procs[spec.ID] != nil {
		h.doubled = append(h.doubled, spec.ID)
		return nil, fmt.Errorf("start %s: it runs already", spec.ID)
	}
	h.pids++
	p := &proc{kind: spec.Command[0], gone: make(chan struct{}), begun: time.Now()}
	p.inst = workload.Instance{Spec: spec, Start: n, Pid: h.pids, StartTime: uint64(h.pids), Since: p.begun}
	if err := h.keep(p, n); err != nil {
		return nil, err
	}
	h.procs[spec.ID] = p
	delete(h.ends, spec.ID)
	h.starts = append(h.starts, p.inst)
	h.told(p.inst, nil)
	mh := m.handle(p)
	if p.kind == progExit {
		code, _ := strconv.Atoi(spec.Command[1])
		h.endProc(p, workload.Exit{Known: true, Code: code})
	}
	return mh, nil
}

// admit is all of a start that may wait or fail.
func (h *Host) admit(ctx context.Context, spec workload.Spec) error {
	if len(spec.Command) == 0 || !slices.Contains(programs, spec.Command[0]) {
		return &workload.StartError{ID: spec.ID, Err: fmt.Errorf("%q does not exist", spec.Command)}
	}
	if strings.ContainsAny(spec.ID.App, "./") || spec.ID.App == "" || spec.ID.N < 0 {
		return fmt.Errorf("copy %q: not a name and a number", spec.ID)
	}
	h.mu.Lock()
	gate := h.gates[spec.ID]
	var fault error
	if fs := h.faults[spec.ID]; len(fs) > 0 {
		fault, h.faults[spec.ID] = fs[0], fs[1:]
	}
	h.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
	return errors.Join(fault, ctx.Err())
}

// Adopt implements workload.Driver.
func (m *Memory) Adopt(context.Context) ([]workload.Handle, error) {
	var hs []workload.Handle
	for _, inst := range m.host.Running() {
		m.host.mu.Lock()
		if p := m.host.procs[inst.Spec.ID]; p != nil {
			hs = append(hs, m.handle(p))
		}
		m.host.mu.Unlock()
	}
	return hs, nil
}

// handle is called with the host's mu held.
func (m *Memory) handle(p *proc) workload.Handle {
	mh := &memoryHandle{host: m.host, proc: p, exited: make(chan workload.Exit, exitBuffer)}
	p.healed = append(p.healed, func(e workload.Exit) { mh.exited <- e })
	p.ended = append(p.ended, func(e workload.Exit) {
		mh.exited <- e
		close(mh.exited)
	})
	if p.keeper != nil {
		return leasedHandle{mh}
	}
	return mh
}

// Exec implements workload.Driver.
func (m *Memory) Exec(ctx context.Context, spec workload.Spec, argv []string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.host.mu.Lock()
	n := 0
	if p := m.host.procs[spec.ID]; p != nil {
		n = p.inst.Start
	}
	known := m.host.state[spec.ID]
	if len(argv) > 0 && argv[0] == progRemember {
		m.host.state[spec.ID] = true
	}
	m.host.mu.Unlock()
	switch {
	case len(argv) == 0 || !slices.Contains(programs, argv[0]):
		return nil, &workload.StartError{ID: spec.ID, Err: fmt.Errorf("%q does not exist", argv)}
	case argv[0] == progEnviron:
		return []byte(strings.Join(spec.Environ(m.host.name, n, "/state/"+spec.ID.String()), "\n")), nil
	case argv[0] == progFlood:
		return slices.Repeat([]byte("y"), 4<<10), nil
	case argv[0] == progSleep:
		<-ctx.Done()
		return nil, ctx.Err()
	case argv[0] == progExit && argv[1] != "0", argv[0] == progRecall && !known:
		return nil, errors.New("the check failed")
	}
	return nil, nil
}

// Purge implements workload.Driver.
func (m *Memory) Purge(_ context.Context, id workload.CopyID) error {
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	if m.host.procs[id] != nil {
		return fmt.Errorf("purge %s: it runs; stop it first", id)
	}
	delete(m.host.state, id)
	return nil
}

type memoryHandle struct {
	host   *Host
	proc   *proc
	exited chan workload.Exit
}

func (h *memoryHandle) Instance() workload.Instance {
	h.host.mu.Lock()
	defer h.host.mu.Unlock()
	return h.proc.inst
}

func (h *memoryHandle) Exited() <-chan workload.Exit { return h.exited }

func (h *memoryHandle) Stop(ctx context.Context, sig syscall.Signal, grace time.Duration) error {
	h.host.mu.Lock()
	h.proc.stopping = true
	h.host.mu.Unlock()
	if grace > 0 {
		_ = h.Signal(sig)
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-h.proc.gone:
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("stop %s: %w", h.proc.inst.Spec.ID, ctx.Err())
		}
	}
	h.host.mu.Lock()
	defer h.host.mu.Unlock()
	h.host.endProc(h.proc, workload.Exit{Known: true, Signal: syscall.SIGKILL})
	return nil
}

func (h *memoryHandle) Signal(sig syscall.Signal) error {
	if sig <= 0 {
		return fmt.Errorf("signal %s: %d is no signal", h.proc.inst.Spec.ID, sig)
	}
	h.host.mu.Lock()
	defer h.host.mu.Unlock()
	select {
	case <-h.proc.gone:
		return fmt.Errorf("signal %s: %w", h.proc.inst.Spec.ID, syscall.ESRCH)
	default:
	}
	if h.proc.heeds(sig) {
		h.host.endProc(h.proc, workload.Exit{Known: true, Signal: sig})
	}
	return nil
}
