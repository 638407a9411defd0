package reflexes

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// chatter is a mesh whose rules hear what rules tell, on whatever host: engines, and
// a story that comes late, out of order and more than once.
type chatter struct {
	t      *testing.T
	rnd    *rand.Rand
	now    Boot
	hosts  []*chatterer
	rules  int
	hears  [][]bool // by rule: which tellings of which rules, as said
	flight []telling
	told   map[Boot]int // tellings, by second
	ids    int

	acts, deep, own, tooDeep int
}

// telling is one event on its way to one host.
type telling struct {
	at    Boot
	host  int
	id    int
	kind  int // of the rule and of the outcome, as said; -1 for what came by itself
	chain string
}

type chatterer struct {
	e      *Engine
	counts []int64
	seen   []map[int]bool // by rule, the ids that it heard
}

// kinds of what may be told of a rule: that it acted, that it is over, that it was held
// back.
const kinds = 3

// said numbers what may be told.
func said(rule int, k OutcomeKind) int {
	switch k {
	case Finished:
		return rule * kinds
	case Cleared:
		return rule*kinds + 1
	}
	return rule*kinds + 2
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func newChatter(t *testing.T, seed uint64) *chatter {
	rnd := rand.New(rand.NewPCG(seed, 15))
	c := &chatter{t: t, rnd: rnd, rules: 2 + rnd.IntN(4), told: map[Boot]int{}}
	var text strings.Builder
	for r := range c.rules {
		when := []string{"sense.count > 0", "sense.count_1m >= 1", "sense.count_1m >= 2"}[rnd.IntN(3)]
		fmt.Fprintf(&text, "reflex \"r%d\" {\n scope = \"sense:s%d\"\n when = %q\n act = [emit(\"x\")]\n cooldown = %q\n}\n", r, r, when, []string{"0s", "1s", "20s"}[rnd.IntN(3)])
		hears := make([]bool, kinds*c.rules)
		for i := range hears {
			hears[i] = rnd.IntN(2) == 0
		}
		c.hears = append(c.hears, hears)
	}
	for h := range 1 + rnd.IntN(3) {
		one := &chatterer{e: NewEngine(Config{Boot: "boot", Seed: uint64(h)}), counts: make([]int64, c.rules)}
		one.e.SetRules(0, compile(t, text.String()))
		for range c.rules {
			one.seen = append(one.seen, map[int]bool{})
		}
		c.hosts = append(c.hosts, one)
	}
	return c
}

// tell has all hosts hear something, sooner or later, now and then twice.
func (c *chatter) tell(kind int, chain string) {
	c.ids++
	for h := range c.hosts {
		for range 1 + c.rnd.IntN(5)/4 {
			late := time.Duration(c.rnd.IntN(300)) * time.Millisecond
			c.flight = append(c.flight, telling{c.now + late, h, c.ids, kind, chain})
		}
	}
}

// step lets a tenth of a second pass.
func (c *chatter) step() {
	c.now += 100 * time.Millisecond
	var due []telling
	c.flight = slices.DeleteFunc(c.flight, func(m telling) bool {
		if m.at <= c.now {
			due = append(due, m)
		}
		return m.at <= c.now
	})
	c.rnd.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	for h, host := range c.hosts {
		var facts []Fact
		for _, m := range due {
			if m.host == h {
				facts = append(facts, c.heard(host, m)...)
			}
		}
		c.act(host, facts)
	}
}

func (c *chatter) heard(host *chatterer, m telling) (facts []Fact) {
	for r := range c.rules {
		if host.seen[r][m.id] || m.kind >= 0 && !c.hears[r][m.kind] {
			continue
		}
		host.seen[r][m.id] = true
		host.counts[r]++
		f := Fact{Var: SenseCount, Target: Target{ScopeSense, fmt.Sprint("s", r)}, Value: Int(host.counts[r]), At: c.now}
		if m.chain != "" {
			f.Cause = Cause{Kind: CauseChain, Chain: m.chain}
		}
		facts = append(facts, f)
	}
	return facts
}

func (c *chatter) act(host *chatterer, facts []Fact) {
	firings, _ := host.e.Step(c.now, facts)
	for _, f := range firings {
		act, ok := host.e.Permit(c.now, f, Authority{})
		if !ok {
			continue
		}
		c.acts++
		chain := strings.Split(act.Chain, ",")
		if c.deep += btoi(len(chain) == maxDepth); len(chain) > maxDepth {
			c.t.Errorf("%s acted after %q", act.Rule, act.Chain)
		}
		for i, rule := range chain {
			if slices.Contains(chain[:i], rule) {
				c.t.Errorf("%s acted twice in one chain: %q", rule, act.Chain)
			}
		}
		host.e.Done(c.now, act.ID, true, "")
	}
	host.e.TakeRecords()
	for _, o := range host.e.TakeOutcomes() {
		c.own += btoi(o.Reason == ReasonOwnAct)
		c.tooDeep += btoi(o.Reason == ReasonDepth)
		if o.Kind == Fired {
			continue // it is told when it has ended
		}
		c.told[c.now/time.Second]++
		var rule int
		fmt.Sscanf(o.Rule, "r%d", &rule)
		c.tell(said(rule, o.Kind), o.Chain)
	}
}

// TestRulesDoNotAnswerForEver: whatever rules hear of each other, none acts twice in a
// chain nor after two others, and when nothing comes by itself any more they fall
// silent.
func TestRulesDoNotAnswerForEver(t *testing.T) {
	var acts, deep, own, tooDeep int
	for seed := range uint64(1000) {
		c := newChatter(t, seed)
		for range 1 + c.rnd.IntN(4) {
			c.tell(-1, "")
			for range c.rnd.IntN(100) {
				c.step()
			}
		}
		for end := c.now + 10*time.Minute; c.now < end; {
			c.step()
		}
		for s, n := range c.told {
			if s > c.now/time.Second-120 {
				t.Errorf("seed %d: %d things are still told at %d s", seed, n, s)
			}
			if n > 200 {
				t.Errorf("seed %d: %d things are told in one second", seed, n)
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d: %d hosts, %d rules, %d acts", seed, len(c.hosts), c.rules, c.acts)
		}
		acts, deep, own, tooDeep = acts+c.acts, deep+c.deep, own+c.own, tooDeep+c.tooDeep
	}
	t.Logf("%d acts, %d of them on another, %d refused for themselves, %d for depth", acts, deep, own, tooDeep)
	if deep < 1000 || own < 1000 || tooDeep < 1000 {
		t.Error("too few: nothing is proved")
	}
}
