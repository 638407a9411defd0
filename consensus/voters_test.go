package consensus

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const stable = 10 * time.Second

// world is a model of a mesh, its hosts and its Raft configuration, in a time
// of its own.
type world struct {
	now    time.Time
	hosts  []*modelHost
	conf   []server
	leader string
	nextID int

	unlisted map[string]time.Time
	held     Step
	since    time.Time
}

type modelHost struct {
	name   string
	addr   string
	id     string // of its server; empty if it runs none
	alive  bool
	turned time.Time // when alive changed
	gone   bool      // off the roster, for good
	says   bool      // that it leaves, for as long as it is alive
	joined time.Time // when its server came into the configuration
}

func newWorld() *world {
	w := &world{now: time.Unix(1000, 0), unlisted: map[string]time.Time{}}
	h := w.addHost()
	w.start(h)
	w.conf = []server{{id: h.id, addr: h.addr, voter: true}}
	w.leader = h.id
	return w
}

func (w *world) addHost() *modelHost {
	n := len(w.hosts) + 1
	h := &modelHost{name: fmt.Sprintf("h%02d", n), addr: fmt.Sprintf("10.0.0.%d:1", n), alive: true, turned: w.now}
	w.hosts = append(w.hosts, h)
	return h
}

func (w *world) start(h *modelHost) {
	w.nextID++
	h.id, h.joined = fmt.Sprintf("s%03d", w.nextID), w.now
}

// holder is the host whose server this is, nil if that server exists no more.
func (w *world) holder(id string) *modelHost {
	for _, h := range w.hosts {
		if h.id == id {
			return h
		}
	}
	return nil
}

func (w *world) up(id string) bool {
	h := w.holder(id)
	return h != nil && h.alive
}

// intact says that the server's log exists, on a live host or a dead one.
func (w *world) intact(id string, without *modelHost) bool {
	h := w.holder(id)
	return h != nil && h != without && !h.gone
}

func (w *world) voters(ok func(id string) bool) (all, having int) {
	for _, s := range w.conf {
		if s.voter {
			all++
			if ok(s.id) {
				having++
			}
		}
	}
	return all, having
}

// canLose says that the mesh survives the loss of this host's log.
func (w *world) canLose(h *modelHost) bool {
	all, kept := w.voters(func(id string) bool { return w.intact(id, h) })
	return kept >= quorum(all)
}

// mayDie says that the death of this host leaves the mesh a way to heal. One
// that left comes back no more; while it has a vote, its death may take with it
// the quorum that its agent stayed for.
func (w *world) mayDie(h *modelHost) bool {
	if !h.gone || !w.votes(h.id) {
		return true
	}
	all, kept := w.voters(func(id string) bool {
		s := w.holder(id)
		return s != nil && s != h && (s.alive || !s.gone)
	})
	return kept >= quorum(all)
}

// elect makes sure of a leader that can commit, if there can be one.
func (w *world) elect() bool {
	all, up := w.voters(w.up)
	if up < quorum(all) {
		return false
	}
	if !w.up(w.leader) || !w.votes(w.leader) {
		for _, s := range w.conf {
			if s.voter && w.up(s.id) {
				w.leader, w.held = s.id, Step{}
				break
			}
		}
	}
	return true
}

func (w *world) electorate() electorate {
	e := electorate{self: w.leader, now: w.now, stability: stable, servers: slices.Clone(w.conf), contacts: map[string]contact{}}
	listed := map[string]bool{}
	for _, h := range w.hosts {
		if leaving := h.gone && h.says && h.alive; leaving || !h.gone {
			e.candidates = append(e.candidates, Candidate{ID: h.id, Addr: h.addr, Host: h.name, Alive: h.alive, Since: h.turned, Leaving: leaving})
			listed[h.id] = true
		}
	}
	for _, s := range w.conf {
		c := contact{silence: time.Hour}
		if h := w.holder(s.id); h != nil && h.alive {
			c = contact{steady: w.now.Sub(later(h.turned, h.joined)), synced: true}
		} else if h != nil {
			c = contact{silence: w.now.Sub(h.turned)}
		}
		if listed[s.id] {
			delete(w.unlisted, s.id)
		} else if since, ok := w.unlisted[s.id]; ok {
			c.unlisted = w.now.Sub(since)
		} else {
			w.unlisted[s.id] = w.now
		}
		e.contacts[s.id] = c
	}
	return e
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// tend does what Node.Tend does, checks the rules at every step, and says
// whether anything is still to be done.
func (w *world) tend(t *rapid.T) bool {
	if !w.elect() {
		return true
	}
	e := w.electorate()
	plan := planVoters(e)
	for _, h := range w.hosts {
		if slices.Contains(plan.Start, h.name) {
			w.start(h)
		}
		if slices.Contains(plan.Stop, h.name) && h.alive {
			h.id = ""
		}
	}
	s := plan.Step
	if s.Kind == StepNone {
		return len(plan.Start)+len(plan.Stop) > 0
	}
	if s.Kind != w.held.Kind || !slices.Equal(s.Servers, w.held.Servers) {
		w.held, w.since = s, w.now
	}
	if w.now.Sub(w.since) >= s.Hold {
		w.held = Step{}
		w.execute(t, e, plan)
	}
	return true
}

func (w *world) execute(t *rapid.T, e electorate, plan VoterPlan) {
	// What died a moment ago, nobody can know yet.
	heard := func(id string) bool { return id == e.self || e.contacts[id].silence <= freshContact }
	before, answering := w.voters(heard)
	for i, id := range plan.Step.Servers {
		at := slices.IndexFunc(w.conf, func(s server) bool { return s.id == id })
		switch plan.Step.Kind {
		case StepAdd:
			if at >= 0 || slices.ContainsFunc(w.conf, func(s server) bool { return s.addr == plan.Step.Addrs[i] }) {
				t.Fatalf("added twice: %+v to %+v", plan.Step, w.conf)
			}
			w.conf = append(w.conf, server{id: id, addr: plan.Step.Addrs[i]})
			w.holder(id).joined = w.now
		case StepPromote:
			w.checkPromote(t, w.conf[at])
			w.conf[at].voter = true
		case StepDemote, StepRemove:
			w.checkLoss(t, heard, plan, w.conf[at])
			if plan.Step.Kind == StepDemote {
				w.conf[at].voter = false
			} else {
				w.conf = slices.Delete(w.conf, at, at+1)
				if h := w.holder(id); h != nil && h.alive {
					h.id = "" // it sees that it was removed, and is wiped
				}
			}
		case StepTransfer:
			w.leader = id
		default:
			t.Fatalf("unexpected step %+v", plan.Step)
		}
	}
	after, left := w.voters(heard)
	if left < quorum(after) {
		t.Fatalf("step %+v took the quorum: %d of %d answer, before it %d of %d", plan.Step, left, after, answering, before)
	}
	if after > plan.Target+1 && after > before {
		t.Fatalf("step %+v made %d voters, the target is %d", plan.Step, after, plan.Target)
	}
	if plan.Step.Kind == StepPromote && before < plan.Target && before%2 == 1 && len(plan.Step.Servers) == 2 && after%2 == 0 {
		t.Fatalf("step %+v made %d voters", plan.Step, after)
	}
}

func (w *world) checkPromote(t *rapid.T, s server) {
	if s.voter || !w.up(s.id) {
		t.Fatalf("promoted %+v, which votes already or is down", s)
	}
}

func (w *world) checkLoss(t *rapid.T, heard func(string) bool, plan VoterPlan, s server) {
	if s.id == w.leader {
		t.Fatalf("the leader takes its own vote: %+v", plan.Step)
	}
	if !s.voter {
		return
	}
	voters, answering := w.voters(heard)
	superseded := plan.Step.Kind == StepRemove
	if superseded && w.holder(s.id) != nil {
		t.Fatalf("removed %+v with its vote and its log", s)
	}
	if heard(s.id) {
		answering--
		if h := w.holder(s.id); h != nil && !h.gone && (voters <= plan.Target || plan.Step.Hold < stable) {
			t.Fatalf("demoted %+v, which answers, with %d voters of %d", s, voters, plan.Target)
		}
	} else if voters <= plan.Target && voters%2 == 1 && !superseded {
		t.Fatalf("took the vote of %+v, which is down, with no replacement: %d voters of %d", s, voters, plan.Target)
	}
	if answering < min(quorum(voters), plan.Target) {
		t.Fatalf("step %+v leaves %d answering voters of a quorum of %d", plan.Step, answering, quorum(voters))
	}
}

func (w *world) pick(t *rapid.T, what string, ok func(*modelHost) bool) *modelHost {
	var able []*modelHost
	for _, h := range w.hosts {
		if ok(h) {
			able = append(able, h)
		}
	}
	if len(able) == 0 {
		t.Skip("no host to " + what)
	}
	return rapid.SampledFrom(able).Draw(t, what)
}

func (h *modelHost) turn(alive bool, now time.Time) { h.alive, h.turned = alive, now }

func TestVoterPolicyKeepsItsRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		for range rapid.IntRange(0, 8).Draw(t, "hosts") {
			w.addHost()
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) {},
			"pass": func(t *rapid.T) {
				for range rapid.IntRange(1, 15).Draw(t, "seconds") {
					w.now = w.now.Add(time.Second)
					w.tend(t)
				}
			},
			"join": func(t *rapid.T) {
				if len(w.hosts) > 12 {
					t.Skip("enough")
				}
				w.addHost()
			},
			"die": func(t *rapid.T) {
				w.pick(t, "die", func(h *modelHost) bool { return h.alive && w.mayDie(h) }).turn(false, w.now)
			},
			"wake": func(t *rapid.T) {
				w.pick(t, "wake", func(h *modelHost) bool { return !h.alive && !h.gone }).turn(true, w.now)
			},
			"lose its disk": func(t *rapid.T) {
				h := w.pick(t, "lose its disk", func(h *modelHost) bool { return h.id != "" && w.canLose(h) })
				h.id = ""
			},
			"leave": func(t *rapid.T) {
				h := w.pick(t, "leave", func(h *modelHost) bool { return !h.gone && w.canLose(h) && w.roster() > 1 })
				h.gone = true
				if rapid.Bool().Draw(t, "its agent runs on") {
					h.says = rapid.Bool().Draw(t, "it says so")
					return
				}
				h.turn(false, w.now)
			},
		})
		w.settle(t)
	})
}

func (w *world) votes(id string) bool {
	return slices.ContainsFunc(w.conf, func(s server) bool { return s.voter && s.id == id })
}

func (w *world) roster() (n int) {
	for _, h := range w.hosts {
		if !h.gone {
			n++
		}
	}
	return n
}

// settle heals everything and demands that the mesh comes to rest with the
// right number of voters, all of them well.
func (w *world) settle(t *rapid.T) {
	for _, h := range w.hosts {
		if !h.alive && !h.gone {
			h.turn(true, w.now)
		}
	}
	quiet := 0
	for range 1000 {
		w.now = w.now.Add(time.Second)
		for _, h := range w.hosts {
			if h.gone && h.alive && !w.votes(h.id) { // an agent that leaves stays until it has no vote
				h.turn(false, w.now)
			}
		}
		if w.tend(t) {
			quiet = 0
		} else if quiet++; quiet > 30 {
			break
		}
	}
	want := targetVoters(w.roster())
	all, up := w.voters(w.up)
	if quiet <= 30 || all != want || up != want || len(w.conf) != want {
		t.Fatalf("at rest: %v; %d voters, %d well, %d servers; want %d of each\n%+v", quiet > 30, all, up, len(w.conf), want, w.conf)
	}
}

func TestVoterPolicyIgnoresOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		for range rapid.IntRange(1, 8).Draw(t, "hosts") {
			w.addHost()
		}
		for range rapid.IntRange(0, 40).Draw(t, "seconds") {
			w.now = w.now.Add(time.Second)
			if rapid.IntRange(0, 9).Draw(t, "turn") == 0 {
				h := w.pick(t, "turn", func(*modelHost) bool { return true })
				h.turn(!h.alive, w.now)
			}
			w.tend(t)
		}
		e := w.electorate()
		want := planVoters(e)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		rng.Shuffle(len(e.servers), func(i, j int) { e.servers[i], e.servers[j] = e.servers[j], e.servers[i] })
		rng.Shuffle(len(e.candidates), func(i, j int) { e.candidates[i], e.candidates[j] = e.candidates[j], e.candidates[i] })
		if got := planVoters(e); !reflect.DeepEqual(got, want) {
			t.Fatalf("in another order: %+v, before %+v", got, want)
		}
	})
}

// hostsOf is an electorate of n hosts with servers s1…sn, of which the first
// voters vote, and all are well.
func hostsOf(n, members, voters int) electorate {
	now := time.Unix(5000, 0)
	e := electorate{self: "s1", now: now, stability: stable, contacts: map[string]contact{}}
	for i := 1; i <= n; i++ {
		id, addr := fmt.Sprintf("s%d", i), fmt.Sprintf("a%d:1", i)
		e.candidates = append(e.candidates, Candidate{ID: id, Addr: addr, Host: fmt.Sprintf("h%d", i), Alive: true, Since: now.Add(-time.Hour)})
		if i <= members {
			e.servers = append(e.servers, server{id: id, addr: addr, voter: i <= voters})
			e.contacts[id] = contact{synced: true, steady: time.Hour}
		}
	}
	return e
}

func (e electorate) kill(i int, ago time.Duration) electorate {
	id := e.candidates[i-1].ID
	e.candidates[i-1].Alive, e.candidates[i-1].Since = false, e.now.Add(-ago)
	e.contacts[id] = contact{silence: ago}
	return e
}

func (e electorate) leave(i int) electorate {
	e.candidates[i-1].Leaving = true
	return e
}

// fresh says that the server of host i has just come up.
func (e electorate) fresh(i int) electorate {
	e.candidates[i-1].Since = e.now
	e.contacts[e.candidates[i-1].ID] = contact{synced: true}
	return e
}

// shrunk is a mesh of three of which one host has left a while ago and still
// answers, and another has just died: its vote has to go first, because the
// leader alone is no quorum of two.
func shrunk() electorate {
	e := hostsOf(3, 3, 3).kill(2, 9*time.Second)
	e.candidates = e.candidates[:2]
	e.contacts["s3"] = contact{synced: true, steady: time.Hour, unlisted: 11 * time.Second}
	return e
}

func TestVoterPolicySteps(t *testing.T) {
	for _, c := range []struct {
		name string
		e    electorate
		want string
	}{
		{"all is well", hostsOf(3, 3, 3), " []"},
		{"nobody is known", electorate{self: "s1", servers: []server{{id: "s1", voter: true}}}, " []"},
		{"three hosts, one server", hostsOf(3, 1, 1), "add [s2]"},
		{"one is ready", hostsOf(3, 2, 1), "add [s3]"},
		{"both are ready", hostsOf(3, 3, 1), "promote [s2 s3]"},
		{"the pair was cut short", hostsOf(3, 3, 2), "promote [s3]"},
		{"seven hosts", hostsOf(7, 5, 3), "promote [s4 s5]"},
		{"dead for 9 s", hostsOf(4, 4, 3).kill(2, 9*time.Second), "remove [s4]"},
		{"dead for 11 s, with a spare", hostsOf(4, 4, 3).kill(2, 11*time.Second), "promote [s4]"},
		{"dead for 11 s, spare not added", hostsOf(4, 3, 3).kill(2, 11*time.Second), "add [s4]"},
		{"replaced", hostsOf(4, 4, 4).kill(2, 11*time.Second), "demote [s2]"},
		{"one of three is lost, one answers no more", shrunk(), "demote [s2]"},
		{"demoted", hostsOf(4, 4, 4).kill(4, 11*time.Second), "demote [s4]"},
		{"dead, nobody to replace it", hostsOf(3, 3, 3).kill(3, time.Hour), " []"},
		{"two hosts left of three", hostsOf(2, 2, 2), "demote [s2]"},
		{"no vote, not needed", hostsOf(2, 2, 1), "remove [s2]"},
		{"one of three leaves", hostsOf(3, 3, 3).leave(3), "demote [s3]"},
		{"demoted, it leaves", hostsOf(3, 3, 2).leave(3), "remove [s3]"},
		{"one of two leaves and leads", hostsOf(2, 2, 2).leave(1), "transfer [s2]"},
		{"the only voter leaves", hostsOf(2, 1, 1).leave(1), "add [s2]"},
		{"its heir is caught up", hostsOf(2, 2, 1).fresh(2).leave(1), "promote [s2]"},
		{"one of four leaves, with a spare", hostsOf(4, 4, 3).fresh(4).leave(2), "promote [s4]"},
		{"all leave", hostsOf(2, 2, 2).leave(1).leave(2), "demote [s2]"},
	} {
		p := planVoters(c.e)
		if got := fmt.Sprintf("%s %v", p.Step.Kind, p.Step.Servers); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestNonvoterThatTrailsIsNotPromoted(t *testing.T) {
	for name, c := range map[string]contact{
		"trails":                         {synced: true, lag: caughtUpLag + 1, steady: time.Hour},
		"lacks the configuration":        {steady: time.Hour},
		"does not answer":                {synced: true, silence: 3 * time.Second},
		"answers as a spare, not steady": {synced: true, steady: time.Second},
	} {
		e := hostsOf(3, 3, 1)
		if name == "answers as a spare, not steady" {
			e = hostsOf(4, 4, 3).kill(2, time.Minute)
			e.contacts["s4"] = c
		} else {
			e.contacts["s3"] = c
		}
		if p := planVoters(e); p.Step.Kind == StepPromote {
			t.Errorf("%s: %+v", name, p.Step)
		}
	}
}

func TestGossipAloneCostsNoVote(t *testing.T) {
	// All others are called dead by a forger, but answer the leader.
	e := hostsOf(5, 5, 3)
	for i := 2; i <= 5; i++ {
		e.candidates[i-1].Alive = false
		e.candidates[i-1].Since = e.now.Add(-time.Hour)
	}
	if p := planVoters(e); p.Step.Kind == StepDemote || p.Step.Kind == StepRemove && p.Step.Servers[0] <= "s3" {
		t.Errorf("on gossip's word alone: %+v", p.Step)
	}
}

func TestLeaderOffTheRosterHandsOver(t *testing.T) {
	e := hostsOf(4, 3, 3)
	e.candidates = e.candidates[1:]
	e.contacts["s1"] = contact{unlisted: time.Minute}
	if p := planVoters(e); p.Step.Kind != StepTransfer || p.Step.Servers[0] == "s1" {
		t.Errorf("step %+v", p.Step)
	}
}

// TestOnlyVoterOffTheRosterIsReplaced: it can hand over to nobody until another
// host has a vote.
func TestOnlyVoterOffTheRosterIsReplaced(t *testing.T) {
	now := time.Unix(1000, 0)
	e := electorate{
		now: now, stability: stable, self: "s1",
		servers:    []server{{id: "s1", addr: "a:1", voter: true}},
		contacts:   map[string]contact{"s1": {unlisted: stable}},
		candidates: []Candidate{{Addr: "b:1", Host: "h2", Alive: true, Since: now.Add(-time.Hour)}},
	}
	if p := planVoters(e); !slices.Equal(p.Start, []string{"h2"}) {
		t.Fatalf("no other host starts a server: %+v", p)
	}
	e.candidates[0].ID = "s2"
	if p := planVoters(e); p.Step.Kind != StepAdd {
		t.Fatalf("the other is not added: %+v", p)
	}
	e.servers = append(e.servers, server{id: "s2", addr: "b:1"})
	e.contacts["s2"] = contact{synced: true, steady: stable}
	if p := planVoters(e); p.Step.Kind != StepPromote {
		t.Fatalf("the other gets no vote: %+v", p)
	}
	e.servers[1].voter = true
	if p := planVoters(e); p.Step.Kind != StepTransfer {
		t.Fatalf("leadership stays: %+v", p)
	}
}
