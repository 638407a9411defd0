package gossip

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/ganglion-mesh/ganglion/durable"
)

// maxPeers is how many addresses are kept: one that answers is enough.
const maxPeers = 64

// peerFile remembers where other hosts are, so that a host which restarts finds
// its mesh again with every seed gone. They are tried for ever.
type peerFile struct {
	path string // empty: nothing is kept

	mu   sync.Mutex // held over the disk
	gone bool       // removed: nothing is kept from then on
	last []netip.AddrPort
}

// load reads the file. What is not an address is passed over: a damaged file
// must not keep a host from starting.
func (f *peerFile) load() ([]netip.AddrPort, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read known peers: %w", err)
	}
	var texts []string
	if err := json.Unmarshal(b, &texts); err != nil {
		return nil, fmt.Errorf("read known peers in %s: %w; it is written anew once others are met", f.path, err)
	}
	for _, t := range texts {
		if a, err := netip.ParseAddrPort(t); err == nil && len(f.last) < maxPeers {
			f.last = append(f.last, a)
		}
	}
	return f.last, nil
}

// save writes the addresses of all other hosts that have not left. A view
// without any is not written: being cut off is no reason to forget.
func (f *peerFile) save(members []Member, self string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.path == "" || f.gone {
		return nil
	}
	var peers []netip.AddrPort
	for _, m := range members {
		if m.Name == self || m.Status == StatusLeft || len(peers) == maxPeers {
			continue
		}
		if ip, err := netip.ParseAddr(m.Addr); err == nil {
			peers = append(peers, netip.AddrPortFrom(ip, uint16(m.Port)))
		}
	}
	if len(peers) == 0 || slices.Equal(peers, f.last) {
		return nil
	}
	b, err := json.Marshal(peers)
	if err == nil {
		err = durable.Replace(f.path, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("save known peers: %w", err)
	}
	f.last = peers
	return nil
}

// remove forgets the peers: a host that has left must not find its way back.
func (f *peerFile) remove() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = true
	if f.path == "" {
		return nil
	}
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget known peers: %w", err)
	}
	return nil
}
