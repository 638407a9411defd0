package topology

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ganglion-mesh/ganglion/intent"
)

// Times of the decisions. They are measured by whoever observes.
const (
	reportMissed = 5 * time.Second         // a host that reports every two seconds has missed its reports
	reportLate   = 3500 * time.Millisecond // it may be about to be missed
	calmBefore   = 2 * time.Minute         // the gate opens only after so long a calm
	maxOps       = 500                     // placements changed by one decision
)

// planner is one run of Decide: a view of the state and the observations that
// changes as decisions are made, and the decisions.
type planner struct {
	state    *State
	obs      Observations
	rooms    []*room // the roster, by name
	byName   map[string]*room
	apps     []*appPlan          // by name
	strays   map[CopyKey][]*room // hosts that still have a copy which is not placed there
	ops      []op                // in the order they were decided
	rolls    []SetRollout        // likewise, at most one an app
	runs     []RunRecord         // likewise
	wary     bool                // more hosts may be sick than have shown it yet
	ends     []EndLease          // in the order they were decided
	unfit    []UnfitHost         // where reliefs are given up
	returned []uint64            // of the budget of rebalancing
	swept    []Remnant           // that are no more
	stages   []SetStage          // by the name of the reflex
	granted  map[string]bool     // apps and addresses whose lease this decision grants
	out      Decision

	addresses []Grant // by address
}

// op is one change of a placement, with the move that it means.
type op struct {
	put    *Placement
	grant  *Grant  // that comes with put
	remove CopyKey // if put is nil
	move   *Move
}

// room is a host with what is placed on it.
type room struct {
	Host
	labels     int // rooms with equal labels have equal numbers
	obs        HostObs
	fresh      bool                 // alive by gossip, and its reports arrive
	current    bool                 // its last report was made by its present slice
	copies     int                  // placed here
	leftover   int                  // remnants that may still be here
	kept       map[CopyKey]*Remnant // those of them that have ports or memory
	keptMemory int64                // bytes
	movers     int                  // those of them that have somewhere else to go: not of per-host apps
	perApp     map[string]int
	cpu        float64
	memory     int64
	ports      map[int]CopyKey

	addresses int // leased to it; counted where one is wanted
}

// appPlan is an app with its copies.
type appPlan struct {
	*appEntry
	copies  []*copyPlan // by number: those that are asked for
	extras  []*copyPlan // by number: surge copies, but for reliefs
	reliefs []*copyPlan // by number
	halted  bool        // nothing is changed: the rollout is held, or has just failed
	frozen  bool        // nothing is done about it that nobody has asked for
	lacks   string      // what its rollout waits for, if it is room
	noRoom  bool        // a surge copy is called for that no host takes
	want    int         // copies there should be, without surge copies

	parallel         int
	healthy, timeout time.Duration
	grace            time.Duration  // until a silent, dead host's copies are re-placed
	replace          bool           // whether they are
	spreads          map[string]int // see spread
	fits             []*fit         // by room.labels; see fit
	lease            lease          // of a singleton
}

// fit is what an app's expressions say about a host's labels.
type fit struct {
	refused string // the first requirement that does not hold
	prefer  float64
}

// fit asks the app's expressions about a room, once a decision for all rooms
// with equal labels: to ask is what costs most in a large mesh.
func (a *appPlan) fit(r *room) *fit {
	for len(a.fits) <= r.labels {
		a.fits = append(a.fits, nil)
	}
	if a.fits[r.labels] == nil {
		a.fits[r.labels] = &fit{a.refusedBy(r.obs.Labels), a.preferred(r.obs.Labels)}
	}
	return a.fits[r.labels]
}

// numberLabels gives equal sets of labels equal numbers.
func (p *planner) numberLabels() {
	numbers := map[string]int{}
	for _, r := range p.rooms {
		var b strings.Builder
		for _, name := range sortedKeys(r.obs.Labels) {
			b.WriteString(strconv.Quote(name) + strconv.Quote(r.obs.Labels[name]))
		}
		n, ok := numbers[b.String()]
		if !ok {
			n = len(numbers)
			numbers[b.String()] = n
		}
		r.labels = n
	}
}

// copyPlan is a placed copy with what its host says about it.
type copyPlan struct {
	Placement
	room    *room
	obs     CopyObs
	known   bool // its host reports it, of whatever generation
	seen    bool // its host reports this generation
	ready   bool
	settled bool // ready for healthy_for
	touched bool // changed by this decision
	spent   bool // its run is over: it takes no room
}

func newPlanner(s *State, obs Observations) *planner {
	p := &planner{state: s, obs: obs, byName: map[string]*room{}, strays: map[CopyKey][]*room{}, granted: map[string]bool{}}
	for e := range values(s.hosts) {
		o := obs.Hosts[e.Name]
		r := &room{
			Host: e.Host, obs: o, fresh: o.Alive && o.Reported && o.ReportAge < reportMissed,
			current: o.Reported && o.Slice >= e.slice, perApp: map[string]int{}, ports: map[int]CopyKey{},
		}
		p.rooms = append(p.rooms, r)
		p.byName[e.Name] = r
	}
	p.numberLabels()
	for e := range values(s.apps) {
		p.apps = append(p.apps, p.planApp(e))
	}
	p.findStrays()
	p.findRemnants()
	return p
}

func (p *planner) planApp(e *appEntry) *appPlan {
	a := &appPlan{
		appEntry: e, halted: e.Rollout.Outcome == OutcomeHeld, want: e.Spec.Copies(),
		parallel: max(1, e.Spec.Update.Parallel),
		healthy:  e.Spec.Update.HealthyFor.Std(),
		timeout:  or(e.Spec.Update.Deadline.Std(), 2*time.Minute),
		grace:    or(e.Spec.Disconnect.Grace.Std(), 5*time.Second),
		replace:  e.Spec.Disconnect.Policy != intent.DisconnectKeep,
	}
	a.frozen = p.obs.Freeze.holds(e.Spec.Name)
	if e.Spec.Singleton {
		a.lease = p.lease(e.Spec.Name)
	}
	if e.job() {
		a.want = 0
		if e.Job.active() {
			a.want = 1
		}
	}
	for placement := range prefixed(p.state.copies, e.Spec.Name) {
		c := &copyPlan{Placement: *placement, room: p.byName[placement.Host]}
		if c.spent = a.spent(c.Placement); !c.spent {
			c.room.take(a, c.Placement)
		}
		c.observe(a)
		list := a.listOf(c.Placement)
		*list = append(*list, c)
	}
	return a
}

// all is every copy, the surge copies last.
func (a *appPlan) all() []*copyPlan { return slices.Concat(a.copies, a.extras, a.reliefs) }

// listOf is the list that a placement belongs to.
func (a *appPlan) listOf(c Placement) *[]*copyPlan {
	switch {
	case c.Relief != nil:
		return &a.reliefs
	case c.Surge:
		return &a.extras
	}
	return &a.copies
}

func (c *copyPlan) observe(a *appPlan) {
	c.obs, c.known = c.room.obs.Copies[c.Key()]
	c.seen = c.known && c.obs.Generation == c.Generation
	c.ready = c.room.fresh && c.seen && c.obs.Ready && !c.Stopped
	c.settled = c.ready && c.obs.ReadyFor >= a.healthy
}

// findStrays finds the copies that a host still has although they are placed
// elsewhere or nowhere. Rooms are visited in order, so that lists are in order.
func (p *planner) findStrays() {
	for _, r := range p.rooms {
		for key, o := range r.obs.Copies {
			placed, ok := p.state.copies.Get(copyKey(key))
			if (!ok || placed.Host != r.Name) && !over(o) {
				p.strays[key] = append(p.strays[key], r)
			}
		}
	}
}

// over reports whether a copy has no process any more and gets none. One that
// failed may be tried again.
func over(o CopyObs) bool { return o.State == CopyStopped }

// gone reports whether the process of a copy that was told to stop is no more, by
// a report on what it was told.
func (c *copyPlan) gone() bool {
	return c.room.fresh && c.room.obs.Slice >= c.Generation && (!c.known || over(c.obs) || c.seen && c.obs.State == CopyFailed)
}

// idle reports whether a user has stopped the copy.
func (a *appPlan) idle(c *copyPlan) bool { return c.Stopped && c.Leaving == "" }

func (r *room) take(a *appPlan, c Placement) {
	need := a.Versions[c.Version].Resources
	r.cpu += need.CPU
	r.memory += int64(need.Memory)
	r.count(a, 1)
	for _, port := range c.Ports {
		r.ports[port] = c.Key()
	}
}

func (r *room) free(a *appPlan, c Placement) {
	need := a.Versions[c.Version].Resources
	r.cpu -= need.CPU
	r.memory -= int64(need.Memory)
	r.count(a, -1)
	for _, port := range c.Ports {
		delete(r.ports, port)
	}
}

func (r *room) count(a *appPlan, by int) {
	r.copies += by
	r.perApp[a.Spec.Name] += by
	if !a.Spec.PerHost {
		r.movers += by
	}
}

// put decides that c becomes next. The reason is that of a move.
func (p *planner) put(a *appPlan, c *copyPlan, next Placement, reason string) {
	var move *Move
	if c.Host != next.Host {
		move = &Move{Copy: next.Key(), From: c.Host, To: next.Host, Reason: reason}
	}
	if c.room != nil && !c.spent {
		c.room.free(a, c.Placement)
	}
	next.Stopped = a.stops(next)
	c.Placement, c.room = next, p.byName[next.Host]
	c.room.take(a, next)
	c.touched, c.known, c.seen, c.ready, c.settled, c.spent = true, false, false, false, false, false
	p.ops = append(p.ops, op{put: &next, grant: p.grantFor(a, next), move: move})
	a.spreads = nil
}

// add decides that a copy that has no placement gets one.
func (p *planner) add(a *appPlan, next Placement) {
	c := &copyPlan{Placement: Placement{App: next.App, N: next.N, Host: next.Host}}
	p.put(a, c, next, "")
	list := a.listOf(next)
	i, _ := findCopy(*list, next.N)
	*list = slices.Insert(*list, i, c)
}

func findCopy(list []*copyPlan, n int) (int, bool) {
	return slices.BinarySearchFunc(list, n, func(c *copyPlan, n int) int { return c.N - n })
}

// has reports whether the number is taken.
func (a *appPlan) has(n int) bool {
	_, asked := findCopy(a.copies, n)
	_, surge := findCopy(a.extras, n)
	_, relief := findCopy(a.reliefs, n)
	return asked || surge || relief
}

// drop decides that a copy is no more.
func (p *planner) drop(a *appPlan, c *copyPlan) {
	if !c.Stopped || !c.gone() {
		p.strays[c.Key()] = append(p.strays[c.Key()], c.room) // it has yet to stop
	}
	if !c.spent {
		c.room.free(a, c.Placement)
	}
	is := func(x *copyPlan) bool { return x == c }
	list := a.listOf(c.Placement)
	*list = slices.DeleteFunc(*list, is)
	if left := withNumber(a.StoppedCopies, c.N, false); len(left) != len(a.StoppedCopies) {
		entry := *a.appEntry // as Apply will: the number begins as running
		entry.StoppedCopies = left
		a.appEntry = &entry
	}
	p.ops = append(p.ops, op{remove: c.Key()})
	a.spreads = nil
}

func (p *planner) full() bool { return len(p.ops) >= maxOps }

func (p *planner) unplaced(key CopyKey, reason string) {
	p.out.Unplaced = append(p.out.Unplaced, Unplaced{key, reason})
}

// wake asks for another look after d.
func (p *planner) wake(d time.Duration) {
	if d > 0 && (p.out.Wake == 0 || d < p.out.Wake) {
		p.out.Wake = d
	}
}

func or(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func sortedCopies[V any](m map[CopyKey]V) []CopyKey {
	return slices.SortedFunc(maps.Keys(m), func(x, y CopyKey) int {
		return cmp.Or(cmp.Compare(x.App, y.App), cmp.Compare(x.N, y.N))
	})
}
