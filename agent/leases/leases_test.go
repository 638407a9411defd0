package leases

import (
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
)

const s = time.Second

func TestBookCountsFromWhenARenewalWasSeen(t *testing.T) {
	var b Book
	lease := topology.Lease{App: "db", Token: 7, Renewed: 7}
	look := func(at time.Duration) time.Duration {
		t.Helper()
		obs := b.Look([]topology.Lease{lease}, at)["db"]
		if obs.Token != lease.Token || obs.Renewed != lease.Renewed || obs.Ended {
			t.Errorf("at %s: %+v of %+v", at, obs, lease)
		}
		return obs.Age
	}
	for _, c := range []struct {
		what   string
		change func()
		at     time.Duration
		age    time.Duration
	}{
		{"first seen", func() {}, 100 * s, 0},
		{"not renewed", func() {}, 105 * s, 5 * s},
		{"renewed", func() { lease.Renewed = 9 }, 106 * s, 0},
		{"not renewed again", func() {}, 116 * s, 10 * s},
		{"granted anew", func() { lease.Token, lease.Renewed = 12, 12 }, 117 * s, 0},
		{"a new office", b.TakeOffice, 130 * s, 0},
		{"in office", func() {}, 131 * s, s},
	} {
		c.change()
		if age := look(c.at); age != c.age {
			t.Errorf("%s: age %s, want %s", c.what, age, c.age)
		}
	}
	if obs := b.Look(nil, 140*s); len(obs) > 0 {
		t.Errorf("of no lease: %+v", obs)
	}
	if look(150*s) != 0 {
		t.Error("a lease that was gone kept its age")
	}
}

func TestHolderRenewsThreeTimesAHold(t *testing.T) {
	var h Holder
	held := []topology.HeldLease{{App: "db", Token: 7, Hold: 3 * s}, {App: "mq", Token: 8, Hold: 30 * s}}
	asked := map[string][]time.Duration{}
	for now := 100 * s; now < 130*s; {
		tick := h.Tick(now, held)
		for _, ref := range tick.Ask {
			asked[ref.App] = append(asked[ref.App], now)
		}
		if tick.Paused || tick.Next <= 0 || tick.Next > time.Second {
			t.Fatalf("at %s: %+v", now, tick)
		}
		now += tick.Next
	}
	if len(asked["db"]) != 30 || len(asked["mq"]) != 3 {
		t.Errorf("in 30 s renewed %d and %d times, want 30 and 3", len(asked["db"]), len(asked["mq"]))
	}
	held[1].Token = 9 // granted anew
	if tick := h.Tick(130*s, held); len(tick.Ask) < 1 || tick.Ask[len(tick.Ask)-1].Token != 9 {
		t.Errorf("a new lease is not asked for at once: %+v", tick)
	}
}

func TestPausedHolderForgetsWhatItWasPromised(t *testing.T) {
	var h Holder
	held := []topology.HeldLease{{App: "db", Token: 7, Hold: 10 * s}}
	before := h.Tick(500*s, held)
	if until, ok := h.Deadline(before.Sent, 10*s); !ok || until != 510*s {
		t.Errorf("deadline %s %v, want that from before sending", until, ok)
	}
	if tick := h.Tick(502*s, held); tick.Paused {
		t.Error("two seconds are no pause")
	}
	if tick := h.Tick(504*s+1, held); !tick.Paused || len(tick.Ask) > 0 {
		t.Errorf("after a gap: %+v, want to kill first and ask later", tick)
	}
	if _, ok := h.Deadline(before.Sent, 10*s); ok {
		t.Error("an answer to what was sent before the pause counts")
	}
	tick := h.Tick(504*s+2, held)
	if tick.Paused || len(tick.Ask) != 1 {
		t.Errorf("then: %+v, want it to ask", tick)
	}
	if _, ok := h.Deadline(tick.Sent, 10*s); !ok {
		t.Error("an answer to what was sent after the pause does not count")
	}
	if h.Tick(505*s, nil); h.Tick(600*s, held).Paused {
		t.Error("a host that had no lease for a while was not paused")
	}
	if !h.Tick(400*s, held).Paused {
		t.Error("a clock that went back is another boot's")
	}
}
