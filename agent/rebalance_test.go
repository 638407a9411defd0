package agent

import (
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
)

// waiting is the state of a mesh in which a rollout waits for room.
func waiting(t *testing.T) *topology.State {
	t.Helper()
	s, index := topology.New(), uint64(0)
	apply := func(c topology.Command) {
		t.Helper()
		index++
		next, r := s.Apply(index, c)
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		s = next
	}
	put := func(arg string) {
		web := intent.App{Name: "web", Run: intent.Run{Command: []string{"sleep", arg}}}
		apply(topology.Command{PutIntents: &topology.PutIntents{Intents: intent.Intents{Apps: []intent.App{web}}.Normalize()}})
	}
	rollout := func(change func(*topology.SetRollout)) {
		a, _ := s.App("web")
		c := topology.SetRollout{App: "web", Rollout: a.Rollout}
		change(&c)
		apply(topology.Command{SetRollout: &c})
	}
	put("1")
	rollout(func(c *topology.SetRollout) { c.Rollout.Outcome = topology.OutcomeDone })
	put("2")
	rollout(func(c *topology.SetRollout) { c.Wait = true })
	return s
}

// TestWaitsOutliveLeaders: who becomes leader knows for how long a rollout has
// waited, and goes on counting.
func TestWaitsOutliveLeaders(t *testing.T) {
	state := waiting(t)
	index := state.Waits()[0]
	var s steadiness
	began := time.Now()
	s.watch(state, began) // another leads
	s.watch(state, began.Add(time.Minute))
	s.takeOffice()
	var obs topology.Observations
	s.observe(&obs, state, began.Add(90*time.Second))
	if got := obs.Waited[index]; got != 90*time.Second {
		t.Errorf("waited %s, want 1m30s", got)
	}
	s.observe(&obs, topology.New(), began.Add(2*time.Minute))
	if len(obs.Waited) > 0 || len(s.waits) > 0 {
		t.Errorf("what does not wait any more is remembered: %v", s.waits)
	}
}
