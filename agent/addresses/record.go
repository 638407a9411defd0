package addresses

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
)

// record is what is on disk.
type record struct {
	Held  []*holding            `json:"held,omitempty"`
	Ended map[netip.Addr]uint64 `json:"ended,omitempty"`
}

// load reads the record of an earlier life. Of another boot of the host nothing is
// left but its word on what it gave back.
func (k *Keeper) load() error {
	var r record
	data, err := k.cfg.Load()
	if err == nil && len(data) > 0 {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return fmt.Errorf("read which addresses this host has: %w", err)
	}
	boot, now := k.cfg.Clock()
	for _, h := range r.Held {
		if h.Boot == boot && h.Address.IsValid() {
			h.on, h.off, h.announced = true, now, len(announceAfter)
			k.held[h.Address.Addr()] = h
		}
	}
	if r.Ended != nil {
		k.ended = r.Ended
	}
	return nil
}

// save stores the record. It has to survive the agent; after the host none of it
// counts. It is called with work held.
func (k *Keeper) save() error {
	k.mu.Lock()
	r := record{Ended: map[netip.Addr]uint64{}}
	for _, h := range k.held {
		r.Held = append(r.Held, h)
	}
	for a, token := range k.ended {
		if l, ok := k.leases[a]; ok && l.Token <= token { // of others the token never comes back
			r.Ended[a] = token
		}
	}
	slices.SortFunc(r.Held, func(a, b *holding) int { return a.Address.Addr().Compare(b.Address.Addr()) })
	data, err := json.Marshal(r)
	k.mu.Unlock()
	if err == nil {
		err = k.cfg.Save(data)
	}
	if err != nil {
		return fmt.Errorf("note which addresses this host has: %w", err)
	}
	return nil
}
