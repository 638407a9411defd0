package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Kernel is that of this host. It has no state; its methods may be called from any
// goroutine, and take milliseconds.
type Kernel struct{}

// List returns the addresses of all interfaces.
func (Kernel) List() ([]Present, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	all, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []Present
	for _, a := range all {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || a.IPNet == nil {
			continue
		}
		bits, _ := a.Mask.Size()
		out = append(out, Present{names[a.LinkIndex], netip.PrefixFrom(ip.Unmap(), bits)})
	}
	return out, nil
}

// Put puts an address on an interface for a lifetime of whole seconds, or, where the
// interface has it, has it end by then.
func (Kernel) Put(device string, a netip.Prefix, life time.Duration) error {
	link, err := find(device)
	if err != nil {
		return err
	}
	secs := int(life / time.Second)
	if secs <= 0 {
		return fmt.Errorf("put %s on %s: a lifetime of %s is none", a, device, life)
	}
	addr := &netlink.Addr{IPNet: ipNet(a), ValidLft: secs, PreferedLft: secs}
	if a.Addr().Is6() {
		// At once, for who had it has it no more; and never the source of what the host
		// itself begins.
		addr.Flags, addr.PreferedLft = unix.IFA_F_NODAD, 0
	}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("put %s on %s: %w", a, device, err)
	}
	return nil
}

// Remove takes an address off an interface. One that is not there is no error, nor is
// an interface that is gone.
func (Kernel) Remove(device string, a netip.Prefix) error {
	link, err := netlink.LinkByName(device)
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		return nil
	}
	if err == nil {
		err = netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(a)})
	}
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("take %s off %s: %w", a, device, err)
	}
	return nil
}

// Announce tells the neighbours on an interface once that this host has an address.
// Where there is no Ethernet nobody has to be told.
func (Kernel) Announce(device string, addr netip.Addr) error {
	link, err := find(device)
	if err != nil {
		return err
	}
	at := link.Attrs()
	if len(at.HardwareAddr) != 6 || at.Flags&net.FlagLoopback != 0 || at.RawFlags&unix.IFF_NOARP != 0 {
		return nil
	}
	sock, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // of no protocol: it receives nothing
	if err != nil {
		return fmt.Errorf("announce %s on %s: open a packet socket: %w", addr, device, err)
	}
	defer unix.Close(sock)
	for _, frame := range announcements(addr, [6]byte(at.HardwareAddr)) {
		if err := unix.Sendto(sock, frame, 0, &unix.SockaddrLinklayer{Ifindex: at.Index}); err != nil {
			return fmt.Errorf("announce %s on %s: %w", addr, device, err)
		}
	}
	return nil
}

func find(device string) (netlink.Link, error) {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", device, err)
	}
	return link, nil
}

func ipNet(a netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}
}
