package virtual

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/intent"
)

// restless is an app of one copy that wants to be elsewhere, wherever it runs: a
// condition that is bad everywhere and that no act makes better.
func restless(name string) intent.App {
	a := App(name, 1)
	a.Update.HealthyFor = intent.Duration(time.Second)
	a.Reflexes = []intent.Reflex{{
		Name: "flee", When: "app.running", For: intent.Duration(5 * time.Second), Act: []intent.Action{{Op: "evict"}},
		Limit: "100/10m", Cooldown: intent.Duration(time.Second),
	}}
	return a
}

// atOnce has reflexes in force on all hosts as soon as they are declared.
func atOnce(t *testing.T, m *Mesh) {
	t.Helper()
	if err := m.Set(t.Context(), api.MeshSettings{ReflexStage: "off"}); err != nil {
		t.Fatal(err)
	}
}

// act is one act of a reflex, as its host told it.
type act struct {
	host string
	at   time.Time
	events.ReflexFired
}

// acts collects what reflexes of a class did on the hosts that answer, in order of
// time.
func acts(t *testing.T, m *Mesh) (out []act, refused map[string]int) {
	t.Helper()
	refused = map[string]int{}
	for _, h := range m.Hosts {
		err := h.Stream(t.Context(), "/v1/local/events", url.Values{"since": {"24h"}, "filter": {"reflex.>"}}, func(line []byte) bool {
			var e events.Event
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatal(err)
			}
			a := act{host: h.Name, at: e.Time}
			switch e.Type {
			case "dev.ganglion.reflex.fired":
				if err := json.Unmarshal(e.Data, &a.ReflexFired); err != nil {
					t.Fatal(err)
				}
				out = append(out, a)
			case "dev.ganglion.reflex.suppressed":
				var s events.ReflexSuppressed
				if err := json.Unmarshal(e.Data, &s); err != nil {
					t.Fatal(err)
				}
				why, _, _ := strings.Cut(s.Reason, ";")
				why, _, _ = strings.Cut(why, " (")
				refused[why]++
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(out, func(a, b act) int { return a.at.Compare(b.at) })
	return out, refused
}

// whenEnded gives acts of which an agent's death left the result unknown, and which
// its next life told, the time of that death.
func whenEnded(list []act, deaths map[string][]time.Time) []act {
	for i, a := range list {
		if a.Result != "the agent ended before it was known" {
			continue
		}
		for _, at := range deaths[a.host] {
			if !at.After(a.at) {
				list[i].at = at
			}
		}
	}
	slices.SortFunc(list, func(a, b act) int { return a.at.Compare(b.at) })
	return list
}

// withinBudget holds acts against the budget of the mesh (S7).
func withinBudget(t *testing.T, list []act, hosts int) {
	t.Helper()
	most := topology.Budget(hosts)
	for i := most; i < len(list); i++ {
		if list[i].at.Sub(list[i-most].at) < topology.BudgetWindow {
			t.Errorf("%d acts within %s, %d are allowed: %+v to %+v", most+1, list[i].at.Sub(list[i-most].at), most, list[i-most], list[i])
		}
	}
}

// TestEvict: a copy goes elsewhere by the ordinary way, once, for a token; and a
// host that wants to be emptied is.
func TestEvict(t *testing.T) {
	Run(t, Config{Hosts: 4, Seed: 1, Surge: 1}, func(t *testing.T, m *Mesh) {
		m.Form()
		m.AwaitVoters(60*time.Second, 3)
		atOnce(t, m)
		m.Apply(restless("web"))
		m.AwaitReady(30*time.Second, "web", 1)
		st, err := m.Status(t.Context(), "web")
		if err != nil {
			t.Fatal(err)
		}
		from := st.Copies[0].Host
		m.Await(60*time.Second, "web elsewhere", func(ctx context.Context) error {
			st, err := m.Status(ctx, "web")
			if err == nil && (len(st.Copies) != 1 || st.Copies[0].Host == from || st.Ready != 1) {
				err = fmt.Errorf("%+v", st.Copies)
			}
			return err
		})
		Sleep(2 * time.Minute)
		list, refused := acts(t, m)
		if len(list) != 1 || list[0].Result != "ok" || list[0].host != from {
			t.Errorf("acts: %+v", list)
		}
		if len(refused) == 0 {
			t.Error("nothing was said of what was not done")
		}
		withinBudget(t, list, 4)
		emptied(t, m, from)
	})
}

// emptied has a host that has a token again drain itself, and holds that it is.
func emptied(t *testing.T, m *Mesh, host string) {
	t.Helper()
	if err := m.Delete(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	m.Apply(App("rest", 6))
	m.AwaitReady(30*time.Second, "rest", 6)
	Sleep(topology.BudgetWindow - time.Minute)
	last := intent.Reflex{
		Name: "last", When: "leader.self", For: intent.Duration(5 * time.Second), Act: []intent.Action{{Op: "drain_self"}},
		Limit: "1/1h", Cooldown: intent.Duration(time.Hour),
	}
	leader := m.Leader().Name
	err := m.Ask(t.Context(), func(ctx context.Context, h *Host) error {
		return h.Post(ctx, "/v1/apply", nil, api.ApplyRequest{Intents: intent.Intents{Reflexes: []intent.Reflex{last}}}, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	m.Await(4*time.Minute, leader+" drained", func(ctx context.Context) error {
		var hosts []api.Host
		err := m.Get(ctx, "/v1/hosts", nil, &hosts)
		for _, h := range hosts {
			if err == nil && (h.Drain == topology.DrainDrained) != (h.Name == leader) {
				err = fmt.Errorf("%s is %s", h.Name, h.Drain)
			}
		}
		return err
	})
	m.AwaitReady(30*time.Second, "rest", 6)
}

// TestCommonCause: what every host wants at once none does, for each hears of the
// others, with a leader and without; and it is said.
func TestCommonCause(t *testing.T) {
	Run(t, Config{Hosts: 5, Seed: 3}, func(t *testing.T, m *Mesh) {
		m.Form()
		m.AwaitVoters(60*time.Second, 3)
		atOnce(t, m)
		m.Apply(App("web", 5))
		m.AwaitReady(30*time.Second, "web", 5)
		flee := intent.Reflex{
			Name: "flee", When: "peers.alive < 100", Act: []intent.Action{{Op: "drain_self"}}, Limit: "100/10m", Cooldown: intent.Duration(time.Second),
		}
		m.Await(10*time.Second, "declare", func(ctx context.Context) error {
			return m.Ask(ctx, func(ctx context.Context, h *Host) error {
				return h.Post(ctx, "/v1/apply", nil, api.ApplyRequest{Intents: intent.Intents{Reflexes: []intent.Reflex{flee}}}, nil)
			})
		})
		Sleep(2 * time.Minute)
		m.CutLinks(func(from, to string) bool { return (from <= "h3") != (to <= "h3") })
		Sleep(time.Minute)
		m.Leader(m.Hosts[:3]...).Kill()
		Sleep(time.Minute)
		m.Heal()
		for _, h := range m.Hosts {
			if !h.Up() {
				h.Start()
			}
		}
		Sleep(30 * time.Second)
		list, refused := acts(t, m)
		if len(list) > 0 {
			t.Errorf("acts on a common cause: %+v", list)
		}
		said := 0
		for why, n := range refused {
			if strings.HasPrefix(why, "the same rule fires on other hosts") {
				said += n
			}
		}
		if said < 5 {
			t.Errorf("said %d times; refused: %v", said, refused)
		}
	})
}

// TestBudgetUnderFaults: five rules that want to act all the time, on islands, under
// leaders that flap and agents that die: no more acts than the budget has (S7), none
// once the mesh has shown that it is frozen (S8), none while too many hosts look
// unhealthy (S9); and after that there are acts again.
func TestBudgetUnderFaults(t *testing.T) {
	seeds(t, 1, func(t *testing.T, seed uint64) {
		Run(t, Config{Hosts: 5, Seed: seed, Surge: 1}, func(t *testing.T, m *Mesh) {
			b := &budgetRun{t: t, m: m, rng: rand.New(rand.NewPCG(seed, 77)), deaths: map[string][]time.Time{}}
			m.Form()
			m.AwaitVoters(60*time.Second, 3)
			atOnce(t, m)
			for _, name := range []string{"a", "b", "c", "d", "e"} {
				m.Apply(restless(name))
			}
			b.awaitAct("a first act")
			b.rage(7 * time.Minute)
			b.held(5*time.Minute, 3*time.Minute)
			b.awaitAct("an act after the gate has opened")
			list, refused := acts(t, m)
			list = whenEnded(list, b.deaths)
			withinBudget(t, list, len(m.Hosts))
			for _, a := range list {
				for _, not := range b.never {
					if a.at.After(not[0]) && a.at.Before(not[1]) {
						t.Errorf("between %s and %s nothing was to be done: %+v", not[0], not[1], a)
					}
				}
			}
			t.Logf("%d acts, %d elections, %d deaths; refused: %v", len(list), m.Elections(), len(b.deaths), refused)
			if m.Elections() < 2 || len(b.deaths) == 0 {
				t.Errorf("%d leaders, %d agents died: the faults did not bite", m.Elections(), len(b.deaths))
			}
		})
	})
}

type budgetRun struct {
	t      *testing.T
	m      *Mesh
	rng    *rand.Rand
	deaths map[string][]time.Time // of agents, by host
	never  [][2]time.Time         // in which nothing may be done
	done   int                    // acts that were there when it was asked last
}

func (b *budgetRun) kill(h *Host) {
	b.deaths[h.Name] = append(b.deaths[h.Name], time.Now())
	h.Kill()
}

// awaitAct waits until there is another act than those before.
func (b *budgetRun) awaitAct(what string) {
	b.t.Helper()
	b.m.Await(30*time.Minute, what, func(context.Context) error {
		list, refused := acts(b.t, b.m)
		if len(list) <= b.done {
			Sleep(20 * time.Second)
			return fmt.Errorf("%d acts; refused: %v", len(list), refused)
		}
		b.done = len(list)
		return nil
	})
}

// rage cuts the mesh into two, three or five islands, has leaders die and agents
// restart, and mends it all.
func (b *budgetRun) rage(d time.Duration) {
	for until := time.Now().Add(d); time.Now().Before(until); {
		switch b.rng.IntN(4) {
		case 0, 1:
			n, island := []int{2, 3, 5}[b.rng.IntN(3)], map[string]int{}
			for i, at := range b.rng.Perm(len(b.m.Hosts)) {
				island[b.m.Hosts[at].Name] = i % n
			}
			b.m.CutLinks(func(from, to string) bool { return island[from] != island[to] })
		case 2:
			ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Second)
			about, err := b.m.About(ctx)
			cancel()
			if err != nil || about.Leader == "" {
				continue
			}
			if h := b.m.Host(about.Leader); h.Up() {
				b.kill(h)
			}
		default:
			if h := b.m.Hosts[b.rng.IntN(len(b.m.Hosts))]; h.Up() {
				b.kill(h)
			}
		}
		Sleep(time.Duration(10+b.rng.IntN(50)) * time.Second)
		if b.rng.IntN(2) == 0 {
			b.mend()
		}
	}
	b.mend()
	b.m.AwaitMembers(2*time.Minute, len(b.m.Hosts))
}

func (b *budgetRun) mend() {
	b.m.Heal()
	for _, h := range b.m.Hosts {
		if !h.Up() {
			h.Start()
		}
	}
}

// held freezes the mesh until there is a token again, which nobody may spend; has
// two of five hosts die, who are not needed for a quorum; and thaws it while the gate
// is shut, for a while.
func (b *budgetRun) held(frozen, shut time.Duration) {
	m := b.m
	voters := m.AwaitVoters(time.Minute, 3)
	if err := m.Hosts[0].Post(b.t.Context(), "/v1/freeze", nil, api.FreezeRequest{}, nil); err != nil {
		b.t.Fatal(err)
	}
	awaitBrakes(m, time.Minute, len(m.Hosts), m.Hosts...)
	from := time.Now()
	Sleep(frozen)
	var rest []*Host
	for _, h := range m.Hosts {
		if slices.Contains(voters, h.Name) {
			rest = append(rest, h)
			continue
		}
		b.deaths[h.Name] = append(b.deaths[h.Name], time.Now())
		h.Crash()
	}
	Sleep(15 * time.Second) // until all have seen it (L2)
	m.Await(time.Minute, "thaw", func(ctx context.Context) error {
		_, err := thaw(ctx, rest[0])
		return err
	})
	awaitBrakes(m, time.Minute, 0, rest...)
	Sleep(shut)
	b.never = append(b.never, [2]time.Time{from, time.Now()})
	b.mend()
	m.AwaitMembers(2*time.Minute, len(m.Hosts))
}
