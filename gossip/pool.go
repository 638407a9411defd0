// Package gossip is how the hosts of a mesh know of each other: who there is,
// who is alive, and how everyone is doing. It wraps serf, which is the one
// authority on membership, and carries vitals in the same pool. Gossip is
// evidence, never authority: who holds the key can forge it.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"

	"github.com/ganglion-mesh/ganglion/pause"
)

// eventBuffer only smooths: the channel is drained by a goroutine that takes no
// lock, so nothing can stall behind it.
const eventBuffer = 1024

// saveEvery is how often the peers are written at most, while many hosts come or go.
const saveEvery = time.Second

// Pool is this host's place in the mesh. Its methods can be called from any
// goroutine, before, during and after Run, and none of them waits on the network
// but Leave, Remove and SetTags.
type Pool struct {
	cfg       Config
	transport memberlist.NodeAwareTransport
	self      netip.AddrPort
	table     *table
	trips     trips
	peers     peerFile
	dirty     chan struct{} // of one place: serf's view may differ from ours
	moved     chan struct{} // of one place: the peers on disk may not be those that there are
	mourned   time.Time     // tend's own: when the latest failure it has acted on was seen

	leaving   sync.WaitGroup
	tagsMu    sync.Mutex // orders SetTags; held over the network
	refreshMu sync.Mutex // orders refresh; held while serf is read

	mu        sync.Mutex // guards what follows; a leaf, never held over a call
	serf      *serf.Serf // nil but while Run runs
	tags      map[string]string
	members   []Member
	changed   chan struct{}
	left      bool
	joining   bool // an attempt to join is under way
	joinErr   error
	conflicts conflicts
}

// New checks the config and takes the port; it starts nothing. A Pool that is
// never run must be closed.
func New(cfg Config) (*Pool, error) {
	cfg, err := cfg.validate()
	if err != nil {
		return nil, fmt.Errorf("configure gossip: %w", err)
	}
	p := &Pool{
		cfg: cfg, transport: cfg.Transport, tags: cfg.Tags,
		dirty: make(chan struct{}, 1), moved: make(chan struct{}, 1), changed: make(chan struct{}),
		conflicts: conflicts{ch: make(chan error, 1)},
	}
	p.table = newTable(cfg.Name, p.wake)
	if cfg.Dir != "" {
		p.peers.path = filepath.Join(cfg.Dir, "gossip-peers.json")
	}
	if p.transport == nil {
		if p.transport, err = listen(cfg.Bind, cfg.Port, cfg.Advertise); err != nil {
			return nil, err
		}
	}
	ip, port, err := p.transport.FinalAdvertiseAddr("", 0)
	if err != nil {
		return nil, fmt.Errorf("find gossip address: %w", err)
	}
	p.self = addrPort(ip, uint16(port))
	return p, nil
}

// Close releases the port of a Pool that is not run.
func (p *Pool) Close() error { return p.transport.Shutdown() }

// Run takes part in the mesh until ctx ends, and returns nil then. It joins by
// the seeds, and by the hosts it knew before a restart, and never gives up. Its
// end is no leave: to the others this host fails, and it may come back.
func (p *Pool) Run(ctx context.Context) error {
	if t, ok := p.transport.(*netTransport); ok {
		t.start()
	}
	known, err := p.peers.load()
	if err != nil {
		p.cfg.Logger.Warn("known peers not read", "err", err)
	}
	events := make(chan serf.Event, eventBuffer)
	s, err := p.create(events)
	if err != nil {
		return errors.Join(fmt.Errorf("start gossip: %w", err), p.transport.Shutdown())
	}
	p.mu.Lock()
	p.serf = s
	p.mu.Unlock()
	p.refresh()
	p.catchUpTags(s)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	drainCtx, stopDrain := context.WithCancel(context.Background())
	var work, drain sync.WaitGroup
	drain.Go(func() { p.drain(drainCtx, events) })
	work.Go(func() { p.watch(ctx) })
	work.Go(func() { p.remember(ctx) })
	work.Go(func() { p.tend(ctx, known) })
	var ended error
	select {
	case <-ctx.Done():
	case <-s.ShutdownCh():
		ended = errors.New("serf ended by itself")
	}
	cancel()

	p.mu.Lock()
	p.serf = nil
	p.mu.Unlock()
	p.leaving.Wait()   // serf panics if it is shut down in the middle of it
	err = s.Shutdown() // ends a join under way, so it comes before the wait
	work.Wait()
	stopDrain() // last: until here serf may send
	drain.Wait()
	if err = errors.Join(ended, err); err != nil {
		return fmt.Errorf("run gossip: %w", err)
	}
	return nil
}

// catchUpTags tells serf of tags that were set while it was being made: it began
// with those before, and nobody would set them again.
func (p *Pool) catchUpTags(s *serf.Serf) {
	p.tagsMu.Lock()
	defer p.tagsMu.Unlock()
	tags := p.fullTags()
	if maps.Equal(s.LocalMember().Tags, tags) {
		return
	}
	if err := s.SetTags(tags); err != nil {
		p.cfg.Logger.Debug("tags are slow to spread", "err", err)
	}
	p.refresh()
}

// create starts serf. It runs in Run because serf starts goroutines at once.
func (p *Pool) create(events chan<- serf.Event) (*serf.Serf, error) {
	mc := p.memberlistConfig()
	seam := &seam{NodeAwareTransport: p.transport}
	seam.install = func() {
		d := &delegate{serf: mc.Delegate, table: p.table, log: p.cfg.Logger}
		mc.Delegate, mc.Ping = d, pinger{d, &p.trips}
	}
	mc.Transport = seam
	sc := serf.DefaultConfig()
	sc.NodeName = p.cfg.Name
	sc.Tags = p.fullTags()
	sc.EventCh = events
	sc.MemberlistConfig = mc
	sc.LogOutput, sc.Logger = nil, mc.Logger
	sc.EnableNameConflictResolution = false // it shuts the loser down, work or no work
	sc.DisableCoordinates = true
	sc.ValidateNodeNames = true
	sc.ReconnectInterval = p.cfg.Timing.ReconnectInterval
	sc.BroadcastTimeout = 2 * time.Second
	sc.MinQueueDepth = 4096
	sc.EventBuffer, sc.QueryBuffer = 16, 16 // unused, yet shipped in every exchange
	sc.Merge = &admission{name: p.cfg.Name, mesh: p.cfg.MeshID, self: p.self, conflict: p.noteConflict}
	// No snapshot: peerFile finds the mesh again, the first exchange brings serf's
	// clock up to date, and its ticker of 500 ms would wake an idle host for nothing.
	s, err := serf.Create(sc)
	if err != nil {
		return nil, err
	}
	if !seam.installed {
		return nil, errors.Join(errors.New("the vitals found no way in: unknown version of memberlist"), s.Shutdown())
	}
	return s, nil
}

// memberlistConfig sets what field experience says about meshes of 3 to 5,000.
func (p *Pool) memberlistConfig() *memberlist.Config {
	t := p.cfg.Timing
	mc := memberlist.DefaultLANConfig()
	mc.Name = p.cfg.Name
	mc.Label = p.cfg.MeshID
	mc.SecretKey = p.cfg.Key
	mc.ProbeInterval, mc.ProbeTimeout = t.ProbeInterval, t.ProbeTimeout
	mc.GossipInterval, mc.PushPullInterval = t.GossipInterval, t.PushPullInterval
	// Unconfirmed suspicion ends after 3, not 6, times the least: with few hosts
	// left to confirm, a death is still known in time.
	mc.RetransmitMult = urgentMult
	mc.SuspicionMaxTimeoutMult = 3
	mc.DeadNodeReclaimTime = 10 * time.Second // then a dead host may return elsewhere
	mc.HandoffQueueDepth = 4096
	mc.EnableCompression = false // costs 80 kB of garbage a packet and adds no capacity
	mc.Logger = newLogBridge(p.cfg.Logger)
	mc.LogOutput = nil
	return mc
}

// drain empties serf's event channel. Serf fills it under its locks, so this
// takes none: it only says that something happened.
func (p *Pool) drain(ctx context.Context, events <-chan serf.Event) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
			ring(p.dirty)
		}
	}
}

// ring has whoever waits for c look, now or once it is done with what it does.
func ring(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// watch brings our view up to date after events, and at times without, because
// an event may have been dropped: however many there are.
func (p *Pool) watch(ctx context.Context) {
	timer := time.NewTimer(RefreshInterval(1))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.dirty:
			p.refresh()
		case <-timer.C:
			p.refresh()
			p.table.forget(time.Now())
			p.trips.forget(time.Now())
			ring(p.moved) // what could not be saved is tried again
			timer.Reset(RefreshInterval(int(p.table.hosts.Load())))
		}
	}
}

// remember has the other hosts on disk as soon as they are known. One that is killed
// before that, and has no seed, waits until others find it, and sees none meanwhile.
func (p *Pool) remember(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			p.savePeers()
			return
		case <-p.moved:
			p.savePeers()
			pause.For(ctx, saveEvery)
		}
	}
}

func (p *Pool) savePeers() {
	if err := p.peers.save(p.Members(), p.cfg.Name); err != nil {
		p.cfg.Logger.Warn("known peers not saved", "err", err)
	}
}

// refresh reads serf's view into ours.
func (p *Pool) refresh() {
	p.refreshMu.Lock()
	defer p.refreshMu.Unlock()
	p.mu.Lock()
	s, before := p.serf, p.members
	p.mu.Unlock()
	if s == nil {
		return
	}
	after, changed := reconcile(before, s.Members(), time.Now())
	if !changed {
		return
	}
	present := 0
	for _, m := range after {
		if m.Status != StatusLeft {
			present++
		}
	}
	p.table.hosts.Store(int64(present))
	p.mu.Lock()
	p.members = after
	p.mu.Unlock()
	p.wake()
	ring(p.moved)
}

// wake lets everyone look again who waits on Changed.
func (p *Pool) wake() {
	p.mu.Lock()
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
}

func (p *Pool) running() *serf.Serf {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left {
		return nil
	}
	return p.serf
}

func (p *Pool) fullTags() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	tags := map[string]string{meshTag: p.cfg.MeshID}
	maps.Copy(tags, p.tags)
	return tags
}
