package addresses

import "time"

// Step does what is due, and returns after how long to call it again if the bell has
// not rung before.
func (k *Keeper) Step() time.Duration {
	k.work.Lock()
	defer k.work.Unlock()
	wake := k.check()
	for _, h := range k.all() {
		if !k.tend(h) {
			continue
		}
		_, now := k.cfg.Clock()
		if next := k.announce(h, now); next > 0 {
			wake = min(wake, next)
		}
		k.mu.Lock()
		if until := k.until[h.Address.Addr()]; h.on && until > now {
			wake = min(wake, until-now)
		}
		k.mu.Unlock()
	}
	return max(wake, time.Millisecond)
}

// tend ends a holding whose lease is over, and takes off one whose lease may be. It
// reports whether the address is there.
func (k *Keeper) tend(h *holding) bool {
	_, now := k.cfg.Clock()
	addr := h.Address.Addr()
	device, err := k.cfg.Device(addr)
	k.mu.Lock()
	l, good := k.good(addr)
	until, away := k.until[addr], k.away
	k.mu.Unlock()
	why := ""
	switch {
	case h.ending:
		why = "it could not be removed before"
	case away:
		why = "this host is being emptied"
	case err != nil:
		why = err.Error()
	case device != h.Device:
		why = "it is to be on " + device
	case !good || l.Token != h.Token:
		why = "its lease is over"
	case h.off > 0 && now-h.off > l.Hold:
		why = "its lease was not renewed in time"
	case h.on && h.off == 0 && now >= until:
		k.log.Warn("an address is taken off: its lease was not renewed in time", "address", h.Address, "device", h.Device)
		k.takeOff(h)
		return false
	default:
		return h.on
	}
	k.log.Warn("an address is given up", "address", h.Address, "device", h.Device, "why", why)
	k.drop(h)
	for _, o := range h.Owners {
		if !h.ending && !away && err == nil {
			k.rewish(o, h, now)
		}
		k.cfg.Lost(o)
	}
	return false
}

// rewish has an owner want what it has lost, until it says so itself: another lease
// may have come already.
func (k *Keeper) rewish(o Owner, h *holding, now time.Duration) {
	k.Want(o, h.Address)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wishes[h.Address.Addr()][o].checked = true
}

// check finds out whether this host can have what is wanted, and forgets what nobody
// has wanted for a while. It returns when to look again.
func (k *Keeper) check() time.Duration {
	_, now := k.cfg.Clock()
	wake := longest
	type asked struct {
		o Owner
		w wish
	}
	var open []asked
	k.mu.Lock()
	for addr, of := range k.wishes {
		for o, w := range of {
			if now-w.at >= wishFor {
				delete(of, o)
				ring(k.news)
				continue
			}
			wake = min(wake, time.Second)
			if k.held[addr] == nil {
				open = append(open, asked{o, *w})
			}
		}
		if len(of) == 0 {
			delete(k.wishes, addr)
		}
	}
	k.mu.Unlock()
	for _, x := range open {
		blocked := ""
		device, err := k.cfg.Device(x.w.address.Addr())
		if err == nil {
			err = k.free(device, x.w.address)
		}
		if err != nil {
			blocked = err.Error()
		}
		k.mu.Lock()
		if w := k.wishes[x.w.address.Addr()][x.o]; w != nil && (!w.checked || w.blocked != blocked) {
			w.checked, w.blocked = true, blocked
			ring(k.news)
		}
		k.mu.Unlock()
	}
	return wake
}
