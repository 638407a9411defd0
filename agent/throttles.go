package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
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

// throttle is what one rule holds one copy back to.
type throttle struct {
	Copy   workload.CopyID `json:"copy"`
	Rule   string          `json:"rule"`
	Target reflexes.Target `json:"target"` // what the rule is about
	Act    reflexes.ActID  `json:"act"`
	CPU    float64         `json:"cpu,omitempty"`    // cores
	Memory int64           `json:"memory,omitempty"` // bytes
	Boot   string          `json:"boot"`
	Until  reflexes.Boot   `json:"until,omitempty"` // 0: until the rule says that it is over
	// What is held back, and nothing that is started after it.
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"` // of the process, as the kernel counts
}

// String says what is done to which copy.
func (t throttle) String() string {
	words := []string{t.Copy.String(), "held to"}
	if t.CPU > 0 {
		words = append(words, fmt.Sprintf("%g cores", t.CPU))
	}
	if t.Memory > 0 {
		words = append(words, fmt.Sprintf("%d bytes", t.Memory))
	}
	return strings.Join(words, " ")
}

// throttles are the copies of this host that reflexes hold back. Of several for
// one copy the tightest counts. They are known to the disk before they are done,
// so that an agent that dies leaves none that nobody ends. Their methods may be
// called from any goroutine.
type throttles struct {
	*nerves
	path  string
	since reflexes.Boot // when the agent began
	bell  chan struct{} // cap 1: one may be over

	mu   sync.Mutex
	list []throttle
	due  map[workload.CopyID]bool // what the driver was told of them is not the whole truth
	old  bool                     // the disk has some that are over
}

// openThrottles reads those of an earlier life of the agent.
func openThrottles(n *nerves) (*throttles, error) {
	t := &throttles{nerves: n, path: n.store.path(filepath.Join(dirReflexes, fileThrottles)), since: n.bootTime(), bell: make(chan struct{}, 1), due: map[workload.CopyID]bool{}}
	data, err := os.ReadFile(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &t.list)
	}
	if err != nil { // copies may be held back that nobody knows of: say so, and go on
		n.log.Error("read what reflexes hold back: a copy that is still throttled is free after its next restart", "error", err)
		t.list = nil
	}
	boot, _ := n.cfg.bootClock()()
	t.list = slices.DeleteFunc(t.list, func(one throttle) bool { return one.Boot != boot })
	for _, one := range t.list {
		t.due[one.Copy] = true // the driver may have forgotten
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
	args, err := o.Do.Throttle()
	if err != nil {
		return err
	}
	boot, up := t.cfg.bootClock()()
	one := throttle{Copy: id, Rule: o.Rule, Target: o.Target, Act: o.ID, CPU: args.CPU, Memory: int64(args.Memory), Boot: boot}
	if args.For > 0 {
		one.Until = up + args.For.Std()
	}
	if one.Pid, one.Start = t.process(id); one.Pid == 0 {
		return errors.New("it does not run")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	before := slices.Clone(t.list)
	t.list = slices.DeleteFunc(t.list, func(x throttle) bool { return x.Copy == id && x.Rule == one.Rule && x.Target == one.Target })
	t.list = append(t.list, one)
	if err = t.save(); err == nil {
		if err = t.tell(ctx, id); err == nil {
			t.look() // it may have ended meanwhile
			return nil
		}
	}
	t.list = before
	return errors.Join(err, t.save(), t.tell(ctx, id))
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
	data, err := json.Marshal(t.list)
	if err != nil {
		return err
	}
	if err := durable.Swap(t.path, data, 0o600); err != nil {
		return fmt.Errorf("note it before it is done: %w", err)
	}
	return nil
}

// tell tells the driver what counts for a copy. It is called with mu held.
func (t *throttles) tell(ctx context.Context, id workload.CopyID) error {
	var all workload.Throttle
	for _, x := range t.list {
		if x.Copy == id {
			all.CPU, all.Memory = tighter(all.CPU, x.CPU), tighter(all.Memory, x.Memory)
		}
	}
	err := t.copies.Throttle(ctx, id, all)
	t.due[id] = true
	if err == nil {
		delete(t.due, id)
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
	now := t.bootTime()
	t.mu.Lock()
	defer t.mu.Unlock()
	wake := throttleLook
	var keep []throttle
	for _, one := range t.list {
		if slices.Contains(seen, one) && t.over(one, now, active, rules, known) {
			t.due[one.Copy], t.old = true, true
			t.log.Info("a reflex no longer holds a copy back", "reflex", one.Rule, "copy", one.Copy.String())
			continue
		}
		if one.Until > now {
			wake = min(wake, one.Until-now)
		}
		keep = append(keep, one)
	}
	t.list = keep
	for id := range t.due {
		if err := t.tell(ctx, id); err != nil && !t.placed(id) {
			delete(t.due, id) // it is not here any more
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

// over tells whether a copy is not to be held back any more. What ends by itself
// waits while its app is frozen; a rule that was removed holds nothing.
func (t *throttles) over(one throttle, now reflexes.Boot, active map[ruleTarget]bool, rules map[string]bool, known bool) bool {
	if st, err := program.ReadStat(one.Pid); err != nil || st.Start != one.Start || !st.Running() {
		return true
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
	return ends && t.unfrozen(one.Copy.App, false) == nil
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

// placed tells whether the mesh wants a copy on this host.
func (t *throttles) placed(id workload.CopyID) bool {
	for _, a := range t.slices.slice().Assignments {
		if a.Placement.App == id.App && a.Placement.N == id.N {
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
