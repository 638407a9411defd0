package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ganglion-mesh/ganglion/gossip/gossiptest"
)

var testKey = bytes.Repeat([]byte{7}, 32)

// host is one pool of a test mesh, and how to end it.
type host struct {
	*Pool
	t      testing.TB
	cancel context.CancelFunc
	done   chan error
}

// mesh is a set of hosts on one network in virtual time.
type mesh struct {
	t     *testing.T
	net   *gossiptest.Network
	hosts []*host
}

// inMesh runs f in virtual time, ends all hosts after it and lets the probes of
// memberlist run out, which its Shutdown does not wait for.
func inMesh(t *testing.T, f func(m *mesh)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &mesh{t: t, net: gossiptest.NewNetwork(1)}
		defer func() { // also when f gives up
			for _, h := range m.hosts {
				if t.Failed() {
					t.Logf("%s sees %+v", h.cfg.Name, h.Members())
				}
				h.stop()
			}
			pass(time.Minute)
		}()
		f(m)
	})
}

// pass lets virtual time pass.
func pass(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // only called in bubbles

func addr(i int) string { return fmt.Sprintf("10.0.0.%d:7946", i) }

func (m *mesh) config(i int, seeds ...int) Config {
	cfg := Config{Name: fmt.Sprintf("h%d", i), MeshID: "mesh-a", Key: testKey}
	for _, s := range seeds {
		cfg.Seeds = append(cfg.Seeds, addr(s))
	}
	if testing.Verbose() && os.Getenv("GOSSIP_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("me", cfg.Name)
	}
	cfg.Transport = m.net.Transport(cfg.Name, addr(i))
	return cfg
}

func (m *mesh) start(cfg Config) *host {
	m.t.Helper()
	h := run(m.t, cfg)
	m.hosts = append(m.hosts, h)
	return h
}

func run(t testing.TB, cfg Config) *host {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return runPool(t, p)
}

func runPool(t testing.TB, p *Pool) *host {
	ctx, cancel := context.WithCancel(context.Background())
	h := &host{Pool: p, t: t, cancel: cancel, done: make(chan error, 1)}
	go func() { h.done <- p.Run(ctx) }()
	return h
}

// stop ends the host without a leave, as a crash does, and is safe to repeat.
func (h *host) stop() {
	h.t.Helper()
	h.cancel()
	if err := <-h.done; err != nil {
		h.t.Errorf("%s: Run: %v", h.cfg.Name, err)
	}
	h.done <- nil
}

// five starts hosts 1 to 5, joined by the first.
func (m *mesh) five() []*host {
	m.t.Helper()
	hosts := []*host{m.start(m.config(1))}
	for i := 2; i <= 5; i++ {
		hosts = append(hosts, m.start(m.config(i, 1)))
	}
	m.within(5*time.Second, "five see five", func() bool { return allSee(hosts, StatusAlive, "h1", "h2", "h3", "h4", "h5") })
	return hosts
}

// within polls in small steps until ok, and returns how long that took.
func (m *mesh) within(limit time.Duration, what string, ok func() bool) time.Duration {
	m.t.Helper()
	return within(m.t, limit, what, ok)
}

func within(t testing.TB, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(start) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		<-tick.C
	}
	return time.Since(start)
}

func (h *host) names(s Status) []string {
	var out []string
	for _, m := range h.Members() {
		if m.Status == s {
			out = append(out, m.Name)
		}
	}
	return out
}

func allSee(hosts []*host, s Status, names ...string) bool {
	return !slices.ContainsFunc(hosts, func(h *host) bool { return !slices.Equal(h.names(s), names) })
}

func TestFiveJoinAndSeeAll(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		for _, h := range hosts {
			if ok, err := h.JoinState(); !ok || err != nil {
				t.Errorf("%s: joined %v, %v", h.cfg.Name, ok, err)
			}
			if h.RefreshInterval() != 5*time.Second {
				t.Errorf("%s refreshes every %v", h.cfg.Name, h.RefreshInterval())
			}
		}
		first := hosts[0].Members()[1]
		if first.Addr != "10.0.0.2" || first.Port != 7946 || len(first.Tags) != 0 {
			t.Errorf("member is %+v", first)
		}
	})
}

// A dead host must be known soon enough that its work runs elsewhere in 15 s.
func TestDeathIsSeenInTime(t *testing.T) {
	for _, silent := range []bool{false, true} { // refused connections, or none answered
		var worst time.Duration
		for range 10 {
			inMesh(t, func(m *mesh) {
				hosts := m.five()
				pass(7 * time.Second)
				if silent {
					m.net.Isolate("h5")
				} else {
					hosts[4].stop()
				}
				died := time.Now()
				took := m.within(12*time.Second, "four see the fifth fail", func() bool {
					return allSee(hosts[:4], StatusFailed, "h5")
				})
				worst = max(worst, took)
				for _, h := range hosts[:4] {
					since := h.Members()[4].Since
					if since.Before(died) || time.Since(since) > took {
						t.Errorf("failed since %v, died %v", since, died)
					}
				}
			})
		}
		t.Logf("silent=%v: worst of 10 took %v", silent, worst)
		if worst > 9*time.Second {
			t.Errorf("silent=%v: took up to %v", silent, worst)
		}
	}
}

// With two of five gone at once fewer remain to confirm; it must still be quick.
func TestTwoDeathsAtOnceAreSeenInTime(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		m.net.Cut(func(from, to string) bool { return from == "h4" || to == "h4" || from == "h5" || to == "h5" })
		took := m.within(12*time.Second, "three see two fail", func() bool {
			return allSee(hosts[:3], StatusFailed, "h4", "h5")
		})
		t.Logf("took %v", took)
	})
}

func TestPartitionHeals(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		m.net.Isolate("h1", "h2")
		m.within(20*time.Second, "both sides see the other fail", func() bool {
			return allSee(hosts[:2], StatusFailed, "h3", "h4", "h5") && allSee(hosts[2:], StatusFailed, "h1", "h2")
		})
		pass(5 * time.Minute)
		m.net.Cut(nil)
		took := m.within(time.Minute, "all are alive again", func() bool {
			return allSee(hosts, StatusAlive, "h1", "h2", "h3", "h4", "h5")
		})
		t.Logf("healed in %v", took)
	})
}

// A cut shorter than suspicion leaves no trace.
func TestShortCutFailsNobody(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		before := hosts[0].Members()
		m.net.Isolate("h3")
		pass(1500 * time.Millisecond)
		m.net.Cut(nil)
		for range 200 {
			pass(100 * time.Millisecond)
			if !allSee(hosts, StatusAlive, "h1", "h2", "h3", "h4", "h5") {
				t.Fatal("a host was failed")
			}
		}
		for i, mem := range hosts[0].Members() {
			if !mem.Since.Equal(before[i].Since) {
				t.Errorf("%s: alive since %v, was %v", mem.Name, mem.Since, before[i].Since)
			}
		}
	})
}

func TestLossyNetworkFailsNobody(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		m.net.Loss(0.2)
		for range 200 {
			pass(time.Second)
			if !allSee(hosts, StatusAlive, "h1", "h2", "h3", "h4", "h5") {
				t.Fatal("a host was failed at 20 % loss")
			}
		}
	})
}

func TestLeaveIsNoFailure(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := hosts[2].Leave(ctx); err != nil {
			t.Fatal(err)
		}
		hosts[2].stop()
		rest := slices.Delete(slices.Clone(hosts), 2, 3)
		m.within(11*time.Second, "the others see it left", func() bool { return allSee(rest, StatusLeft, "h3") })
		pass(30 * time.Second)
		if !allSee(rest, StatusLeft, "h3") || !allSee(rest, StatusFailed) {
			t.Error("a host that left was failed")
		}
	})
}

// The end of Run in the middle of a leave neither breaks nor undoes it.
func TestLeaveCutShort(t *testing.T) {
	for ms := range 12 {
		inMesh(t, func(m *mesh) {
			hosts := m.five()
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(ms)*100*time.Millisecond)
			defer cancel()
			err := hosts[2].Leave(ctx)
			hosts[2].stop()
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			rest := slices.Delete(slices.Clone(hosts), 2, 3)
			m.within(11*time.Second, "the others see it left", func() bool { return allSee(rest, StatusLeft, "h3") })
			if err := hosts[2].Leave(context.Background()); err != nil {
				t.Errorf("leaving again: %v", err)
			}
		})
	}
}

// A host that heard nothing of a leave sees only that the host is gone; it learns
// the rest from the others at once, and not with the next regular exchange.
func TestMissedLeaveIsLearnt(t *testing.T) {
	for range 20 {
		inMesh(t, func(m *mesh) {
			hosts := m.five()
			pass(6 * time.Second) // all that follows joining is over
			m.net.Isolate("h1")
			if err := hosts[2].Leave(context.Background()); err != nil {
				t.Fatal(err)
			}
			hosts[2].stop()
			m.net.Cut(nil)
			// It finds out by itself and with nobody to confirm, so this may take long.
			m.within(time.Minute, "h1 knows that it is gone", func() bool { return !slices.Contains(hosts[0].names(StatusAlive), "h3") })
			m.within(5*time.Second, "h1 knows that it left", func() bool { return allSee(hosts[:1], StatusLeft, "h3") })
		})
	}
}

func TestRemoveTurnsFailedIntoLeft(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		hosts[4].stop()
		rest := hosts[:4]
		m.within(12*time.Second, "failed", func() bool { return allSee(rest, StatusFailed, "h5") })
		if err := hosts[0].Remove("h5"); err != nil {
			t.Fatal(err)
		}
		m.within(11*time.Second, "left", func() bool { return allSee(rest, StatusLeft, "h5") })
	})
}

func TestTagsSpread(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		if err := hosts[1].SetTags(map[string]string{"role": "voter", "raft": "10.0.0.2:7947"}); err != nil {
			t.Fatal(err)
		}
		m.within(11*time.Second, "all see the tags", func() bool {
			return !slices.ContainsFunc(hosts, func(h *host) bool { return h.Members()[1].Tags["role"] != "voter" })
		})
		if err := hosts[1].SetTags(map[string]string{"mesh": "mesh-b"}); err == nil {
			t.Error("the mesh's own tag could be set")
		}
		if err := hosts[1].SetTags(map[string]string{"x": string(bytes.Repeat([]byte("x"), 600))}); err == nil {
			t.Error("tags beyond the limit were taken")
		}
		if hosts[0].Members()[1].Tags["role"] != "voter" {
			t.Error("rejected tags replaced the old ones")
		}
	})
}

// Nobody reads anything of h1; membership goes on in it and around it.
func TestStalledConsumerStallsNothing(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		_, _ = hosts[0].Changed(), hosts[0].Conflicted()
		for round := range 30 {
			h := m.start(m.config(100+round, 1))
			m.within(10*time.Second, "h1 sees it come", func() bool { return len(hosts[0].names(StatusAlive)) == 6 })
			h.stop()
			m.within(15*time.Second, "h1 sees it go", func() bool { return len(hosts[0].names(StatusAlive)) == 5 })
		}
	})
}

func TestChangedIsLevelTriggered(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		ch := hosts[0].Changed()
		hosts[4].stop()
		<-ch // woken, though it was taken long before
		m.within(12*time.Second, "failed", func() bool { return allSee(hosts[:1], StatusFailed, "h5") })
	})
}
