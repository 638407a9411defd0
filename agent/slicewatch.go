package agent

import (
	"context"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

const (
	// sliceWait is how long a voter holds a blocking read before it answers
	// that nothing changed.
	sliceWait = 30 * time.Second
	// staleVoter is how long a voter may have been out of contact with the
	// leader and still serve slices.
	staleVoter = 2 * time.Second
	// askFirst is how long a host that comes up tries to hear whether its last
	// slice still holds before it starts again what it ran, alone.
	askFirst = 5 * time.Second
)

// sliceWatch keeps this host's slice: the last accepted one is on disk before
// it is acted on, and no older one is ever accepted (S3).
type sliceWatch struct {
	*member
	mu  sync.Mutex // held while a slice is made durable
	cur atomic.Pointer[topology.Slice]
}

// restore loads the slice of the agent's last life, so that its work goes on
// with no leader.
func (w *sliceWatch) restore() error {
	sl, err := w.store.loadSlice()
	if err != nil {
		return err
	}
	if sl.MeshID != w.id.Peer().MeshID {
		return nil // none, or of another mesh
	}
	w.cur.Store(&sl)
	return nil
}

// index is the index of the last accepted slice. It waits for nothing: events
// between an exit and its restart carry it.
func (w *sliceWatch) index() uint64 { return w.slice().Index }

func (w *sliceWatch) slice() topology.Slice {
	if sl := w.cur.Load(); sl != nil {
		return *sl
	}
	return topology.Slice{}
}

// run follows the slice until ctx ends. First of all it hears from the leader
// what holds now: a voter that has just come up may know as little.
func (w *sliceWatch) run(ctx context.Context) error {
	alone := time.AfterFunc(askFirst, w.copies.Confirm)
	defer alone.Stop()
	next := w.confirmed
	var retry backoff
	for ctx.Err() == nil {
		if w.slice().Gone != nil {
			<-ctx.Done() // there is nothing to come
			return nil
		}
		sl, err := next(ctx)
		if err == nil {
			err = w.accept(sl)
		}
		if err == nil {
			w.copies.Confirm()
			next = w.next
			retry.reset()
			continue
		}
		if ctx.Err() == nil {
			w.log.Debug("watch slice", "error", err)
		}
		retry.wait(ctx)
	}
	return nil
}

// confirmed reads the slice as it is at the leader now.
func (w *sliceWatch) confirmed(ctx context.Context) (topology.Slice, error) {
	if w.leader.leading() {
		return w.settledSlice(ctx, w.cfg.Name)
	}
	return w.read(ctx, url.Values{"confirm": {"true"}})
}

// next waits for a slice newer than the present one, or some time: at the leader,
// who knows first, else at another voter or in this host's own log.
func (w *sliceWatch) next(ctx context.Context) (topology.Slice, error) {
	n := w.raft.node()
	if n == nil || !w.leader.leading() {
		sl, err := w.read(ctx, url.Values{})
		if err == nil || n == nil || !w.freshVoter(n.Status()) {
			return sl, err
		}
	}
	sl := w.slice()
	return w.serveSlice(ctx, n, w.hostID(), w.cfg.Name, mark{sl.Era, sl.Index})
}

// read asks voters for the slice, the likeliest leader first.
func (w *sliceWatch) read(ctx context.Context, q url.Values) (sl topology.Slice, err error) {
	q.Set("host", w.cfg.Name)
	cur := w.slice()
	q.Set("era", strconv.FormatUint(cur.Era, 10))
	q.Set("index", strconv.FormatUint(cur.Index, 10))
	err = w.inTurn(ctx, sliceWait+5*time.Second, func(ctx context.Context, addr string) (bool, error) {
		err := w.links.client(addr).Get(ctx, "/v1/slice", q, &sl)
		return err == nil, err
	})
	if err != nil {
		return topology.Slice{}, err
	}
	return sl, nil
}

// accept makes sl the present slice if it is newer, first on disk, and hands it
// to the copies.
func (w *sliceWatch) accept(sl topology.Slice) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if sl.MeshID != w.id.Peer().MeshID || sl.Host != w.cfg.Name {
		return api.Errorf(api.CodeInvalid, "accept slice: it is for host %s of mesh %s", sl.Host, sl.MeshID)
	}
	if sl.Gone != nil && sl.Gone.ID != w.hostID() {
		return api.Errorf(api.CodeInvalid, "accept slice: it says goodbye to host id %s, this is %s", sl.Gone.ID, w.hostID())
	}
	cur := w.slice()
	if older(sl, cur) {
		return api.Errorf(api.CodeRejected, "accept slice: (%d, %d, %d) is older than (%d, %d, %d)", sl.Era, sl.Term, sl.Index, cur.Era, cur.Term, cur.Index)
	}
	same := sl.Era == cur.Era && sl.Index == cur.Index
	if same && sl.Term == cur.Term {
		return nil
	}
	if err := w.store.saveSlice(sl); err != nil {
		return err
	}
	w.cur.Store(&sl)
	if told := w.cfg.Seams.Accept; told != nil {
		told(sl)
	}
	if !same {
		w.stockUp()
		w.copies.Set(sl)
		w.nerves.addresses.Set(sl)
		w.nerves.look()
		w.clearing.look()
		if sl.Drain != topology.DrainNone && cur.Drain == topology.DrainNone && sl.Gone == nil {
			w.log.Info("this host is being emptied: it gets no copies until ganglion undrain", "drain", sl.Drain, "removing", sl.Removing)
		}
		w.leaseHolder.look()
	}
	return nil
}

// older tells whether a must not follow b. Only committed state is served, so
// within an era a later state has a higher index; a lower term is a voter that
// has missed an election and may miss more.
func older(a, b topology.Slice) bool {
	if a.Era != b.Era {
		return a.Era < b.Era
	}
	return a.Term < b.Term || a.Index < b.Index
}
