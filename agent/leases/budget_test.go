package leases_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/leases"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// bug is a design that the checks below must find wrong.
type bug string

const (
	sound       bug = ""
	notEscrowed bug = "budget not escrowed"
	forgetful   bug = "budget reset on restart"
	hasty       bug = "tokens free as soon as a loan is over"
	early       bug = "freeze checked at enqueue"
	earlyGate   bug = "gate looked at when it is decided"
)

const tick = 5 * time.Second

// actor is a host: the real engine, with a clock of its own, a disk, and a queue
// between what it decides and what it does.
type actor struct {
	name    string
	rate    float64 // of its boot clock
	boot    int
	born    time.Duration // true time of the boot
	island  int
	frozen  bool
	gate    bool
	heard   time.Duration // local time of the last answer of a leader
	known   bool
	e       *reflexes.Engine
	snap    []byte
	journal []reflexes.Record
	queue   []reflexes.Firing
	with    reflexes.Authority // as it was when the queue was made
	due     time.Duration
	settle  []topology.SettleLoan
	lent    []answer
}

// answer is a loan on its way.
type answer struct {
	loan reflexes.Loan
	at   time.Duration
	boot int
}

// budgetMesh is actors of a mesh whose metric has gone bad on all hosts, a leader
// that comes and goes, and one true time that nobody knows.
type budgetMesh struct {
	rnd    *rand.Rand
	bug    bug
	rule   []*reflexes.Rule
	state  *topology.State
	index  uint64
	now    time.Duration
	actors []*actor
	leader *actor // nil: none
	book   leases.LoanBook
	acts   []time.Duration
	broken string
	selfID uint64
}

func (a *actor) local(now time.Duration) time.Duration {
	return time.Duration(float64(now-a.born) * a.rate)
}

func (m *budgetMesh) apply(c topology.Command) topology.Result {
	m.index++
	next, res := m.state.Apply(m.index, c)
	m.state = next
	return res
}

func newBudgetMesh(rule []*reflexes.Rule, seed uint64, b bug) *budgetMesh {
	m := &budgetMesh{rnd: rand.New(rand.NewPCG(seed, 9)), bug: b, rule: rule, state: topology.New(), selfID: 1 << 40}
	hosts := []int{3, 5, 20, 45, 60}[m.rnd.IntN(5)]
	for i := range hosts {
		name := fmt.Sprintf("h%d", i)
		m.apply(topology.Command{EnrolHost: &topology.EnrolHost{Name: name, ID: "id-" + name}})
		if i < 5 { // the others have no rule: they make the budget larger
			a := &actor{name: name, rate: 0.9 + 0.2*m.rnd.Float64()}
			m.actors = append(m.actors, a)
			m.begin(a, nil, nil)
		}
	}
	return m
}

// begin is a life of an actor's agent.
func (m *budgetMesh) begin(a *actor, snap []byte, journal []reflexes.Record) {
	old := a.e
	a.e = reflexes.NewEngine(reflexes.Config{Boot: strconv.Itoa(a.boot), Seed: uint64(a.boot)})
	a.queue, a.known = nil, false
	now := a.local(m.now)
	if m.bug == forgetful && old != nil {
		for _, l := range old.Loans() {
			l.Spent = 0
			a.e.Lend(now, l)
		}
	} else if snap != nil || journal != nil {
		if err := a.e.Restore(now, snap, journal); err != nil {
			m.broken = err.Error()
		}
	}
	a.e.SetRules(now, m.rule)
}

// trouble is what happens to hosts, links and the leader.
func (m *budgetMesh) trouble() {
	a := m.actors[m.rnd.IntN(len(m.actors))]
	switch m.rnd.IntN(9) {
	case 0, 1: // islands: one to five
		n := 1 + m.rnd.IntN(5)
		for _, x := range m.actors {
			x.island = m.rnd.IntN(n)
		}
	case 2: // the leader changes, or there is none for a while
		m.leader = nil
	case 3: // the agent dies, perhaps long after its last snapshot
		m.begin(a, a.snap, a.journal)
	case 4: // the host boots: its clock begins anew
		a.boot, a.born = a.boot+1, m.now
		m.begin(a, a.snap, a.journal)
	case 5, 6:
		a.frozen = !a.frozen
	case 7:
		a.gate = !a.gate
	default:
		if s, err := a.e.Snapshot(); err == nil {
			a.snap = s
		}
	}
}

// elect gives the largest island a leader, if it holds a majority of the actors.
func (m *budgetMesh) elect() {
	size := map[int]int{}
	for _, a := range m.actors {
		size[a.island]++
	}
	if m.leader != nil && size[m.leader.island]*2 > len(m.actors) {
		return
	}
	m.leader = nil
	if a := m.actors[m.rnd.IntN(len(m.actors))]; size[a.island]*2 > len(m.actors) {
		m.leader = a
		m.book.TakeOffice()
	}
}

// serve is what the leader does for a host that reaches it.
func (m *budgetMesh) serve(a *actor) {
	if m.leader == nil || m.leader.island != a.island {
		if m.bug == notEscrowed && a.e != nil {
			m.selfID++
			now := a.local(m.now)
			a.e.Lend(now, reflexes.Loan{ID: m.selfID, Tokens: 1, Until: now + topology.LoanTime})
		}
		return
	}
	if a.heard, a.known = a.local(m.now), true; m.rnd.IntN(4) == 0 {
		return // an ordinary report
	}
	for _, s := range a.settle {
		m.apply(topology.Command{SettleLoan: &s})
	}
	if m.rnd.IntN(5) > 0 { // else the answer is lost, and it is said again
		a.settle = nil
	}
	asked := a.local(m.now)
	loans := m.state.Loans()
	free := m.book.Look(loans, m.leader.local(m.now))
	if m.bug == hasty {
		free = nil
		for _, l := range loans {
			free = append(free, l.ID)
		}
		if m.rnd.IntN(24) > 0 { // about as long as a loan lasts
			free = nil
		}
	}
	lend := topology.Lend{Host: a.name, Boot: strconv.Itoa(a.boot), Tokens: 1, Time: topology.LoanTime, Returned: free}
	if res := m.apply(topology.Command{Lend: &lend}); res.Err == nil && m.rnd.IntN(6) > 0 {
		delay := time.Duration(m.rnd.IntN(3)) * tick * time.Duration(1+m.rnd.IntN(10))
		a.lent = append(a.lent, answer{reflexes.Loan{ID: m.index, Tokens: 1, Until: asked + topology.LoanTime}, m.now + delay, a.boot})
	}
}

// live is one tick of a host.
func (m *budgetMesh) live(a *actor) {
	now := a.local(m.now)
	for len(a.lent) > 0 && a.lent[0].at <= m.now {
		if l := a.lent[0]; l.boot == a.boot {
			a.e.Lend(now, l.loan)
		}
		a.lent = a.lent[1:]
	}
	for _, l := range a.e.ExpiredLoans(now) {
		a.settle = append(a.settle, topology.SettleLoan{ID: l.ID, Host: a.name, Spent: l.Spent})
	}
	var firings []reflexes.Firing
	for range 100 { // woken when it asked to be: else it would mistrust itself
		w := a.e.Wake()
		if w >= now {
			break
		}
		woken, _ := a.e.Step(w, nil)
		firings = append(firings, woken...)
	}
	bad := m.rnd.IntN(3) > 0
	fired, _ := a.e.Step(now, []reflexes.Fact{{Var: reflexes.DiskReadOnly, Target: reflexes.Target{Scope: reflexes.ScopeDisk, Name: "/var"}, Value: reflexes.Bool(bad), At: now}})
	firings = append(firings, fired...)
	auth := reflexes.Authority{Frozen: a.frozen, GateShut: a.gate, Permitted: a.known, PermitAge: now - a.heard, SameRule: 1}
	if len(firings) > 0 {
		a.queue, a.with, a.due = append(a.queue[:0], firings...), auth, m.now+time.Duration(m.rnd.IntN(3))*tick
	}
	if len(a.queue) > 0 && m.rnd.IntN(8) == 0 { // just between what it decides and what it does
		a.frozen, a.gate = m.rnd.IntN(2) == 0, m.rnd.IntN(3) == 0
		auth.Frozen, auth.GateShut = a.frozen, a.gate
	}
	if len(a.queue) == 0 || m.now < a.due {
		return
	}
	if m.bug == early {
		auth.Frozen = a.with.Frozen
	}
	if m.bug == earlyGate {
		auth.GateShut = a.with.GateShut
	}
	act, ok := a.e.Permit(now, a.queue[0], auth)
	a.queue = nil
	a.journal = append(a.journal, a.e.TakeRecords()...)
	a.e.TakeOutcomes()
	if !ok {
		return
	}
	m.acts = append(m.acts, m.now)
	switch {
	case a.frozen:
		m.broken = fmt.Sprintf("%s: %s acted while frozen", m.now, a.name)
	case a.gate:
		m.broken = fmt.Sprintf("%s: %s acted while the gate was shut", m.now, a.name)
	case m.rnd.IntN(4) > 0: // else the agent dies before it knows the result
		a.e.Done(now, act.ID, true, "")
		a.journal = append(a.journal, a.e.TakeRecords()...)
	default:
		m.begin(a, a.snap, a.journal)
	}
}

// run lets most of an hour pass, and returns what was broken.
func (m *budgetMesh) run() string {
	for m.now = 0; m.now < 50*time.Minute && m.broken == ""; m.now += tick {
		if m.rnd.IntN(6) == 0 {
			m.trouble()
		}
		m.elect()
		for _, a := range m.actors {
			if m.rnd.IntN(3) == 0 {
				m.serve(a)
			}
			m.live(a)
		}
	}
	allowed := topology.Budget(len(m.state.Hosts()))
	for i := allowed; i < len(m.acts); i++ {
		if m.acts[i]-m.acts[i-allowed] < topology.BudgetWindow {
			return fmt.Sprintf("%d actions between %s and %s, %d are allowed", allowed+1, m.acts[i-allowed], m.acts[i], allowed)
		}
	}
	return m.broken
}

func fleeRule(t testing.TB) []*reflexes.Rule {
	t.Helper()
	c, err := reflexes.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Compile(intent.Reflex{
		Name: "flee", When: "disk.read_only", Scope: "disk:/var", Act: []intent.Action{{Op: "drain_self"}}, Cooldown: intent.Second, Limit: "100/10m",
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	return []*reflexes.Rule{r}
}

// seedsOf is how many histories are run: GANGLION_SEEDS times as many if it is set.
func seedsOf(n uint64) uint64 {
	if times, err := strconv.ParseUint(os.Getenv("GANGLION_SEEDS"), 10, 16); err == nil && times > 0 {
		return n * times
	}
	return n
}

// A rule of which every host wants to act at once, in islands, with leaders that
// flap and agents that die: no window has more than the budget (S7), nothing acts
// while it is frozen (S8) or the gate is shut (S9).
func TestBudgetFreezeAndGateHold(t *testing.T) {
	rule := fleeRule(t)
	acts := 0
	seeds := seedsOf(1000)
	for seed := range seeds {
		m := newBudgetMesh(rule, seed, sound)
		if broken := m.run(); broken != "" {
			t.Fatalf("seed %d: %s", seed, broken)
		}
		acts += len(m.acts)
	}
	t.Logf("%d actions in %d histories", acts, seeds)
	if acts < int(seeds) {
		t.Errorf("%d actions in %d histories: nothing was tested", acts, seeds)
	}
}

func TestBudgetMutantsAreCaught(t *testing.T) {
	rule := fleeRule(t)
	for _, b := range []bug{notEscrowed, forgetful, hasty, early, earlyGate} {
		caught := false
		for seed := uint64(0); seed < 500 && !caught; seed++ {
			caught = newBudgetMesh(rule, seed, b).run() != ""
		}
		if !caught {
			t.Errorf("%s: not caught", b)
		}
	}
}
