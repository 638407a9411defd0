package gossip

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Wishes are what hosts would do by themselves just now, by name: who hears that
// others wish the same can tell a common cause from a fault of its own. They are
// small, live for a minute and are said only while there are any, so that an idle
// mesh says nothing. Like all gossip they are evidence: a forged one can hold a host
// back, and make none act.

// The wire form of one host's wishes: kind 1, version 1, host 8, then for each
// wish the hash of its name 8 and its age 2, in units of 100 ms, rounded down.
const (
	wishMsg     = 0xF4
	wishVersion = 1
	wishHeader  = 2 + 8
	wishSize    = 8 + 2

	// MaxWishes bounds what one host wishes at once; of more the first are told.
	MaxWishes = 32
	// WishFor is how long a wish is remembered.
	WishFor = time.Minute

	// maxWished bounds the names of which anything is remembered, maxWishers the
	// hosts of each: whether there are few or more is all that matters.
	maxWished  = 1024
	maxWishers = 16
	// wishNews is by how much a wish must be younger than what is known to be passed
	// on again: less is what rounding makes of one that comes round.
	wishNews = 2 * time.Second
)

// wishes are what other hosts were heard to wish. Its lock is a leaf.
type wishes struct {
	mu    sync.Mutex
	heard map[uint64]map[uint64]time.Time // by name and host: when it was wished, at the latest
	queue *memberlist.TransmitLimitedQueue
}

// wish is one name and when it was wished, on this host's clock.
type wish struct {
	name uint64
	at   time.Time
}

// Wish tells the mesh what this host wishes now, by name. It is to be called again
// every ten seconds or so while that lasts.
func (p *Pool) Wish(names []string) {
	now := time.Now()
	list := make([]wish, 0, min(len(names), MaxWishes))
	for _, n := range names[:min(len(names), MaxWishes)] {
		list = append(list, wish{hostHash(n), now})
	}
	if len(list) > 0 {
		p.table.wishes.queue.QueueBroadcast(&wishCast{p.table.self, list})
	}
}

// Wishers is how many other hosts of the mesh were heard to wish the same within
// the last minute, at most 16.
func (p *Pool) Wishers(name string) int {
	hosts := p.table.wishes.of(hostHash(name), time.Now())
	if len(hosts) == 0 {
		return 0
	}
	n := 0
	for _, m := range p.Members() {
		if m.Status != StatusLeft && m.Name != p.cfg.Name && slices.Contains(hosts, hostHash(m.Name)) {
			n++
		}
	}
	return n
}

// of lists the hosts that wish for a name.
func (w *wishes) of(name uint64, now time.Time) (hosts []uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for host, at := range w.heard[name] {
		if now.Sub(at) < WishFor {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// hear takes in what another host says, of itself or of a third, and passes on what
// is news.
func (w *wishes) hear(b []byte, self uint64, now time.Time) error {
	host, list, err := decodeWishes(b, now)
	if err != nil || host == self {
		return err
	}
	if w.note(host, list, now) {
		w.queue.QueueBroadcast(&wishCast{host, list})
	}
	return nil
}

// note remembers wishes and reports whether one of them is news.
func (w *wishes) note(host uint64, list []wish, now time.Time) (news bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range list {
		if now.Sub(x.at) >= WishFor {
			continue
		}
		hosts := w.heard[x.name]
		at, known := hosts[host]
		if known && x.at.Sub(at) < wishNews {
			continue
		}
		if hosts == nil {
			if w.forget(now); len(w.heard) >= maxWished {
				continue
			}
			hosts = map[uint64]time.Time{}
			w.heard[x.name] = hosts
		}
		if !known && len(hosts) >= maxWishers {
			continue
		}
		hosts[host], news = x.at, true
	}
	return news
}

// forget drops what is too old. It is called with mu held.
func (w *wishes) forget(now time.Time) {
	for name, hosts := range w.heard {
		for host, at := range hosts {
			if now.Sub(at) >= WishFor {
				delete(hosts, host)
			}
		}
		if len(hosts) == 0 {
			delete(w.heard, name)
		}
	}
}

// decodeWishes reads what any host may have sent. It trusts no length.
func decodeWishes(b []byte, now time.Time) (host uint64, list []wish, err error) {
	if len(b) < wishHeader-1 || b[0] != wishVersion {
		return 0, nil, fmt.Errorf("decode wishes: %d bytes of another version", len(b))
	}
	host, b = binary.BigEndian.Uint64(b[1:]), b[wishHeader-1:]
	if len(b)%wishSize != 0 || len(b) > MaxWishes*wishSize {
		return 0, nil, fmt.Errorf("decode wishes: %d bytes are no list of them", len(b))
	}
	for ; len(b) > 0; b = b[wishSize:] {
		age := time.Duration(binary.BigEndian.Uint16(b[8:])) * ageUnit
		list = append(list, wish{binary.BigEndian.Uint64(b), now.Add(-age)})
	}
	return host, list, nil
}

// wishCast is a host's wishes on their way out. Their ages are written anew each
// time they are sent; the length never changes, which the queue relies on.
type wishCast struct {
	host uint64
	list []wish
}

func (c *wishCast) Message() []byte {
	now := time.Now()
	b := binary.BigEndian.AppendUint64([]byte{wishMsg, wishVersion}, c.host)
	for _, x := range c.list {
		b = binary.BigEndian.AppendUint64(b, x.name)
		age := min(max(now.Sub(x.at)/ageUnit, 0), math.MaxUint16)
		b = binary.BigEndian.AppendUint16(b, uint16(age))
	}
	return b
}

func (c *wishCast) Finished() {}

// Name lets a host's newer wishes replace older ones in the queue.
func (c *wishCast) Name() string { return strconv.FormatUint(c.host, 36) }

func (c *wishCast) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(*wishCast)
	return ok && o.host == c.host
}

var _ memberlist.NamedBroadcast = (*wishCast)(nil)
