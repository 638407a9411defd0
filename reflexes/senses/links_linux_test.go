package senses

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// netns is a network namespace of the test's own.
type netns struct {
	*netlink.Handle
	do chan func() // on a thread that is in it
}

// newNetns makes a network namespace, which ends with the test.
func newNetns(t testing.TB) *netns {
	t.Helper()
	needRoot(t)
	n := &netns{do: make(chan func())}
	ready := make(chan error)
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.Handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		}
		ready <- err
		if err != nil {
			return
		}
		for do := range n.do {
			do()
		}
	})
	if err := <-ready; err != nil {
		wg.Wait()
		skip(t, "to make a network namespace: "+err.Error())
	}
	t.Cleanup(func() {
		close(n.do)
		wg.Wait()
		n.Close()
	})
	return n
}

// inNetns is a sense that runs in a network namespace. Its sockets are opened
// there; afterwards it does not matter which thread uses them.
type inNetns struct {
	*Links
	ns *netns
}

func (s inNetns) Run(ctx context.Context, emit Emit) error {
	end := make(chan error)
	s.ns.do <- func() { end <- s.Links.Run(ctx, emit) }
	return <-end
}

func newLinks(t testing.TB) *Links {
	t.Helper()
	return must[*Links](t)(NewLinks(LinksConfig{Now: bootNow}))
}

// cable makes two links that are each other's end, and takes both up.
func (n *netns) cable(t testing.TB, name, far string) (link, end netlink.Link) {
	t.Helper()
	if err := n.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: far}); err != nil {
		skip(t, "veth links: "+err.Error())
	}
	link, err1 := n.LinkByName(name)
	end, err2 := n.LinkByName(far)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	n.up(t, end)
	n.up(t, link)
	return link, end
}

func (n *netns) up(t testing.TB, link netlink.Link) {
	t.Helper()
	if err := n.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
}

func (n *netns) down(t testing.TB, link netlink.Link) {
	t.Helper()
	if err := n.LinkSetDown(link); err != nil {
		t.Fatal(err)
	}
}

// TestLinks goes through what happens to links, in a namespace of its own.
func TestLinks(t *testing.T) {
	ns := newNetns(t)
	first, end := ns.cable(t, "d0", "far0")
	sense := newLinks(t)
	e := listen(t, inNetns{sense, ns})
	e.waitFor(reflexes.LinkUp, "d0", is(reflexes.Bool(true)))
	e.waitFor(reflexes.LinkUp, "lo", is(reflexes.Bool(false)))
	e.waitFor(reflexes.LinkDowns, "d0", is(reflexes.Int(0)))

	ns.down(t, first)
	e.waitFor(reflexes.LinkDowns, "d0", is(reflexes.Int(1)))
	from := e.heard()
	ns.up(t, first)
	e.wait("up again", from-1, func(f reflexes.Fact) bool { return f.Var == reflexes.LinkUp && f.Value == reflexes.Bool(true) })

	ns.down(t, end) // the other end of the cable
	e.waitFor(reflexes.LinkDowns, "d0", is(reflexes.Int(2)))
	ns.up(t, end)

	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}}
	if err := ns.AddrAdd(first, addr); err != nil {
		t.Fatal(err)
	}
	e.waitFor(reflexes.LinkAddresses, "d0", is(reflexes.Int(1)))
	if err := ns.RouteAdd(&netlink.Route{LinkIndex: first.Attrs().Index, Gw: net.IPv4(192, 0, 2, 254)}); err != nil {
		t.Fatal(err)
	}
	e.waitFor(reflexes.LinkDefault, "d0", is(reflexes.Bool(true)))
	from = e.heard()
	ns.down(t, first) // the kernel says nothing of the route
	e.wait("the end of the default route", from-1, func(f reflexes.Fact) bool {
		return f.Var == reflexes.LinkDefault && f.Target.Name == "d0" && f.Value == reflexes.Bool(false)
	})

	from = e.heard()
	if err := ns.LinkDel(first); err != nil {
		t.Fatal(err)
	}
	e.wait("its end", from, func(f reflexes.Fact) bool { return f.Var == reflexes.LinkUp && !f.Value.Known() })
}

// TestLinksAfterAnInterruption: what happened while the sense did not run is
// found by comparing.
func TestLinksAfterAnInterruption(t *testing.T) {
	ns := newNetns(t)
	a, _ := ns.cable(t, "a0", "far0")
	b, _ := ns.cable(t, "b0", "far1")
	sense := newLinks(t)
	e := listen(t, inNetns{sense, ns})
	e.waitFor(reflexes.LinkUp, "b0", is(reflexes.Bool(true)))
	e.waitFor(reflexes.LinkUp, "a0", is(reflexes.Bool(true)))
	e.stop()
	ns.down(t, a)
	if err := ns.LinkDel(b); err != nil {
		t.Fatal(err)
	}
	e = listen(t, inNetns{sense, ns})
	e.waitFor(reflexes.LinkDowns, "a0", is(reflexes.Int(1)))
	e.waitFor(reflexes.LinkDowns, "b0", is(reflexes.Int(1)))
	e.waitFor(reflexes.LinkUp, "b0", unknown)
}

// TestLostLinkChangesAreFound: when the kernel has no room for changes, all is
// listed.
func TestLostLinkChangesAreFound(t *testing.T) {
	ns := newNetns(t)
	a, _ := ns.cable(t, "a0", "far0")
	heard := make(chan []reflexes.Fact, 1000)
	var r *linksRun
	made := make(chan struct{})
	ns.do <- func() {
		defer close(made)
		handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			t.Error(err)
			return
		}
		r = &linksRun{Links: newLinks(t), handle: handle, news: make(chan linkNews), done: make(chan struct{})}
	}
	<-made
	if r == nil {
		t.FailNow()
	}
	defer r.handle.Close()
	r.emit = func(facts []reflexes.Fact) { heard <- append([]reflexes.Fact(nil), facts...) }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.loop(ctx) }()
	hear := func(want reflexes.Fact) {
		t.Helper()
		for {
			for _, f := range <-heard {
				if f.At = 0; f == want {
					return
				}
			}
		}
	}
	eth := reflexes.Target{Scope: reflexes.ScopeLink, Name: "a0"}
	hear(fact(reflexes.LinkUp, eth, reflexes.Bool(true), 0))
	ns.down(t, a)
	r.news <- linkNews{lost: true}
	hear(fact(reflexes.LinkDowns, eth, reflexes.Int(1), 0))
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestLinkFlood changes links faster than the sense may be able to read: it goes
// on, and knows how they ended.
func TestLinkFlood(t *testing.T) {
	ns := newNetns(t)
	links := make([]netlink.Link, 4)
	for i := range links {
		links[i], _ = ns.cable(t, fmt.Sprintf("d%d", i), fmt.Sprintf("far%d", i))
	}
	e := listen(t, inNetns{newLinks(t), ns})
	e.waitFor(reflexes.LinkUp, "d3", is(reflexes.Bool(true)))
	const flaps = 50
	for range flaps {
		for _, l := range links {
			ns.down(t, l)
			ns.up(t, l)
		}
	}
	for _, l := range links {
		ns.down(t, l)
	}
	// A link that is made after all that is told of after all that.
	ns.cable(t, "last0", "last1")
	e.waitFor(reflexes.LinkUp, "last0", is(reflexes.Bool(true)))
	for i := range links {
		name := fmt.Sprintf("d%d", i)
		if up, _ := last(e.all(), reflexes.LinkUp, name); up != reflexes.Bool(false) {
			t.Errorf("%s is up: %v", name, up)
		}
		if n, _ := last(e.all(), reflexes.LinkDowns, name); n.AsInt() < 1 || n.AsInt() > flaps+1 {
			t.Errorf("%s went down %v times", name, n)
		}
	}
}

// TestLinkFloodIsReadBeforeAllIsListed: what waited when the kernel had to leave
// changes out is older than what is listed for it, and until it was read the kernel
// leaves out more.
func TestLinkFloodIsReadBeforeAllIsListed(t *testing.T) {
	ns := newNetns(t)
	a, _ := ns.cable(t, "a0", "far0")
	b, _ := ns.cable(t, "b0", "far1")
	tid := make(chan int)
	ns.do <- func() { tid <- unix.Gettid() }
	sockets := fmt.Sprintf("/proc/self/task/%d/net/netlink", <-tid)
	links, err := NewLinks(LinksConfig{Now: bootNow, Relist: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	sense := &heldUp{Sense: inNetns{links, ns}}
	e := listen(t, sense)
	e.waitFor(reflexes.LinkUp, "b0", is(reflexes.Bool(true)))
	sense.mu.Lock()
	for dropped(t, sockets) == 0 { // one of them is up whenever that begins
		ns.down(t, a)
		ns.up(t, b)
		ns.up(t, a)
		ns.down(t, b)
	}
	ns.down(t, a)
	sense.mu.Unlock()
	for i := range 1000 { // what is told of a new link is told after all before it
		name := fmt.Sprintf("new%d", i)
		ns.cable(t, name, fmt.Sprintf("end%d", i))
		e.waitFor(reflexes.LinkUp, name, is(reflexes.Bool(true)))
		upA, _ := last(e.all(), reflexes.LinkUp, "a0")
		upB, _ := last(e.all(), reflexes.LinkUp, "b0")
		if upA == reflexes.Bool(false) && upB == reflexes.Bool(false) {
			return
		}
	}
	t.Error("it goes on to tell of a link that it is up, which is down")
}

// heldUp is a sense to which nobody listens while mu is held.
type heldUp struct {
	Sense
	mu sync.RWMutex
}

func (s *heldUp) Run(ctx context.Context, emit Emit) error {
	return s.Sense.Run(ctx, func(facts []reflexes.Fact) {
		s.mu.RLock()
		defer s.mu.RUnlock()
		emit(facts)
	})
}

// dropped is how many messages the netlink sockets of a namespace have left out.
func dropped(t *testing.T, sockets string) (n int) {
	t.Helper()
	data, err := os.ReadFile(sockets)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	column := slices.Index(strings.Fields(lines[0]), "Drops")
	for _, line := range lines[1:] {
		count, err := strconv.Atoi(strings.Fields(line)[column])
		if err != nil {
			t.Fatal(err)
		}
		n += count
	}
	return n
}
