package addresses

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/ganglion-mesh/ganglion/workload/vip"
)

// announceAfter is when, after an address was put on, neighbours are told of it: a
// frame may be lost, and a switch may have to learn first.
var announceAfter = [...]time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, 700 * time.Millisecond, 1200 * time.Millisecond}

// prompt is how long it may take to tell the kernel of a lifetime. It is taken off
// each.
const prompt = 250 * time.Millisecond

// longest is how long Step may be left uncalled.
const longest = 5 * time.Second

// Claim puts an address on this host for an owner, under the lease that the host has
// of it, and says where. It stays until Retain is told that the owner has it no more,
// or its lease ends.
func (k *Keeper) Claim(o Owner, a netip.Prefix) (said string, err error) {
	k.work.Lock()
	defer k.work.Unlock()
	h, err := k.take(o, a)
	k.mu.Lock()
	delete(k.wishes[a.Addr()], o) // it has it; or its lease is for who can make use of it
	k.mu.Unlock()
	ring(k.news) // also if it has it: after a claim that failed nobody renews its lease
	if err != nil {
		return "", err
	}
	return Held{h.Address, h.Device, h.Token, true}.String(), nil
}

func (k *Keeper) take(o Owner, a netip.Prefix) (*holding, error) {
	if may, _, why := k.May(o, a.Addr()); !may {
		return nil, fmt.Errorf("claim %s: its lease is not held: %s", a, why)
	}
	k.mu.Lock()
	l, h := k.leases[a.Addr()], k.held[a.Addr()]
	k.mu.Unlock()
	if h != nil && h.Token == l.Token {
		return h, k.share(h, o, a)
	}
	if h != nil { // under another lease, which is over
		if err := k.end(h); err != nil {
			return nil, err
		}
	}
	device, err := k.cfg.Device(a.Addr())
	if err == nil {
		err = k.free(device, a)
	}
	if err != nil {
		return nil, err
	}
	h = &holding{Address: a, Device: device, Token: l.Token, Boot: l.Boot, Owners: []Owner{o}}
	_, h.off = k.cfg.Clock()
	k.mu.Lock()
	k.held[a.Addr()] = h
	k.mu.Unlock()
	if err := k.save(); err != nil { // before it is done
		k.mu.Lock()
		delete(k.held, a.Addr())
		k.mu.Unlock()
		return nil, err
	}
	if err := k.refresh(h); err != nil {
		return nil, errors.Join(err, k.end(h))
	}
	return h, nil
}

// share adds an owner to an address that this host has.
func (k *Keeper) share(h *holding, o Owner, a netip.Prefix) error {
	if h.Address != a {
		return fmt.Errorf("claim %s: this host has it as %s by reflex %s; write both alike", a, h.Address, h.Owners[0].Rule)
	}
	if !slices.Contains(h.Owners, o) {
		k.mu.Lock()
		h.Owners = append(slices.Clone(h.Owners), o)
		k.mu.Unlock()
		if err := k.save(); err != nil {
			return err
		}
	}
	if !h.on {
		return k.refresh(h)
	}
	return nil
}

// free refuses an address that this host has by itself, and one that would become
// the first of its network on an interface: the kernel would hang those that come
// after it on it, and remove them with it.
func (k *Keeper) free(device string, a netip.Prefix) error {
	all, err := k.cfg.Kernel.List()
	if err != nil {
		return fmt.Errorf("claim %s: %w", a, err)
	}
	second := !a.Addr().Is4() || a.Bits() == a.Addr().BitLen()
	for _, p := range all {
		if p.Address.Addr() == a.Addr() {
			return fmt.Errorf("claim %s: this host has it already by itself, on %s, and it is left alone", a, p.Device)
		}
		second = second || p.Device == device && p.Address.Masked() == a.Masked() && !k.ours(p.Address.Addr())
	}
	if !second {
		return fmt.Errorf("claim %s: %s has no address of its own in %s; give it one, or claim %s/32", a, device, a.Masked(), a.Addr())
	}
	return nil
}

func (k *Keeper) ours(a netip.Addr) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.held[a] != nil
}

// refresh has the kernel keep an address until just before its lease is over, and
// tells the neighbours if it was not there. It is called with work held.
func (k *Keeper) refresh(h *holding) error {
	addr := h.Address.Addr()
	all, err := k.cfg.Kernel.List()
	if err != nil {
		return err
	}
	there := slices.Contains(all, vip.Present{Device: h.Device, Address: h.Address})
	k.mu.Lock()
	until := k.until[addr]
	k.mu.Unlock()
	if err := k.put(h, until); err != nil {
		return err
	}
	k.mu.Lock()
	h.on, h.off = true, 0
	k.mu.Unlock()
	if !there {
		_, now := k.cfg.Clock()
		h.since, h.announced = now, 0
		k.log.Info("a reflex has an address on this host", "address", h.Address, "device", h.Device, "token", h.Token, "reflex", h.Owners[0].Rule)
		k.announce(h, now)
		ring(k.bell)
	}
	return nil
}

// put has the kernel end an address before until. An agent that stood still between
// the look at the clock and the act has given it too long, and does it again.
func (k *Keeper) put(h *holding, until time.Duration) error {
	for range 3 {
		_, now := k.cfg.Clock()
		life := vip.Lifetime(until - now - prompt)
		if life == 0 {
			break
		}
		if err := k.cfg.Kernel.Put(h.Device, h.Address, life); err != nil {
			return err
		}
		if _, after := k.cfg.Clock(); after-now <= prompt {
			return nil
		}
	}
	k.takeOff(h)
	return fmt.Errorf("%s on %s: what is left of its lease is too short for it", h.Address, h.Device)
}

// takeOff removes an address for now.
func (k *Keeper) takeOff(h *holding) {
	if err := k.cfg.Kernel.Remove(h.Device, h.Address); err != nil {
		k.log.Error("take an address off: the kernel does when its lifetime is over", "address", h.Address, "error", err)
	}
	_, now := k.cfg.Clock()
	k.mu.Lock()
	h.on, h.off = false, now
	k.mu.Unlock()
}

// end removes an address for good. Until that is done its lease is not given back.
func (k *Keeper) end(h *holding) error {
	if err := k.cfg.Kernel.Remove(h.Device, h.Address); err != nil {
		k.mu.Lock()
		h.ending = true
		k.mu.Unlock()
		return err
	}
	k.mu.Lock()
	delete(k.held, h.Address.Addr())
	k.mu.Unlock()
	ring(k.news)
	k.log.Info("this host no longer has an address that a reflex had taken over", "address", h.Address, "device", h.Device, "token", h.Token)
	return k.save()
}

// announce tells the neighbours as often as is due at now, and returns when it is
// due again; 0: no more.
func (k *Keeper) announce(h *holding, now time.Duration) time.Duration {
	for ; h.announced < len(announceAfter); h.announced++ {
		if at := h.since + announceAfter[h.announced]; at > now {
			return at - now
		}
		if err := k.cfg.Kernel.Announce(h.Device, h.Address.Addr()); err != nil {
			k.log.Warn("tell the neighbours of an address: they may go on to look for it where it was", "address", h.Address, "error", err)
		}
	}
	return 0
}

// Extend says until when a lease is good, on the boot clock.
func (k *Keeper) Extend(address string, token uint64, until time.Duration) error {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return err
	}
	k.work.Lock()
	defer k.work.Unlock()
	k.mu.Lock()
	l, ok := k.good(addr)
	if !ok || l.Token != token || until <= k.until[addr] {
		k.mu.Unlock()
		return nil // late, or of another lease: it says nothing
	}
	k.until[addr] = until
	h := k.held[addr]
	var waiting []Owner
	for o := range k.wishes[addr] {
		waiting = append(waiting, o)
	}
	k.mu.Unlock()
	if h != nil && h.Token == token {
		if h.ending {
			return nil
		}
		return k.refresh(h)
	}
	for _, o := range waiting {
		k.cfg.Leased(o)
	}
	return nil
}

// Fence takes all addresses off and forgets until when their leases are good: this
// host was paused, and who knows what others were told meanwhile. Those whose leases
// are renewed after it come back.
func (k *Keeper) Fence() {
	k.work.Lock()
	defer k.work.Unlock()
	k.mu.Lock()
	clear(k.until)
	k.mu.Unlock()
	for _, h := range k.all() {
		k.takeOff(h)
	}
}

// all lists what is held, by address.
func (k *Keeper) all() (list []*holding) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, h := range k.held {
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b *holding) int { return a.Address.Addr().Compare(b.Address.Addr()) })
	return list
}

// Retain ends what no owner has, or wants, any more by the word of has, which waits
// for nothing.
func (k *Keeper) Retain(has func(Owner) bool) {
	k.work.Lock()
	defer k.work.Unlock()
	k.mu.Lock()
	for _, of := range k.wishes {
		maps.DeleteFunc(of, func(o Owner, _ *wish) bool { return !has(o) })
	}
	k.mu.Unlock()
	for _, h := range k.all() {
		left := slices.DeleteFunc(slices.Clone(h.Owners), func(o Owner) bool { return !has(o) })
		switch {
		case len(left) == len(h.Owners):
			continue
		case len(left) == 0:
			k.drop(h)
			continue
		}
		k.mu.Lock()
		h.Owners = left
		k.mu.Unlock()
		if err := k.save(); err != nil {
			k.log.Warn("end an owner of an address", "address", h.Address, "error", err)
		}
	}
}

func (k *Keeper) drop(h *holding) {
	if err := k.end(h); err != nil {
		k.log.Error("give an address up", "address", h.Address, "error", err)
	}
}
