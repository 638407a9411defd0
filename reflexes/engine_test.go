package reflexes

import (
	"math/rand/v2"
	"testing"
	"time"
)

const reviveRule = `app "web" {
  run { command = ["web"] }
  reflex "revive" {
    when = "exit.count > 0"
    act  = [restart()]
  }
}`

// An hour of a copy that ends as soon as it is started.
func TestHourOfCrashLoop(t *testing.T) {
	rules := compile(t, reviveRule)
	for seed := range uint64(200) {
		e := NewEngine(Config{Seed: seed})
		e.SetRules(0, rules)
		var count, lastAct Boot
		var buf []Fact
		acts, shouts, facts := 0, 0, Exit{Copy: "web/1", Count: 1, At: 1}.Facts(nil)
		count = 1
		for now := Boot(1); now < time.Hour; {
			firings, wake := e.Step(now, facts)
			facts = nil
			for _, f := range firings {
				act, ok := e.Permit(now, f, Authority{})
				if !ok {
					t.Fatalf("seed %d: not permitted", seed)
				}
				acts, lastAct = acts+1, now
				e.Done(now, act.ID, true, "")
				count++
				buf = Exit{Copy: "web/1", Count: int64(count), At: now + time.Millisecond}.Facts(buf[:0])
				facts = buf
			}
			for _, o := range e.TakeOutcomes() {
				if o.NeedsHuman() {
					shouts++
				}
			}
			if facts != nil {
				now += time.Millisecond
			} else {
				now = max(wake, now+1)
			}
		}
		if acts > 70 || lastAct < 58*time.Minute || shouts < 20 || shouts > 61 {
			t.Fatalf("seed %d: %d acts, the last at %s, %d calls for a person", seed, acts, lastAct, shouts)
		}
	}
}

type mutant string

const (
	sound     mutant = ""
	forgetful mutant = "budget reset on restart"
	early     mutant = "freeze checked at enqueue"
)

// live is a host whose memory comes and goes, whose agent is killed now and then
// and whose firings wait before they are acted on. It returns the times of acts
// and whether one began while frozen.
func live(rules []*Rule, seed uint64, bug mutant) (acts []Boot, whileFrozen bool) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	e := NewEngine(Config{Seed: seed, Boot: "b"})
	e.SetRules(0, rules)
	var journal []Record
	var snap []byte
	var queue []Firing
	var auth, seen Authority
	var due Boot
	for now := Boot(0); now < time.Hour; now += 500 * time.Millisecond {
		if rnd.IntN(60) == 0 {
			auth.Frozen = !auth.Frozen
		}
		low := 0.5
		if now/(10*time.Second)%2 == 1 {
			low = 0.01
		}
		firings, _ := e.Step(now, []Fact{{Var: HostMemAvail, Target: Host(), Value: Float(low), At: now}})
		if len(firings) > 0 {
			queue, seen, due = append(queue[:0], firings...), auth, now+time.Duration(rnd.IntN(4))*500*time.Millisecond
		}
		if len(queue) > 0 && now >= due {
			with := auth
			if bug == early {
				with = seen
			}
			act, ok := e.Permit(now, queue[0], with)
			journal = append(journal, e.TakeRecords()...)
			queue = queue[:0]
			if ok {
				acts = append(acts, now)
				whileFrozen = whileFrozen || auth.Frozen
				if rnd.IntN(3) > 0 { // else the agent dies before it knows
					e.Done(now, act.ID, true, "")
				}
			}
		}
		journal = append(journal, e.TakeRecords()...)
		e.TakeOutcomes()
		if rnd.IntN(100) == 0 {
			snap, _ = e.Snapshot()
		}
		if rnd.IntN(150) == 0 {
			e = NewEngine(Config{Seed: seed, Boot: "b"})
			if bug != forgetful {
				if err := e.Restore(now, snap, journal); err != nil {
					panic(err)
				}
			}
			e.SetRules(now, rules)
			queue = queue[:0]
		}
	}
	return acts, whileFrozen
}

func overspent(acts []Boot, l Limit) bool {
	for i := l.N; i < len(acts); i++ {
		if acts[i]-acts[i-l.N] < l.Per {
			return true
		}
	}
	return false
}

func TestLimitAndFreezeHoldOverRestarts(t *testing.T) {
	rules := compile(t, `reflex "shed" {
  when     = "host.memory.available_ratio < 0.05"
  act      = [restart("cache")]
  cooldown = "1s"
  limit    = "3/10m"
}`)
	limit := Limit{3, 10 * time.Minute}
	total := 0
	for seed := range uint64(100) {
		acts, frozen := live(rules, seed, sound)
		total += len(acts)
		if frozen || overspent(acts, limit) {
			t.Fatalf("seed %d: acted while frozen: %v; acts %v", seed, frozen, acts)
		}
	}
	if total < 500 {
		t.Errorf("%d acts in all: nothing was tested", total)
	}
	for _, bug := range []mutant{forgetful, early} {
		caught := false
		for seed := uint64(0); seed < 100 && !caught; seed++ {
			acts, frozen := live(rules, seed, bug)
			caught = frozen || overspent(acts, limit)
		}
		if !caught {
			t.Errorf("%s: not caught", bug)
		}
	}
}

func FuzzRestore(f *testing.F) {
	rules := compile(f, reviveRule)
	e := NewEngine(Config{Boot: "b"})
	e.SetRules(0, rules)
	firings, _ := e.Step(1, Exit{Copy: "web/1", Count: 1, At: 1}.Facts(nil))
	e.Permit(1, firings[0], Authority{})
	good, err := e.Snapshot()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e := NewEngine(Config{Boot: "b"})
		_ = e.Restore(time.Hour, data, nil)
		e.SetRules(time.Hour, rules)
		for i := range int64(5) {
			now := time.Hour + time.Duration(i)*time.Minute
			firings, _ := e.Step(now, Exit{Copy: "web/1", Count: i + 1, At: now}.Facts(nil))
			for _, f := range firings {
				if act, ok := e.Permit(now, f, Authority{}); ok {
					e.Done(now, act.ID, true, "")
				}
			}
		}
		e.Explain(2*time.Hour, "")
	})
}

func BenchmarkThousandRules(b *testing.B) {
	one := compile(b, `reflex "shed" {
  when = "host.memory.available_ratio < 0.05 && host.cpu.busy_ratio > 0.9"
  act  = [emit("x")]
}`)[0]
	rules := make([]*Rule, 1000)
	for i := range rules {
		r := *one
		r.Name += string(rune('a'+i/100)) + string(rune('a'+i/10%10)) + string(rune('a'+i%10))
		rules[i] = &r
	}
	e := NewEngine(Config{})
	e.SetRules(0, rules)
	ids := []VarID{HostMemAvail, HostCPUBusy, HostLoad, HostSwapUsed, HostPids, HostFiles, HostUptime, HostPSICPUSome1s, HostPSICPUSome10s, HostPSIMemoryFull1s}
	facts := make([]Fact, len(ids))
	now, n := Boot(0), 0
	b.ReportAllocs()
	const life = 10 * time.Second // of a host, in one op
	for b.Loop() {
		for end := now + life; now < end; {
			n++
			now += 100 * time.Millisecond
			for i, id := range ids {
				facts[i] = Fact{Var: id, Target: Host(), Value: Float(0.5 + float64(n%7)/100), At: now}
			}
			e.Step(now, facts)
		}
	}
	b.ReportMetric(100*float64(b.Elapsed())/float64(life)/float64(b.N), "%core")
}
