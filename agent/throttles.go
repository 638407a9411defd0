package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/reflexer"
	"github.com/ganglion-mesh/ganglion/durable"
	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/program"
	"github.com/ganglion-mesh/ganglion/workload/systemd"
)

const (
	fileThrottles = "throttles.json" // beside the state of reflexes
	// throttleLook is how often it is looked whether what is held back still has to
	// be, besides each sign that it may not.
	throttleLook = 5 * time.Second
	// unseenFor is how long after the agent's start what a rule is about may be
	// unseen without being gone.
	unseenFor = time.Minute
)

// throttle is what one rule holds one copy, or one unit of systemd, back to.
type throttle struct {
	On     reflexes.Target `json:"on"`
	Rule   string          `json:"rule"`
	Target reflexes.Target `json:"target"` // what the rule is about
	Act    reflexes.ActID  `json:"act"`
	CPU    float64         `json:"cpu,omitempty"`    // cores
	Memory int64           `json:"memory,omitempty"` // bytes
	Boot   string          `json:"boot"`
	Until  reflexes.Boot   `json:"until,omitempty"` // 0: until the rule says that it is over
	// What is held back, and nothing that is started after it. A unit is held
	// whatever it starts.
	Pid   int    `json:"pid,omitempty"`
	Start uint64 `json:"start,omitempty"` // of the process, as the kernel counts
}

// String says what is done to what.
func (t throttle) String() string {
	words := []string{t.On.Name, "held to"}
	if t.CPU > 0 {
		words = append(words, fmt.Sprintf("%g cores", t.CPU))
	}
	if t.Memory > 0 {
		words = append(words, fmt.Sprintf("%d bytes", t.Memory))
	}
	return strings.Join(words, " ")
}

// throttles are the copies and units of this host that reflexes hold back. Of several
// for one the tightest counts. They are known to the disk before they are done, so that
// an agent that dies leaves none that nobody ends. Their methods may be called from any
// goroutine.
type throttles struct {
	*nerves
	path  string
	since reflexes.Boot // when the agent began
	bell  chan struct{} // cap 1: one may be over
	pid1  unitThrottler

	mu     sync.Mutex
	list   []throttle
	units  map[string]systemd.UnitHold // what PID 1 was told, by unit
	due    map[reflexes.Target]string  // what was told of them is not the whole truth; why, if it is known
	old    bool                        // the disk has some that are over
	looked reflexes.Boot               // when it was looked last how units are
}

// heldBack is what the disk has of throttles.
type heldBack struct {
	List  []throttle                  `json:"list"`
	Boot  string                      `json:"boot"`
	Units map[string]systemd.UnitHold `json:"units,omitempty"`
}

// openThrottles reads those of an earlier life of the agent.
func openThrottles(n *nerves) (*throttles, error) {
	t := &throttles{
		nerves: n, path: n.store.path(filepath.Join(dirReflexes, fileThrottles)), since: n.bootTime(), bell: make(chan struct{}, 1),
		pid1: systemd.ThrottleUnit, units: map[string]systemd.UnitHold{}, due: map[reflexes.Target]string{},
	}
	var held heldBack
	if err := n.store.load(filepath.Join(dirReflexes, fileThrottles), &held); err != nil { // something may be held back that nobody knows of: say so, and go on
		n.log.Error("read what reflexes hold back: a copy that is still throttled is free after its next restart, a unit after systemctl revert or the next boot", "error", err)
		return t, nil
	}
	boot, _ := n.cfg.bootClock()()
	t.list = slices.DeleteFunc(held.List, func(one throttle) bool { return one.Boot != boot })
	if held.Boot == boot && held.Units != nil {
		t.units = held.Units
	}
	for _, one := range t.list {
		t.due[one.On] = "" // the driver may have forgotten
	}
	for unit := range t.units {
		t.due[unitTarget(unit)] = ""
	}
	t.look()
	return t, nil
}

// look has it looked soon whether one is over. It never blocks.
func (t *throttles) look() {
	ring(t.bell)
}

// begin holds a copy back as an order says.
func (t *throttles) begin(ctx context.Context, id workload.CopyID, o reflexer.Order) error {
	one := throttle{On: reflexes.CopyTarget(id.String())}
	if one.Pid, one.Start = t.process(id); one.Pid == 0 {
		return errors.New("it does not run")
	}
	return t.hold(ctx, one, o)
}

// hold holds back what one is about as an order says.
func (t *throttles) hold(ctx context.Context, one throttle, o reflexer.Order) error {
	args, err := o.Do.Throttle()
	if err != nil {
		return err
	}
	boot, up := t.cfg.bootClock()()
	one.Rule, one.Target, one.Act, one.CPU, one.Memory, one.Boot = o.Rule, o.Target, o.ID, args.CPU, int64(args.Memory), boot
	if args.For > 0 {
		one.Until = up + args.For.Std()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	before := slices.Clone(t.list)
	t.list = slices.DeleteFunc(t.list, func(x throttle) bool { return x.On == one.On && x.Rule == one.Rule && x.Target == one.Target })
	t.list = append(t.list, one)
	if err = t.save(); err == nil {
		if err = t.tell(ctx, one.On); err == nil {
			t.look() // it may have ended meanwhile
			return nil
		}
	}
	t.list = before
	return errors.Join(err, t.save(), t.tell(ctx, one.On))
}

// process is the first process of a copy that runs.
func (t *throttles) process(id workload.CopyID) (pid int, start uint64) {
	for _, r := range t.copies.Reports() {
		if r.ID == id && r.Pid != 0 {
			if st, err := program.ReadStat(r.Pid); err == nil && st.Running() {
				return r.Pid, st.Start
			}
		}
	}
	return 0, 0
}

// save is called with mu held. It survives the agent; after the host none of it
// counts.
func (t *throttles) save() error {
	boot, _ := t.cfg.bootClock()()
	data, err := json.Marshal(heldBack{List: t.list, Boot: boot, Units: t.units})
	if err != nil {
		return err
	}
	if err := durable.Swap(t.path, data, 0o600); err != nil {
		return fmt.Errorf("note it before it is done: %w", err)
	}
	return nil
}

// tell tells the driver, or PID 1, what counts for a copy or a unit. It is called with
// mu held.
func (t *throttles) tell(ctx context.Context, on reflexes.Target) error {
	var all workload.Throttle
	for _, x := range t.list {
		if x.On == on {
			all.CPU, all.Memory = tighter(all.CPU, x.CPU), tighter(all.Memory, x.Memory)
		}
	}
	var err error
	if on.Scope == reflexes.ScopeUnit {
		err = t.tellUnit(ctx, on.Name, all)
	} else if id, e := workload.ParseCopyID(on.Name); e != nil {
		err = e
	} else {
		err = t.copies.Throttle(ctx, id, all)
	}
	if err == nil {
		delete(t.due, on)
		return nil
	}
	if why := err.Error(); t.due[on] != why { // said once
		t.due[on] = why
		t.log.Warn("what reflexes hold back is not as it should be", "target", on.String(), "error", err)
	}
	return err
}

// tighter is the lesser of two bounds of which 0 is none.
func tighter[T float64 | int64](a, b T) T {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// run ends what is over until ctx ends. What is held back stays so when the agent
// ends, and the next life goes on with it.
func (t *throttles) run(ctx context.Context) {
	for {
		changed := t.copies.Changed()
		wake := t.reconcile(ctx)
		if !t.any() {
			changed = nil
		}
		timer := time.NewTimer(wake)
		select {
		case <-ctx.Done():
		case <-t.bell:
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

func (t *throttles) any() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.list)+len(t.due) > 0
}

// reconcile ends what is over, and returns when to look again.
func (t *throttles) reconcile(ctx context.Context) time.Duration {
	if !t.any() {
		return time.Hour
	}
	t.mu.Lock()
	seen := slices.Clone(t.list) // what comes meanwhile is not judged by how its rule was before
	t.mu.Unlock()
	list, known := t.standing(ctx)
	active, rules := t.wanted(list)
	return t.settle(ctx, seen, func(one throttle, now reflexes.Boot) bool { return t.over(one, now, active, rules, known) })
}

// settle ends those of seen that are over, tells of all that is due, and returns when
// to look again.
func (t *throttles) settle(ctx context.Context, seen []throttle, over func(one throttle, now reflexes.Boot) bool) time.Duration {
	now := t.bootTime()
	t.mu.Lock()
	defer t.mu.Unlock()
	wake := throttleLook
	var keep []throttle
	for _, one := range t.list {
		if slices.Contains(seen, one) && over(one, now) {
			t.due[one.On], t.old = "", true
			t.log.Info("a reflex no longer holds something back", "reflex", one.Rule, "target", one.On.String())
			continue
		}
		if one.Until > now {
			wake = min(wake, one.Until-now)
		}
		keep = append(keep, one)
	}
	t.list = keep
	t.lookAtUnits(now)
	for on := range t.due {
		if err := t.tell(ctx, on); err != nil && !t.here(on) {
			delete(t.due, on) // it is not here any more
		}
	}
	// Only now: until the driver was told, an agent that dies has to know of it.
	if t.old && len(t.due) == 0 {
		if err := t.save(); err != nil {
			t.log.Warn("note what reflexes hold back", "error", err)
		}
		t.old = false
	}
	return wake
}

// over tells whether something is not to be held back any more. What ends by itself
// waits while its app is frozen; a rule that was removed holds nothing.
func (t *throttles) over(one throttle, now reflexes.Boot, active map[ruleTarget]bool, rules map[string]bool, known bool) bool {
	if one.On.Scope != reflexes.ScopeUnit {
		if st, err := program.ReadStat(one.Pid); err != nil || st.Start != one.Start || !st.Running() {
			return true
		}
	}
	if !known {
		return false
	}
	if !rules[one.Rule] {
		return true
	}
	wanted, there := active[ruleTarget{one.Rule, one.Target}]
	ends := !wanted && (there || now-t.since > unseenFor)
	if one.Until > 0 {
		ends = now >= one.Until
	}
	return ends && t.unfrozen(appOf(one.On), false) == nil
}

type ruleTarget struct {
	rule   string
	target reflexes.Target
}

// wanted tells of each rule and target, of those that stand so, whether what it
// fired for goes on, and which rules there are.
func (n *nerves) wanted(standing []reflexes.Explanation) (active map[ruleTarget]bool, rules map[string]bool) {
	active, rules = map[ruleTarget]bool{}, map[string]bool{}
	for _, x := range standing {
		active[ruleTarget{x.Rule, x.Target}] = x.State != "inactive" && x.State != "pending"
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.ruling {
		rules[r.Name] = true
	}
	return active, rules
}

// standing tells how each rule stands with each target, once there are rules.
func (n *nerves) standing(ctx context.Context) (list []reflexes.Explanation, known bool) {
	n.mu.Lock()
	ruled := n.ruled
	n.mu.Unlock()
	if !ruled {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, enginePatience)
	defer cancel()
	return n.reflexer.Explain(ctx, "")
}

// here tells whether the mesh wants a copy on this host. Units are always here.
func (t *throttles) here(on reflexes.Target) bool {
	if on.Scope == reflexes.ScopeUnit {
		return true
	}
	for _, a := range t.slices.slice().Assignments {
		if id := (workload.CopyID{App: a.Placement.App, N: a.Placement.N}); id.String() == on.Name {
			return true
		}
	}
	return false
}

// of lists what a rule holds back for a target, for people.
func (t *throttles) of(rule string, target reflexes.Target) (out []string) {
	now := t.bootTime()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, one := range t.list {
		if one.Rule != rule || one.Target != target {
			continue
		}
		s := one.String() + " until it is over"
		if one.Until > 0 {
			s = fmt.Sprintf("%s for another %s", one, max(one.Until-now, 0).Round(time.Second))
		}
		out = append(out, s)
	}
	return out
}
