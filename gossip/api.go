package gossip

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Members returns all hosts this one knows of, sorted by name: itself, the
// living, and those that failed or left within a day. It is empty before Run.
func (p *Pool) Members() []Member {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.members)
}

// Changed returns a channel that is closed at the next change of a member, of its
// tags, or of the state bits of anyone's vitals. Take it, then look, then wait:
// nothing is missed, and who looks late sees the newest.
func (p *Pool) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// LocalAddr is where the others reach this host.
func (p *Pool) LocalAddr() (ip string, port int) {
	return p.self.Addr().String(), int(p.self.Port())
}

// PublishVitals tells the mesh how this host is. It is to be called once in
// every RefreshInterval, and at once when a bit changes.
func (p *Pool) PublishVitals(v Vitals) { p.table.publish(v, time.Now()) }

// Vitals returns the newest vitals heard of a host and how old they are. The age
// is at least the time since they arrived, and a little less than the true age.
func (p *Pool) Vitals(host string) (v Vitals, age time.Duration, ok bool) {
	return p.table.get(hostHash(host), time.Now())
}

// RTT returns how long the last probe of a host by this one took, there and back,
// and how long ago that was. Each host is probed in turn, one in each
// ProbeInterval.
func (p *Pool) RTT(host string) (rtt, age time.Duration, ok bool) {
	return p.trips.get(host, time.Now())
}

// Freshness says how far the vitals of a host can be believed now.
func (p *Pool) Freshness(host string) Freshness {
	_, age, ok := p.Vitals(host)
	if !ok || !slices.ContainsFunc(p.Members(), func(m Member) bool { return m.Name == host && m.Status == StatusAlive }) {
		return Unknown
	}
	return freshness(age, p.RefreshInterval())
}

// RefreshInterval is how often vitals are to be published in a mesh of this size.
func (p *Pool) RefreshInterval() time.Duration { return RefreshInterval(int(p.table.hosts.Load())) }

// HealthScore is SWIM's doubt in this host's own view: 0 is none. While it is
// above 0, what this host thinks of others deserves less belief.
func (p *Pool) HealthScore() int {
	if s := p.running(); s != nil {
		return s.Memberlist().GetHealthScore()
	}
	return 0
}

// JoinState says whether this host is in company: with other hosts, all members
// and everyone's vitals in view. If not, err is what went wrong with the last
// attempt to join, a *ConflictError while the name is refused. Changed tells when
// to look again.
func (p *Pool) JoinState() (joined bool, err error) {
	alone := p.alone()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !alone {
		return !p.joining, nil
	}
	if c := p.conflicts.current(time.Now()); c != nil && c.Refused {
		return false, c
	}
	return false, p.joinErr
}

// Conflict is the *ConflictError over this host's name seen in the last two
// minutes, or nil.
func (p *Pool) Conflict() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.conflicts.current(time.Now()); c != nil {
		return c
	}
	return nil
}

// Conflicted delivers each new *ConflictError. It holds one, the newest, so who
// does not read it holds nothing up.
func (p *Pool) Conflicted() <-chan error { return p.conflicts.ch }

// SetTags replaces this host's tags and tells the mesh. An error means that they
// were not taken; slow spreading is none.
func (p *Pool) SetTags(tags map[string]string) error {
	if err := checkTags(tags, p.cfg.MeshID); err != nil {
		return err
	}
	p.tagsMu.Lock()
	defer p.tagsMu.Unlock()
	p.mu.Lock()
	same := maps.Equal(p.tags, tags)
	p.tags = maps.Clone(tags)
	p.mu.Unlock()
	s := p.running()
	if same || s == nil {
		return nil // Run starts with them
	}
	if err := s.SetTags(p.fullTags()); err != nil {
		p.cfg.Logger.Debug("tags are slow to spread", "err", err)
	}
	p.refresh()
	return nil
}

// Leave tells the mesh that this host goes for good, as opposed to failing, and
// forgets the peers. The pool does not join again; end Run after it. It takes
// about a second; if ctx ends first it goes on, and the end of Run waits for it,
// 5 s at most.
func (p *Pool) Leave(ctx context.Context) error {
	p.mu.Lock()
	s, again := p.serf, p.left
	conflict := p.conflicts.current(time.Now())
	speak := s != nil && !again && conflict == nil
	p.left = true
	if speak {
		p.leaving.Add(1)
	}
	p.mu.Unlock()
	err := p.peers.remove()
	if conflict != nil {
		// The word would be taken for the other host's.
		p.cfg.Logger.Warn("leaving without a word", "err", conflict)
	}
	if !speak {
		return err
	}
	result := make(chan error, 1)
	go func() {
		defer p.leaving.Done()
		result <- s.Leave()
	}()
	select {
	case e := <-result:
		err = errors.Join(err, e)
		p.refresh()
	case <-ctx.Done():
		err = errors.Join(err, context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("leave mesh: %w", err)
	}
	return nil
}

// Remove turns a failed host into one that left, everywhere, so that nobody tries
// to reach it again. A living host refutes it.
func (p *Pool) Remove(name string) error {
	s := p.running()
	if s == nil {
		return errors.New("remove host from gossip: this host is not in the mesh")
	}
	if err := s.RemoveFailedNode(name); err != nil {
		return fmt.Errorf("remove host %s from gossip: %w", name, err)
	}
	p.refresh()
	return nil
}

func (p *Pool) alone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.members {
		if m.Status == StatusAlive && m.Name != p.cfg.Name {
			return false
		}
	}
	return true
}

func (p *Pool) setJoined(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.joinErr = err
	if err == nil {
		p.conflicts.clearRefusal()
	}
}

// setJoining marks the time in which the view of a newcomer is in parts.
func (p *Pool) setJoining(on bool) {
	p.mu.Lock()
	p.joining = on
	p.mu.Unlock()
	if !on {
		p.wake()
	}
}

// noteConflict is called under memberlist's lock.
func (p *Pool) noteConflict(addr string) {
	alone := p.alone()
	p.mu.Lock()
	news := p.conflicts.note(&ConflictError{Name: p.cfg.Name, Addr: addr, Refused: alone}, time.Now())
	p.mu.Unlock()
	if news {
		p.cfg.Logger.Warn("another host uses this host's name", "addr", addr, "refused", alone)
		p.wake()
	}
}
