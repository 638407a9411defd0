package virtual

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/agent"
	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/workloadtest"
)

const (
	gossipPort = 7946
	meshPort   = 7947
)

// Host is a machine of the mesh: a disk, running copies, and an agent while one
// runs. Its methods belong to the goroutine of the test.
type Host struct {
	Name        string
	Addr        string
	*api.Client // of its agent; replaced at each start

	mesh   *Mesh
	dir    string
	labels map[string]string
	boot   int
	kernel *workloadtest.Host // since the last boot; nil while switched off
	life   *life              // the present or last one of its agent
}

// life is one run of an agent.
type life struct {
	cancel context.CancelFunc
	driver *lifeDriver
	done   chan struct{} // closed when it has ended
	asked  bool          // to end
	mu     sync.Mutex
}

// ask tells the life to end and reports whether it was not told before.
func (l *life) ask() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := !l.asked
	l.asked = true
	l.cancel()
	return first
}

// Up tells whether the host runs an agent that was not told to end.
func (h *Host) Up() bool {
	if h.life == nil {
		return false
	}
	h.life.mu.Lock()
	defer h.life.mu.Unlock()
	return !h.life.asked
}

// On tells whether the host is switched on.
func (h *Host) On() bool { return h.kernel != nil }

// Kernel is what runs the copies, for tests that harm them; nil while the host
// is switched off.
func (h *Host) Kernel() *workloadtest.Host { return h.kernel }

// Start starts the agent, switching the host on if it is off. A killed agent's
// remains are waited for.
func (h *Host) Start() {
	t := h.mesh.t
	t.Helper()
	if h.Up() {
		t.Fatalf("start %s: its agent runs", h.Name)
	}
	if h.life != nil {
		<-h.life.done
	}
	if h.kernel == nil {
		h.switchOn()
	}
	h.mesh.Net.setPower(h.Name, powerOn)
	local, err := h.mesh.Net.listen(h.Name, "local/"+h.Name, &net.UnixAddr{Net: "unix", Name: h.Name})
	if err != nil {
		t.Fatalf("start %s: %v", h.Name, err)
	}
	l := &life{driver: newLifeDriver(h.kernel), done: make(chan struct{})}
	a, err := agent.New(h.config(l, local))
	if err != nil {
		t.Fatalf("start %s: %v", h.Name, err)
	}
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(context.Background())
	h.life = l
	go func() {
		defer close(l.done)
		err := a.Run(ctx)
		if h.mesh.Net.isOff(h.Name) { // its address is silent, and does not say that nobody listens
			h.transport()
		}
		if early := l.ask(); early || err != nil && !errors.Is(err, agent.ErrLeft) {
			t.Errorf("%s: agent of %s ended: %v", h.mesh.ledger.now(), h.Name, err)
		}
	}()
	<-a.Ready()
	h.Client = h.client()
	h.mesh.ledger.over(func(t Trouble) bool { return t.A == h.Name && t.B == "" })
}

func (h *Host) switchOn() {
	h.boot++
	boot := h.boot
	h.kernel = workloadtest.NewHost(h.Name)
	h.kernel.Watch(func(inst workload.Instance, exit *workload.Exit) {
		if exit == nil {
			h.mesh.ledger.began(h.Name, boot, inst)
		} else {
			h.mesh.ledger.ended(h.Name, inst.Spec.ID, ending(exit))
		}
	})
}

func ending(e *workload.Exit) string {
	if e.Signal != 0 {
		return e.Signal.String()
	}
	return "status " + strconv.Itoa(e.Code)
}

func (h *Host) config(l *life, local net.Listener) agent.Config {
	return agent.Config{
		Name: h.Name, DataDir: filepath.Join(h.dir, "data"), Bind: h.Addr, Advertise: h.Addr, Labels: h.labels,
		Ports:   agent.Ports{Gossip: gossipPort, Mesh: meshPort, NATS: 4222, NATSCluster: 6222},
		Version: "test", Logger: h.mesh.log.of(h.Name), Lease: h.mesh.cfg.Lease,
		Seams: agent.Seams{
			Network: &port{net: h.mesh.Net, host: h.Name, ip: h.Addr},
			Gossip:  h.transport(),
			Driver:  l.driver, Local: local, NoNATS: true, NoWatch: true,
			Accept:    func(sl topology.Slice) { h.mesh.freshness.accept(sl) },
			Serve:     h.mesh.freshness.serve,
			Lead:      func(leads bool) { h.mesh.ledger.leads(h.Name, leads) },
			BootClock: h.bootClock(),
		},
	}
}

// bootClock is that of the kernel as it is now: an agent does not outlive it.
func (h *Host) bootClock() func() (string, time.Duration) {
	boot, kernel := fmt.Sprintf("%s-%d", h.Name, h.boot), h.kernel
	return func() (string, time.Duration) { return boot, kernel.Now() }
}

func (h *Host) transport() agent.GossipTransport {
	return h.mesh.Net.gossip.Transport(h.Name, net.JoinHostPort(h.Addr, strconv.Itoa(gossipPort)))
}

// client speaks to the agent as local root does.
func (h *Host) client() *api.Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := h.mesh.Net.connect(ctx, h.Name, "local/"+h.Name, &net.UnixAddr{Net: "unix"})
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: "unix", Err: err}
		}
		return c, nil
	}
	return api.New("http://agent", &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 8}, "unix:"+h.Name)
}

// Stop ends the agent in order, as an upgrade does, and returns when it has.
func (h *Host) Stop() {
	h.mesh.t.Helper()
	if !h.Up() {
		return
	}
	h.mesh.ledger.trouble(h.Name, "", agentEnds)
	h.CloseIdle()
	h.life.ask()
	h.ended()
	h.mesh.ledger.trouble(h.Name, "", agentDown)
}

// ended waits for the agent to have ended, for a virtual half minute.
func (h *Host) ended() {
	h.mesh.t.Helper()
	select {
	case <-h.life.done:
	case <-time.After(30 * time.Second):
		h.mesh.t.Fatalf("agent of %s does not end", h.Name)
	}
	h.mesh.Net.setPower(h.Name, agentOff)
}

// Kill ends the agent at once, as SIGKILL does: it tells nobody, and the copies
// run on. What is on its disk is what was written; none of it is lost.
func (h *Host) Kill() {
	h.mesh.t.Helper()
	if h.Up() {
		h.mesh.ledger.trouble(h.Name, "", agentDown)
		h.drop(agentOff)
	}
}

// Crash switches the host off: its agent and all copies are gone, and whoever
// speaks to it hears nothing. Start boots it.
func (h *Host) Crash() {
	h.mesh.t.Helper()
	if !h.On() {
		return
	}
	h.mesh.ledger.trouble(h.Name, "", hostDown)
	h.mesh.ledger.died(h.Name)
	h.kernel.Watch(nil)
	h.kernel = nil
	if h.Up() {
		h.drop(powerOff)
	} else {
		h.mesh.Net.setPower(h.Name, powerOff)
	}
}

// drop cuts a living agent off from its host and from all others, and lets its
// goroutines end in the background.
func (h *Host) drop(p power) {
	l := h.life
	h.mesh.Net.setPower(h.Name, p)
	l.driver.sever()
	h.mesh.ledger.leads(h.Name, false)
	l.ask()
}

func (h *Host) String() string { return fmt.Sprintf("%s(up=%t on=%t)", h.Name, h.Up(), h.On()) }
