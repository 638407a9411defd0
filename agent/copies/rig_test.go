package copies

import (
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ganglion-mesh/ganglion/agent/packages"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/workloadtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a make-believe host with an agent's Manager that can die and come back.
type rig struct {
	t    *testing.T
	host *workloadtest.Host
	cfg  Config

	m    *Manager
	kill func()

	larder *larder

	mu     sync.Mutex
	events []Event
	spread atomic.Int64 // how many of the events others know of

	bootID string
	begun  time.Time
}

// bubble runs f with a rig in virtual time.
func bubble(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.boot()
		f(t, r)
		r.kill()
		if d := r.host.Doubled(); len(d) > 0 {
			t.Errorf("a second instance was asked for of %v", d)
		}
	})
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, host: workloadtest.NewHost("h1"), bootID: "boot-1", begun: time.Now()}
	r.larder = &larder{changed: make(chan struct{}), states: map[string]packages.State{
		"sha256:gone": {Failed: true, Why: "nobody has it"},
	}}
	r.cfg = Config{
		Packages: r.larder,
		Driver:   workloadtest.NewMemory(r.host), Host: "h1", HostAddr: "127.0.0.1", Dir: t.TempDir(),
		Emit: r.emit, Jitter: func() float64 { return 0.5 },
		BootClock: func() (string, time.Duration) { return r.bootID, time.Since(r.begun) + time.Hour },
	}
	return r
}

// boot starts the next life of the agent.
func (r *rig) boot() {
	r.t.Helper()
	if _, ok := r.cfg.Driver.(*workloadtest.Memory); ok {
		r.cfg.Driver = workloadtest.NewMemory(r.host)
	}
	m, err := New(r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	r.m = m
	r.kill = func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("run: %v", err)
		}
	}
}

func (r *rig) emit(e Event) (string, func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	return id(len(r.events)), func() { r.spread.Add(1) }
}

func id(n int) string { return "event-" + string(rune('a'+n)) }

// larder has the packages that a test says it has.
type larder struct {
	mu      sync.Mutex
	states  map[string]packages.State
	changed chan struct{}
}

func (l *larder) Get(run intent.Run) packages.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	if run.Artifact == "" {
		return packages.State{Ready: true}
	}
	return l.states[run.Artifact]
}

func (l *larder) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// stock changes the state of a package and lets the bubble come to rest.
func (r *rig) stock(artifact string, st packages.State) {
	r.larder.mu.Lock()
	r.larder.states[artifact] = st
	close(r.larder.changed)
	r.larder.changed = make(chan struct{})
	r.larder.mu.Unlock()
	synctest.Wait()
}

func artifact(name string) func(*topology.Assignment) {
	return func(a *topology.Assignment) { a.Spec.Run.Artifact = name }
}

// set hands the Manager a slice and lets the bubble come to rest.
func (r *rig) set(as ...topology.Assignment) {
	r.m.Set(topology.Slice{MeshID: "m", Host: "h1", Assignments: as})
	synctest.Wait()
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// assign places copy n of an app that sleeps, as edit makes it.
func assign(app string, n int, generation uint64, edit ...func(*topology.Assignment)) topology.Assignment {
	a := topology.Assignment{
		Placement: topology.Placement{App: app, N: n, Host: "h1", Version: "v1", Generation: generation},
		Spec:      intent.App{Name: app, Run: intent.Run{Command: []string{"sleep"}}},
	}
	for _, f := range edit {
		f(&a)
	}
	a.Spec = a.Spec.WithDefaults()
	return a
}

func command(argv ...string) func(*topology.Assignment) {
	return func(a *topology.Assignment) { a.Spec.Run.Command = argv }
}

func version(v string) func(*topology.Assignment) {
	return func(a *topology.Assignment) { a.Placement.Version = v }
}

func port(name string, number int, static bool) func(*topology.Assignment) {
	return func(a *topology.Assignment) {
		p := intent.Port{}
		if static {
			p.Static = number
		}
		a.Spec.Ports = map[string]intent.Port{name: p}
		a.Placement.Ports = map[string]int{name: number}
	}
}

func check(c intent.Check) func(*topology.Assignment) {
	return func(a *topology.Assignment) { a.Spec.Checks = append(a.Spec.Checks, c) }
}

func copyOf(app string, n int) workload.CopyID { return workload.CopyID{App: app, N: n} }

// report returns the report of one copy.
func (r *rig) report(id workload.CopyID) CopyReport {
	r.t.Helper()
	for _, rep := range r.m.Reports() {
		if rep.ID == id {
			return rep
		}
	}
	r.t.Fatalf("no report of %s in %+v", id, r.m.Reports())
	return CopyReport{}
}

// pids returns what runs on the host.
func (r *rig) pids() map[workload.CopyID]int {
	out := map[workload.CopyID]int{}
	for _, inst := range r.host.Running() {
		out[inst.Spec.ID] = inst.Pid
	}
	return out
}

// told returns the types of the events of a copy.
func (r *rig) told(id workload.CopyID) (out []string) {
	for _, e := range r.eventsOf(id) {
		out = append(out, e.Type)
	}
	return out
}

func (r *rig) eventsOf(id workload.CopyID) (out []Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Copy == id {
			out = append(out, e)
		}
	}
	return out
}

func (r *rig) startsOf(id workload.CopyID) (n int) {
	for _, inst := range r.host.Starts() {
		if inst.Spec.ID == id {
			n++
		}
	}
	return n
}

func wantStrings(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// occupy takes a free port as a stranger would.
func occupy(t *testing.T) (port int, free func()) { return occupyPort(t, 0) }

func occupyPort(t *testing.T, port int) (int, func()) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	free := sync.OnceFunc(func() { l.Close() })
	t.Cleanup(free)
	return l.Addr().(*net.TCPAddr).Port, free
}
