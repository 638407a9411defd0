package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/oklog/ulid/v2"
)

// heardAhead is how many messages wait for who listens; what comes while they do
// is lost, as NATS does with slow consumers.
const heardAhead = 4096

// ListenerConfig says where a Listener listens.
type ListenerConfig struct {
	Upstream
	Mesh   string       // name of the mesh, the second token of every subject
	Host   string       // name of this host, for the server's list of connections
	Logger *slog.Logger // nil discards
}

// Heard is an event of the story as it came over NATS. Who told it, and that it is
// true, is as good as the rights by which hosts publish.
type Heard struct {
	Event   Event
	Subject string        // that it came on, without ganglion.<mesh>.
	Age     time.Duration // since it was recorded, by the clock of its host, when it was published; 0 if that was not told
}

// Listener hears the story on NATS, over one connection however many listen, and
// over none when nobody does. It is safe for concurrent use.
type Listener struct {
	cfg   ListenerConfig
	kinds map[string]Kind

	turn  chan struct{} // held while connecting, and over link
	link  *link         // nil: there is none
	users int           // of link
}

// link is a connection, until it breaks.
type link struct {
	*nats.Conn
	broken context.Context
	cancel context.CancelCauseFunc
}

// NewListener prepares a listener and connects to nothing.
func NewListener(cfg ListenerConfig) (*Listener, error) {
	switch {
	case !isName(cfg.Mesh):
		return nil, fmt.Errorf("make listener: mesh name %q is not valid", cfg.Mesh)
	case cfg.Local == nil && cfg.Servers == nil:
		return nil, errors.New("make listener: neither Local nor Servers is set; there is nowhere to listen")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Listener{cfg: cfg, kinds: kindsByType(), turn: make(chan struct{}, 1)}, nil
}

// Listen calls heard for each event that a filter selects, one after the other, from
// ready on until ctx ends; then it returns nil. An event that two filters select
// is heard twice, and so may be others: their ids tell. When the connection
// breaks, or cannot be made, Listen returns why; what is told until it is called
// again is not heard.
func (l *Listener) Listen(ctx context.Context, filters []Filter, ready func(), heard func(Heard)) error {
	lk, err := l.join(ctx)
	if err != nil {
		return ended(ctx, err)
	}
	defer l.part(lk)
	messages := make(chan *nats.Msg, heardAhead)
	var subs []*nats.Subscription
	defer func() {
		for _, s := range subs {
			_ = s.Unsubscribe() // fails where the connection is gone, and it with that
		}
	}()
	for _, f := range filters {
		s, err := lk.ChanSubscribe(subjectRoot+"."+l.cfg.Mesh+"."+f.pattern(), messages)
		if err != nil {
			return ended(ctx, fmt.Errorf("subscribe to %s: %w", f.pattern(), err))
		}
		subs = append(subs, s)
	}
	if err := flush(ctx, lk.Conn); err != nil {
		return ended(ctx, fmt.Errorf("subscribe: %w", err))
	}
	ready()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-lk.broken.Done():
			return ended(ctx, context.Cause(lk.broken))
		case m := <-messages:
			if h, ok := l.read(m); ok {
				heard(h)
			}
		}
	}
}

// ended is why listening ended: no error, if it was to.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("listen on NATS: %w", err)
}

// read makes an event of a message. What is none is passed over: on a server of
// others' anybody may say anything.
func (l *Listener) read(m *nats.Msg) (Heard, bool) {
	e, err := Parse(m.Data)
	if err == nil {
		err = l.check(e, m.Subject)
	}
	if err != nil {
		l.cfg.Logger.Debug("events: a message is not heard", "subject", m.Subject, "err", err)
		return Heard{}, false
	}
	ms, _ := strconv.ParseInt(m.Header.Get(headerAge), 10, 64)
	return Heard{Event: e, Subject: strings.TrimPrefix(m.Subject, subjectRoot+"."+l.cfg.Mesh+"."), Age: time.Duration(ms) * time.Millisecond}, true
}

// check tells what is wrong with an event that came on a subject. One of a kind that
// this version does not know is wrong too.
func (l *Listener) check(e Event, subject string) error {
	if _, err := ulid.ParseStrict(e.ID); err != nil {
		return fmt.Errorf("id %.40q: %w", e.ID, err)
	}
	if k, known := l.kinds[e.Kind()]; !known || !k.takes(e.Subject) {
		return fmt.Errorf("there is no event %.80q of %.80q", e.Kind(), e.Subject)
	}
	if own := NATSSubject(l.cfg.Mesh, e); own != subject {
		return fmt.Errorf("its event is of %s", own)
	}
	return CheckChain(e.Chain)
}

// join returns the connection, after making it if there is none that works.
func (l *Listener) join(ctx context.Context) (*link, error) {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-l.turn }()
	if l.link != nil && l.link.broken.Err() == nil {
		l.users++
		return l.link, nil
	}
	broken, cancel := context.WithCancelCause(context.Background())
	giveUp := context.AfterFunc(ctx, func() { cancel(ctx.Err()) }) // while it is made
	nc, err := l.cfg.connect(broken, cancel, l.cfg.Host, func(err error) {
		l.cfg.Logger.Warn("events: NATS refuses to tell all", "err", err)
	})
	if err == nil && !giveUp() {
		nc.Close()
		err = ctx.Err()
	}
	if err != nil {
		cancel(err)
		return nil, err
	}
	l.link, l.users = &link{nc, broken, cancel}, 1
	return l.link, nil
}

// part gives the connection back; the last who does closes it.
func (l *Listener) part(lk *link) {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	if l.link != lk {
		return // it broke, and there is another
	}
	if l.users--; l.users == 0 {
		l.link = nil
		lk.Close()
		lk.cancel(nil)
	}
}
