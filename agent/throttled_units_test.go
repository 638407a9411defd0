package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/brake"
	"github.com/ganglion-mesh/ganglion/agent/reflexer"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/trust"
	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/systemd"
)

// unitWorld is a host of which only PID 1 and the throttles are there. Its agent may
// end and begin anew at any time, and the host too.
type unitWorld struct {
	t    *testing.T
	dir  string
	boot string
	up   reflexes.Boot

	is    map[string]workload.Throttle // what PID 1 holds units to
	told  int
	fails error // what PID 1 answers
	dies  bool  // the agent does, once PID 1 has done what it was told

	active map[ruleTarget]bool
	rules  map[string]bool
	*throttles
}

func newUnitWorld(t *testing.T) *unitWorld {
	w := &unitWorld{t: t, dir: t.TempDir(), boot: "first", is: map[string]workload.Throttle{}, active: map[ruleTarget]bool{}, rules: map[string]bool{}}
	if err := os.MkdirAll(filepath.Join(w.dir, dirReflexes), 0o700); err != nil {
		t.Fatal(err)
	}
	w.begin()
	return w
}

// begin begins a life of the agent.
func (w *unitWorld) begin() {
	w.t.Helper()
	k, err := brake.New(brake.Config{
		Identity: &trust.Identity{}, Load: func() ([][]byte, error) { return nil, nil }, Save: func([][]byte) error { return nil },
		Revoked: func([]byte) bool { return false }, Spread: func([][]byte) {}, Told: func(_, _ *brake.View) {},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := &Config{Seams: Seams{BootClock: func() (string, time.Duration) { return w.boot, w.up }}}
	n := &nerves{member: &member{cfg: cfg, store: &store{dir: w.dir}, log: slog.New(slog.DiscardHandler), brain: brain{brake: k}}}
	if w.throttles, err = openThrottles(n); err != nil {
		w.t.Fatal(err)
	}
	w.pid1 = w.throttleUnit
}

// throttleUnit is PID 1, and what systemd.ThrottleUnit says of it.
func (w *unitWorld) throttleUnit(_ context.Context, unit string, most workload.Throttle, was systemd.UnitHold, note func(systemd.UnitHold) error) (systemd.UnitHold, error) {
	if w.fails != nil {
		return was, w.fails
	}
	w.told++
	if most == (workload.Throttle{}) {
		delete(w.is, unit)
		return systemd.UnitHold{}, nil
	}
	now := systemd.UnitHold{"CPUQuota": {File: unit, Told: []uint64{uint64(most.CPU * 100), uint64(most.Memory)}}}
	if err := note(now); err != nil {
		return was, err
	}
	if w.is[unit] = most; w.dies {
		panic(errDied)
	}
	return now, nil
}

var errDied = errors.New("the agent has died")

// throttle has a rule fire.
func (w *unitWorld) throttle(rule, unit string, args map[string]string) (err error) {
	defer func() {
		if w.dies && recover() == errDied {
			w.dies, err = false, errDied
			w.begin()
		}
	}()
	target := unitTarget(unit)
	w.active[ruleTarget{rule, target}], w.rules[rule] = true, true
	act := reflexes.Act{}
	act.Rule, act.Target, act.On, act.Do = rule, target, target, intent.Action{Op: "throttle", Args: args}
	return w.beginUnit(w.t.Context(), unit, reflexer.Order{Act: act})
}

// look lets time pass and the throttles look.
func (w *unitWorld) look(d time.Duration) {
	w.up += d
	w.settle(w.t.Context(), slices.Clone(w.list), func(one throttle, now reflexes.Boot) bool {
		return w.over(one, now, w.active, w.rules, true)
	})
}

func (w *unitWorld) want(when, unit string, most workload.Throttle) {
	w.t.Helper()
	if got := w.is[unit]; got != most {
		w.t.Errorf("%s: %s is held to %+v, want %+v", when, unit, got, most)
	}
}

// TestUnitsAreHeldToTheTightest of what rules want, for as long as each does.
func TestUnitsAreHeldToTheTightest(t *testing.T) {
	const u = "mine.service"
	w := newUnitWorld(t)
	for rule, args := range map[string]map[string]string{"a": {"cpu": "50%"}, "b": {"cpu": "20%", "memory": "64MiB", "for": "1m"}, "c": {"memory": "32MiB"}} {
		if err := w.throttle(rule, u, args); err != nil {
			t.Fatal(err)
		}
	}
	w.want("all three", u, workload.Throttle{CPU: 0.2, Memory: 32 << 20})
	if err := w.throttle("a", u, map[string]string{"cpu": "10%"}); err != nil {
		t.Fatal(err)
	}
	w.want("one again", u, workload.Throttle{CPU: 0.1, Memory: 32 << 20})
	w.active[ruleTarget{"c", unitTarget(u)}], w.active[ruleTarget{"b", unitTarget(u)}] = false, false
	w.look(30 * time.Second)
	w.want("one is over, and one has its time", u, workload.Throttle{CPU: 0.1, Memory: 64 << 20})
	w.look(31 * time.Second)
	w.want("time is up", u, workload.Throttle{CPU: 0.1})
	if holds := w.of("a", unitTarget(u)); len(holds) != 1 || holds[0] != "mine.service held to 0.1 cores until it is over" {
		t.Errorf("holds %q", holds)
	}
	told := w.told
	w.look(time.Second)
	if w.told != told {
		t.Error("PID 1 is asked at each sign of any copy")
	}
	if w.look(throttleLook); w.told != told+1 {
		t.Errorf("PID 1 is looked at %d times", w.told-told)
	}
	delete(w.rules, "a")
	w.look(time.Second)
	w.want("without rules", u, workload.Throttle{})
	if w.any() || len(w.units) > 0 {
		t.Errorf("left: %+v, %+v, %+v", w.list, w.due, w.units)
	}
}

// TestUnitsAreHeldOverLives of the agent, are given back by a later one, and are known
// to be free after a boot.
func TestUnitsAreHeldOverLives(t *testing.T) {
	const u = "mine.service"
	half := map[string]string{"cpu": "50%"}
	w := newUnitWorld(t)
	if err := w.throttle("a", u, half); err != nil {
		t.Fatal(err)
	}
	w.begin()
	w.look(0)
	w.want("the next life", u, workload.Throttle{CPU: 0.5})
	w.active[ruleTarget{"a", unitTarget(u)}] = false
	w.fails = errors.New("PID 1 is away")
	w.look(time.Second)
	w.begin()
	w.look(time.Second)
	w.want("while PID 1 is away", u, workload.Throttle{CPU: 0.5})
	w.fails = nil
	w.look(time.Second)
	w.want("when it is back", u, workload.Throttle{})

	w.dies = true
	if err := w.throttle("a", u, half); !errors.Is(err, errDied) {
		t.Errorf("the agent has not died: %v", err)
	}
	w.want("begun by a life that ended in between", u, workload.Throttle{CPU: 0.5})
	w.active[ruleTarget{"a", unitTarget(u)}] = false
	w.look(time.Second)
	w.want("ended by the next one", u, workload.Throttle{})

	if err := w.throttle("a", u, half); err != nil {
		t.Fatal(err)
	}
	w.boot, w.up, w.is, w.told = "second", 0, map[string]workload.Throttle{}, 0
	w.begin()
	w.look(time.Minute)
	if w.told > 0 || w.any() || len(w.of("a", unitTarget(u))) > 0 {
		t.Errorf("after a boot: told %d times, held %+v", w.told, w.list)
	}
}

// TestRefusedThrottleOfAUnit leaves what was before.
func TestRefusedThrottleOfAUnit(t *testing.T) {
	const u = "mine.service"
	w := newUnitWorld(t)
	w.fails = errors.New("it does not run")
	if err := w.throttle("a", u, map[string]string{"cpu": "50%"}); err == nil || w.any() {
		t.Errorf("%v, left %+v, %+v", err, w.list, w.due)
	}
	w.begin()
	if w.any() {
		t.Errorf("kept on disk: %+v, %+v", w.list, w.units)
	}
}
