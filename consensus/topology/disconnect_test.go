package topology

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ganglion-mesh/ganglion/intent"
)

// TestNewLeaderResetsNoGrace: what gossip told it before it led counts, but it
// must have heard nothing itself for as long as a report may be missed.
func TestNewLeaderResetsNoGrace(t *testing.T) {
	const grace = 60 * time.Second
	for _, c := range []struct {
		what          string
		down, silence time.Duration
		moves         bool
	}{
		{"an old leader at the end of the grace", grace, grace, true},
		{"an old leader before it", grace - time.Second, grace - time.Second, false},
		{"a new leader that has not waited for a report", grace + time.Hour, reportMissed - time.Millisecond, false},
		{"a new leader that has", grace, reportMissed, true},
		{"a new leader, the host died a moment ago", reportMissed, reportMissed, false},
	} {
		w, obs := ten(t)
		web := w.state.Apps()[0].Spec
		web.Disconnect.Grace = intent.Duration(grace)
		w.must(Command{PutIntents: &PutIntents{Intents: intent.Intents{Apps: []intent.App{web}}}})
		lose(obs, 0, "h3")
		o := obs.Hosts["h3"]
		o.DownFor, o.ReportAge = c.down, c.silence
		obs.Hosts["h3"] = o
		d := Decide(w.state, obs)
		if moved := len(d.Moves) > 0; moved != c.moves {
			t.Errorf("%s: moves %v", c.what, d.Moves)
		}
		if !c.moves && (d.Wake <= 0 || d.Wake > grace) {
			t.Errorf("%s: looks again after %s", c.what, d.Wake)
		}
		if st := Status(w.state, obs)[0]; !c.moves && !strings.Contains(why(st, "h3"), "once that has lasted 1m") {
			t.Errorf("%s: status says %q", c.what, why(st, "h3"))
		}
	}
}

func why(st AppStatus, host string) string {
	for _, c := range st.Copies {
		if c.Host == host {
			return c.Why
		}
	}
	return ""
}

// TestGateOfThoseWhoDoNotLead is the leader's, for the same sight.
func TestGateOfThoseWhoDoNotLead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New()
		obs := Observations{Hosts: map[string]HostObs{}, GateShut: rapid.Bool().Draw(t, "shut"), CalmFor: time.Duration(rapid.IntRange(0, 300).Draw(t, "calm")) * time.Second}
		for i := range rapid.IntRange(0, 20).Draw(t, "hosts") {
			name := "h" + string(rune('a'+i))
			s, _ = s.Apply(uint64(i+1), Command{EnrolHost: &EnrolHost{Name: name, ID: name}})
			if alive := rapid.IntRange(0, 3).Draw(t, "alive") > 0; alive {
				obs.Hosts[name] = HostObs{Alive: true}
			} else {
				obs.Hosts[name] = HostObs{DownFor: time.Minute}
			}
		}
		d := Decide(s, obs)
		if shut, calm := Gate(s, obs); shut != d.GateShut || calm != d.Calm {
			t.Fatalf("shut %v, calm %v; Decide says %v, %v", shut, calm, d.GateShut, d.Calm)
		}
	})
}

// TestHungAgentKeepsItsCopies: a kernel that answers is evidence against the death
// of the host, for a while.
func TestHungAgentKeepsItsCopies(t *testing.T) {
	for _, c := range []struct {
		what         string
		silence      time.Duration
		hung, asking bool
		moves        bool
	}{
		{"nothing answers", 6 * time.Second, false, false, true},
		{"it is being asked", 6 * time.Second, false, true, false},
		{"the kernel answers", 50 * time.Second, true, false, false},
		{"the kernel answers, for too long", hungGrace, true, false, true},
	} {
		w, obs := ten(t)
		lose(obs, c.silence, "h3")
		o := obs.Hosts["h3"]
		o.Hung, o.Asking = c.hung, c.asking
		obs.Hosts["h3"] = o
		d := Decide(w.state, obs)
		if moved := len(d.Moves) > 0; moved != c.moves || !moved && d.Wake <= 0 {
			t.Errorf("%s: moves %v, wake %s", c.what, d.Moves, d.Wake)
		}
		if said := why(Status(w.state, obs)[0], "h3"); c.hung && !c.moves && !strings.Contains(said, "its agent hangs") {
			t.Errorf("%s: status says %q", c.what, said)
		}
	}
}
