package reflexes

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

const claimRule = `reflex "vip" {
  scope    = "link:up0"
  when     = "link.up"
  act      = [claim("10.0.0.10/24")]
  cooldown = "1s"
  limit    = "3/10m"
}`

// claimant is an engine with a rule that claims.
type claimant struct {
	*Engine
	t     *testing.T
	now   Boot
	told  []Outcome
	fails int // so many acts from now on
}

func newClaimant(t *testing.T, rule string) *claimant {
	c := &claimant{Engine: NewEngine(Config{Boot: "b", Seed: 1}), t: t, now: time.Hour}
	c.SetRules(c.now, compile(t, rule))
	return c
}

var up0 = Target{ScopeLink, "up0"}

// step lets a second pass, with the link up or down, and lets what fires act if it
// may. It reports whether something acted, and whether the lease alone was missing.
func (c *claimant) step(up bool, a Authority) (acted, unleased bool) {
	c.t.Helper()
	c.now += time.Second
	firings, _ := c.Step(c.now, []Fact{{Var: LinkUp, Target: up0, Value: Bool(up), At: c.now}})
	for _, f := range firings {
		if act, ok := c.Permit(c.now, f, a); ok {
			acted = true
			if act.Loan != 0 || act.Class != ClassB || !act.Durable {
				c.t.Errorf("act %+v: want class B, durable and without a loan", act)
			}
			c.Done(c.now, act.ID, c.fails == 0, "")
			c.fails = max(c.fails-1, 0)
		}
		unleased = unleased || c.Unleased()
	}
	c.told = append(c.told, c.TakeOutcomes()...)
	return acted, unleased
}

func TestClaimNeedsItsLeaseAndNoToken(t *testing.T) {
	c := newClaimant(t, claimRule)
	for range 3 {
		if acted, unleased := c.step(true, Authority{Asking: true}); acted || !unleased {
			t.Fatalf("acted %v, wants its lease %v", acted, unleased)
		}
	}
	if len(c.told) > 0 {
		t.Errorf("while its lease is asked for: %+v", c.told)
	}
	for range 90 {
		if acted, unleased := c.step(true, Authority{Lacks: "h2 has it"}); acted || !unleased {
			t.Fatalf("acted %v, wants its lease %v", acted, unleased)
		}
	}
	if len(c.told) != 1 || c.told[0].Reason != ReasonLease || c.told[0].Detail != "h2 has it" {
		t.Errorf("a host that stands by says so once: %+v", c.told)
	}
	for what, a := range map[string]Authority{"frozen": {Frozen: true, Leased: true}, "gate": {GateShut: true, Leased: true}} {
		if acted, unleased := c.step(true, a); acted || unleased {
			t.Errorf("%s: acted %v, wants a lease %v", what, acted, unleased)
		}
	}
	c.Leased(c.now, "vip", up0)
	if acted, _ := c.step(true, Authority{Leased: true, SameRule: 5}); !acted {
		t.Fatal("with its lease it does not act")
	}
}

// What a claim did lasts: nothing is asked of its effect, until it is lost.
func TestClaimLastsUntilItIsOverOrLost(t *testing.T) {
	c := newClaimant(t, claimRule)
	leased := Authority{Leased: true}
	if acted, _ := c.step(true, leased); !acted {
		t.Fatal("it does not act")
	}
	for range 1200 {
		if acted, _ := c.step(true, leased); acted {
			t.Fatal("it acts again though it has what it wants")
		}
	}
	data, err := c.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	next := &claimant{Engine: NewEngine(Config{Boot: "b", Seed: 1}), t: t, now: c.now}
	if err := next.Restore(next.now, data, nil); err != nil {
		t.Fatal(err)
	}
	next.SetRules(next.now, compile(t, claimRule))
	for range 60 {
		if acted, _ := next.step(true, leased); acted {
			t.Fatal("another life of the agent acts again")
		}
	}
	c.Lapsed(c.now, "vip", up0)
	if acted, _ := c.step(true, leased); !acted {
		t.Error("it does not want back what it has lost")
	}
	c.told = nil
	c.step(false, leased)
	if acted, _ := c.step(false, leased); acted || len(c.told) != 1 || c.told[0].Kind != Cleared {
		t.Errorf("over: acted %v, %+v", acted, c.told)
	}
	for _, o := range c.told {
		if o.NeedsHuman() {
			t.Errorf("calls for a person: %+v", o)
		}
	}
}

// What a claim did lasts also where the journal alone knows of it: the agent was killed
// before its next snapshot. One of which nobody knows how it ended is lost.
func TestClaimOfTheJournalLasts(t *testing.T) {
	for _, known := range []bool{true, false} {
		c := newClaimant(t, claimRule)
		c.step(false, Authority{Leased: true})
		data, err := c.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		if acted, _ := c.step(true, Authority{Leased: true}); !acted {
			t.Fatal("it does not act")
		}
		journal := c.TakeRecords()
		if !known {
			journal = slices.DeleteFunc(journal, func(r Record) bool { return r.Kind == RecordResult })
		}
		next := &claimant{Engine: NewEngine(Config{Boot: "b", Seed: 1}), t: t, now: c.now}
		if err := next.Restore(next.now, data, journal); err != nil {
			t.Fatal(err)
		}
		next.SetRules(next.now, compile(t, claimRule))
		again := 0
		for range 120 {
			if acted, _ := next.step(true, Authority{Leased: true}); acted {
				again++
			}
		}
		if known && again > 0 || !known && again != 1 {
			t.Errorf("result known %v: acts %d times again", known, again)
		}
		for _, o := range next.told {
			if o.NeedsHuman() {
				t.Errorf("result known %v: calls for a person: %+v", known, o)
			}
		}
	}
}

func TestClaimNeedsAConditionThatLasts(t *testing.T) {
	c, err := NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	bad := intent.Reflex{Name: "vip", Scope: "copy:web", When: "exit.count > 0", Act: []intent.Action{{Op: "claim", Target: "10.0.0.10/24"}}, Cooldown: intent.Second, Limit: "3/10m"}
	if _, err := c.Compile(bad, ""); err == nil || !strings.Contains(err.Error(), "is an instant") {
		t.Errorf("an instant: %v", err)
	}
}

// A claim that failed, as on a disk that was full or where the host was so late that
// its lease was over, disturbed nothing: the rule goes on to want the address within its
// limit, and what failed before it had it counts no more.
func TestClaimThatFailsIsTriedAgain(t *testing.T) {
	leased := Authority{Leased: true}
	c := newClaimant(t, claimRule)
	c.fails = 2
	acts := 0
	for range 30 {
		if acted, _ := c.step(true, leased); acted {
			acts++
		}
	}
	if acts != 3 {
		t.Fatalf("two claims fail: acts %d times, want a third", acts)
	}
	for range 3 {
		for range 600 {
			c.step(true, leased)
		}
		c.fails = 1
		c.Lapsed(c.now, "vip", up0)
		c.step(true, leased)
		if got := c.Explain(c.now, "vip")[0].Tries; got != 0 || c.fails != 0 {
			t.Fatalf("one claim fails after long use: %d counted before it", got)
		}
	}
	for _, o := range c.told {
		if o.NeedsHuman() {
			t.Errorf("calls for a person: %+v", o)
		}
	}
	c.fails = 1000
	c.Lapsed(c.now, "vip", up0)
	for range 60 {
		c.step(true, leased)
	}
	if x := c.Explain(c.now, "vip")[0]; x.State != "exhausted" || !slices.ContainsFunc(c.told, func(o Outcome) bool { return o.NeedsHuman() && o.Reason == ReasonLimit }) {
		t.Errorf("all claims fail: %+v, told %+v", x, c.told)
	}
}
