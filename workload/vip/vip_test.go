package vip

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

var mac = [6]byte{2, 0, 0, 0, 0, 7}

// sum16 is the ones' complement sum of RFC 1071, over a whole packet with its
// checksum: all ones if that is right.
func sum16(parts ...[]byte) uint16 {
	b := bytes.Join(parts, nil)
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

func TestAdvertisement(t *testing.T) {
	addr := netip.MustParseAddr("fd00::1:7")
	frames := announcements(addr, mac)
	if len(frames) != 1 {
		t.Fatalf("%d frames", len(frames))
	}
	f := frames[0]
	if len(f) != 14+40+32 || !bytes.Equal(f[:14], []byte{0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 0x86, 0xdd}) {
		t.Fatalf("%d bytes: %x", len(f), f)
	}
	ip, body := f[14:54], f[54:]
	if ip[0]>>4 != 6 || int(binary.BigEndian.Uint16(ip[4:])) != len(body) || ip[6] != 58 || ip[7] != 255 {
		t.Errorf("header %x", ip)
	}
	if !bytes.Equal(ip[8:24], addr.AsSlice()) || netip.AddrFrom16([16]byte(ip[24:40])) != netip.MustParseAddr("ff02::1") {
		t.Errorf("from %x to %x", ip[8:24], ip[24:40])
	}
	pseudo := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	if got := sum16(ip[8:40], pseudo, []byte{0, 0, 0, 58}, body); got != 0xffff {
		t.Errorf("the checksum is wrong: %x", got)
	}
	// Unsolicited, overriding, of this address, at this link address (RFC 4861, 4.4).
	if body[0] != 136 || body[1] != 0 || body[4] != 0x20 || !bytes.Equal(body[8:24], addr.AsSlice()) || !bytes.Equal(body[24:], []byte{2, 1, 2, 0, 0, 0, 0, 7}) {
		t.Errorf("%x", body)
	}
}

func TestGratuitousARP(t *testing.T) {
	frames := announcements(netip.MustParseAddr("10.0.0.7"), mac)
	if len(frames) != 2 {
		t.Fatalf("%d frames", len(frames))
	}
	for i, f := range frames {
		ip := []byte{10, 0, 0, 7}
		if len(f) != 42 || f[21] != byte(i+1) || !bytes.Equal(f[:6], []byte{255, 255, 255, 255, 255, 255}) ||
			!bytes.Equal(f[22:28], mac[:]) || !bytes.Equal(f[28:32], ip) || !bytes.Equal(f[38:], ip) {
			t.Errorf("operation %d: %x", i+1, f)
		}
	}
}

func TestLifetime(t *testing.T) {
	for left, want := range map[time.Duration]time.Duration{
		-time.Second: 0, 0: 0, Late: 0, Late + 999*time.Millisecond: 0, Late + time.Second: time.Second, 6*time.Second - 1: 4 * time.Second,
	} {
		if got := Lifetime(left); got != want {
			t.Errorf("%s left: %s, want %s", left, got, want)
		}
	}
}
