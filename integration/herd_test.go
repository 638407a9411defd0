package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/events"
	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// herd is a mesh of five hosts that have one metric, and rules which want to leave
// as soon as that goes bad: one, the same on every host, empties the host, and one in
// each of five apps sends its copy elsewhere. No act makes the metric better.
type herd struct {
	*rig.Rig
	t      *testing.T
	rnd    *rand.Rand
	metric string // file that the sense of every host reads
	rounds int
}

const herdHosts = 5

func newHerd(t *testing.T, seed uint64) *herd {
	t.Helper()
	h := &herd{Rig: rig.New(t, herdHosts), t: t, rnd: rand.New(rand.NewPCG(seed, 1))}
	dir := newWitness(t).dir // others may read it: senses run without rights
	h.metric = filepath.Join(dir, "metric")
	h.turn("0")
	h.Start("--allow-run")
	awaitVoters(t, h.Rig, 3)
	intents := fmt.Sprintf("sense \"metric\" {\n  command = [\"/bin/cat\", %q]\n  every = \"1s\"\n}\n%s", h.metric, fleeing("shed", "drain_self()"))
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		intents += fmt.Sprintf("app %q {\n  run { command = [\"/bin/sleep\", \"100000\"] }\n%s}\n", name, fleeing("flee", "evict()"))
	}
	first := h.Hosts[0]
	first.Must("mesh", "set", "reflex_stage=off") // all of them at once, from the start
	first.Must("apply", first.File("herd.hcl", intents))
	for _, x := range h.Hosts {
		rig.Await(t, 60*time.Second, func() error { return watches(x) })
	}
	return h
}

func fleeing(name, act string) string {
	return fmt.Sprintf("reflex %q {\n  scope = \"sense:metric\"\n  when = \"sense.value > 1.0\"\n  act = [%s]\n  cooldown = \"1s\"\n  limit = \"100/10m\"\n}\n", name, act)
}

// watches tells whether a host knows that the metric is good.
func watches(h *rig.Host) error {
	var rules []api.LocalReflex
	if err := h.Get("/v1/local/reflexes", &rules); err != nil {
		return err
	}
	for _, l := range rules {
		if len(l.Targets) != 1 || l.Targets[0].Truth != "false" {
			return fmt.Errorf("a rule of %s knows nothing: %+v", h.Name, l)
		}
	}
	if len(rules) == 0 {
		return fmt.Errorf("%s has no rules", h.Name)
	}
	return nil
}

// turn sets the metric of all hosts at once.
func (h *herd) turn(value string) {
	h.t.Helper()
	err := os.WriteFile(h.metric+".new", []byte(value+"\n"), 0o644)
	if err == nil {
		err = os.Rename(h.metric+".new", h.metric)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// leader is who leads, once all who run agree.
func (h *herd) leader() (lead *rig.Host) {
	h.t.Helper()
	rig.Await(h.t, 90*time.Second, func() error {
		names := map[string]bool{}
		for _, x := range h.Hosts {
			var m api.Mesh
			if !x.Running() {
				continue
			}
			if err := x.Get("/v1/mesh", &m); err != nil {
				return err
			}
			names[m.Leader] = true
		}
		for _, x := range h.Hosts {
			if lead = x; len(names) == 1 && names[x.Name] && x.Running() {
				return nil
			}
		}
		return fmt.Errorf("they name %v as their leader", slices.Collect(maps.Keys(names)))
	})
	return lead
}

// round cuts the mesh into islands, does harm to some, turns the metric bad, and mends
// all that before a host that is cut off is seen as failed: else the gate would shut,
// and nothing else be tried.
func (h *herd) round(islands int, harm func(lead *rig.Host) (mend func())) {
	h.t.Helper()
	h.rounds++
	lead := h.leader()
	groups := make([][]*rig.Host, islands)
	for i, at := range h.rnd.Perm(len(h.Hosts)) {
		groups[i%islands] = append(groups[i%islands], h.Hosts[at])
	}
	h.turn("2")
	h.Partition(groups...)
	begun := time.Now()
	mend := harm(lead)
	pause(unseen - time.Since(begun))
	h.Heal()
	mend()
	pause(time.Second) // what was asked on an island is answered
}

// stopped has an agent stand still for longer than a leader may.
func stopped(h *rig.Host) (mend func()) {
	h.Signal(syscall.SIGSTOP)
	return func() { h.Signal(syscall.SIGCONT) }
}

// reborn has an agent die and start again.
func (h *herd) reborn(x *rig.Host) {
	h.t.Helper()
	x.Kill()
	x.StartAgent("--allow-run")
}

// told is what a host's recorder has, in order.
func (h *herd) told(x *rig.Host, filter string) (list []events.Event) {
	h.t.Helper()
	rig.Await(h.t, 30*time.Second, func() error {
		list = nil
		c := x.Client()
		defer c.CloseIdle()
		return c.Stream(h.t.Context(), "/v1/local/events", url.Values{"since": {"1h"}, "filter": {filter}}, func(line []byte) bool {
			var e events.Event
			if err := json.Unmarshal(line, &e); err != nil {
				h.t.Fatalf("event %q: %v", line, err)
			}
			list = append(list, e)
			return true
		})
	})
	return list
}

// bolt is one act of a rule, begun or not, as its host told it.
type bolt struct {
	host *rig.Host
	at   time.Time
	events.ReflexFired
}

// bolts is what the rules have done on all hosts that run, and why they have not,
// by host. None may be told between a freeze and its thaw (S8).
func (h *herd) bolts() (list []bolt, refused map[string]map[string]int) {
	h.t.Helper()
	refused = map[string]map[string]int{}
	for _, x := range h.Hosts {
		why := map[string]int{}
		refused[x.Name] = why
		if !x.Running() {
			continue
		}
		frozen := false
		for _, e := range h.told(x, ">") {
			switch e.Kind() {
			case "freeze.frozen":
				frozen = true
			case "freeze.thawed":
				frozen = false
			case "reflex.fired":
				b := bolt{host: x, at: e.Time}
				if err := json.Unmarshal(e.Data, &b.ReflexFired); err != nil {
					h.t.Fatal(err)
				}
				list = append(list, b)
				if frozen {
					h.t.Errorf("%s acted after it had shown that it is frozen: %+v", x.Name, b.ReflexFired)
				}
			case "reflex.suppressed":
				var s events.ReflexSuppressed
				if err := json.Unmarshal(e.Data, &s); err != nil {
					h.t.Fatal(err)
				}
				reason, _, _ := strings.Cut(s.Reason, ";")
				reason, _, _ = strings.Cut(reason, " (")
				why[reason]++
			}
		}
	}
	slices.SortFunc(list, func(a, b bolt) int { return a.at.Compare(b.at) })
	return list, refused
}

// elections counts the leaders that there were.
func (h *herd) elections() (n int) {
	for _, x := range h.Hosts {
		for _, e := range h.told(x, "leader.>") {
			if e.Kind() == "leader.elected" {
				n++
			}
		}
	}
	return n
}

// sum adds up over hosts.
func sum(refused map[string]map[string]int) map[string]int {
	all := map[string]int{}
	for _, why := range refused {
		for reason, n := range why {
			all[reason] += n
		}
	}
	return all
}

// TestBudgetOnIslands: a metric goes bad on all hosts at once, again and again, while
// the mesh is cut into two, three and five islands, its leaders stand still or die,
// and agents are killed, who has acted among them. All hosts together act as often
// as the budget allows (S7), which is once, for the whole run is shorter than its window; and
// that once they do.
func TestBudgetOnIslands(t *testing.T) {
	t.Parallel()
	h := newHerd(t, 7)
	begun := time.Now()
	for _, islands := range []int{5, 3, 2} {
		h.round(islands, stopped)
		h.turn("0")
	}
	h.turn("2")
	var first bolt
	took := rig.Await(t, 5*time.Minute, func() error { // a host that stood still mistrusts itself for a minute
		list, refused := h.bolts()
		if len(list) == 0 {
			return fmt.Errorf("nobody has acted: %v", refused)
		}
		first = list[0]
		return nil
	})
	t.Logf("%s %s after %s: %s", first.host.Name, first.Action, took.Round(time.Millisecond), first.Result)
	for _, islands := range []int{2, 3, 5} {
		h.turn("0")
		h.round(islands, func(lead *rig.Host) func() {
			h.reborn(lead)
			return func() { h.reborn(first.host) }
		})
	}
	h.AwaitHosts(herdHosts, 60*time.Second)
	lead := h.leader()
	lead.Must("apply", lead.File("more.hcl", sleepers("more", 2)))
	list, refused := h.bolts()
	why, elections := sum(refused), h.elections()
	t.Logf("%d acts, %d elections, %d rounds in %s; refused: %v", len(list), elections, h.rounds, time.Since(begun).Round(time.Second), why)
	if most := topology.Budget(herdHosts); len(list) > most && list[most].at.Sub(list[0].at) < topology.BudgetWindow {
		t.Errorf("%d acts, %d are allowed: %+v", len(list), most, list)
	}
	if elections < 4 || len(why) < 2 { // one at the start, and one for each leader that died
		t.Errorf("%d elections, refused %v: the faults did not bite", elections, why)
	}
}

// TestFreezeAndGateHoldTheHerd: with a token to be had and everybody wanting it, no
// host acts once it has shown a freeze (S8), nor while two of five hosts are dead
// (S9), whatever happens to leaders and agents meanwhile.
func TestFreezeAndGateHoldTheHerd(t *testing.T) {
	t.Parallel()
	h := newHerd(t, 8)
	h.Hosts[h.rnd.IntN(herdHosts)].Must("freeze")
	awaitFrozen(t, true, h.Hosts...)
	h.round(2, func(lead *rig.Host) func() {
		h.reborn(lead)
		return func() { h.reborn(others(h.Rig, lead)[0]) }
	})
	h.awaitRefused("frozen", h.Hosts...)

	lead := h.leader()
	dead := siteWithoutQuorum(t, h.Rig)
	rest := others(h.Rig, dead...)
	for _, x := range dead {
		x.Crash()
	}
	h.AwaitHosts(herdHosts-len(dead), 60*time.Second)
	rig.Await(t, 60*time.Second, func() error {
		if out, errs, code := lead.CLI("thaw"); code != 0 {
			return errors.New(out + errs)
		}
		return nil
	})
	awaitFrozen(t, false, rest...)
	h.turn("0")
	h.awaitCalm(rest)
	h.turn("2")
	h.awaitRefused("too many hosts look unhealthy", rest...)
	h.reborn(h.leader())
	h.leader()
	pause(unseen) // in which they would act
	for _, x := range dead {
		x.Reboot()
		x.StartAgent("--allow-run")
	}
	h.AwaitHosts(herdHosts, 60*time.Second)
	list, refused := h.bolts()
	elections := h.elections()
	t.Logf("%d elections; refused: %v", elections, sum(refused))
	if len(list) > 0 {
		t.Errorf("acts: %+v", list)
	}
	if elections < 3 {
		t.Errorf("%d elections: the faults did not bite", elections)
	}
	if os.Getenv("GANGLION_TEST_SOAK") == "" {
		return // the gate opens when it has been calm for two minutes
	}
	rig.Await(t, 6*time.Minute, func() error {
		if list, refused := h.bolts(); len(list) == 0 {
			return fmt.Errorf("nobody acts when nothing holds it: %v", refused)
		}
		return nil
	})
}

// awaitCalm waits until hosts know that the metric is good.
func (h *herd) awaitCalm(hosts []*rig.Host) {
	h.t.Helper()
	for _, x := range hosts {
		rig.Await(h.t, 60*time.Second, func() error { return watches(x) })
	}
}

// awaitRefused waits until each of some hosts has said why it does not act.
func (h *herd) awaitRefused(reason string, hosts ...*rig.Host) {
	h.t.Helper()
	rig.Await(h.t, 2*time.Minute, func() error {
		_, refused := h.bolts()
		for _, x := range hosts {
			if refused[x.Name][reason] == 0 {
				return fmt.Errorf("%s is not refused for %q: %v", x.Name, reason, refused[x.Name])
			}
		}
		return nil
	})
}
