package integration

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/integration/rig"
)

// unhurried are leases that do not lapse on a busy machine: what is tested with them
// moves because it is given back.
var unhurried = topology.Timers{Hold: 20 * time.Second, Kill: 500 * time.Millisecond, Grace: 26 * time.Second}

// An address of IPv6 is in use as soon as it is there, and where it has moved to a
// neighbour that knew another place is told. In a freeze who has it keeps it, also when
// its matter is over, and nobody claims it; a host that is drained lets go of it, frozen
// or not, and another has it as soon as it may.
func TestIPv6AddressIsHeldInAFreezeAndLeavesWithADrain(t *testing.T) {
	t.Parallel()
	m := startAddressMesh(t, netip.MustParsePrefix("fd88::200/64"), unhurried)
	holder := m.claimed()
	token := m.shown(holder)
	m.known(holder)
	m.all("up")

	first := m.Hosts[0]
	first.Must("freeze")
	awaitFrozen(t, true, m.Hosts[:3]...)
	begun := time.Now()
	m.link(holder, "down")
	rig.Await(t, 30*time.Second, func() error { return m.eyes.renewed(holder, begun) })
	if now := m.shown(holder); now != token {
		t.Errorf("in a freeze the token is %d, not %d", now, token)
	}
	first.Must("drain", "--detach", holder.Name)
	m.eyes.await(nil)
	before := m.eyes.with()
	time.Sleep(3 * time.Second) // several times as long as another needs to claim it
	if n := m.eyes.with() - before; n > 0 {
		t.Errorf("in a freeze it was claimed: seen %d times", n)
	}
	first.Must("thaw")
	lost := holder
	holder = m.moves("a thaw", lost)
	m.known(holder)

	first.Must("undrain", lost.Name)
	m.link(lost, "up")
	first.Must("drain", holder.Name)
	m.known(m.moves("its host is drained", holder))
}

// known waits until the bystander knows where the address is, and looks whether it is
// in use there.
func (m *addressMesh) known(to *rig.Host) {
	m.t.Helper()
	mac, flags := m.eyes.on(to)
	if flags&unix.IFA_F_TENTATIVE != 0 || flags&unix.IFA_F_NODAD == 0 {
		m.t.Errorf("the address on %s has flags %#x: tentative, or to be probed for", to.Name, flags)
	}
	rig.Await(m.t, heardWithin, func() error {
		list, err := m.eyes.at[3].NeighList(0, netlink.FAMILY_V6)
		if err != nil {
			return err
		}
		for _, n := range list {
			if n.IP.Equal(m.eyes.addr) && bytes.Equal(n.HardwareAddr, mac) {
				return nil
			}
		}
		return fmt.Errorf("the bystander does not know the address at %s: %v", mac, list)
	})
}

// on returns the hardware address, and the flags of the address, of a host that has it.
func (e *eyes) on(h *rig.Host) (mac net.HardwareAddr, flags int) {
	e.t.Helper()
	for i, at := range e.at {
		if e.hosts[i] != h {
			continue
		}
		link, err := at.LinkByName("eth0")
		if err != nil {
			e.t.Fatal(err)
		}
		addrs, err := at.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			e.t.Fatal(err)
		}
		for _, a := range addrs {
			if a.IP.Equal(e.addr) {
				return link.Attrs().HardwareAddr, a.Flags
			}
		}
	}
	e.t.Fatalf("%s does not have the address", h.Name)
	return nil, 0
}

// await waits until a host has the address; nil: until none has.
func (e *eyes) await(h *rig.Host) {
	e.t.Helper()
	rig.Await(e.t, 30*time.Second, func() error {
		if now := e.holder(); now != h {
			return fmt.Errorf("the address is on %s", nameOf(now))
		}
		return nil
	})
}

// with is at how many looks one host had the address.
func (e *eyes) with() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.some
}
