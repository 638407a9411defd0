package gossip

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/serf/serf"
)

// Two meshes with one key, the newcomer's seeds pointing at the wrong one.
func TestAnotherMeshIsRefused(t *testing.T) {
	inMesh(t, func(m *mesh) {
		ours := m.five()
		cfg := m.config(9, 1, 2, 3)
		cfg.MeshID, cfg.Name = "mesh-b", "h9"
		stranger := m.start(cfg)
		stranger.PublishVitals(Vitals{Bits: 9})
		for range 300 {
			pass(time.Second)
			if len(stranger.Members()) != 1 || !allSee(ours, StatusAlive, "h1", "h2", "h3", "h4", "h5") {
				t.Fatal("two meshes have met")
			}
		}
		if _, _, ok := ours[0].Vitals("h9"); ok {
			t.Error("vitals crossed between meshes")
		}
		joined, err := stranger.JoinState()
		if joined || err == nil || !strings.Contains(err.Error(), "another mesh") {
			t.Errorf("the stranger learns: %v, %v", joined, err)
		}
	})
}

func TestAnotherKeyIsRefused(t *testing.T) {
	inMesh(t, func(m *mesh) {
		ours := m.five()
		cfg := m.config(9, 1)
		cfg.Key = slices.Repeat([]byte{8}, 32)
		stranger := m.start(cfg)
		pass(time.Minute)
		if len(stranger.Members()) != 1 || len(ours[0].Members()) != 5 {
			t.Error("a host without the key was let in")
		}
		if joined, err := stranger.JoinState(); joined || err == nil {
			t.Errorf("the stranger learns: %v, %v", joined, err)
		}
	})
}

// A second h3 asks to join: it alone is refused, learns why and where the other
// is, and nobody's view of the first one changes.
func TestDuplicateNameIsRefusedAtTheNewcomer(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		before := hosts[0].Members()
		cfg := m.config(9, 1, 3) // one seed is the very host whose name it has
		cfg.Name = "h3"
		second := m.start(cfg)
		m.within(time.Second, "the newcomer hears why", func() bool { return second.Conflict() != nil })

		var c *ConflictError
		if err := <-second.Conflicted(); !errors.As(err, &c) || !c.Refused || c.Addr != addr(3) {
			t.Errorf("the newcomer hears %v", err)
		}
		if joined, err := second.JoinState(); joined || !errors.As(err, &c) {
			t.Errorf("the newcomer's state: %v, %v", joined, err)
		}
		for range 120 {
			pass(time.Second)
			if len(second.Members()) != 1 || !allSee(hosts, StatusAlive, "h1", "h2", "h3", "h4", "h5") {
				t.Fatal("a duplicate name had an effect")
			}
		}
		if after := hosts[0].Members(); after[2].Addr != "10.0.0.3" || !after[2].Since.Equal(before[2].Since) {
			t.Errorf("h3 was %+v, is %+v", before[2], after[2])
		}
		if err := hosts[2].Conflict(); !errors.As(err, &c) || c.Refused || c.Addr != addr(9) {
			t.Errorf("the running host hears %v", err)
		}

		// Its end, or even its leave, must not take the first h3 with it.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := second.Leave(ctx); err != nil {
			t.Error(err)
		}
		second.stop()
		pass(30 * time.Second)
		if !allSee(hosts, StatusAlive, "h1", "h2", "h3", "h4", "h5") {
			t.Error("the end of a refused host had an effect")
		}
	})
}

// The name becomes free when its host is dead: the same host, say, at a new
// address. Nobody has to do anything.
func TestNameIsTakenOverFromTheDead(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		hosts[2].stop()
		cfg := m.config(9, 1)
		cfg.Name = "h3"
		moved := m.start(cfg)
		took := m.within(2*time.Minute, "all see h3 at its new address", func() bool {
			return len(moved.Members()) >= 4 && !slices.ContainsFunc(hosts[:2], func(h *host) bool {
				m := h.Members()[2]
				return m.Status != StatusAlive || m.Addr != "10.0.0.9"
			})
		})
		t.Logf("took %v", took)
		if joined, err := moved.JoinState(); !joined || err != nil {
			t.Errorf("state after joining: %v, %v", joined, err)
		}
	})
}

// What the label keeps out on the wire, the delegates keep out of the view.
func TestAdmission(t *testing.T) {
	var conflict string
	a := &admission{name: "h1", mesh: "mesh-a", self: addrPort(net.IPv4(10, 0, 0, 1), 7946), conflict: func(s string) { conflict = s }}
	member := func(name, mesh, ip string, status serf.MemberStatus) *serf.Member {
		return &serf.Member{Name: name, Addr: net.ParseIP(ip), Port: 7946, Tags: map[string]string{"mesh": mesh}, Status: status}
	}
	good := member("h2", "mesh-a", "10.0.0.2", serf.StatusNone)
	cases := []struct {
		what     string
		m        *serf.Member
		refused  bool
		conflict string
	}{
		{"another host", good, false, ""},
		{"another mesh", member("h2", "mesh-b", "10.0.0.2", serf.StatusNone), true, ""},
		{"no mesh", &serf.Member{Name: "h2", Addr: net.IPv4(10, 0, 0, 2), Port: 7946}, true, ""},
		{"itself", member("h1", "mesh-a", "10.0.0.1", serf.StatusNone), false, ""},
		{"its name elsewhere", member("h1", "mesh-a", "10.0.0.7", serf.StatusNone), true, "10.0.0.7:7946"},
		{"its name elsewhere, left", member("h1", "mesh-a", "10.0.0.7", serf.StatusLeft), false, ""},
		{"a name against the rules", member("H2/../..", "mesh-a", "10.0.0.2", serf.StatusNone), true, ""},
		{"a name of 300 bytes", member(strings.Repeat("a", 300), "mesh-a", "10.0.0.2", serf.StatusNone), true, ""},
		{"no name", member("", "mesh-a", "10.0.0.2", serf.StatusNone), true, ""},
	}
	for _, c := range cases {
		conflict = ""
		if err := a.NotifyMerge([]*serf.Member{good, c.m}); (err != nil) != c.refused || conflict != c.conflict {
			t.Errorf("%s: %v, conflict %q", c.what, err, conflict)
		}
	}
}

func TestConflictsKeepTheNewestAndForget(t *testing.T) {
	c := conflicts{ch: make(chan error, 1)}
	now := time.Now()
	first, second := &ConflictError{Addr: "a", Refused: true}, &ConflictError{Addr: "b", Refused: true}
	if !c.note(first, now) || c.note(first, now) || !c.note(second, now) {
		t.Error("what is new is told wrongly")
	}
	if got := <-c.ch; !errors.Is(got, second) {
		t.Errorf("waiting is %v", got)
	}
	if c.current(now.Add(conflictMemory+1)) != nil {
		t.Error("an old conflict is not forgotten")
	}
	if !c.note(second, now.Add(conflictMemory+1)) {
		t.Error("a conflict that came back is no news")
	}
	c.clearRefusal()
	if c.current(now) != nil {
		t.Error("a refusal outlives joining")
	}
}
