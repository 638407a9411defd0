// Package addresses keeps the addresses that reflexes of this host have taken over,
// each only while the host has its lease: on an interface, with a lifetime that the
// kernel ends before the lease is over, so that an agent that hangs or dies keeps none
// too long. What it does is on disk before it is done, so that the next life of the
// agent goes on with it, or ends it. It asks nobody for leases; its owner does.
package addresses

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/reflexes"
	"github.com/ganglion-mesh/ganglion/workload/vip"
)

// wishFor is how long a rule that said that it wants an address counts as wanting it:
// it says so every second.
const wishFor = 5 * time.Second

// Kernel is what the kernel does with addresses: a vip.Kernel.
type Kernel interface {
	List() ([]vip.Present, error)
	Put(device string, a netip.Prefix, life time.Duration) error
	Remove(device string, a netip.Prefix) error
	Announce(device string, addr netip.Addr) error
}

// Config of a Keeper. All but Logger is required.
type Config struct {
	// Load returns the record that Save stored last, nothing if there is none. What is
	// stored has to survive the agent, not the host.
	Load func() ([]byte, error)
	Save func([]byte) error
	// Clock names this boot of the host and tells for how long it has been up.
	Clock  func() (boot string, up time.Duration)
	Kernel Kernel
	// Device names the interface on which this host may have an address, or says why
	// there is none.
	Device func(netip.Addr) (string, error)
	// Leased is told of who wants an address that its lease is good, and Lost of who
	// had one that it is gone. They wait for nothing, and call no method of the Keeper.
	Leased, Lost func(Owner)
	Logger       *slog.Logger
}

// Owner is who has an address, or wants it: a rule and what it is about.
type Owner struct {
	Rule   string          `json:"rule"`
	Target reflexes.Target `json:"target"`
}

// Keeper keeps the addresses of a host. Its methods may be called from any goroutine.
// Those that say that they wait for nothing touch neither the kernel nor the disk.
type Keeper struct {
	cfg  Config
	log  *slog.Logger
	bell chan struct{} // cap 1: Step has something to do
	news chan struct{} // cap 1: a report would say something else

	work sync.Mutex // held while kernel and disk are brought to what is to be; before mu

	mu     sync.Mutex
	away   bool // the host is being emptied, or has left
	leases map[netip.Addr]topology.HeldLease
	until  map[netip.Addr]time.Duration // of those of the present tokens, on the boot clock
	ended  map[netip.Addr]uint64        // the highest token of each address that was given back
	wishes map[netip.Addr]map[Owner]*wish
	held   map[netip.Addr]*holding
}

// wish is that a rule wants an address.
type wish struct {
	address netip.Prefix
	since   time.Duration // when it was said first
	at      time.Duration // when it was said last
	checked bool          // it was looked whether this host can have it
	blocked string        // why it cannot
}

// holding is an address that this host has, or has just lost. It is on disk, but for
// what is lower case.
type holding struct {
	Address netip.Prefix `json:"address"`
	Device  string       `json:"device"`
	Token   uint64       `json:"token"`
	Boot    string       `json:"boot"`
	Owners  []Owner      `json:"owners"`

	on        bool          // as far as is known
	off       time.Duration // since when it is not, or nobody knows; 0: it is on
	since     time.Duration // when it was put there
	announced int           // how often since then
	ending    bool          // it could not be removed: it is to be, and its lease to run out
}

// New returns a Keeper that goes on with what an earlier life of the agent left.
func New(cfg Config) (*Keeper, error) {
	if cfg.Load == nil || cfg.Save == nil || cfg.Clock == nil || cfg.Kernel == nil || cfg.Device == nil || cfg.Leased == nil || cfg.Lost == nil {
		return nil, errors.New("configure addresses: Load, Save, Clock, Kernel, Device, Leased and Lost are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{
		cfg: cfg, log: cfg.Logger, bell: make(chan struct{}, 1), news: make(chan struct{}, 1),
		leases: map[netip.Addr]topology.HeldLease{}, until: map[netip.Addr]time.Duration{}, ended: map[netip.Addr]uint64{},
		wishes: map[netip.Addr]map[Owner]*wish{}, held: map[netip.Addr]*holding{},
	}
	return k, k.load()
}

// Bell has something to receive when Step is to be called.
func (k *Keeper) Bell() <-chan struct{} { return k.bell }

// Changed has something to receive when Wants or Ended may say something else.
func (k *Keeper) Changed() <-chan struct{} { return k.news }

func ring(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Set takes the leases of a slice for the present ones. It waits for nothing.
func (k *Keeper) Set(sl topology.Slice) {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := map[netip.Addr]topology.HeldLease{}
	for _, l := range sl.Leases {
		if a, err := netip.ParseAddr(l.App); err == nil && topology.IsAddress(l.App) {
			next[a] = l
		}
	}
	for a, l := range k.leases {
		if next[a].Token != l.Token {
			delete(k.until, a)
		}
	}
	k.leases, k.away = next, sl.Drain == topology.DrainDraining || sl.Drain == topology.DrainDrained || sl.Gone != nil
	ring(k.bell)
	ring(k.news)
}

// Want says that a rule wants an address, and lacks only its lease. It waits for
// nothing.
func (k *Keeper) Want(o Owner, a netip.Prefix) {
	_, now := k.cfg.Clock()
	k.mu.Lock()
	defer k.mu.Unlock()
	of := k.wishes[a.Addr()]
	if of == nil {
		of = map[Owner]*wish{}
		k.wishes[a.Addr()] = of
	}
	w := of[o]
	if w == nil || w.address != a {
		w = &wish{address: a, since: now}
		of[o] = w
		ring(k.bell)
	}
	w.at = now
}

// askFor is how long a lease may take to come before it is said that it is not
// there.
const askFor = 3 * time.Second

// May tells whether this host has the lease of an address, for long enough to use it;
// if not, whether the owner has only just asked for it, and why it is not there, as
// far as is known. It waits for nothing.
func (k *Keeper) May(o Owner, addr netip.Addr) (leased, asking bool, why string) {
	_, now := k.cfg.Clock()
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.wishes[addr][o]
	asking = w == nil || now-w.since < askFor
	_, good := k.good(addr)
	switch {
	case k.away:
		return false, false, "this host is being emptied"
	case w != nil && w.blocked != "":
		return false, false, w.blocked
	case good && vip.Lifetime(k.until[addr]-now) > 0:
		return true, false, ""
	case good:
		return false, asking, "it has not been renewed"
	}
	return false, asking, "another host may have it: ganglion hosts -o wide"
}

// good returns the lease of an address if this host may use it. It is called with mu
// held.
func (k *Keeper) good(addr netip.Addr) (topology.HeldLease, bool) {
	boot, _ := k.cfg.Clock()
	l, ok := k.leases[addr]
	return l, ok && boot != "" && l.Boot == boot && l.Token > k.ended[addr]
}

// wanted tells whether a rule wants an address that this host can have. It is called
// with mu held.
func (k *Keeper) wanted(addr netip.Addr, now time.Duration) bool {
	for _, w := range k.wishes[addr] {
		if w.checked && w.blocked == "" && now-w.at < wishFor && !k.away {
			return true
		}
	}
	return false
}

// Wants lists the addresses that this host would have, or has: for its report. It
// waits for nothing.
func (k *Keeper) Wants() (list []string) {
	_, now := k.cfg.Clock()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.away {
		return nil
	}
	for a := range k.wishes {
		if k.held[a] == nil && k.wanted(a, now) {
			list = append(list, a.String())
		}
	}
	for a := range k.held {
		list = append(list, a.String())
	}
	slices.Sort(list)
	return list
}

// Leases lists the leases that this host needs: they are to be renewed. It waits for
// nothing.
func (k *Keeper) Leases() (list []topology.HeldLease) {
	_, now := k.cfg.Clock()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range slices.SortedFunc(maps.Keys(k.leases), netip.Addr.Compare) {
		l, ok := k.good(a)
		h := k.held[a]
		if ok && (h != nil && h.Token == l.Token && !h.ending || h == nil && k.wanted(a, now)) {
			list = append(list, l)
		}
	}
	return list
}

// Ended lists the leases of this host under which it has no address nor ever will:
// the leader may give them to others at once. That is on disk before it is said.
func (k *Keeper) Ended() (list []topology.LeaseRef) {
	boot, now := k.cfg.Clock()
	if boot == "" {
		return nil
	}
	k.work.Lock()
	defer k.work.Unlock()
	k.mu.Lock()
	var back []netip.Addr
	for a, l := range k.leases {
		_, good := k.good(a)
		if k.held[a] != nil || good && k.wanted(a, now) {
			continue
		}
		if good {
			k.ended[a] = l.Token
			back = append(back, a)
		}
		list = append(list, topology.LeaseRef{App: a.String(), Token: l.Token})
	}
	k.mu.Unlock()
	if len(back) > 0 {
		if err := k.save(); err != nil {
			k.log.Warn("give leases of addresses back: not before that is noted", "addresses", back, "error", err)
			k.mu.Lock()
			for _, a := range back {
				delete(k.ended, a) // and it may be used again
			}
			k.mu.Unlock()
			list = slices.DeleteFunc(list, func(r topology.LeaseRef) bool {
				return slices.ContainsFunc(back, func(a netip.Addr) bool { return a.String() == r.App })
			})
		}
	}
	slices.SortFunc(list, func(a, b topology.LeaseRef) int { return int(a.Token) - int(b.Token) })
	return list
}

// Held is an address that this host has.
type Held struct {
	Address netip.Prefix
	Device  string
	Token   uint64
	On      bool // false: it was taken off, and comes back if its lease is renewed
}

// String says where an address is.
func (h Held) String() string {
	s := fmt.Sprintf("%s on %s, token %d", h.Address, h.Device, h.Token)
	if !h.On {
		s += ", taken off until its lease is renewed"
	}
	return s
}

// Of lists what an owner has. It waits for nothing.
func (k *Keeper) Of(o Owner) (list []Held) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, h := range k.held {
		if slices.Contains(h.Owners, o) {
			list = append(list, Held{h.Address, h.Device, h.Token, h.on})
		}
	}
	slices.SortFunc(list, func(a, b Held) int { return a.Address.Addr().Compare(b.Address.Addr()) })
	return list
}

// Any tells whether there is anything to keep, or anybody wants something. It waits
// for nothing.
func (k *Keeper) Any() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.held)+len(k.wishes) > 0
}
