package reflexes

import (
	"testing"
	"time"
)

const stagedRule = `reflex "flee" {
  when     = "host.memory.available_ratio < 0.05"
  act      = [restart("cache"), drain_self()]
  cooldown = "5s"
  limit    = "999/10m"
}`

// A rule that is not in force here does what is of this host's own copies, tells the
// rest, and asks nobody for a token; in force it begins anew, and is held by what its
// owner knows at the moment of the act.
func TestStagedRule(t *testing.T) {
	rule := compile(t, stagedRule)[0]
	e := NewEngine(Config{Boot: "b"})
	dry := Staging{ID: 7, Why: "stage 1 of 3"}
	e.SetRules(0, []*Rule{rule.Staged(dry)})
	now := Boot(0)
	type tally struct{ acts, fled, dry, short int }
	live := func(d time.Duration, a Authority) (n tally) {
		a.Permitted = true
		for end := now + d; now < end; now += time.Second {
			firings, _ := e.Step(now, []Fact{{Var: HostMemAvail, Target: Host(), Value: Float(0.01), At: now}})
			for _, f := range firings {
				if f.Stage != 7 {
					t.Errorf("fired for stage %d", f.Stage)
				}
				if act, ok := e.Permit(now, f, a); ok {
					n.acts++
					if act.Do.Op == "drain_self" {
						n.fled++
					}
					e.Done(now, act.ID, true, "")
				}
			}
			for _, o := range e.TakeOutcomes() {
				if o.Kind == Observed && o.Reason == ReasonStaged && o.Stage == 7 && o.Detail != "" {
					n.dry++
				}
			}
			if e.Short() {
				n.short++
				if l := e.Lacking(); len(l) != 1 || l[0] != (Version{"flee", 7}) {
					t.Errorf("lacking %+v", l)
				}
			}
		}
		return n
	}
	if n := live(2*time.Minute, Authority{}); n.acts == 0 || n.fled > 0 || n.dry == 0 || n.short > 0 {
		t.Errorf("where it is not in force: %+v", n)
	}
	whole := dry
	whole.Whole = true
	e.SetRules(now, []*Rule{rule.Staged(whole)})
	if n := live(2*time.Minute, Authority{}); n.acts > 0 || n.dry == 0 {
		t.Errorf("beside another version: %+v", n)
	}
	e.SetRules(now, []*Rule{rule.Staged(Staging{ID: 7})})
	e.Lend(now, Loan{ID: 1, Tokens: 9, Until: never})
	if n := live(time.Minute, Authority{Staged: "taken back a moment ago"}); n.fled > 0 || n.dry == 0 {
		t.Errorf("where it is taken back at the moment of the act: %+v", n)
	}
	if n := live(2*time.Minute, Authority{}); n.fled == 0 || n.dry > 0 {
		t.Errorf("where it is in force: %+v", n)
	}
}
