package gossip

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func newWishTable(hosts int) *table {
	t := newTable("me", func() {})
	t.hosts.Store(int64(hosts))
	return t
}

// said is what a host would send of its wishes.
func said(host string, at time.Time, names ...string) []byte {
	c := &wishCast{host: hostHash(host)}
	for _, n := range names {
		c.list = append(c.list, wish{hostHash(n), at})
	}
	return c.Message()[1:]
}

// TestWishesCount: each host counts once for a name, for a minute, whoever passes on
// what it said and how often.
func TestWishesCount(t *testing.T) {
	tab := newWishTable(5)
	w, now := &tab.wishes, time.Now()
	hear := func(host string, age time.Duration, names ...string) {
		t.Helper()
		if err := w.hear(said(host, now.Add(-age), names...), tab.self, now); err != nil {
			t.Fatal(err)
		}
	}
	count := func(name string, at time.Time) int { return len(w.of(hostHash(name), at)) }
	hear("a", 0, "flee", "heal")
	hear("a", 0, "flee")
	hear("b", 30*time.Second, "flee")
	hear("c", 2*time.Minute, "flee") // too old
	hear("me", 0, "flee")            // its own, come round
	if got := [2]int{count("flee", now), count("heal", now)}; got != [2]int{2, 1} {
		t.Errorf("flee is wished by %d, heal by %d", got[0], got[1])
	}
	if got := count("flee", now.Add(31*time.Second)); got != 1 {
		t.Errorf("half a minute later: %d", got)
	}
	if got := count("flee", now.Add(WishFor)); got != 0 {
		t.Errorf("a minute later: %d", got)
	}
	hear("b", 0, "flee")
	if got := count("flee", now.Add(31*time.Second)); got != 2 {
		t.Errorf("wished again: %d", got)
	}
}

// TestWishesDoNotGoRound: what is known already is not passed on again, though
// rounding makes it a little younger on each way.
func TestWishesDoNotGoRound(t *testing.T) {
	tab := newWishTable(5)
	now := time.Now()
	queued := func() int { return tab.wishes.queue.NumQueued() }
	for i, want := range []int{1, 0, 0, 1} {
		at := now.Add(time.Duration(i) * ageUnit)
		if i == 3 {
			at = now.Add(10 * time.Second)
		}
		tab.wishes.queue.Reset()
		if err := tab.wishes.hear(said("a", at, "flee"), tab.self, at); err != nil || queued() != want {
			t.Errorf("message %d: %d passed on, want %d; %v", i, queued(), want, err)
		}
	}
}

// TestWishesAreBounded: whoever has the key can make a host remember no more than
// so much, and none of it for longer than a minute.
func TestWishesAreBounded(t *testing.T) {
	tab := newWishTable(5)
	w, now := &tab.wishes, time.Now()
	for i := range 3 * maxWished {
		for h := range 2 {
			if err := w.hear(said(fmt.Sprintf("h%d", h), now, fmt.Sprintf("rule-%d", i)), tab.self, now); err != nil {
				t.Fatal(err)
			}
		}
	}
	for h := range 3 * maxWishers {
		if err := w.hear(said(fmt.Sprintf("h%d", h), now, "rule-0"), tab.self, now); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.heard) > maxWished || len(w.heard[hostHash("rule-0")]) > maxWishers {
		t.Errorf("%d names, %d hosts of one", len(w.heard), len(w.heard[hostHash("rule-0")]))
	}
	later := now.Add(WishFor)
	if err := w.hear(said("a", later, "new"), tab.self, later); err != nil || len(w.heard) != 1 {
		t.Errorf("%d names a minute later, %v", len(w.heard), err)
	}
	var many []string
	for i := range MaxWishes {
		many = append(many, fmt.Sprintf("rule-%d", i))
	}
	if size := len(said("a", now, many...)); size > 400 {
		t.Errorf("a message has %d bytes", size)
	}
}

func TestDecodeWishesTrustsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 600).Draw(t, "bytes")
		if len(b) > 0 && rapid.Bool().Draw(t, "version") {
			b[0] = wishVersion
		}
		now := time.Now()
		host, list, err := decodeWishes(b, now)
		if err != nil {
			return
		}
		if again := (&wishCast{host, list}).Message(); len(again) != len(b)+1 || len(list) > MaxWishes {
			t.Fatalf("%d bytes are %d wishes, and %d bytes again", len(b), len(list), len(again))
		}
	})
}

// TestWishesReachAll: within the two seconds for which hosts listen before they do
// what reaches further, each has heard of others enough; and an idle mesh says
// nothing.
func TestWishesReachAll(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		for _, h := range hosts {
			if n := h.table.wishes.queue.NumQueued(); n != 0 {
				t.Errorf("%d wishes wait in an idle mesh", n)
			}
		}
		heard := func(least int) func() bool {
			return func() bool {
				for _, h := range hosts {
					if h.Wishers("flee") < least {
						return false
					}
				}
				return true
			}
		}
		for range 10 {
			for _, h := range hosts {
				h.Wish([]string{"flee", "other"})
			}
			m.within(2*time.Second, "each host to know of two others", heard(2))
			m.within(10*time.Second, "each host to know of all others", heard(4))
			pass(WishFor)
			if heard(1)() {
				t.Error("wishes outlive their minute")
			}
		}
		hosts[0].Wish([]string{"flee"})
		m.within(10*time.Second, "the others to know of one", func() bool {
			return hosts[1].Wishers("flee") == 1 && hosts[4].Wishers("flee") == 1 && hosts[0].Wishers("flee") == 0
		})
	})
}
