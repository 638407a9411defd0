package integration

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/leases"
	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// fault is one way to harm a host of a mesh that runs singletons.
type fault string

const (
	faultCut    fault = "cut"       // off from all others
	faultStop   fault = "stop"      // SIGSTOP of the agent
	faultKill   fault = "kill"      // SIGKILL of the agent, which starts again
	faultLeader fault = "leader"    // the leader's agent is restarted: another host leads
	faultGap    fault = "clock gap" // everything on the host stands still for over two seconds
	faultStarve fault = "starve"    // everything on the host gets a tenth of a CPU
)

var faults = []fault{faultCut, faultStop, faultKill, faultLeader, faultGap, faultStarve}

// nemesis puts pairs of faults on a mesh.
type nemesis struct {
	t    *testing.T
	rig  *rig.Rig
	rnd  *rand.Rand
	unit time.Duration // the hold of a lease
}

// everyPair is every kind of fault beside every kind, in some order.
func everyPair(rnd *rand.Rand) (pairs [][2]fault) {
	for _, a := range faults {
		for _, b := range faults {
			pairs = append(pairs, [2]fault{a, b})
		}
	}
	rnd.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
	return pairs
}

// blow is a pair of faults that was put on a mesh.
type blow struct {
	what   string
	leader bool      // the leader's host was among those that were harmed
	whole  bool      // one host was lost to the mesh as a whole, at last from since on
	since  time.Time // else all faults were over by then
}

// strike puts a pair on the mesh, holder being a host that has a lease, and
// returns when all of it is over.
func (n *nemesis) strike(pair [2]fault, holder *rig.Host) (b blow) {
	lead := n.rig.Leader()
	targets := [2]*rig.Host{holder, n.rig.Hosts[n.rnd.IntN(len(n.rig.Hosts))]}
	if n.rnd.IntN(3) == 0 {
		targets[1] = holder
	}
	if n.rnd.IntN(2) == 0 {
		targets[0], targets[1] = targets[1], targets[0]
	}
	for k := range pair {
		if pair[k] == faultLeader {
			targets[k] = lead
		}
	}
	b.leader = targets[0] == lead || targets[1] == lead
	first, second := n.span(pair[0], targets[0] == holder), n.span(pair[1], targets[1] == holder)
	delay := time.Duration(n.rnd.Int64N(int64(n.unit)))
	b.what = fmt.Sprintf("%s of %s for %s, after %s %s of %s for %s", pair[0], targets[0].Name, first, delay, pair[1], targets[1].Name, second)
	if targets[0] == targets[1] { // one after the other: an agent that is dead cannot be stopped
		n.hit(pair[0], targets[0], first)
		b.since = time.Now()
		n.hit(pair[1], targets[1], second)
		// A host that works a little renews its leases and gets nothing started.
		b.whole = pair[1] == faultCut || pair[1] == faultStop || pair[1] == faultKill
		if !b.whole {
			b.since = time.Now()
		}
		return b
	}
	var both sync.WaitGroup
	both.Go(func() { n.hit(pair[0], targets[0], first) })
	both.Go(func() {
		pause(delay)
		n.hit(pair[1], targets[1], second)
	})
	both.Wait()
	b.since = time.Now() // two may be the quorum
	return b
}

// unseen is shorter than what it takes until a host is seen as failed.
const unseen = 4 * time.Second

// span is how long a fault lasts: of a host with a lease longer or shorter than
// that and its grace, of another not so long that two hosts at once look dead,
// which would shut the gate for minutes (S9).
func (n *nemesis) span(f fault, holder bool) time.Duration {
	if f == faultGap {
		return leases.MaxGap + time.Duration(100+n.rnd.IntN(200))*time.Millisecond
	}
	d := n.unit/3 + time.Duration(n.rnd.Int64N(int64(2*n.unit)))
	if !holder {
		d = min(d, unseen)
	}
	return d
}

// hit harms a host for a while.
func (n *nemesis) hit(f fault, h *rig.Host, d time.Duration) {
	switch f {
	case faultCut:
		h.Isolate()
		pause(d)
		h.Rejoin()
	case faultStop:
		h.Signal(syscall.SIGSTOP)
		pause(d)
		h.Signal(syscall.SIGCONT)
	case faultKill:
		h.Kill()
		pause(d)
		h.StartAgent()
	case faultLeader:
		h.StopAgent()
		h.StartAgent()
	case faultGap:
		h.SignalAll(syscall.SIGSTOP)
		pause(d)
		h.SignalAll(syscall.SIGCONT)
	case faultStarve:
		for end := time.Now().Add(d); time.Now().Before(end); {
			h.SignalAll(syscall.SIGSTOP)
			pause(90 * time.Millisecond)
			h.SignalAll(syscall.SIGCONT)
			pause(10 * time.Millisecond)
		}
	}
}

// pause is the pace of faults; nothing is synchronised by it.
func pause(d time.Duration) { time.Sleep(d) }
