package integration

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/integration/rig"
	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/workload/vip"
)

// The leases under which addresses lapse in tests: short, but long enough for a renewal
// that is late on a busy machine.
const (
	addressGrace = 8 * time.Second
	// leftAtLeast is what is left of an address's lifetime just before it is renewed: 4 of
	// 6 s, less what a third of a lease takes.
	leftAtLeast = 1900 * time.Millisecond
)

var briefly = topology.Timers{Hold: 6 * time.Second, Kill: 500 * time.Millisecond, Grace: addressGrace}

var mayClaim = []string{"--reflex-addresses", "10.88.0.0/24=eth0,fd88::/64=eth0"}

// roundabout declares that a host whose link vip0 is up claims an address.
const roundabout = `reflex "vip" {
  scope    = "link:vip0"
  when     = "link.up"
  clear    = "!link.up"
  act      = [claim("%s")]
  cooldown = "1s"
  limit    = "50/10m"
}
`

// addressMesh is a mesh of three hosts that may claim, and a bystander without an
// agent that uses the address.
type addressMesh struct {
	*rig.Rig
	t    *testing.T
	addr netip.Prefix
	eyes *eyes
	user *rig.Host
}

func startAddressMesh(t *testing.T, addr netip.Prefix, timers topology.Timers) *addressMesh {
	t.Helper()
	r := rig.New(t, 4)
	r.Env = append(r.Env, fmt.Sprintf("GANGLION_TEST_LEASE=%s,%s,%s", timers.Hold, timers.Kill, timers.Grace))
	all := r.Hosts
	if addr.Addr().Is6() {
		for i, h := range all {
			h.IP("addr", "add", fmt.Sprintf("fd88::%d/64", i+1), "dev", "eth0", "nodad")
		}
	}
	r.Hosts = all[:3]
	r.Start(mayClaim...)
	r.Hosts = all
	awaitVoters(t, r, 3)
	m := &addressMesh{Rig: r, t: t, addr: addr, user: all[3]}
	m.eyes = openEyes(t, all, addr.Addr())
	m.eyes.life = (timers.Hold - 250*time.Millisecond - vip.Late).Truncate(time.Second)
	for _, h := range all[:3] {
		h.IP("link", "add", "vip0", "type", "veth", "peer", "name", "far0")
		h.IP("link", "set", "far0", "up")
		m.eyes.serve(h)
	}
	t.Cleanup(m.story)
	r.Hosts[0].Must("mesh", "set", "reflex_stage=off")
	r.Hosts[0].Must("apply", r.Hosts[0].File("vip.hcl", fmt.Sprintf(roundabout, addr)))
	return m
}

// link sets the link that the rule is about.
func (m *addressMesh) link(h *rig.Host, state string) { h.IP("link", "set", "vip0", state) }

// An address follows those that want it, has one host at any instant, and is reached by
// others right after each move, whatever becomes of the host that had it.
func TestAddressMovesFromAHostThatIsLost(t *testing.T) {
	t.Parallel()
	m := startAddressMesh(t, netip.MustParsePrefix("10.88.0.200/24"), briefly)
	holder := m.claimed()
	token := m.shown(holder)
	m.restarted(holder, token)
	m.all("up")

	lost := holder
	m.link(lost, "down")
	holder = m.moves("its rule clears", lost)
	m.link(lost, "up")
	for _, fault := range []struct {
		what      string
		hit, heal func(h *rig.Host)
	}{
		{"its agent is killed", (*rig.Host).Kill, func(h *rig.Host) { h.StartAgent(mayClaim...) }},
		{"its agent is stopped", func(h *rig.Host) { h.Signal(syscall.SIGSTOP) }, func(h *rig.Host) { h.Signal(syscall.SIGCONT) }},
		{"it is cut off", (*rig.Host).Isolate, (*rig.Host).Rejoin},
	} {
		lost = holder
		fault.hit(lost)
		holder = m.moves(fault.what, lost)
		fault.heal(lost)
		m.AwaitHosts(3, 30*time.Second)
	}
}

// story prints what held a failed test's mesh, and its reflexes, back.
func (m *addressMesh) story() {
	if !m.t.Failed() {
		return
	}
	for _, h := range m.Hosts[:3] {
		if !h.Running() {
			continue
		}
		h.Signal(syscall.SIGCONT) // one that stands still would be waited for
		for _, args := range [][]string{{"mesh"}, {"reflex", "history", "vip"}, {"reflex", "show", "vip"}} {
			out, stderr, _ := h.CLI(args...)
			m.t.Logf("%s on %s:\n%s%s", strings.Join(args, " "), h.Name, out, stderr)
		}
	}
}

// claimed has one host want the address, and waits until it has it: one that does not
// lead, for nobody renews while there is no leader.
func (m *addressMesh) claimed() *rig.Host {
	m.t.Helper()
	leader := m.Leader()
	for _, h := range m.Hosts[:3] {
		if h != leader {
			m.link(h, "up")
			break
		}
	}
	return m.moves("claimed first", nil)
}

// all sets the links of all hosts that may claim.
func (m *addressMesh) all(state string) {
	for _, h := range m.Hosts[:3] {
		m.link(h, state)
	}
}

// A move takes the grace of the lease, and some seconds if the leader was lost too.
const longestMove = addressGrace + 13*time.Second

// doubting tells whether all hosts that might take the address from another one were
// starved for two seconds, and mistrust themselves for a minute: by what is promised
// they claim nothing then.
func (m *addressMesh) doubting(from *rig.Host) bool {
	for _, h := range m.Hosts[:3] {
		var rules []api.LocalReflex
		if h != from && (h.Get("/v1/local/reflexes", &rules) != nil || len(rules) != 1 ||
			!slices.ContainsFunc(rules[0].Targets, func(t api.ReflexTarget) bool { return t.Why == reflexes.ReasonDoubt.String() })) {
			return false
		}
	}
	return true
}

// heardWithin is less than what a neighbour needs that is told nothing: it believes its
// table for at least fifteen seconds.
const heardWithin = 5 * time.Second

// moves waits until another host has the address and the bystander reaches it there. The
// bound is no longer for a host that mistrusts itself: as long as all do, it is put off.
func (m *addressMesh) moves(what string, from *rig.Host) (to *rig.Host) {
	m.t.Helper()
	begun := time.Now()
	able := begun // since when some host might take it
	for to = m.eyes.holder(); to == nil || to == from; to = m.eyes.holder() {
		switch late := time.Since(able); {
		case late > longestMove:
			m.t.Fatalf("%s: not within %s the address is on %s", what, longestMove, nameOf(to))
		case late > longestMove/2 && m.doubting(from):
			able = time.Now().Add(-longestMove / 2)
		}
		time.Sleep(20 * time.Millisecond) // the poll's pace, not a synchronisation
	}
	took := time.Since(begun)
	heard := rig.Await(m.t, heardWithin, func() error {
		name, err := m.eyes.dial(m.user, m.addr.Addr())
		if err == nil && name != to.Name {
			err = fmt.Errorf("%s answers", name)
		}
		if err != nil {
			return fmt.Errorf("%s: the bystander does not reach %s: %w", what, to.Name, err)
		}
		return nil
	})
	m.t.Logf("%s: %s has the address after %s, and is reached %s later", what, to.Name, took.Round(10*time.Millisecond), heard.Round(time.Millisecond))
	return to
}

func nameOf(h *rig.Host) string {
	if h == nil {
		return "no host"
	}
	return h.Name
}

// restarted has a holder's agent end and begin: the address stays where it is, under
// the same lease, and is away only if the agent was for longer than its lifetime.
func (m *addressMesh) restarted(holder *rig.Host, token uint64) {
	m.t.Helper()
	begun, before := time.Now(), m.eyes.without()
	holder.StopAgent()
	holder.StartAgent(mayClaim...)
	rig.Await(m.t, 20*time.Second, func() error { return m.eyes.renewed(holder, begun) })
	away, gaps := time.Since(begun), m.eyes.without()-before
	m.t.Logf("its agent restarts: renewed after %s, seen without the address %d times", away.Round(10*time.Millisecond), gaps)
	if gaps > 0 && away < leftAtLeast {
		m.t.Errorf("its agent was away for %s, and the address too", away)
	}
	if now := m.shown(holder); now != token {
		m.t.Errorf("after a restart of the agent the token is %d, not %d", now, token)
	}
}

// shown looks where users look, and returns the token.
func (m *addressMesh) shown(holder *rig.Host) (token uint64) {
	m.t.Helper()
	rig.Await(m.t, 10*time.Second, func() error {
		var hosts []api.Host
		if err := holder.Get("/v1/hosts", &hosts); err != nil {
			return err
		}
		for _, h := range hosts {
			if has := len(h.Addresses) == 1 && h.Addresses[0].Address == m.addr.Addr().String() && h.Addresses[0].Token > 0; has != (h.Name == holder.Name) {
				return fmt.Errorf("%s is shown with %+v, the holder is %s", h.Name, h.Addresses, holder.Name)
			} else if has {
				token = h.Addresses[0].Token
			}
		}
		return nil
	})
	if out := holder.Must("reflex", "show", "vip"); !strings.Contains(out, m.addr.String()+" on eth0, token ") {
		m.t.Errorf("reflex show on the holder:\n%s", out)
	}
	if out := holder.Must("reflex", "history", "vip"); !strings.Contains(out, m.addr.String()+" on eth0, token ") {
		m.t.Errorf("reflex history on the holder:\n%s", out)
	}
	return token
}

// eyes watch the addresses of all hosts, from outside of them.
type eyes struct {
	t     *testing.T
	addr  net.IP
	life  time.Duration // that the kernel is given with each renewal
	hosts []*rig.Host
	at    []*netlink.Handle
	mu    sync.Mutex
	twice string // two hosts had the address at once
	last  *rig.Host
	none  int // looks at which nobody had it
	some  int // looks at which one had it
}

// openEyes looks every ten milliseconds until the test ends.
func openEyes(t *testing.T, hosts []*rig.Host, addr netip.Addr) *eyes {
	t.Helper()
	e := &eyes{t: t, hosts: hosts, addr: addr.AsSlice()}
	for _, h := range hosts {
		ns, err := netns.GetFromPath(h.Netns())
		if err != nil {
			t.Fatal(err)
		}
		at, err := netlink.NewHandleAt(ns)
		if err != nil {
			t.Fatal(err)
		}
		ns.Close()
		t.Cleanup(at.Close)
		e.at = append(e.at, at)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			e.look()
			time.Sleep(10 * time.Millisecond) // the pace of the samples
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if e.twice != "" {
			t.Errorf("two hosts had the address at once: %s", e.twice)
		}
	})
	return e
}

// having lists the hosts that have the address, in the order of the looks.
func (e *eyes) having() (list []*rig.Host) {
	for i, at := range e.at {
		addrs, err := at.AddrList(nil, netlink.FAMILY_ALL)
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if a.IP.Equal(e.addr) {
				list = append(list, e.hosts[i])
			}
		}
	}
	return list
}

// look takes one sample. Two looks with the same two hosts in both prove that there
// was an instant at which both had it: that between the looks.
func (e *eyes) look() {
	first := e.having()
	if len(first) > 1 {
		if second := e.having(); len(second) > 1 && second[0] == first[0] && second[1] == first[1] {
			e.mu.Lock()
			e.twice = fmt.Sprintf("%s and %s at %s", first[0].Name, first[1].Name, time.Now().Format(time.StampMilli))
			e.mu.Unlock()
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(first) == 0 {
		e.none++
	}
	e.last = nil
	if len(first) == 1 {
		e.last = first[0]
		e.some++
	}
}

// holder is who had the address at the last look.
func (e *eyes) holder() *rig.Host {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last
}

// without is at how many looks nobody had the address.
func (e *eyes) without() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.none
}

// renewed tells whether a host's kernel was told of a lifetime of the address since.
func (e *eyes) renewed(h *rig.Host, since time.Time) error {
	for i, at := range e.at {
		if e.hosts[i] != h {
			continue
		}
		addrs, err := at.AddrList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			// What is left of a lifetime is rounded up.
			if age := e.life - time.Duration(a.ValidLft)*time.Second; a.IP.Equal(e.addr) && a.ValidLft > 0 && time.Now().Add(-age).After(since.Add(time.Second)) {
				return nil
			}
		}
	}
	return fmt.Errorf("the address is not renewed on %s", h.Name)
}

// inside runs f on a thread that is on a host's network: never the first one, by which
// the whole process would count as the host's, and be stopped and killed with it.
func (e *eyes) inside(h *rig.Host, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if syscall.Gettid() == os.Getpid() {
			defer runtime.UnlockOSThread()
			done <- e.inside(h, f)
			return
		}
		ns, err := netns.GetFromPath(h.Netns())
		if err == nil {
			err = netns.Set(ns)
			ns.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// serve answers on every address of a host with its name.
func (e *eyes) serve(h *rig.Host) {
	e.t.Helper()
	var l net.Listener
	if err := e.inside(h, func() (err error) {
		l, err = net.Listen("tcp", ":8088")
		return err
	}); err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, h.Name)
			c.Close()
		}
	}()
}

// dial asks whoever has the address for its name.
func (e *eyes) dial(from *rig.Host, addr netip.Addr) (name string, err error) {
	err = e.inside(from, func() error {
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(addr, 8088).String(), 300*time.Millisecond)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Second))
		name, err = bufio.NewReader(c).ReadString('\n')
		name = strings.TrimSpace(name)
		return err
	})
	return name, err
}
