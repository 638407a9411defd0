package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/ganglion-mesh/ganglion/pause"
)

// headerAge is how long ago an event was recorded when it was published, in
// milliseconds, by the clock of its host alone: what was told late is known by it.
const headerAge = "Ganglion-Age-Ms"

const (
	batchEvents  = 512
	batchBytes   = 512 << 10
	flushTimeout = 10 * time.Second
	rewindMax    = 1024 // events published twice after a reconnection, at most
)

// PublisherConfig says what is published where.
type PublisherConfig struct {
	Recorder *Recorder
	Mesh     string // name of the mesh, the second token of every subject

	Upstream

	// Settle is how long a new connection waits before it publishes, so that
	// routes and subscribers that were cut off by the same outage are back
	// before what they missed is sent. 0 means 5 s, negative none.
	Settle time.Duration
	// Overlap: after a reconnection the events of this long before the last
	// confirmed one are sent again, because a server that dies may have
	// confirmed what it had not passed on. 0 means 2 s, negative none.
	Overlap time.Duration
	// RetryMax bounds the jittered, doubling wait between attempts to connect.
	// 0 means 30 s.
	RetryMax time.Duration

	Logger *slog.Logger // nil discards
}

func (c *PublisherConfig) validate() error {
	switch {
	case c.Recorder == nil:
		return errors.New("make publisher: Recorder is nil")
	case !isName(c.Mesh):
		return fmt.Errorf("make publisher: mesh name %q is not valid", c.Mesh)
	case c.Local == nil && c.Servers == nil:
		return errors.New("make publisher: neither Local nor Servers is set; there is nowhere to publish")
	}
	orDefault(&c.Settle, 5*time.Second)
	orDefault(&c.Overlap, 2*time.Second)
	orDefault(&c.RetryMax, 30*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// orDefault replaces 0 by a default, and a negative duration by none.
func orDefault(d *time.Duration, def time.Duration) {
	if *d == 0 {
		*d = def
	}
	*d = max(*d, 0)
}

// Publisher sends the events of a recorder to NATS, in order, each at least
// once: what a flush has not confirmed is sent again, over restarts too. Only
// events that are on disk are sent, so that no seq that others have seen can
// ever be used again.
type Publisher struct {
	cfg       PublisherConfig
	cursor    *cursor // owned by Run
	confirmed atomic.Uint64
	connected atomic.Bool
	retarget  atomic.Pointer[context.CancelCauseFunc] // ends the present round of Run
}

// errRetarget ends a round early because Reconnect was called.
var errRetarget = errors.New("connecting anew")

// NewPublisher prepares a publisher; Run starts it. A recorder has one at most.
func NewPublisher(cfg PublisherConfig) (*Publisher, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	p := &Publisher{cfg: cfg, cursor: openCursor(cfg.Recorder.dir)}
	p.confirmed.Store(p.cursor.seq)
	return p, nil
}

// Confirmed is the seq up to which a server has confirmed every event.
func (p *Publisher) Confirmed() uint64 { return p.confirmed.Load() }

// Connected reports whether there is a connection to a server.
func (p *Publisher) Connected() bool { return p.connected.Load() }

// Run publishes until ctx ends; it then returns nil. Without a server it waits
// and tries again for ever; it uses no CPU while there is nothing to send.
func (p *Publisher) Run(ctx context.Context) error {
	attempt, lastErr := 0, ""
	for ctx.Err() == nil {
		round, cancel := context.WithCancelCause(ctx)
		p.retarget.Store(&cancel)
		began := time.Now()
		err := p.session(round)
		if time.Since(began) > p.cfg.RetryMax || errors.Is(err, errRetarget) {
			attempt, lastErr = 0, "" // it had worked: any trouble now is a new one
		}
		if err.Error() != lastErr && round.Err() == nil {
			lastErr = err.Error()
			p.cfg.Logger.Warn("events: not publishing to NATS; events are kept and sent later", "err", err)
		}
		pause.For(round, p.backoff(attempt))
		cancel(nil)
		attempt++
	}
	return nil
}

// Reconnect makes Run ask Local and Servers again and connect at once, even if
// the present connection works. Call it when this host's server has started.
func (p *Publisher) Reconnect() {
	if cancel := p.retarget.Load(); cancel != nil {
		(*cancel)(errRetarget)
	}
}

// backoff is a wait with full jitter, so that the agents of a mesh do not all
// knock at once when a server comes back.
func (p *Publisher) backoff(attempt int) time.Duration {
	most := min(p.cfg.RetryMax, 500*time.Millisecond<<min(attempt, 10))
	return most/4 + rand.N(most*3/4+1)
}

// session connects once and publishes until the connection breaks.
func (p *Publisher) session(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	nc, err := p.cfg.connect(ctx, cancel, p.cfg.Recorder.host, func(err error) {
		p.cfg.Logger.Warn("events: NATS refuses an event", "err", err)
	})
	if err != nil {
		return err
	}
	defer nc.Close()
	p.connected.Store(true)
	defer p.connected.Store(false)
	p.cfg.Logger.Info("events: publishing to NATS", "server", nc.ConnectedUrlRedacted(), "from", p.cursor.seq+1)
	pause.For(ctx, p.cfg.Settle)
	next := p.rewound()
	for ctx.Err() == nil {
		last, err := p.batch(nc, next)
		if err != nil {
			return err
		}
		if last >= next {
			if err := flush(ctx, nc); err != nil {
				return errors.Join(err, context.Cause(ctx))
			}
			p.confirm(last)
			next = last + 1
			continue
		}
		select {
		case <-ctx.Done():
		case <-p.cfg.Recorder.synced.above(next - 1):
		}
	}
	return context.Cause(ctx)
}

// rewound is the seq to start from on a new connection.
func (p *Publisher) rewound() uint64 {
	next := p.cursor.seq + 1
	if p.cfg.Overlap == 0 || p.cursor.seq == 0 {
		return next
	}
	low := next - min(next-1, rewindMax)
	type at struct {
		seq uint64
		ns  int64
	}
	var seen []at
	err := p.cfg.Recorder.ring.read(low, func(r record) bool {
		if r.seq < next {
			seen = append(seen, at{r.seq, r.unixNS})
		}
		return r.seq < next
	})
	if err != nil || len(seen) == 0 {
		return next
	}
	newest := seen[len(seen)-1].ns
	for _, a := range seen {
		if a.ns >= newest-int64(p.cfg.Overlap) {
			return a.seq
		}
	}
	return next
}

// batch publishes, without waiting, a batch of what is on disk from next on,
// and returns the last seq it dealt with; next-1 if there is nothing.
func (p *Publisher) batch(nc *nats.Conn, next uint64) (uint64, error) {
	onDisk := p.cfg.Recorder.synced.level()
	if onDisk < next {
		return next - 1, nil
	}
	last, bytes, count := next-1, 0, 0
	var failed error
	err := p.cfg.Recorder.ring.read(next, func(r record) bool {
		if r.seq > onDisk {
			return false
		}
		if failed = p.publish(nc, r); failed != nil {
			return false
		}
		if r.seq > last+1 && count == 0 {
			p.cfg.Logger.Warn("events: some were evicted or damaged before they could be published", "from", next, "to", r.seq-1)
		}
		last, bytes, count = r.seq, bytes+r.size, count+1
		return bytes < batchBytes && count < batchEvents
	})
	if err = errors.Join(failed, err); err != nil {
		return last, fmt.Errorf("publish events: %w", err)
	}
	if count == 0 {
		last = onDisk // all of it is damaged or gone
	}
	return last, nil
}

// publish hands one record to the connection. What can never be published is
// logged and passed over, so that it does not stop what follows.
func (p *Publisher) publish(nc *nats.Conn, r record) error {
	e, err := Parse(r.payload)
	if err != nil {
		p.cfg.Logger.Warn("events: a record is no event; it is not published", "seq", r.seq, "err", err)
		return nil
	}
	msg := &nats.Msg{Subject: NATSSubject(p.cfg.Mesh, e), Data: r.payload}
	if nc.HeadersSupported() {
		age := max(time.Since(e.Time), 0) // by the clock that the event was told by
		msg.Header = nats.Header{"Content-Type": {ContentType}, nats.MsgIdHdr: {e.ID}, headerAge: {strconv.FormatInt(age.Milliseconds(), 10)}}
	}
	err = nc.PublishMsg(msg)
	if errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrBadSubject) {
		p.cfg.Logger.Warn("events: the server cannot take an event; it is not published", "seq", r.seq, "err", err)
		return nil
	}
	return err
}

func (p *Publisher) confirm(seq uint64) {
	if seq <= p.cursor.seq {
		return // sent again after a reconnection
	}
	if err := p.cursor.set(seq); err != nil {
		p.cfg.Logger.Warn("events: cannot note what is published; a restart will publish it again", "err", err)
	}
	p.confirmed.Store(seq)
}

// flush returns nil once the server has taken all that was published.
func flush(ctx context.Context, nc *nats.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("confirm published events: %w", err)
	}
	return nil
}
