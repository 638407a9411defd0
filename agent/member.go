package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/brake"
	"github.com/ganglion-mesh/ganglion/agent/copies"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/gossip"
	"github.com/ganglion-mesh/ganglion/pause"
	"github.com/ganglion-mesh/ganglion/trust"
	"github.com/ganglion-mesh/ganglion/workload/bootclock"
	"github.com/ganglion-mesh/ganglion/workload/output"
)

// The directories of a member below data_dir.
const (
	dirIdentity = "identity"
	dirRaft     = "raft"
	dirSerf     = "gossip"
	dirEvents   = "events"

	dirArtifacts = "artifacts"
)

// member is this host as part of one mesh. It is put together by newMember,
// runs until its context ends or the host leaves, and is not used again. The
// four groups own their state; member itself has none that changes.
type member struct {
	cfg   *Config
	id    *trust.Identity
	store *store
	log   *slog.Logger
	boot  string // made at each start; tells reports of two lives apart

	wires
	brain
	body
	larder
	story

	founding []topology.Command // what a new mesh must still commit
	joins    sync.WaitGroup
	leaving  chan struct{} // closed, once, when the host has left its mesh
	left     sync.Once
}

// wires is how this host and the others reach each other.
type wires struct {
	addr    string // of the mesh port, as others see it
	ports   Ports
	mux     *trust.Mux
	links   *links
	door    *raftDoor
	pool    *gossip.Pool
	tags    *tagBoard
	compass *compass
}

// brain is this host's share in deciding.
type brain struct {
	raft   *raftSlot
	obs    *observatory
	leader *leaderLoop
	lessor *lessor
	lender *lender
	brake  *brake.Keeper
}

// body is what runs here.
type body struct {
	copies      *copies.Manager
	leaseHolder *leaseHolder
	slices      *sliceWatch
	driverName  string
	outputs     *output.Store
	canUser     bool
	keeps       []string // directories of what copies keep on this host
	clearing    *clearance
	nerves      *nerves
	wanting     chan struct{} // cap 1: a report would say something else of addresses
}

// story is what this host tells.
type story struct {
	recorder  *events.Recorder
	publisher *events.Publisher
	nats      *natsSlot
}

// newMember acquires everything a member needs and starts nothing. On error
// nothing stays open.
func newMember(cfg *Config, adm admission, st *store, host hostDriver) (m *member, err error) {
	m = &member{
		cfg: cfg, id: adm.id, founding: adm.founding, store: st, boot: newID(), leaving: make(chan struct{}),
		log: cfg.Logger.With(slog.String("mesh", adm.id.Credentials().MeshName)),
	}
	var opened closers
	defer func() {
		if err != nil {
			opened.close()
		}
	}()
	m.recorder, err = events.OpenRecorder(events.RecorderConfig{Dir: st.path(dirEvents), Host: cfg.Name, Logger: m.log})
	if err != nil {
		return nil, err
	}
	opened.add(m.recorder.Close)
	if err := m.openWires(&opened); err != nil {
		return nil, err
	}
	if err := m.openLarder(); err != nil {
		return nil, err
	}
	if err := m.openBrake(); err != nil {
		return nil, err
	}
	m.door = &raftDoor{port: m.mux.Listener(trust.ALPNRaft), links: m.links, admit: m.admitRaft}
	m.raft = newRaftSlot(st.path(dirRaft), m.addr, m.door.next, m.log)
	m.raft.onMove = m.raftMoved
	m.makeLeader()
	m.slices = &sliceWatch{member: m}
	m.wanting = make(chan struct{}, 1)
	m.links.refuse = m.revokedPeer
	m.leaseHolder = &leaseHolder{member: m, clock: cfg.bootClock(), news: make(chan struct{}, 1)}
	if err := m.slices.restore(); err != nil {
		return nil, err
	}
	m.driverName, m.outputs, m.canUser, m.keeps = host.name, host.outputs, host.canUser, keptDirs(st, host)
	m.clearing = newClearance(m)
	m.copies, err = copies.New(m.copiesConfig(host.driver))
	if err != nil {
		return nil, err
	}
	m.nats = &natsSlot{member: m, voted: map[string]time.Time{}}
	if m.nerves, err = newNerves(m); err != nil {
		return nil, err
	}
	if m.slices.slice().MeshID != "" {
		m.stockUp()
		m.copies.Resume(m.slices.slice())
	}
	if m.publisher, err = events.NewPublisher(m.publisherConfig()); err != nil {
		return nil, err
	}
	if len(m.founding) > 0 {
		_, err = m.raft.found()
		return m, err
	}
	return m, m.raft.reopen()
}

// closers undoes what was opened, in the reverse order.
type closers []func() error

func (c *closers) add(f func() error) { *c = append(*c, f) }

func (c closers) close() {
	for i := len(c) - 1; i >= 0; i-- {
		c[i]() //nolint:errcheck // another error is being returned
	}
}

// openWires takes the mesh port and the gossip port.
func (m *member) openWires(opened *closers) error {
	m.ports = m.cfg.Ports
	kept := Ports{}
	if err := m.store.load(filePorts, &kept); err != nil {
		return err
	}
	m.ports.keep(kept)
	l, err := m.cfg.network().Listen(net.JoinHostPort(m.cfg.Bind, strconv.Itoa(m.ports.Mesh)))
	if err != nil {
		return fmt.Errorf("open mesh port: %w; stop what uses it, or set ports", err)
	}
	opened.add(l.Close)
	if tcpAddr, ok := l.Addr().(*net.TCPAddr); ok {
		m.ports.Mesh = tcpAddr.Port
	}
	m.addr = net.JoinHostPort(m.cfg.Advertise, strconv.Itoa(m.ports.Mesh))
	m.mux, err = trust.NewMux(trust.MuxConfig{
		Listener: l, TLS: m.id.ServerTLS(trust.ALPNRaft, trust.ALPNH2, trust.ALPNJoin), Logger: m.log,
	})
	if err != nil {
		return err
	}
	m.links, m.compass = newLinks(m.id, m.cfg.network()), &compass{at: time.Now()}
	m.tags = newTagBoard(map[string]string{tagHostID: m.hostID(), tagMesh: m.addr})
	if err := os.MkdirAll(m.store.path(dirSerf), 0o700); err != nil {
		return fmt.Errorf("open gossip port: %w", err)
	}
	var seeds []string
	if err := m.store.load(filePeers, &seeds); err != nil {
		return err
	}
	m.pool, err = gossip.New(gossip.Config{
		Name: m.cfg.Name, MeshID: m.id.Peer().MeshID, Bind: m.cfg.Bind, Port: m.ports.Gossip, Advertise: m.cfg.Advertise,
		Key: m.id.Credentials().GossipKey, Tags: m.tags.snapshot(), Dir: m.store.path(dirSerf), Seeds: seeds,
		Transport: m.cfg.Seams.Gossip, Logger: m.log,
	})
	if err != nil {
		return fmt.Errorf("open gossip port: %w", err)
	}
	opened.add(m.pool.Close)
	_, m.ports.Gossip = m.pool.LocalAddr()
	if m.ports.NATS == 0 || m.ports.NATSCluster == 0 {
		if err := m.ports.pickNATS(m.cfg.Bind); err != nil {
			return err
		}
	}
	return m.store.save(filePorts, m.ports)
}

// keep fills ports that are left to chance with those chosen earlier.
func (p *Ports) keep(kept Ports) {
	for _, f := range []struct{ port, kept *int }{
		{&p.Gossip, &kept.Gossip}, {&p.Mesh, &kept.Mesh}, {&p.NATS, &kept.NATS}, {&p.NATSCluster, &kept.NATSCluster},
	} {
		if *f.port == 0 {
			*f.port = *f.kept
		}
	}
}

// pickNATS chooses free ports for the embedded NATS server, which starts later.
func (p *Ports) pickNATS(bind string) error {
	for _, port := range []*int{&p.NATS, &p.NATSCluster} {
		if *port != 0 {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort(bind, "0"))
		if err != nil {
			return fmt.Errorf("find a free port for NATS: %w", err)
		}
		*port = l.Addr().(*net.TCPAddr).Port
		defer l.Close() // open until both are chosen
	}
	return nil
}

func (m *member) hostID() string   { return m.id.Credentials().HostID }
func (m *member) meshName() string { return m.id.Credentials().MeshName }

// raftMoved tells the mesh that this host's Raft server appeared or went.
func (m *member) raftMoved() {
	id := ""
	if n := m.raft.node(); n != nil {
		id = n.ServerID()
	}
	m.tags.set(tagRaftID, id)
	ring(m.seated)
}

// run runs the member until ctx ends, a part fails, or the host has left.
func (m *member) run(ctx context.Context) error {
	api := &http.Server{
		Handler:           newServer(m, false),
		TLSConfig:         &tls.Config{NextProtos: []string{trust.ALPNH2}, MinVersion: tls.VersionTLS13},
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
	}
	services := []service{
		{"recorder", m.recorder.Run},
		{"packages", m.packages.Run},
		{"reflexes", m.nerves.reflexer.Run},
		{"senses", m.nerves.run},
		{"copies", m.copies.Run},
		{"mesh port", m.mux.Run},
		{"gossip", m.pool.Run},
		{"brake", m.brake.Run},
		{"gossip tags", func(ctx context.Context) error { return m.tags.run(ctx, m.pool, m.log) }},
		{"vitals", m.shareVitals},
		{"raft port", m.door.run},
		{"raft", m.raft.run},
		{"joins", m.serveJoins},
		{"api", func(ctx context.Context) error { return serveHTTP(ctx, m.mux.Listener(trust.ALPNH2), api) }},
		{"slices", m.slices.run},
		{"clearance", m.clearing.run},
		{"stock", m.keepStock},
		{"reports", newReporter(m).run},
		{"leader", m.leader.run},
		{"lease renewals", m.lessor.run},
		{"leases", m.leaseHolder.run},
		{"housekeeping", m.keepHouse},
		{"leave", func(ctx context.Context) error {
			select {
			case <-m.leaving:
				return errLeft
			case <-ctx.Done():
				return nil
			}
		}},
	}
	if !m.cfg.Seams.NoNATS {
		services = append(services, service{"publisher", m.publisher.Run})
		if len(m.cfg.NATS) == 0 {
			services = append(services, service{"nats", m.nats.run})
		}
	}
	if len(m.founding) > 0 {
		services = append(services, service{"founding", m.found})
	}
	err := runServices(ctx, m.log, services)
	m.joins.Wait()
	m.links.close()
	return errors.Join(err, m.recorder.Close())
}

// found makes this host the first of a new mesh: the commands that give the
// mesh its identity are committed, then forgotten. It is repeated at each start
// until that is done.
func (m *member) found(ctx context.Context) error {
	node := m.raft.node()
	var retry backoff
	for _, cmd := range m.founding {
		for {
			res, err := node.Apply(ctx, cmd)
			if err == nil && (res.Err == nil || cmd.Found != nil && node.State().MeshID() == cmd.Found.MeshID) {
				break
			}
			if err == nil {
				return fmt.Errorf("found mesh: %w", res.Err)
			}
			if !retry.wait(ctx) {
				return nil
			}
		}
	}
	if err := m.store.remove(fileFounding); err != nil {
		return fmt.Errorf("found mesh: %w", err)
	}
	<-ctx.Done()
	return nil
}

// shareVitals samples this host's gauges and gossips them until ctx ends.
func (m *member) shareVitals(ctx context.Context) error {
	sampler := gossip.NewSampler(m.store.dir)
	told := time.Now()
	for {
		v := sampler.Sample(ctx)
		m.pool.PublishVitals(v)
		if time.Since(told) >= vitalsEventEvery {
			told = time.Now()
			m.emit(events.New(events.HostSubject(m.cfg.Name), events.HostVitals{
				CPU: max(v.CPU, 0), Memory: max(v.Memory, 0), Disk: max(v.Disk, 0), Pressure: max(v.Pressure, 0),
				Copies: len(m.copies.Reports()),
			}))
		}
		interval := m.pool.RefreshInterval()
		before := bootclock.Now()
		if !pause.For(ctx, interval) {
			return nil
		}
		if now := bootclock.Now(); now-before >= interval+pausedFrom {
			m.emit(events.New(events.HostSubject(m.cfg.Name), events.HostPaused{GapMS: (now - before - interval).Milliseconds()}))
		}
	}
}

// pausedFrom is how much longer than asked for a sleep of the agent must last to
// be told: the host was suspended, or had no time for the agent.
const pausedFrom = 2 * time.Second

// vitalsEventEvery is how often a host's vitals become an event: rarely, so
// that they do not push what happened out of the recorder.
const vitalsEventEvery = time.Minute
