package agent

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/agent/leases"
	"github.com/ganglion-mesh/ganglion/consensus"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/pause"
)

// renewEvery is the least time between two renewals of leases in the log, where
// leases are as long as they are by default: however many there are in the mesh,
// they share an entry.
const renewEvery = 500 * time.Millisecond

// lessor is a leader's side of singleton leases: it commits renewals, in
// batches, and knows since when each lease has not been renewed. On hosts that do
// not lead it does nothing. It is safe for concurrent use.
type lessor struct {
	raft   *raftSlot
	clock  func() (boot string, up time.Duration)
	timers topology.Timers

	mu   sync.Mutex
	book leases.Book
	next *renewals // those that come in; nil: none
	kick chan struct{}
}

// renewals are asked for together and committed by one entry.
type renewals struct {
	refs  map[topology.LeaseRef]bool
	done  chan struct{}
	state *topology.State // that has the entry, once done
	err   error           // or why there is none
}

func newLessor(raft *raftSlot, clock func() (string, time.Duration), timers topology.Timers) *lessor {
	return &lessor{raft: raft, clock: clock, timers: timers, kick: make(chan struct{}, 1)}
}

// takeOffice makes every lease count as renewed now. A new leader calls it after
// its barrier.
func (l *lessor) takeOffice() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.book.TakeOffice()
}

// look tells for how long each lease of a state has not been renewed.
func (l *lessor) look(state *topology.State) map[string]topology.LeaseObs {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, now := l.clock() // after the state was read: a renewal is never taken for older than it is
	return l.book.Look(state.Leases(), now)
}

// observe puts what is known of leases into what is decided by.
func (l *lessor) observe(obs *topology.Observations, state *topology.State, o *observatory) {
	obs.Timers = l.timers
	obs.Leases = l.look(state)
	for app, lo := range obs.Leases {
		if lease, ok := state.Lease(app); ok && o.hasEnded(lease) {
			lo.Ended = true
			obs.Leases[app] = lo
		}
	}
}

// run commits what is asked for until ctx ends.
func (l *lessor) run(ctx context.Context) error {
	every := min(renewEvery, l.timers.Hold/20)
	for {
		select {
		case <-ctx.Done():
			l.refuse(&consensus.NotLeaderError{})
			return nil
		case <-l.kick:
		}
		l.commit(ctx)
		if !pause.For(ctx, every) {
			l.refuse(&consensus.NotLeaderError{})
			return nil
		}
	}
}

func (l *lessor) take() *renewals {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.next
	l.next = nil
	return r
}

func (l *lessor) refuse(err error) {
	if r := l.take(); r != nil {
		r.err = err
		close(r.done)
	}
}

// commit renews in one entry all that has been asked for.
func (l *lessor) commit(ctx context.Context) {
	r := l.take()
	if r == nil {
		return
	}
	defer close(r.done)
	node := l.raft.node()
	if node == nil {
		r.err = &consensus.NotLeaderError{}
		return
	}
	var cmd topology.RenewLeases
	for ref := range r.refs {
		cmd.Leases = append(cmd.Leases, ref)
	}
	// Beyond the hold nobody could use it.
	ctx, cancel := context.WithTimeout(ctx, l.timers.Hold)
	defer cancel()
	if _, r.err = node.Apply(ctx, topology.Command{RenewLeases: &cmd}); r.err == nil {
		r.state = node.State()
		l.look(r.state)
	}
}

// renew renews leases of a host and returns those that are good now, by a log
// entry committed after the request came.
func (l *lessor) renew(ctx context.Context, req api.LeaseRequest, id string) ([]topology.LeaseRef, error) {
	node := l.raft.node()
	if node == nil {
		return nil, &consensus.NotLeaderError{}
	}
	before := node.State()
	var asked []topology.LeaseRef
	for _, ref := range req.Leases {
		lease, ok := before.Lease(ref.App)
		if ok && lease.Token == ref.Token && lease.Host == req.Host && lease.Boot == req.Boot && (id == "" || lease.HostID == id) && !lease.Over {
			asked = append(asked, ref)
		}
	}
	if len(asked) == 0 {
		return nil, nil
	}
	r := l.join(asked)
	select {
	case <-r.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if r.err != nil {
		return nil, r.err
	}
	var good []topology.LeaseRef
	for _, ref := range asked {
		if lease, ok := r.state.Lease(ref.App); ok && lease.Token == ref.Token && !lease.Over {
			good = append(good, ref)
		}
	}
	return good, nil
}

// join adds to the batch that has not been proposed yet: an entry from before
// the request would prove nothing to who asks.
func (l *lessor) join(refs []topology.LeaseRef) *renewals {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil {
		l.next = &renewals{refs: map[topology.LeaseRef]bool{}, done: make(chan struct{})}
		ring(l.kick)
	}
	for _, ref := range refs {
		l.next.refs[ref] = true
	}
	return l.next
}

// postLease renews leases for a host. Others may hand its request on, where it
// does not reach the leader itself: the worst that a forged one does is to keep a
// lease from running out.
func (s *server) postLease(r *http.Request, body []byte) (any, error) {
	var req api.LeaseRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	c, err := s.callerOf(r)
	if err != nil {
		return nil, err
	}
	id := ""
	switch {
	case c.isHost(req.Host):
		id = certID(r.TLS.PeerCertificates[0])
	case c.isAgent() && c.via == roleAgent+"/"+req.Host:
	default:
		return nil, api.Errorf(api.CodeDenied, "renew leases of host %s: only its own agent may", shorten(req.Host))
	}
	good, err := s.lessor.renew(r.Context(), req, id)
	if err != nil {
		return nil, err
	}
	return api.LeaseResponse{Leases: good}, nil
}
