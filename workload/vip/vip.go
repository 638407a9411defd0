// Package vip puts addresses on the interfaces of this host, each for a time after
// which the kernel takes it off by itself, and tells the neighbours where they are
// now. It knows no lease and no rule. It needs CAP_NET_ADMIN and CAP_NET_RAW.
package vip

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Late is the longest that the kernel was seen to keep an address beyond its
// lifetime, and a little more: it looks for those that are over once a second at
// most, on its own time (measured on 6.18: 0.97 s of 144; check_lifetime of ipv4 and
// addrconf_verify of ipv6 round up by less than their ADDRCONF_TIMER_FUZZ_MAX, 1 s).
const Late = time.Second

// Present is an address that this host has.
type Present struct {
	Device  string
	Address netip.Prefix
}

// Lifetime is the longest lifetime, in the kernel's whole seconds, by which an
// address is gone when left has passed; 0: there is none.
func Lifetime(left time.Duration) time.Duration {
	return max((left - Late).Truncate(time.Second), 0)
}

const (
	etherARP  = 0x0806
	etherIPv6 = 0x86dd
)

// announcements are the frames that tell every neighbour on a link that an address is
// at mac: of IPv4 both forms of gratuitous ARP, for there are hosts that heed only one
// of them; of IPv6 an unsolicited neighbour advertisement that overrides.
func announcements(addr netip.Addr, mac [6]byte) [][]byte {
	if addr.Is4() {
		return [][]byte{arp(1, addr, mac), arp(2, addr, mac)}
	}
	return [][]byte{advertisement(addr, mac)}
}

// arp is a gratuitous ARP request (1) or reply (2): whose address it asks for, or
// answers to, is its own.
func arp(op uint16, addr netip.Addr, mac [6]byte) []byte {
	all := [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	to := [6]byte{}
	if op == 2 {
		to = all
	}
	ip := addr.As4()
	b := header(all, mac, etherARP)
	b = append(b, 0, 1, 8, 0, 6, 4) // of Ethernet, for IPv4
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(append(b, mac[:]...), ip[:]...)
	return append(append(b, to[:]...), ip[:]...)
}

// advertisement is an unsolicited neighbour advertisement to all nodes (RFC 4861,
// 7.2.6).
func advertisement(addr netip.Addr, mac [6]byte) []byte {
	const hopLimit, icmp, kind, override, linkAddress = 255, 58, 136, 0x20, 2
	from, all := addr.As16(), [16]byte{0: 0xff, 1: 0x02, 15: 1}
	body := []byte{kind, 0, 0, 0, override, 0, 0, 0}
	body = append(body, from[:]...)
	body = append(append(body, linkAddress, 1), mac[:]...)
	binary.BigEndian.PutUint16(body[2:], checksum(from, all, icmp, body))

	b := header([6]byte{0x33, 0x33, 0, 0, 0, 1}, mac, etherIPv6)
	b = append(b, 6<<4, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	b = append(b, icmp, hopLimit)
	b = append(append(b, from[:]...), all[:]...)
	return append(b, body...)
}

func header(to, from [6]byte, kind uint16) []byte {
	b := append(append(make([]byte, 0, 86), to[:]...), from[:]...)
	return binary.BigEndian.AppendUint16(b, kind)
}

// checksum is that of an upper layer over IPv6, with its pseudo-header (RFC 8200, 8.1).
func checksum(from, to [16]byte, next byte, body []byte) uint16 {
	b := append(append([]byte{}, from[:]...), to[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = append(append(b, 0, 0, 0, next), body...)
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
