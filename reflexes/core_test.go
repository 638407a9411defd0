package reflexes

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// host is an engine under test with what it knows.
type hostUnderTest struct {
	t       *testing.T
	e       *Engine
	now     Boot
	facts   []Fact
	journal []Record
	acts    []Act
}

func newHost(t *testing.T, boot string, rules []*Rule) *hostUnderTest {
	h := &hostUnderTest{t: t, e: NewEngine(Config{Boot: boot, Seed: 1})}
	h.e.SetRules(0, rules)
	return h
}

// pass lets d pass, second by second, and does all that is permitted. The facts
// are told again each second.
func (h *hostUnderTest) pass(d time.Duration) (acts []Act) {
	for end := h.now + d; h.now < end; {
		h.now += time.Second
		for i := range h.facts {
			h.facts[i].At = h.now
		}
		firings, _ := h.e.Step(h.now, h.facts)
		for _, f := range firings {
			if act, ok := h.e.Permit(h.now, f, Authority{}); ok {
				acts = append(acts, act)
				h.e.Done(h.now, act.ID, true, "")
			}
		}
		h.journal = append(h.journal, h.e.TakeRecords()...)
	}
	h.acts = append(h.acts, acts...)
	return acts
}

const shedRule = `reflex "shed" {
  when     = "host.memory.available_ratio < 0.05"
  for      = "5s"
  act      = [restart("cache")]
  cooldown = "5s"
  limit    = "2/10m"
}`

func memory(f float64) []Fact {
	return []Fact{{Var: HostMemAvail, Target: Host(), Value: Float(f)}}
}

// swing makes memory short and good again, so that each act helps.
func (h *hostUnderTest) swing(n int) {
	for range n {
		h.facts = memory(0.01)
		h.pass(20 * time.Second)
		h.facts = memory(0.5)
		h.pass(70 * time.Second)
	}
}

// After a boot what was spent counts as spent just now: the limit is neither
// forgotten nor measured by a clock that began anew. Nothing is pending.
func TestAnotherBoot(t *testing.T) {
	rules := compile(t, shedRule)
	old := newHost(t, "1", rules)
	old.swing(2)
	if len(old.acts) != 2 {
		t.Fatalf("%d acts before the boot", len(old.acts))
	}
	snap, err := old.e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for _, boot := range []string{"2", ""} { // "": nobody knows which
		h := &hostUnderTest{t: t, e: NewEngine(Config{Boot: boot, Seed: 1})}
		if err := h.e.Restore(0, snap, old.journal); err != nil {
			t.Fatal(err)
		}
		h.e.SetRules(0, rules)
		h.facts = memory(0.01)
		if acts := h.pass(9*time.Minute + 50*time.Second); len(acts) != 0 {
			t.Errorf("boot %q: acted after %s, with the limit used up before the boot", boot, h.now)
		}
		h.pass(2 * time.Minute)
		if len(h.acts) == 0 {
			t.Errorf("boot %q: the limit never comes back", boot)
		}
		if h.acts != nil && h.acts[0].ID <= old.acts[1].ID {
			t.Errorf("boot %q: act %d was there before", boot, h.acts[0].ID)
		}
	}
}

// A snapshot that cannot be read leaves the engine at work, with limits used up
// and in doubt of itself.
func TestUnreadableSnapshot(t *testing.T) {
	rules := compile(t, shedRule+"\n"+reviveRule)
	good, err := newHost(t, "1", rules).e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"empty": "", "noise": "\x00\x01", "cut short": string(good[:len(good)/2]), "another format": strings.Replace(string(good), `"format":1`, `"format":9`, 1),
		"an unknown field": strings.Replace(string(good), "{", `{"more":1,`, 1),
	} {
		h := &hostUnderTest{t: t, e: NewEngine(Config{Boot: "1", Seed: 1})}
		if err := h.e.Restore(0, []byte(data), nil); err == nil || !strings.Contains(err.Error(), "used up") {
			t.Errorf("%s: %v", name, err)
		}
		h.e.SetRules(0, rules)
		h.facts = memory(0.01)
		if acts := h.pass(9 * time.Minute); len(acts) != 0 {
			t.Errorf("%s: acted with a limit that nobody knows", name)
		}
		// What has ended is revived all the same: it disturbs nothing.
		firings, _ := h.e.Step(h.now, Exit{Copy: "web/1", Count: 1, At: h.now}.Facts(nil))
		if len(firings) != 1 {
			t.Fatalf("%s: %d firings for an exit", name, len(firings))
		}
		if _, ok := h.e.Permit(h.now, firings[0], Authority{}); !ok {
			t.Errorf("%s: a copy that has ended stays down", name)
		}
	}
}

// Rules that say the same keep what they have spent and how long they have waited;
// a rule that says something else begins anew.
func TestSetRulesKeepsState(t *testing.T) {
	rules := compile(t, shedRule)
	h := newHost(t, "1", rules)
	h.facts = memory(0.01)
	h.pass(4 * time.Second)
	h.e.SetRules(h.now, compile(t, shedRule+"\n"+strings.Replace(shedRule, `"shed"`, `"other"`, 1)+"\n"+reviveRule)) // pending for 4 s
	if acts := h.pass(3 * time.Second); len(acts) == 0 || acts[0].Rule != "shed" {
		t.Fatalf("after 7 s: %v", acts)
	}
	h.e.SetRules(h.now, rules)
	h.facts = memory(0.5)
	h.pass(70 * time.Second)
	h.swing(1)
	for range 3 {
		h.e.SetRules(h.now, compile(t, shedRule))
		h.swing(1)
	}
	if n := len(slices.DeleteFunc(slices.Clone(h.acts), func(a Act) bool { return a.Rule != "shed" })); n != 2 {
		t.Errorf("%d acts within the limit of 2: setting the same rules refills it", n)
	}
	h.e.SetRules(h.now, compile(t, strings.Replace(shedRule, "0.05", "0.06", 1)))
	before := len(h.acts)
	h.swing(1)
	if len(h.acts) == before {
		t.Error("a rule that says something else did not begin anew")
	}
}

// Two rules that want to act on one copy take turns: the app's own goes first, one
// act is under way at a time, and the target's back-off is shared.
func TestTwoRulesOnOneTarget(t *testing.T) {
	h := newHost(t, "1", compile(t, `app "web" {
  run { command = ["web"] }
  reflex "fat" {
    when = "app.mem_ratio > 0.9"
    act  = [restart()]
  }
}
reflex "slow" {
  when  = "app.psi.memory.full_10s > 0.5"
  scope = "copy:web"
  act   = [restart()]
}`))
	target := CopyTarget("web/1")
	h.facts = []Fact{{Var: AppMemRatio, Target: target, Value: Float(0.95)}, {Var: AppPSIMemoryFull10s, Target: target, Value: Float(0.9)}}
	firings, _ := h.e.Step(time.Second, at(h.facts, time.Second))
	if len(firings) != 1 || firings[0].Rule != "fat" {
		t.Fatalf("both want to act, and these may: %v", firings)
	}
	act, ok := h.e.Permit(time.Second, firings[0], Authority{})
	if !ok {
		t.Fatal("the first was not permitted")
	}
	if again, _ := h.e.Step(2*time.Second, at(h.facts, 2*time.Second)); len(again) != 0 {
		t.Errorf("a second act while one is under way: %v", again)
	}
	h.e.Done(3*time.Second, act.ID, true, "")
	told := false
	for _, o := range h.e.TakeOutcomes() {
		told = told || o.Rule == "slow" && o.Kind == Suppressed && (o.Reason == ReasonPriority || o.Reason == ReasonBusy) && o.Detail == "fat"
	}
	if !told {
		t.Error("that the other rule was held back, and by which, is not told")
	}
	h.now = 3 * time.Second
	acts := h.pass(2 * time.Minute)
	for i := 1; i < len(acts); i++ {
		if acts[i].On != target {
			t.Errorf("acted on %s", acts[i].On)
		}
	}
	if len(acts) == 0 || len(acts) > 6 {
		t.Errorf("%d acts of two rules in 2 min on one copy", len(acts))
	}
}

func at(facts []Fact, now Boot) []Fact {
	out := slices.Clone(facts)
	for i := range out {
		out[i].At = now
	}
	return out
}

// From an exit to its permit nothing is allocated.
func TestExitAllocatesNothing(t *testing.T) {
	e := NewEngine(Config{Boot: "1", Seed: 1})
	e.SetRules(0, compile(t, reviveRule))
	now, count := time.Second, int64(0)
	buf := make([]Fact, 0, 8)
	permitted := 0
	exit := func() {
		now += 10 * time.Minute // the target is left alone for so long that it begins anew
		count++
		buf = Exit{Copy: "web/1", Count: count, Signal: "SIGKILL", Code: -1, At: now}.Facts(buf[:0])
		firings, _ := e.Step(now, buf)
		for _, f := range firings {
			if act, ok := e.Permit(now, f, Authority{PermitAge: time.Hour}); ok {
				permitted++
				e.TakeRecords()
				e.TakeOutcomes()
				e.Done(now+time.Millisecond, act.ID, true, "")
			}
		}
		e.TakeRecords()
		e.TakeOutcomes()
		for e.Wake() < now+9*time.Minute {
			e.Step(e.Wake(), nil)
			e.TakeOutcomes()
		}
	}
	for range 300 { // the history is full by then
		exit()
	}
	if permitted < 250 {
		t.Fatalf("%d of 300 exits were answered", permitted)
	}
	if n := testing.AllocsPerRun(200, exit); n != 0 {
		t.Errorf("%.1f allocations an exit", n)
	}
}

// An hour of crash loop of one copy: at most 70 restarts, still trying at the end,
// a person called for about once a minute, and its neighbours as if nothing were.
func TestCrashLoopLeavesNeighboursAlone(t *testing.T) {
	rules := compile(t, reviveRule+"\n"+strings.ReplaceAll(strings.ReplaceAll(reviveRule, `"web"`, `"db"`), `"revive"`, `"revive-db"`))
	for seed := range uint64(50) {
		e := NewEngine(Config{Boot: "1", Seed: seed})
		e.SetRules(0, rules)
		restarts, last, calls := 0, Boot(0), []Boot{}
		count, dbCount := int64(0), int64(0)
		var pending []Fact
		for now := Boot(0); now < time.Hour; {
			facts := pending
			pending = nil
			if now == 0 {
				count++
				facts = Exit{Copy: "web/1", Count: count, At: now}.Facts(nil)
			}
			if minute := int64(now / (7 * time.Minute)); minute > dbCount { // a neighbour ends now and then
				dbCount = minute
				facts = Exit{Copy: "db/1", Count: dbCount, At: now}.Facts(facts)
			}
			firings, wake := e.Step(now, facts)
			dbFired := false
			for _, f := range firings {
				act, ok := e.Permit(now, f, Authority{})
				if !ok {
					t.Fatalf("seed %d at %s: %s is not permitted", seed, now, f.Rule)
				}
				e.Done(now, act.ID, true, "")
				if f.Rule == "revive-db" {
					dbFired = true
					continue
				}
				restarts, last = restarts+1, now
				count++
				pending = Exit{Copy: "web/1", Count: count, At: now + time.Millisecond}.Facts(nil)
			}
			if len(facts) > 0 && facts[len(facts)-1].Target.Name == "db/1" && !dbFired {
				t.Fatalf("seed %d at %s: the neighbour waits for the copy that loops", seed, now)
			}
			for _, o := range e.TakeOutcomes() {
				if o.NeedsHuman() {
					calls = append(calls, now)
				}
				if o.Rule == "revive-db" && (o.Kind == Suppressed || o.NeedsHuman()) {
					t.Fatalf("seed %d: of the neighbour: %+v", seed, o)
				}
			}
			next := min(max(wake, now+1), (now/(7*time.Minute)+1)*7*time.Minute)
			if pending != nil {
				next = now + time.Millisecond
			}
			now = next
		}
		if restarts > 70 || last < 58*time.Minute {
			t.Fatalf("seed %d: %d restarts, the last at %s", seed, restarts, last)
		}
		for i := 1; i < len(calls); i++ {
			if gap := calls[i] - calls[i-1]; gap < 59*time.Second || gap > 3*time.Minute {
				t.Fatalf("seed %d: a call after %s", seed, gap)
			}
		}
		if len(calls) < 25 {
			t.Fatalf("seed %d: %d calls", seed, len(calls))
		}
	}
}
