package gossip

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fiveOnDisk is five whose view survives a restart.
func (m *mesh) fiveOnDisk(t *testing.T) []*host {
	hosts := []*host{m.start(m.config(1))}
	for i := 2; i <= 5; i++ {
		cfg := m.config(i, 1)
		cfg.Dir = t.TempDir()
		hosts = append(hosts, m.start(cfg))
	}
	m.within(5*time.Second, "five see five", func() bool { return allSee(hosts, StatusAlive, "h1", "h2", "h3", "h4", "h5") })
	return hosts
}

// restart runs a stopped host again from its directory, without any seed.
func (m *mesh) restart(h *host, i int) *host {
	cfg := m.config(i)
	cfg.Dir = h.cfg.Dir
	return m.start(cfg)
}

func TestRestartRejoinsWithoutSeeds(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.fiveOnDisk(t)
		pass(10 * time.Second)
		hosts[4].stop()
		hosts[0].stop() // its only seed is gone for good
		again := m.restart(hosts[4], 5)
		m.within(5*time.Second, "it is back", func() bool {
			joined, _ := again.JoinState()
			return joined && slices.Contains(hosts[1].names(StatusAlive), "h5")
		})
	})
}

// The host by which the others joined has no seed. It is killed soon, with nothing
// written at its end, in a mesh in which something happens all the time.
func TestFirstHostIsKilledAndRejoins(t *testing.T) {
	inMesh(t, func(m *mesh) {
		cfg := m.config(1)
		cfg.Dir = t.TempDir()
		hosts := []*host{m.start(cfg), m.start(m.config(2, 1)), m.start(m.config(3, 1))}
		m.within(5*time.Second, "three see three", func() bool { return allSee(hosts, StatusAlive, "h1", "h2", "h3") })
		for i := range 4 {
			if err := hosts[1].SetTags(map[string]string{"news": strconv.Itoa(i)}); err != nil {
				t.Error(err)
			}
			pass(time.Second / 2)
		}
		disk := t.TempDir()
		if err := os.CopyFS(disk, os.DirFS(cfg.Dir)); err != nil {
			t.Error(err)
		}
		if peers, err := (&peerFile{path: filepath.Join(disk, "gossip-peers.json")}).load(); len(peers) != 2 {
			t.Errorf("it would go on with peers %v, %v", peers, err)
		}
		hosts[0].stop()
		hosts[0].cfg.Dir = disk
		pass(20 * time.Second) // the others have given it up
		again := m.restart(hosts[0], 1)
		m.within(2*time.Second, "it is back", func() bool { return len(again.names(StatusAlive)) == 3 })
	})
}

// A restart quicker than suspicion is no failure: its copies stay where they are.
func TestQuickRestartIsNoFailure(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.fiveOnDisk(t)
		before := hosts[0].Members()[4].Since
		hosts[4].stop()
		pass(time.Second)
		again := m.restart(hosts[4], 5)
		m.within(5*time.Second, "it is back", func() bool { return len(again.names(StatusAlive)) == 5 })
		pass(20 * time.Second)
		if now := hosts[0].Members()[4]; now.Status != StatusAlive || !now.Since.Equal(before) {
			t.Errorf("h5 is %s since %v, was alive since %v", now.Status, now.Since, before)
		}
	})
}

// All stop at once, nobody is up when each returns, and no seed is left.
func TestWholeMeshRestarts(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.fiveOnDisk(t)[1:]
		pass(10 * time.Second)
		for _, h := range m.hosts {
			h.stop()
		}
		var again []*host
		for i, h := range hosts {
			again = append(again, m.restart(h, i+2))
			pass(20 * time.Second) // far longer than serf tries by itself
		}
		m.within(20*time.Second, "they find each other", func() bool { return allSee(again, StatusAlive, "h2", "h3", "h4", "h5") })
	})
}

func TestLeftHostDoesNotComeBackByItself(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.fiveOnDisk(t)
		pass(10 * time.Second)
		if err := hosts[4].Leave(context.Background()); err != nil {
			t.Error(err)
		}
		hosts[4].stop()
		again := m.restart(hosts[4], 5)
		pass(2 * time.Minute)
		if len(again.Members()) != 1 || !slices.Equal(hosts[1].names(StatusLeft), []string{"h5"}) {
			t.Errorf("a host that left came back without being asked: it sees %+v, h2 sees %+v", again.Members(), hosts[1].Members())
		}
	})
}

// The seed comes up an hour after the host that waits for it.
func TestJoinIsRetriedForEver(t *testing.T) {
	inMesh(t, func(m *mesh) {
		waiting := m.start(m.config(2, 1))
		pass(time.Hour)
		if joined, err := waiting.JoinState(); joined || err == nil || !strings.Contains(err.Error(), addr(1)) || strings.Contains(err.Error(), "\n") {
			t.Errorf("while waiting: %v, %v", joined, err)
		}
		seed := m.start(m.config(1))
		m.within(15*time.Second, "they meet", func() bool { return len(seed.names(StatusAlive)) == 2 })
		if joined, err := waiting.JoinState(); !joined || err != nil {
			t.Errorf("after joining: %v, %v", joined, err)
		}
	})
}

// Seeds that swallow everything must not keep a host from one that answers.
func TestSilentSeedsDelayLittle(t *testing.T) {
	inMesh(t, func(m *mesh) {
		for i := 11; i <= 14; i++ {
			m.net.Transport("silent", addr(i))
		}
		m.net.Cut(func(from, to string) bool { return from == "silent" || to == "silent" })
		m.start(m.config(1))
		h := m.start(m.config(2, 11, 12, 1, 13, 14))
		took := m.within(15*time.Second, "joined", func() bool { return len(h.names(StatusAlive)) == 2 })
		t.Logf("took %v with 4 of 5 seeds silent", took)
	})
}

// Two halves of one mesh that never knew of each other, and a seed that tells.
func TestSeedsUniteTwoIslands(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := []*host{m.start(m.config(1)), m.start(m.config(2, 1)), m.start(m.config(3)), m.start(m.config(4, 3))}
		m.within(5*time.Second, "two islands", func() bool {
			return allSee(hosts[:2], StatusAlive, "h1", "h2") && allSee(hosts[2:], StatusAlive, "h3", "h4")
		})
		hosts = append(hosts, m.start(m.config(5, 1, 3)))
		m.within(2*time.Minute, "one mesh", func() bool { return allSee(hosts, StatusAlive, "h1", "h2", "h3", "h4", "h5") })
	})
}

func TestHostThatIsItsOwnSeed(t *testing.T) {
	inMesh(t, func(m *mesh) {
		h := m.start(m.config(1, 1))
		pass(time.Minute)
		if joined, err := h.JoinState(); joined || err != nil {
			t.Errorf("%v, %v", joined, err)
		}
	})
}

func TestFullJitter(t *testing.T) {
	var sum time.Duration
	for i := range 2000 {
		d := fullJitter(i, 10*time.Second)
		if d <= 0 || d > 10*time.Second {
			t.Fatalf("attempt %d waits %v", i, d)
		}
		if i < 2 && d > time.Second {
			t.Fatalf("attempt %d waits %v", i, d)
		}
		sum += d
	}
	if mean := sum / 2000; mean < 4*time.Second || mean > 6*time.Second {
		t.Errorf("the mean wait is %v: no full jitter", mean)
	}
}

func TestPeerFile(t *testing.T) {
	dir := t.TempDir()
	f := &peerFile{path: filepath.Join(dir, "peers")}
	if got, err := f.load(); got != nil || err != nil {
		t.Errorf("before anything: %v, %v", got, err)
	}
	members := []Member{
		{Name: "h1", Addr: "10.0.0.1", Port: 1, Status: StatusAlive},
		{Name: "h2", Addr: "10.0.0.2", Port: 2, Status: StatusAlive},
		{Name: "h3", Addr: "fd00::3", Port: 3, Status: StatusFailed},
		{Name: "h4", Addr: "10.0.0.4", Port: 4, Status: StatusLeft},
	}
	if err := f.save(members, "h1"); err != nil {
		t.Fatal(err)
	}
	want := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:2"), netip.MustParseAddrPort("[fd00::3]:3")}
	read := func() []netip.AddrPort {
		t.Helper()
		got, err := (&peerFile{path: f.path}).load()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := read(); !slices.Equal(got, want) {
		t.Errorf("kept %v", got)
	}
	if err := f.save(members[:1], "h1"); err != nil || !slices.Equal(read(), want) {
		t.Errorf("being alone made it forget, %v", err)
	}
	if err := os.WriteFile(f.path, []byte(`["10.0.0.2:2","bad","[fd00::3]:3"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := read(); !slices.Equal(got, want) {
		t.Errorf("one bad line left %v", got)
	}
	if err := os.WriteFile(f.path, []byte(`{"half`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := (&peerFile{path: f.path}).load(); got != nil || err == nil {
		t.Errorf("a damaged file: %v, %v", got, err)
	}
	if err := f.remove(); err != nil {
		t.Error(err)
	}
	if err := f.remove(); err != nil {
		t.Errorf("again: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A host whose file is damaged must still come up, and join by its seeds.
func TestDamagedFileDoesNotKeepAHostDown(t *testing.T) {
	inMesh(t, func(m *mesh) {
		m.start(m.config(1))
		cfg := m.config(2, 1)
		cfg.Dir = t.TempDir()
		if err := os.WriteFile(filepath.Join(cfg.Dir, "gossip-peers.json"), []byte("alive: \x00\xff\nclock: x\n{{{"), 0o600); err != nil {
			t.Fatal(err)
		}
		h := m.start(cfg)
		m.within(10*time.Second, "joined", func() bool { return len(h.names(StatusAlive)) == 2 })
	})
}

// hooked calls made while serf is being made, when the pool no longer reads
// its own tags and does not yet have serf to tell.
type hooked struct {
	Transport
	called int
	made   func()
}

func (h *hooked) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	if h.called++; h.called == 2 { // first by New
		h.made()
	}
	return h.Transport.FinalAdvertiseAddr(ip, port)
}

func TestTagsSetWhileStartingAreTold(t *testing.T) {
	inMesh(t, func(m *mesh) {
		cfg := m.config(1)
		h := &hooked{Transport: cfg.Transport}
		cfg.Transport = h
		var one *Pool
		h.made = func() {
			if err := one.SetTags(map[string]string{"raft": "late"}); err != nil {
				t.Error(err)
			}
		}
		p, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		one = p
		m.hosts = append(m.hosts, runPool(t, p))
		two := m.start(m.config(2, 1))
		m.within(5*time.Second, "the other sees the tag", func() bool {
			return slices.ContainsFunc(two.Members(), func(x Member) bool { return x.Name == "h1" && x.Tags["raft"] == "late" })
		})
		if h.called < 2 {
			t.Error("the moment was missed")
		}
	})
}
