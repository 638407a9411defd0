package senses

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// LinksConfig configures the sense of links.
type LinksConfig struct {
	// Now is the boot clock; required.
	Now Clock
	// Relist is how often everything is listed, whatever was told. Default: 1 min.
	Relist time.Duration
	// Logger; default: discard.
	Logger *slog.Logger
}

// Links tells whether network links are up, how many addresses they have, and
// through which default routes lead. The kernel tells of each change; where it
// had to leave some out, everything is listed and compared.
type Links struct {
	cfg   LinksConfig
	table *linkTable // belongs to the run
}

// NewLinks returns the sense of links, of the network namespace in which it is
// run.
func NewLinks(cfg LinksConfig) (*Links, error) {
	cfg.Relist = defaulted(cfg.Relist, time.Minute)
	cfg.Logger = loggerOr(cfg.Logger)
	if cfg.Now == nil {
		return nil, fmt.Errorf("set up the sense of links: %w", errNoClock)
	}
	if cfg.Relist < time.Second {
		return nil, fmt.Errorf("set up the sense of links: relist every %s: want at least 1s", cfg.Relist)
	}
	return &Links{cfg: cfg, table: newLinkTable()}, nil
}

// Name implements Sense.
func (l *Links) Name() string { return "links" }

// Vars implements Sense.
func (l *Links) Vars() []reflexes.VarID { return linkVars }

const (
	// linkBuffer is room for some thousand changes that nobody has read yet.
	linkBuffer = 1 << 20
	// settle is how long addresses and routes are left to change further before
	// they are listed once more; links themselves are told at once.
	settle = 100 * time.Millisecond
	// answerIn bounds how long the kernel may take to list.
	answerIn = 10 * time.Second
)

// Run implements Sense.
func (l *Links) Run(ctx context.Context, emit Emit) error {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return fmt.Errorf("subscribe to changes of links: %w", err)
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		socket.Close()
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	defer handle.Close()
	err = handle.SetSocketTimeout(answerIn)
	if socket.SetReceiveBufferSize(linkBuffer, true) != nil { // takes CAP_NET_ADMIN
		_ = socket.SetReceiveBufferSize(linkBuffer, false)
	}
	r := &linksRun{Links: l, emit: emit, handle: handle, news: make(chan linkNews), done: make(chan struct{})}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer socket.Close()
	defer close(r.done)
	wg.Go(func() { r.receive(socket) })
	if err != nil {
		return err
	}
	return r.loop(ctx)
}

// linksRun is one run of the sense.
type linksRun struct {
	*Links
	emit   Emit
	handle *netlink.Handle
	news   chan linkNews
	done   chan struct{}
	facts  []reflexes.Fact

	// What is to be listed anew.
	links, addresses, routes bool
}

// linkNews is what one read of the socket brought.
type linkNews struct {
	msgs []syscall.NetlinkMessage
	lost bool
	err  error
}

// receive reads the socket until it is closed or fails. Once the kernel had to leave
// something out it leaves out all that comes, without a further word, until everything
// that waits was read. Not before then is it told that something was lost: what is
// listed sooner would be overtaken by what had waited, and what came meanwhile missed.
func (r *linksRun) receive(socket *nl.NetlinkSocket) {
	for lost := false; ; {
		var n linkNews
		if lost && !waits(socket) {
			n.lost, lost = true, false
		} else {
			msgs, from, err := socket.Receive()
			switch {
			case errors.Is(err, unix.ENOBUFS):
				lost = true
				continue
			case err == nil && from.Pid != nl.PidKernel: // any process may send to us
				continue
			}
			n = linkNews{msgs: msgs, err: err}
		}
		select {
		case r.news <- n:
		case <-r.done:
			return
		}
		if n.err != nil {
			return
		}
	}
}

// waits tells whether there is something to read from a socket.
func waits(socket *nl.NetlinkSocket) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(socket.GetFd()), Events: unix.POLLIN}}, 0)
		if !errors.Is(err, unix.EINTR) {
			return n > 0
		}
	}
}

func (r *linksRun) loop(ctx context.Context) error {
	r.table.begin()
	r.links, r.addresses, r.routes = true, true, true
	relist := time.NewTicker(r.cfg.Relist)
	defer relist.Stop()
	list := time.NewTimer(0)
	defer list.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-relist.C:
			r.links, r.addresses, r.routes = true, true, true
			list.Reset(0)
		case <-list.C:
			if err := r.list(); err != nil {
				return err
			}
			if r.links || r.addresses || r.routes { // they changed while they were listed
				list.Reset(settle)
			}
		case n := <-r.news:
			if n.err != nil && !errors.Is(n.err, os.ErrClosed) {
				return fmt.Errorf("receive changes of links: %w", n.err)
			}
			quiet := !r.links && !r.addresses && !r.routes
			r.take(n)
			if r.links {
				list.Reset(0)
			} else if quiet && (r.addresses || r.routes) {
				list.Reset(settle)
			}
		}
	}
}

// take tells of the links that messages are about, and notes what else is to be
// listed.
func (r *linksRun) take(n linkNews) {
	if n.lost {
		r.cfg.Logger.Warn("changes of links were lost; listing all")
		r.links, r.addresses, r.routes = true, true, true
	}
	at := r.cfg.Now()
	r.facts = r.facts[:0]
	for _, m := range n.msgs {
		switch m.Header.Type {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			r.link(m, at)
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			r.addresses = true
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			if len(m.Data) >= unix.SizeofRtMsg && nl.DeserializeRtMsg(m.Data).Dst_len == 0 {
				r.routes = true
			}
		}
	}
	r.tell()
}

func (r *linksRun) link(m syscall.NetlinkMessage, at reflexes.Boot) {
	if len(m.Data) < unix.SizeofIfInfomsg || nl.DeserializeIfInfomsg(m.Data).Family != unix.AF_UNSPEC {
		return // what a bridge says about its port
	}
	header := unix.NlMsghdr(m.Header)
	link, err := netlink.LinkDeserialize(&header, m.Data)
	if err != nil {
		r.cfg.Logger.Debug("a change of a link cannot be read; listing all", "error", err)
		r.links = true
		return
	}
	r.routes = true // of routes that end with their link the kernel says nothing
	if m.Header.Type == unix.RTM_DELLINK {
		r.facts = r.table.remove(link.Attrs().Index, at, r.facts)
		return
	}
	r.set(link, at)
}

func (r *linksRun) set(link netlink.Link, at reflexes.Boot) {
	const up = unix.IFF_UP | unix.IFF_LOWER_UP
	a := link.Attrs()
	r.facts = r.table.set(a.Index, a.Name, a.RawFlags&up == up, at, r.facts)
}

// list lists what may have changed. What changes meanwhile is listed once more.
func (r *linksRun) list() error {
	at := r.cfg.Now()
	r.facts = r.facts[:0]
	if r.links {
		all, err := r.handle.LinkList()
		if r.links = errors.Is(err, netlink.ErrDumpInterrupted); err != nil && !r.links {
			return fmt.Errorf("list links: %w", err)
		}
		r.table.compare()
		for _, link := range all {
			r.set(link, at)
		}
		if !r.links { // else some may be missing
			r.facts = r.table.compared(at, r.facts)
		}
	}
	if r.addresses {
		if err := r.listAddresses(at); err != nil {
			return err
		}
	}
	if r.routes {
		if err := r.listRoutes(at); err != nil {
			return err
		}
	}
	r.tell()
	return nil
}

func (r *linksRun) listAddresses(at reflexes.Boot) error {
	all, err := r.handle.AddrList(nil, netlink.FAMILY_ALL)
	if r.addresses = errors.Is(err, netlink.ErrDumpInterrupted); err != nil && !r.addresses {
		return fmt.Errorf("list addresses: %w", err)
	}
	count := map[int]int{}
	for _, a := range all {
		if a.Scope == int(netlink.SCOPE_UNIVERSE) {
			count[a.LinkIndex]++
		}
	}
	r.facts = r.table.addressed(count, at, r.facts)
	return nil
}

func (r *linksRun) listRoutes(at reflexes.Boot) error {
	through := map[int]bool{}
	err := r.handle.RouteListFilteredIter(netlink.FAMILY_ALL, &netlink.Route{}, 0, func(route netlink.Route) bool {
		if route.Type == unix.RTN_UNICAST && isDefault(route) {
			through[route.LinkIndex] = true
			for _, hop := range route.MultiPath {
				through[hop.LinkIndex] = true
			}
		}
		return true
	})
	if r.routes = errors.Is(err, netlink.ErrDumpInterrupted); err != nil && !r.routes {
		return fmt.Errorf("list routes: %w", err)
	}
	r.facts = r.table.routed(through, at, r.facts)
	return nil
}

func isDefault(r netlink.Route) bool {
	if r.Dst == nil {
		return r.MPLSDst == nil
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0 && r.Dst.IP.IsUnspecified()
}

func (r *linksRun) tell() {
	if len(r.facts) > 0 {
		r.emit(r.facts)
	}
}
