package topology

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

var spreads = flag.Int("spreads", 2000, "random meshes to rebalance")

// field is a mesh in which everything works, and that is to be rebalanced: one
// decision a second.
type field struct {
	*world
	rnd    *rand.Rand
	obs    Observations
	now    int
	office int // when the present leader took office
	seen   map[uint64]int
	begun  []int // when moves were begun
	origin map[CopyKey]CopyKey
	moved  map[CopyKey][]string // off which hosts, by the name that a copy began with
	shapes map[string]bool      // that the mesh has had
	log    []string
}

func newField(t *testing.T, seed int) *field {
	f := &field{
		world: newWorld(t), rnd: rand.New(rand.NewPCG(uint64(seed), 3)), obs: Observations{Settled: true, Hosts: map[string]HostObs{}},
		seen: map[uint64]int{}, origin: map[CopyKey]CopyKey{}, moved: map[CopyKey][]string{}, shapes: map[string]bool{},
	}
	for range 2 + f.rnd.IntN(3) {
		f.join()
	}
	return f
}

func (f *field) join() {
	name := fmt.Sprintf("h%d", len(f.obs.Hosts)+1)
	f.enrol(name)
	f.obs.Hosts[name] = HostObs{
		Alive: true, Reported: true, Slice: upToDate, CPU: []float64{4, 4, 8}[f.rnd.IntN(3)], Memory: 8 << 30, PortMin: 20000, PortMax: 20200, CanUser: true,
		Labels: map[string]string{"zone": []string{"a", "b", "c"}[f.rnd.IntN(3)], "disk": []string{"ssd", "hdd"}[f.rnd.IntN(2)]},
	}
}

// anyApp is one of random shape.
func (f *field) anyApp(i int) intent.App {
	return app(fmt.Sprintf("app%d", i), f.rnd.IntN(7), func(a *intent.App) {
		a.Update.HealthyFor = 2 * intent.Second
		a.Ports = map[string]intent.Port{"http": {}}
		a.Resources.CPU = []float64{0, 0, 0.1, 0.5}[f.rnd.IntN(4)]
		switch f.rnd.IntN(8) {
		case 0:
			a.Place.Spread = "zone"
		case 1:
			a.Place.Prefer = []string{"disk == 'ssd'"}
		case 2:
			a.Place.Require = []string{"zone != 'c'"}
		case 3:
			a.Ports["sql"] = intent.Port{Static: 5432 + i}
		case 4:
			a.Count, a.PerHost = nil, true
		case 5:
			a.Disconnect.Policy = intent.DisconnectKeep
		case 6:
			a.Update.Strategy = intent.StrategyBlueGreen
		}
	})
}

// second is one decision, and the hosts do what it says.
func (f *field) second() Decision {
	f.now++
	f.obs.Moved = map[uint64]time.Duration{}
	for _, index := range f.state.Rebalanced() {
		if _, ok := f.seen[index]; !ok {
			f.seen[index] = f.now
		}
		f.obs.Moved[index] = seconds(f.now - max(f.seen[index], f.office))
	}
	for name, o := range f.obs.Hosts {
		o.WellFor = seconds(f.now - f.office)
		f.obs.Hosts[name] = o
	}
	d := Decide(f.state, f.obs)
	for _, c := range d.Commands {
		if c.Sweep == nil {
			f.check(c.Place)
			f.log = append(f.log, fmt.Sprintf("%4d %s", f.now, describe(c)))
		}
		f.must(c)
	}
	d.Commands = acts(d)
	for _, m := range d.Moves {
		first, ok := f.origin[m.Copy]
		if !ok {
			first = m.Copy
		}
		delete(f.origin, m.Copy)
		f.origin[*m.As] = first
		f.moved[first] = append(f.moved[first], m.From)
		if shape := f.shape(); f.shapes[shape] {
			f.fail("the mesh is as it was before: %s", shape)
		} else {
			f.shapes[shape] = true
		}
	}
	well(f.state, f.obs)
	return d
}

// check holds one decision: it begins or ends one move, and nothing else.
func (f *field) check(c *Place) {
	f.t.Helper()
	if c == nil || len(c.Put) != 1 || len(c.Remove) > 1 {
		f.fail("a decision that is no move: %+v", c)
		return
	}
	p := c.Put[0]
	old, had := f.state.Placement(p.Key())
	switch {
	case !had && p.Relief != nil && len(c.Remove) == 0:
		f.begun = append(f.begun, f.now)
		over, ok := f.state.Placement(CopyKey{p.App, p.Relief.N})
		if !ok || over.Host != p.Relief.From || over.Host == p.Host || !strings.HasPrefix(p.Relief.Why, "moved to balance: ") {
			f.fail("it relieves nothing: %+v, %+v", p, over)
		}
		if a := f.app(p.App); a.Spec.Kind() != intent.KindReplicated || a.Spec.Disconnect.Policy == intent.DisconnectKeep {
			f.fail("%s is not to be moved", p.Key())
		}
	case had && old.Relief != nil && p.Relief == nil && !p.Surge && old.runsAs(p) && slices.Equal(c.Remove, []CopyKey{{p.App, old.Relief.N}}):
		if o := f.obs.Hosts[p.Host].Copies[p.Key()]; !o.Ready || o.ReadyFor < 2*time.Second {
			f.fail("%s takes over before it is well", p.Key())
		}
	default:
		f.fail("a decision that is no move: %+v", c)
	}
}

func (f *field) fail(format string, args ...any) {
	f.t.Helper()
	f.t.Fatalf("%s\n%s", strings.Join(f.log, "\n"), fmt.Sprintf(format, args...))
}

// shape is how many copies of which app are where.
func (f *field) shape() string {
	var b strings.Builder
	for _, a := range f.state.Apps() {
		fmt.Fprintf(&b, "%s %v ", a.Spec.Name, f.counts(a.Spec.Name))
	}
	return b.String()
}

func (f *field) counts(app string) map[string]int {
	out := map[string]int{}
	for _, p := range f.state.PlacementsOf(app) {
		out[p.Host]++
	}
	return out
}

// TestRebalanceComesToRest adds hosts to random meshes, and holds that copies
// move onto them one at a time, hardly any twice, within the budget, that the mesh
// is never again as it was, and that then nothing moves any more.
func TestRebalanceComesToRest(t *testing.T) {
	total, spent, copies, twice := 0, 0, 0, 0
	for seed := *first; seed < *first+*spreads; seed++ {
		f := newField(t, seed)
		apps := 1 + f.rnd.IntN(6)
		for i := range apps {
			f.put(f.anyApp(i))
		}
		converge(f.world, f.obs)
		for range 1 + f.rnd.IntN(3) {
			f.join()
		}
		converge(f.world, f.obs) // per-host apps
		before := f.state.Placements()
		f.shapes[f.shape()] = true
		set := Rebalance{Moves: 1 + f.rnd.IntN(4), Window: intent.Duration(seconds(20 + f.rnd.IntN(60)))}
		f.must(Command{Rebalance: &SetRebalance{Rebalance: set}})
		f.log = append(f.log, fmt.Sprintf("seed %d, rebalance %s", seed, set))
		spent += f.rest()
		total += len(f.begun)
		for _, hosts := range f.moved {
			if copies++; len(hosts) > 1 {
				twice++
			}
		}
		f.holdBudget(set)
		f.holdMoves(before)
		f.holdEven(before)
	}
	t.Logf("%d moves of %d copies in %d meshes, %d copies moved more than once; the budget was waited for %d times", total, copies, *spreads, twice, spent)
	if total < *spreads/2 || spent < *spreads/50 {
		t.Error("the meshes did not bite")
	}
	if twice*20 > copies {
		t.Error("too many copies were moved more than once")
	}
}

// rest lets decisions be made until there is nothing left to do, now or later,
// with a new leader now and then. It counts how often the budget was waited for.
func (f *field) rest() (waited int) {
	f.t.Helper()
	leaders := f.rnd.IntN(4)
	for range 500 {
		if leaders > 0 && f.rnd.IntN(6) == 0 {
			leaders--
			f.office = f.now
			f.log = append(f.log, fmt.Sprintf("%4d new leader", f.now))
		}
		d := f.second()
		switch {
		case len(d.Commands) > 0:
		case d.Wake == 0:
			if f.now += 1000; len(f.second().Commands) > 0 {
				f.fail("it had come to rest, and yet something moved")
			}
			return waited
		default:
			if strings.Contains(d.Balance, "is spent") {
				waited++
			}
			f.now += int((d.Wake - 1) / time.Second) // and a second more by itself
		}
	}
	f.fail("it does not come to rest")
	return 0
}

// holdBudget: in no window were there more moves than are allowed.
func (f *field) holdBudget(set Rebalance) {
	f.t.Helper()
	for i := range f.begun {
		if j := i + set.Moves; j < len(f.begun) && f.begun[j]-f.begun[i] < int(set.Window.Std()/time.Second) {
			f.fail("%d moves from %d to %d s, %s is allowed", set.Moves+1, f.begun[i], f.begun[j], set)
		}
	}
}

// holdMoves: what did not move runs on as it is, and nothing is left over.
func (f *field) holdMoves(before []Placement) {
	f.t.Helper()
	for _, old := range before {
		now, ok := f.state.Placement(old.Key())
		if len(f.moved[old.Key()]) == 0 && (!ok || now.Host != old.Host || now.Generation != old.Generation) {
			f.fail("%s was not moved, and yet: %+v, now %+v", old.Key(), old, now)
		}
	}
	for _, p := range f.state.Placements() {
		if p.Surge || p.Relief != nil || p.Leaving != "" {
			f.fail("left over: %+v", p)
		}
	}
}

// holdEven: apps that may run anywhere are spread evenly, and with no more moves
// than that takes.
func (f *field) holdEven(before []Placement) {
	f.t.Helper()
	for _, a := range f.state.Apps() {
		if a.Spec.PerHost || a.Spec.Disconnect.Policy == intent.DisconnectKeep || a.Spec.Place.Spread != "" || a.Spec.Place.Prefer != nil || a.Spec.Place.Require != nil {
			continue
		}
		was, is := map[string]int{}, f.counts(a.Spec.Name)
		for _, p := range before {
			if p.App == a.Spec.Name {
				was[p.Host]++
			}
		}
		least, most := 1000, 0
		for _, h := range f.state.Hosts() {
			least, most = min(least, is[h.Name]), max(most, is[h.Name])
		}
		if most-least > 1 {
			f.fail("%s is spread as %v", a.Spec.Name, is)
		}
	}
}

// With the setting off, which is the default, nothing moves.
func TestRebalanceIsOffByDefault(t *testing.T) {
	for seed := range 100 {
		f := newField(t, seed)
		for i := range 4 {
			f.put(f.anyApp(i))
		}
		converge(f.world, f.obs)
		f.join()
		f.join()
		converge(f.world, f.obs)
		for range 30 {
			if len(f.second().Commands) > 0 {
				f.fail("something moved")
			}
		}
	}
}
