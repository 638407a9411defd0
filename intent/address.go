package intent

import (
	"fmt"
	"net/netip"
)

// Address reads the target of a claim action: an address that a host may have
// beside its own, with the length of its network's prefix, as in 10.0.0.10/24.
func (a Action) Address() (netip.Prefix, error) { return ParseAddress(a.Target) }

// ParseAddress reads an address that hosts may take over, with the length of its
// prefix. It refuses what is no host's own, and what means another thing on every
// link.
func ParseAddress(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if addr, bare := netip.ParseAddr(s); bare == nil && addr.Zone() == "" {
			return p, fmt.Errorf("%s has no prefix length; want %s/%d, or that of its network", quote(s), s, addr.BitLen())
		}
		return p, fmt.Errorf("%s is not an address with its prefix length, such as 10.0.0.10/24 or 2001:db8::10/64", quote(s))
	}
	addr, last := p.Addr(), addrOfAllOnes(p)
	what := ""
	switch {
	case addr.Is4In6():
		what = "an IPv4 address in IPv6 form; write the IPv4 address"
	case addr.IsUnspecified(), p.Bits() == 0:
		what = "no address of a host"
	case addr.IsLoopback():
		what = "a loopback address, which every host has"
	case addr.IsMulticast():
		what = "a multicast address, which many hosts may have"
	case addr.IsLinkLocalUnicast():
		what = "a link-local address, which means another host on every link"
	case addr.Is4() && p.Bits() < 31 && addr == p.Masked().Addr():
		what = "a network, not an address in it"
	case addr.Is4() && (p.Bits() < 31 && addr == last || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255})):
		what = "the broadcast address of its network"
	}
	if what != "" {
		return p, fmt.Errorf("%s is %s", quote(s), what)
	}
	return p, nil
}

// addrOfAllOnes is the last address of an IPv4 prefix.
func addrOfAllOnes(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() {
		return p.Addr()
	}
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}
