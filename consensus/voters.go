package consensus

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// The measures of the voter policy. They follow what autopilot-like policies
// of this field have settled on.
const (
	freshContact = 2 * time.Second // a server heard within this is in contact
	caughtUpLag  = 250             // entries a server may trail and still be promoted
)

// Candidate is a host that may carry a voter. The caller lists every enrolled
// host of the mesh exactly once, alive or not: the number of hosts decides the
// number of voters, so the list must come from the committed roster and not
// from what gossip sees at the moment.
type Candidate struct {
	ID    string    // of the host's server; empty while it runs none
	Addr  string    // mesh address of the server
	Host  string    // unique name of the host
	Alive bool      // by gossip
	Since time.Time // since when Alive has had its value, on the caller's clock
	// Leaving says that the host itself wants out, and waits for it. It counts for
	// nothing any more, and as there is nothing to find out about it, it is
	// replaced or let go without the patience that one gone silent is given.
	Leaving bool
}

// StepKind says what a Step does.
type StepKind string

// The steps of the voter policy.
const (
	StepNone      StepKind = ""
	StepAdd       StepKind = "add"       // as non-voter, to be caught up
	StepPromote   StepKind = "promote"   // non-voter to voter: one, or two together
	StepDemote    StepKind = "demote"    // voter to non-voter
	StepRemove    StepKind = "remove"    // out of the configuration
	StepReaddress StepKind = "readdress" // the same server, at a new address
	StepTransfer  StepKind = "transfer"  // leadership goes to another voter
)

// Step is one change of the Raft configuration.
type Step struct {
	Kind    StepKind
	Servers []string      // ids
	Addrs   []string      // of Servers, for those kinds that set one
	Why     string        // for the log and for users
	Hold    time.Duration // do it only if it stays the next step for so long
}

// VoterPlan is what the policy wants: at most one step of the configuration,
// and which hosts should start or stop a server.
type VoterPlan struct {
	Target int // number of voters for this number of hosts
	Voters int // voters now, dead ones included
	Step   Step
	Done   bool     // whether Tend executed Step
	Start  []string // hosts that should start a server, to be added later
	Stop   []string // hosts whose server is in no configuration and not needed
}

// server is a member of the Raft configuration.
type server struct {
	id, addr string
	voter    bool
}

// contact is what the leader knows of another server by its own replication.
type contact struct {
	silence  time.Duration // since its last answer, or since this leader took office
	steady   time.Duration // for how long it has answered without a gap
	unlisted time.Duration // for how long no candidate has had its id
	lag      uint64        // entries it trails
	synced   bool          // it holds the present configuration
}

// electorate is everything the voter policy looks at.
type electorate struct {
	self       string
	now        time.Time
	stability  time.Duration // how long a state must last before a server is replaced
	servers    []server
	candidates []Candidate
	contacts   map[string]contact // by server id; self is not in it
}

// member is a server with all that is known of it.
type member struct {
	server
	contact
	cand *Candidate // nil if no candidate has this id
	self bool
}

// heard says that it answers.
func (m member) heard() bool { return m.self || m.silence <= freshContact }

// aliveFor says that gossip has called it alive for at least d.
func (m member) aliveFor(now time.Time, d time.Duration) bool {
	return m.cand != nil && m.cand.Alive && now.Sub(m.cand.Since) >= d
}

// ready says that it may be promoted now.
func (m member) ready(now time.Time) bool {
	return !m.voter && !m.leaving() && m.heard() && m.synced && m.lag <= caughtUpLag && m.aliveFor(now, 0)
}

// leaving says that its host wants out.
func (m member) leaving() bool { return m.cand != nil && m.cand.Leaving }

// lost says that it needs a replacement: it wants out, gossip and the leader's own
// contact agree that it is gone, or the roster has not named it for a while. The
// leader itself is not lost to gossip: with the only vote it can hand over to
// nobody until another has one.
func (m member) lost(now time.Time, stability time.Duration) bool {
	if m.cand == nil {
		return m.unlisted >= stability
	}
	if m.cand.Leaving {
		return true
	}
	return !m.self && !m.cand.Alive && now.Sub(m.cand.Since) >= stability && m.silence >= stability
}

// targetVoters is the number of voters for a number of hosts. Two voters are
// worse than one: either one's death would stop changes.
func targetVoters(hosts int) int {
	switch {
	case hosts >= 7:
		return 5
	case hosts >= 3:
		return 3
	default:
		return 1
	}
}

// quorum is the majority of n voters.
func quorum(n int) int { return n/2 + 1 }

// ballot is an electorate sorted out: the working form of the policy.
type ballot struct {
	electorate
	target  int
	members []member // by host and id
	voters  int
	healthy int // voters that answer
	living  int // voters not lost
	waiting int // non-voters not lost
	leaving int // voters that want out
}

func newBallot(e electorate) ballot {
	b := ballot{electorate: e}
	byID := map[string]*Candidate{}
	hosts := map[string]bool{}
	b.candidates = slices.Clone(e.candidates)
	slices.SortFunc(b.candidates, func(x, y Candidate) int {
		return cmp.Or(cmp.Compare(x.Host, y.Host), cmp.Compare(x.ID, y.ID))
	})
	for i := range b.candidates {
		c := &b.candidates[i]
		if !c.Leaving {
			hosts[c.Host] = true
		}
		if c.ID != "" {
			byID[c.ID] = c
		}
	}
	b.target = targetVoters(len(hosts))
	for _, s := range e.servers {
		m := member{server: s, contact: e.contacts[s.id], cand: byID[s.id], self: s.id == e.self}
		b.members = append(b.members, m)
		b.count(m)
	}
	slices.SortFunc(b.members, func(x, y member) int {
		return cmp.Or(cmp.Compare(x.host(), y.host()), cmp.Compare(x.id, y.id))
	})
	return b
}

func (m member) host() string {
	if m.cand == nil {
		return ""
	}
	return m.cand.Host
}

func (b *ballot) count(m member) {
	lost := m.lost(b.now, b.stability)
	switch {
	case m.voter:
		b.voters++
		if m.heard() {
			b.healthy++
		}
		if m.leaving() {
			b.leaving++
		}
		if !lost {
			b.living++
		}
	case !lost:
		b.waiting++
	}
}

// planVoters is the voter policy. It is pure: the same electorate, in any
// order, gives the same plan. Its rules, in order of precedence:
//
//   - a leader that leaves, or is off the roster, hands over;
//   - an id whose address now belongs to another server is removed: its disk is
//     gone, and the address is needed;
//   - surplus voters are demoted, lost ones first, and surplus or lost
//     non-voters are removed;
//   - below the target, ready non-voters are promoted at once, two together if
//     the number of voters is odd, so that it stays odd;
//   - a lost voter is demoted only after a caught-up and stable replacement was
//     promoted; one that leaves by its own will is replaced by a caught-up one;
//   - no demotion leaves fewer answering voters than the quorum that was, unless
//     the mesh has shrunk so far that the target itself is smaller.
func planVoters(e electorate) VoterPlan {
	b := newBallot(e)
	plan := VoterPlan{Target: b.target, Voters: b.voters}
	if len(b.candidates) == 0 || !b.hasSelf() {
		return plan // an empty list means a caller that knows nothing, not a mesh of nobody
	}
	for _, rule := range []func() Step{b.handOver, b.supersede, b.readdress, b.release, b.demote, b.promote, b.replace, b.remove, b.add} {
		if plan.Step = rule(); plan.Step.Kind != StepNone {
			break
		}
	}
	plan.Start, plan.Stop = b.startStop()
	return plan
}

func (b *ballot) hasSelf() bool {
	return slices.ContainsFunc(b.members, func(m member) bool { return m.self })
}

func (b *ballot) handOver() Step {
	i := slices.IndexFunc(b.members, func(m member) bool { return m.self })
	why := "the leader's host leaves"
	if self := b.members[i]; !self.leaving() {
		if self.cand != nil || self.unlisted < b.stability {
			return Step{}
		}
		why = "the leader's host is no longer on the roster"
	}
	for _, m := range b.members {
		if m.voter && !m.self && !m.leaving() && m.heard() && m.aliveFor(b.now, 0) {
			return Step{Kind: StepTransfer, Servers: []string{m.id}, Addrs: []string{m.addr}, Why: why}
		}
	}
	return Step{}
}

// supersede removes a server whose address is another's now. That is how a
// wiped host comes back: with a new id, at the old address.
func (b *ballot) supersede() Step {
	for _, c := range b.candidates {
		if c.ID == "" || !c.Alive || b.isMember(c.ID) {
			continue
		}
		for _, m := range b.members {
			if m.addr != c.Addr || m.self || m.cand != nil || m.silence < b.stability {
				continue
			}
			if !m.voter || b.healthy >= quorum(b.voters) {
				return Step{Kind: StepRemove, Servers: []string{m.id}, Why: "its address belongs to server " + c.ID + " now"}
			}
		}
	}
	return Step{}
}

func (b *ballot) isMember(id string) bool {
	return slices.ContainsFunc(b.members, func(m member) bool { return m.id == id })
}

func (b *ballot) addrTaken(addr string) bool {
	return slices.ContainsFunc(b.members, func(m member) bool { return m.addr == addr })
}

func (b *ballot) readdress() Step {
	for _, m := range b.members {
		if m.cand == nil || !m.cand.Alive || m.cand.Addr == "" || m.cand.Addr == m.addr || b.addrTaken(m.cand.Addr) {
			continue
		}
		return Step{Kind: StepReaddress, Servers: []string{m.id}, Addrs: []string{m.cand.Addr}, Why: "its address was " + m.addr}
	}
	return Step{}
}

// release takes a server off that leaves and has no vote. It comes before the
// steps that are held for a while.
func (b *ballot) release() Step {
	if m, ok := b.find(func(m member) bool { return !m.voter && !m.self && m.leaving() }); ok {
		return Step{Kind: StepRemove, Servers: []string{m.id}, Why: "it leaves, and has no vote"}
	}
	return Step{}
}

// demote takes the vote from a surplus voter. An even number of voters bears
// no more failures than one less, so there a lost voter goes in any case.
func (b *ballot) demote() Step {
	if b.voters <= b.target && b.voters%2 == 1 {
		return Step{}
	}
	lost := func(m member) bool { return m.lost(b.now, b.stability) }
	for _, pass := range []func(member) bool{
		func(m member) bool { return lost(m) && !m.heard() },
		lost,
		func(m member) bool { return !m.heard() }, // costs no answering voter
		func(m member) bool { return m.cand == nil },
		func(member) bool { return true },
	} {
		for _, m := range slices.Backward(b.members) {
			if m.self || !m.voter || !pass(m) || !b.spares(m) {
				continue
			}
			if lost(m) {
				return Step{Kind: StepDemote, Servers: []string{m.id}, Why: "it is lost or leaves, and the others are enough"}
			}
			if b.voters > b.target {
				return Step{Kind: StepDemote, Servers: []string{m.id}, Hold: b.stability,
					Why: fmt.Sprintf("%d voters are enough for this number of hosts", b.target)}
			}
		}
	}
	return Step{}
}

// spares says that the vote of m may go: as many answer afterwards as the
// quorum that was, or, in a mesh that has shrunk below it, as the target. In any
// case those that remain can decide.
func (b *ballot) spares(m member) bool {
	left := b.healthy - answers(m)
	return left >= min(quorum(b.voters), b.target) && left >= quorum(b.voters-1)
}

func answers(m member) int {
	if m.heard() {
		return 1
	}
	return 0
}

func (b *ballot) find(ok func(member) bool) (member, bool) {
	if i := slices.IndexFunc(b.members, ok); i >= 0 {
		return b.members[i], true
	}
	return member{}, false
}

// promote fills up to the target.
func (b *ballot) promote() Step {
	if b.voters >= b.target {
		return Step{}
	}
	need := 1 + b.voters%2
	step := Step{Kind: StepPromote, Why: fmt.Sprintf("caught up; %d of %d voters", b.voters, b.target)}
	for _, m := range b.members {
		if m.ready(b.now) && len(step.Servers) < need {
			step.Servers = append(step.Servers, m.id)
			step.Addrs = append(step.Addrs, m.addr)
		}
	}
	if len(step.Servers) < need {
		return Step{}
	}
	return step
}

// replace promotes one server for a lost voter, which demote takes off next.
func (b *ballot) replace() Step {
	if b.living == b.voters || b.voters%2 == 0 {
		return Step{}
	}
	for _, m := range b.members {
		if m.ready(b.now) && m.steady >= b.patience() && m.aliveFor(b.now, b.patience()) {
			return Step{Kind: StepPromote, Servers: []string{m.id}, Addrs: []string{m.addr}, Why: "replaces a voter that is lost or leaves"}
		}
	}
	return Step{}
}

// remove takes non-voters off that are lost or not needed.
func (b *ballot) remove() Step {
	if m, ok := b.find(func(m member) bool { return !m.voter && !m.self && m.lost(b.now, b.stability) }); ok {
		return Step{Kind: StepRemove, Servers: []string{m.id}, Why: "it is lost and has no vote"}
	}
	if b.waiting <= max(0, b.target-b.living) {
		return Step{}
	}
	for _, m := range slices.Backward(b.members) {
		if !m.voter && !m.self {
			return Step{Kind: StepRemove, Servers: []string{m.id}, Hold: b.stability, Why: "there are enough voters"}
		}
	}
	return Step{}
}

// patience is how long a host must have been alive to become a server: none
// while below the target, also as it will be without those that leave, some when
// a voter is to be replaced that may come back by itself.
func (b *ballot) patience() time.Duration {
	if b.voters-b.leaving < b.target {
		return 0
	}
	return b.stability
}

// missing is how many more servers are wanted.
func (b *ballot) missing() int { return b.target - b.living - b.waiting }

func (b *ballot) addable(c Candidate) bool {
	return c.ID != "" && c.Alive && !c.Leaving && c.Addr != "" && !b.isMember(c.ID) && b.now.Sub(c.Since) >= b.patience()
}

func (b *ballot) add() Step {
	if b.missing() <= 0 {
		return Step{}
	}
	for _, c := range b.candidates {
		if b.addable(c) && !b.addrTaken(c.Addr) {
			return Step{Kind: StepAdd, Servers: []string{c.ID}, Addrs: []string{c.Addr}, Why: "to be caught up"}
		}
	}
	return Step{}
}

// worth ranks idle servers: first those that add takes next.
func (b *ballot) worth(c Candidate) int {
	switch {
	case b.addable(c):
		return 2
	case c.Alive:
		return 1
	}
	return 0
}

// startStop says which hosts should start a server, and which run one for
// nothing.
func (b *ballot) startStop() (start, stop []string) {
	want := b.missing()
	var idle []Candidate // run a server that is in no configuration
	for _, c := range b.candidates {
		if c.ID != "" && !b.isMember(c.ID) {
			idle = append(idle, c)
		}
	}
	slices.SortStableFunc(idle, func(x, y Candidate) int { return b.worth(y) - b.worth(x) })
	for _, c := range idle {
		if want > 0 && c.Alive && !c.Leaving {
			want--
		} else {
			stop = append(stop, c.Host)
		}
	}
	for _, c := range b.candidates {
		if want > 0 && c.ID == "" && c.Alive && !c.Leaving && b.now.Sub(c.Since) >= b.patience() {
			start = append(start, c.Host)
			want--
		}
	}
	return start, stop
}
