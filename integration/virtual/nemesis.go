package virtual

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/intent"
)

// Nemesis breaks a mesh at random, from a seed, while it changes what the mesh
// is to do; then it mends everything and demands that all is as it should be.
type Nemesis struct {
	m      *Mesh
	rng    *rand.Rand
	counts map[string]int    // what each app was last asked to have; 0: deleted
	zones  map[string]string // the zone that each app was last asked to run in; empty: any
	drains map[string]bool   // hosts that may be drained
	// Done counts what was done, by kind.
	Done map[string]int
}

// maxApps bounds how many apps a Nemesis has at once.
const maxApps = 4

// NewNemesis makes a Nemesis for a mesh that has been formed.
func NewNemesis(m *Mesh, seed uint64) *Nemesis {
	return &Nemesis{
		m: m, rng: rand.New(rand.NewPCG(seed, 99)),
		counts: map[string]int{}, zones: map[string]string{}, drains: map[string]bool{}, Done: map[string]int{},
	}
}

// Rage breaks and changes things for a time, one every few seconds. The first
// is always the leader's loss.
func (n *Nemesis) Rage(d time.Duration) {
	n.m.t.Helper()
	for range 2 {
		n.apply()
	}
	n.calm()
	n.Done = map[string]int{}
	until := time.Now().Add(d)
	leader := n.m.Leader()
	n.do([]string{"kill", "stop", "crash", "isolate"}[n.rng.IntN(4)], leader)
	for time.Now().Before(until) {
		Sleep(time.Duration(1+n.rng.IntN(9)) * time.Second)
		acts := []string{
			"kill", "stop", "crash", "start", "start", "start", "isolate", "halve", "cutlink", "heal", "heal",
			"apply", "apply", "apply", "delete", "elsewhere", "lie", "lie", "drain", "undrain", "exit", "exit",
		}
		n.do(acts[n.rng.IntN(len(acts))], n.m.Hosts[n.rng.IntN(len(n.m.Hosts))])
	}
	for n.m.Net.Stopped() == 0 { // chance cut nobody off who had something to say
		n.do("isolate", leader)
		Sleep(5 * time.Second)
	}
	for n.m.Lied() == 0 { // nobody asked who could be lied to
		n.m.Heal()
		n.startOne()
		n.do("lie", leader)
		n.do("apply", leader)
		Sleep(5 * time.Second)
	}
	for n.changes() == 0 { // what the faults let nobody do, they are made to
		n.m.Heal()
		n.startOne()
		n.do("apply", leader)
	}
}

// changes counts the changes that the mesh has accepted.
func (n *Nemesis) changes() int {
	return n.Done["apply"] + n.Done["delete"] + n.Done["elsewhere"] + n.Done["drain"] + n.Done["undrain"]
}

// do does one thing to a host, if it can be done to it now.
func (n *Nemesis) do(act string, h *Host) {
	m := n.m
	done := true
	switch act {
	case "kill":
		if done = h.Up(); done {
			h.Kill()
		}
	case "stop":
		if done = h.Up(); done {
			h.Stop()
		}
	case "crash":
		if done = h.On(); done {
			h.Crash()
		}
	case "start":
		done = n.startOne()
	case "isolate":
		m.Isolate(h)
	case "halve":
		m.Isolate(h, m.Hosts[n.rng.IntN(len(m.Hosts))])
	case "cutlink":
		other := m.Hosts[n.rng.IntN(len(m.Hosts))]
		m.CutLinks(func(from, to string) bool { return from == h.Name && to == other.Name })
	case "heal":
		m.Heal()
	case "apply":
		done = n.apply()
	case "delete":
		done = n.delete()
	case "elsewhere":
		done = n.elsewhere(n.names()...)
	case "lie":
		m.Lie(3)
	case "drain", "undrain":
		done = n.drain(h, act == "undrain")
	case "exit":
		done = n.exit(h)
	}
	if done {
		n.Done[act]++
		m.log.note(act, "to", h.Name)
	}
}

func (n *Nemesis) startOne() bool {
	for _, i := range n.rng.Perm(len(n.m.Hosts)) {
		if h := n.m.Hosts[i]; !h.Up() {
			h.Start()
			return true
		}
	}
	return false
}

// exit ends a running copy of a host by itself.
func (n *Nemesis) exit(h *Host) bool {
	running := n.m.History().On(h.Name)
	if !h.Up() || len(running) == 0 {
		return false // with no agent a copy that ends is nobody's doing
	}
	return h.Kernel().Exit(running[n.rng.IntN(len(running))].Copy, 1)
}

// ask gives a request some seconds, at hosts in random order.
func (n *Nemesis) ask(f func(ctx context.Context) error) bool {
	ctx, cancel := context.WithTimeout(n.m.t.Context(), 6*time.Second)
	defer cancel()
	return f(ctx) == nil
}

// apply makes an app or changes the number of its copies.
func (n *Nemesis) apply() bool {
	name := fmt.Sprintf("app%d", n.rng.IntN(maxApps))
	n.counts[name] = 1 + n.rng.IntN(6)
	return n.ask(func(ctx context.Context) error { return n.m.TryApply(ctx, []intent.App{n.app(name)}) })
}

// app is an app as it was last asked for. Some take their time to stop.
func (n *Nemesis) app(name string) intent.App {
	a := App(name, n.counts[name])
	if name[len(name)-1]%2 == 0 {
		a = Stubborn(name, n.counts[name], 3*time.Second)
	}
	if zone := n.zones[name]; zone != "" {
		a.Place.Require = []string{"zone == '" + zone + "'"}
	}
	return a
}

// calm does, before anything is broken, what is excused among faults: an app
// whose copies take their time to stop is deleted and declared anew for other
// hosts, when it has just been declared and when it runs. None of it may run twice.
func (n *Nemesis) calm() {
	n.m.t.Helper()
	const name = "app0"
	for range 3 {
		n.counts[name] = 3
		n.m.Apply(n.app(name))
		for range 2 {
			n.moment()
			if !n.elsewhere(name) {
				n.m.t.Errorf("%s could not be moved with nothing broken", name)
			}
			n.m.AwaitReady(60*time.Second, name, 3)
		}
		if err := n.m.Delete(n.m.t.Context(), name); err != nil {
			n.m.t.Errorf("%s could not be deleted with nothing broken: %v", name, err)
		}
		n.m.Await(30*time.Second, "gone", func(ctx context.Context) error { return n.m.Gone(ctx, name) })
	}
	n.counts[name] = 0
}

// elsewhere deletes the first of some apps that there is, and declares it anew at
// once or a moment later for the hosts of the other zone: also before any host has
// reported what it was given. Without zones it is for any host.
func (n *Nemesis) elsewhere(names ...string) bool {
	for _, name := range names {
		if n.counts[name] == 0 {
			continue
		}
		if !n.ask(func(ctx context.Context) error { return n.m.Delete(ctx, name) }) {
			return false
		}
		n.zones[name] = map[string]string{"": "a", "a": "b", "b": "a"}[n.zones[name]]
		n.moment()
		return n.ask(func(ctx context.Context) error { return n.m.TryApply(ctx, []intent.App{n.app(name)}) })
	}
	return false
}

// moment lets so little time pass, most often, that a change comes before anybody
// has reported on the one before it.
func (n *Nemesis) moment() {
	Sleep(time.Duration([]int{0, 1, 2, 3, 4, 6, 20, 40}[n.rng.IntN(8)]) * time.Millisecond)
}

func (n *Nemesis) delete() bool {
	for _, name := range n.names() {
		if n.counts[name] > 0 {
			n.counts[name] = 0
			return n.ask(func(ctx context.Context) error { return n.m.Delete(ctx, name) })
		}
	}
	return false
}

func (n *Nemesis) names() []string {
	var out []string
	for name := range n.counts {
		out = append(out, name)
	}
	slices.Sort(out)
	n.rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func (n *Nemesis) drain(h *Host, undo bool) bool {
	if !undo && len(n.drains) > 1 {
		return false // leave room for all copies
	}
	n.drains[h.Name] = true
	ok := n.ask(func(ctx context.Context) error { return n.m.Drain(ctx, h.Name, undo) })
	if ok && undo {
		delete(n.drains, h.Name)
	}
	return ok
}

// Mend ends all faults, asks for everything anew whose fate is not known, and
// waits until all hosts are there and what runs is what was asked for. It
// returns how long that took.
func (n *Nemesis) Mend(within time.Duration) time.Duration {
	m := n.m
	m.t.Helper()
	m.log.note("mend")
	m.Heal()
	for _, h := range m.Hosts {
		if !h.Up() {
			h.Start()
		}
	}
	return m.Await(within, "all is as it should be", func(ctx context.Context) error {
		if err := n.settle(ctx); err != nil {
			return err
		}
		if err := m.members(ctx, len(m.Hosts)); err != nil {
			return err
		}
		about, err := m.About(ctx)
		if err == nil && len(about.Voters) != targetVoters(len(m.Hosts)) {
			err = fmt.Errorf("voters %v", about.Voters)
		}
		for name, count := range n.counts {
			switch {
			case err != nil:
			case count == 0:
				err = m.Gone(ctx, name)
			default:
				err = m.Ready(ctx, name, count)
			}
		}
		return err
	})
}

// settle makes what was asked for certain, each thing once.
func (n *Nemesis) settle(ctx context.Context) error {
	for host := range n.drains {
		if err := n.m.Drain(ctx, host, true); err != nil {
			return fmt.Errorf("undrain %s: %w", host, err)
		}
		delete(n.drains, host)
	}
	if n.Done["settled"] > 0 {
		return nil
	}
	for name, count := range n.counts {
		if count == 0 {
			if err := n.m.Delete(ctx, name); err != nil && api.CodeOf(err) != api.CodeNotFound {
				return fmt.Errorf("delete %s: %w", name, err)
			}
			continue
		}
		if err := n.m.TryApply(ctx, []intent.App{n.app(name)}); err != nil {
			return fmt.Errorf("apply %s: %w", name, err)
		}
	}
	n.Done["settled"] = 1
	return nil
}

// Bit tells why a run proves nothing, if its faults did not bite: too little was
// done, nothing was held up, no leader was lost or no copy had to begin again.
func (n *Nemesis) Bit() error {
	var errs []error
	faults := 0
	for _, act := range []string{"kill", "stop", "crash", "isolate", "halve", "cutlink", "exit"} {
		faults += n.Done[act]
	}
	if faults < 4 {
		errs = append(errs, fmt.Errorf("only %d faults", faults))
	}
	if n.changes() == 0 {
		errs = append(errs, errors.New("no change was accepted meanwhile"))
	}
	if n.m.Net.Stopped() == 0 {
		errs = append(errs, errors.New("nothing was held up"))
	}
	if n.m.Lied() == 0 {
		errs = append(errs, errors.New("no host was told anything older"))
	}
	if n.m.Elections() < 2 {
		errs = append(errs, errors.New("no leader was replaced"))
	}
	begun := map[string]int{}
	for _, s := range n.m.History().Spans {
		begun[s.Copy.String()]++
	}
	again := 0
	for _, k := range begun {
		again += k - 1
	}
	if again == 0 {
		errs = append(errs, errors.New("no copy began again"))
	}
	return errors.Join(errs...)
}
