package events

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
)

// collector is a subscriber that notes which seqs of a host it heard.
type collector struct {
	mu    sync.Mutex
	heard map[uint64]string // id by seq
	order []uint64          // first arrivals
}

func (c *collector) add(t testing.TB, m *nats.Msg) {
	e, err := Parse(m.Data)
	if err != nil {
		t.Errorf("message on %s: %v", m.Subject, err)
		return
	}
	if m.Subject != NATSSubject("main", e) || m.Header.Get("Content-Type") != ContentType {
		t.Errorf("event %+v came on %s with %v", e, m.Subject, m.Header)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if id, ok := c.heard[e.Seq]; ok {
		if id != e.ID {
			t.Errorf("seq %d used for %s and %s", e.Seq, id, e.ID)
		}
		return
	}
	c.heard[e.Seq] = e.ID
	c.order = append(c.order, e.Seq)
}

func (c *collector) has(last uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return uint64(len(c.heard)) == last
}

func (c *collector) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.heard)
}

// id is the id of the event heard with a seq; empty if none was.
func (c *collector) id(seq uint64) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard[seq]
}

// check that every seq to last was heard, in order.
func (c *collector) check(t testing.TB, last uint64) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if uint64(len(c.order)) != last || !slices.IsSorted(c.order) || c.order[0] != 1 || c.order[last-1] != last {
		t.Errorf("heard %d events, want all of 1 to %d in order", len(c.order), last)
	}
}

func collect(t testing.TB, url string, opts ...nats.Option) *collector {
	t.Helper()
	c := &collector{heard: map[uint64]string{}}
	nc, _ := client(t, url, opts...)
	if _, err := nc.Subscribe("ganglion.>", func(m *nats.Msg) { c.add(t, m) }); err != nil {
		t.Fatal(err)
	}
	if err := flush(t.Context(), nc); err != nil {
		t.Fatal(err)
	}
	return c
}

// publisherFor makes a quick publisher for a recorder.
func publisherFor(t testing.TB, r *Recorder, change func(*PublisherConfig)) *Publisher {
	t.Helper()
	cfg := PublisherConfig{Recorder: r, Mesh: "main", Settle: -1, RetryMax: 200 * time.Millisecond}
	change(&cfg)
	p, err := NewPublisher(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func to(urls ...string) func(*PublisherConfig) {
	return func(c *PublisherConfig) { c.Servers = func() []string { return urls } }
}

func TestPublisherConfigIsChecked(t *testing.T) {
	r := open(t, t.TempDir())
	for want, cfg := range map[string]PublisherConfig{
		"Recorder is nil": {Mesh: "main", Upstream: Upstream{Servers: func() []string { return nil }}},
		"mesh name":       {Recorder: r, Mesh: "Main", Upstream: Upstream{Servers: func() []string { return nil }}},
		"nowhere":         {Recorder: r, Mesh: "main"},
	} {
		if _, err := NewPublisher(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// NATS goes away while things happen, more than once: a subscriber that
// connects again has every event in the end.
func TestNATSStoppedWhileThingsHappen(t *testing.T) {
	ca := newTestCA(t)
	cfg := serverConfig(t, ca, "h1")
	cfg.Port = freePorts(t, 1)[0]
	url := fmt.Sprintf("nats://127.0.0.1:%d", cfg.Port)
	_, stop := startServer(t, cfg)
	heard := collect(t, url)
	r := open(t, t.TempDir())
	running(t, r.Run)
	_, clientTLS := ca.tls(t, "h2")
	p := publisherFor(t, r, func(c *PublisherConfig) {
		to(url)(c)
		c.TLS = clientTLS
		c.Settle = time.Second // the subscriber tries every 100 ms
	})
	running(t, p.Run)
	for round := range uint64(3) {
		for range 100 {
			mustAppend(t, r, started(1))
		}
		eventually(t, "what happened so far is heard", func() bool { return heard.has(200*round + 100) })
		stop()
		for range 100 {
			mustAppend(t, r, started(1))
		}
		eventually(t, "the publisher notices", func() bool { return !p.Connected() })
		if p.Confirmed() > 200*round+100 {
			t.Errorf("confirmed %d with no server", p.Confirmed())
		}
		_, stop = startServer(t, cfg)
	}
	eventually(t, "everything is heard", func() bool { return heard.has(600) })
	heard.check(t, 600)
	eventually(t, "everything is confirmed", func() bool { return p.Confirmed() == 600 })
}

// A publisher that is stopped and started, with its agent, misses nothing and
// does not start all over.
func TestPublisherRestarts(t *testing.T) {
	s, _ := startServer(t, ServerConfig{Name: "h1", Mesh: "main", InProcessOnly: true})
	heard := collect(t, "", nats.InProcessServer(s))
	dir := t.TempDir()
	const rounds, each = 5, 60
	for round := range rounds {
		r, err := OpenRecorder(RecorderConfig{Dir: dir, Host: "h1", MaxBytes: MinMaxBytes})
		if err != nil {
			t.Fatal(err)
		}
		p := publisherFor(t, r, func(c *PublisherConfig) {
			c.Local = func() InProcess { return s }
			c.Overlap = -1
		})
		stopSync, stopPublish := running(t, r.Run), running(t, p.Run)
		for range each {
			mustAppend(t, r, started(round))
		}
		eventually(t, "half a round is heard", func() bool { return heard.count() > round*each+each/2 })
		stopPublish() // in the middle of what is left
		stopSync()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r := open(t, dir)
	running(t, r.Run)
	running(t, publisherFor(t, r, func(c *PublisherConfig) { c.Local = func() InProcess { return s } }).Run)
	eventually(t, "all rounds are heard", func() bool { return heard.has(rounds * each) })
	heard.check(t, rounds*each)
}

// Only what is on disk is published: otherwise a power loss could give one seq
// to two events.
func TestNothingIsPublishedBeforeItsFsync(t *testing.T) {
	s, _ := startServer(t, ServerConfig{Name: "h1", Mesh: "main", InProcessOnly: true})
	heard := collect(t, "", nats.InProcessServer(s))
	r := open(t, t.TempDir()) // nobody runs it
	running(t, publisherFor(t, r, func(c *PublisherConfig) { c.Local = func() InProcess { return s } }).Run)
	for range 10 {
		mustAppend(t, r, started(1))
	}
	if err := r.Sync(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, r, started(1))
	eventually(t, "the synced ones are heard", func() bool { return heard.has(10) })
	if err := r.Sync(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last one is heard", func() bool { return heard.has(11) })
	heard.check(t, 11)
}

// When this host's own server starts, Reconnect moves to it; when that stops,
// the publisher goes back to others.
func TestPublisherPrefersItsOwnServer(t *testing.T) {
	ca := newTestCA(t)
	s1, _ := startServer(t, serverConfig(t, ca, "h1"))
	heard := collect(t, s1.ClientURL())
	r := open(t, t.TempDir())
	running(t, r.Run)
	var local atomic.Pointer[Server]
	_, clientTLS := ca.tls(t, "h2")
	p := publisherFor(t, r, func(c *PublisherConfig) {
		to("nats://127.0.0.1:1", s1.ClientURL())(c) // the first never answers
		c.TLS = clientTLS
		c.RetryMax = time.Hour // Reconnect does not wait for it
		c.Local = func() InProcess {
			if s := local.Load(); s != nil {
				return s
			}
			return nil
		}
	})
	running(t, p.Run)
	mustAppend(t, r, started(1))
	eventually(t, "heard through the other host", func() bool { return heard.has(1) })

	own, stop := startServer(t, ServerConfig{Name: "h2", Mesh: "main", InProcessOnly: true})
	ownHeard := collect(t, "", nats.InProcessServer(own))
	local.Store(own)
	p.Reconnect()
	mustAppend(t, r, started(2))
	eventually(t, "heard on its own server", func() bool { return ownHeard.id(2) != "" })
	local.Store(nil)
	stop()
	mustAppend(t, r, started(3))
	p.Reconnect()
	eventually(t, "heard through the other host again", func() bool { return heard.id(3) != "" })
}

// In virtual time, on an in-process server: no work and no attempt beyond the
// jittered ones, the settling pause is kept, and a minute without NATS costs
// nothing but time.
func TestPublisherInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "ring")
		r, err := OpenRecorder(RecorderConfig{Dir: dir, Host: "h1"})
		if err != nil {
			t.Fatal(err)
		}
		stopSync := running(t, r.Run)
		var attempts atomic.Int64
		var srv atomic.Pointer[Server]
		p := publisherFor(t, r, func(c *PublisherConfig) {
			c.Settle, c.RetryMax = 0, 0 // the defaults
			c.Local = func() InProcess {
				attempts.Add(1)
				if s := srv.Load(); s != nil {
					return s
				}
				return nil
			}
		})
		stopPublish := running(t, p.Run)
		for range 60 {
			mustAppend(t, r, started(1))
			time.Sleep(time.Second)
		}
		if n := attempts.Load(); n < 4 || n > 30 || p.Confirmed() != 0 {
			t.Errorf("%d attempts in a minute without a server, %d confirmed", n, p.Confirmed())
		}
		s, stopServer := startServer(t, ServerConfig{Name: "h1", Mesh: "main", InProcessOnly: true})
		heard := collect(t, "", nats.InProcessServer(s))
		srv.Store(s)
		began := time.Now()
		p.Reconnect()
		for !heard.has(60) {
			time.Sleep(100 * time.Millisecond)
		}
		if d := time.Since(began); d < 5*time.Second || d > 6*time.Second {
			t.Errorf("the backlog came after %s, want the settling 5 s", d)
		}
		before := attempts.Load()
		time.Sleep(time.Hour)
		if attempts.Load() != before {
			t.Errorf("an idle hour: %d attempts", attempts.Load()-before)
		}
		heard.check(t, 60)
		stopPublish()
		stopSync()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		stopServer()
		time.Sleep(time.Minute) // stray timers of the server end inside the bubble
	})
}

// The overlap after a reconnection goes by the time of events, and is bounded.
func TestRewind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, t.TempDir())
		var at []uint64
		for range 10 {
			at = append(at, mustAppend(t, r, started(1)).Seq)
			time.Sleep(time.Second)
		}
		p := publisherFor(t, r, to("x"))
		for confirmed, want := range map[uint64]uint64{0: 1, 1: 1, 2: 1, 3: 1, 4: 2, 10: 8} {
			p.cursor.seq = confirmed
			if got := p.rewound(); got != want {
				t.Errorf("confirmed %d of %v: goes on from %d, want %d", confirmed, at, got, want)
			}
		}
	})
}
