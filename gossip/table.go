package gossip

import (
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// forgetAfter bounds how long the vitals of a host that is gone go round.
	// It is more than twice the age at which they are unknown in any mesh.
	forgetAfter = 15 * time.Minute
	// maxRecords bounds what a holder of the key can make a host remember.
	maxRecords = 1 << 16
	// With memberlist's 4, one change of a member in 300 misses some host of five
	// until the next exchange; with 6, none of 600 was seen to. Refreshes of
	// vitals, of which another soon follows, keep to 4.
	urgentMult, routineMult = 6, 4
	// probedByAll is up to how many hosts each probes each other, and has its vitals
	// in the answer, within two rounds of 750 ms a host: 9 s, and a record published 5 s
	// before that is still fresh. Refreshes there need no packets of their own.
	probedByAll = 7
)

// table holds the newest vitals heard of each host and what is still to be
// passed on. It owns no goroutine. Its lock is a leaf: nothing is called under
// it, and the queues, which have locks of their own, are used after it.
type table struct {
	self  uint64
	hosts atomic.Int64 // in the mesh; sets how often a message is repeated
	// transition is called, without the lock, when the bits of a host change.
	transition func()

	mu      sync.Mutex
	entries map[uint64]entry
	own     record // what this host published last
	live    bool   // own has been published

	urgent, routine *memberlist.TransmitLimitedQueue
	notes           notes
	wishes          wishes
}

func newTable(name string, transition func()) *table {
	t := &table{self: hostHash(name), transition: transition, entries: make(map[uint64]entry)}
	t.own.epoch = 1
	n := func() int { return int(t.hosts.Load()) }
	t.urgent = &memberlist.TransmitLimitedQueue{NumNodes: n, RetransmitMult: urgentMult}
	t.routine = &memberlist.TransmitLimitedQueue{NumNodes: n, RetransmitMult: routineMult}
	t.notes.queue = &memberlist.TransmitLimitedQueue{NumNodes: n, RetransmitMult: urgentMult}
	t.wishes.heard = map[uint64]map[uint64]time.Time{}
	t.wishes.queue = &memberlist.TransmitLimitedQueue{NumNodes: n, RetransmitMult: urgentMult}
	return t
}

// publish makes v this host's newest vitals.
func (t *table) publish(v Vitals, now time.Time) {
	t.mu.Lock()
	changed := !t.live || t.own.bits != v.Bits
	v.Epoch, v.Seq = t.own.epoch, t.own.seq+1
	e := t.setOwnLocked(v.record(t.self), now)
	t.mu.Unlock()
	t.queue(e, changed)
	if changed {
		t.transition()
	}
}

func (t *table) setOwnLocked(r record, now time.Time) entry {
	e := entry{record: r, born: now}
	t.own, t.live = r, true
	t.entries[t.self] = e
	return e
}

// announce passes this host's vitals on again, first in line: for a mesh joined
// after they were published.
func (t *table) announce() {
	t.mu.Lock()
	e, ok := t.entries[t.self]
	t.mu.Unlock()
	if ok {
		t.queue(e, true)
	}
}

// receive merges what another host sent. With relay, news are passed on; without
// (a whole-state exchange, where the other side has spread them already) only
// changes of state are.
func (t *table) receive(batch []entry, now time.Time, relay bool) {
	transition := false
	for _, e := range batch {
		news, changed := t.receiveOne(e, now)
		if news.host != 0 && (relay || changed) {
			t.queue(news, changed)
		}
		transition = transition || changed
	}
	if transition {
		t.transition()
	}
}

// receiveOne returns what is to be passed on, if anything, and whether it
// changes the state of a host.
func (t *table) receiveOne(e entry, now time.Time) (news entry, changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.host == t.self {
		news = t.refuteLocked(e)
		return news, news.host != 0
	}
	if now.Sub(e.born) >= forgetAfter {
		return entry{}, false
	}
	old, known := t.entries[e.host]
	if !known {
		if len(t.entries) >= maxRecords {
			return entry{}, false
		}
		t.entries[e.host] = e
		return e, true
	}
	best := merge(old, e)
	t.entries[e.host] = best
	if best.record == old.record {
		return entry{}, false
	}
	return best, best.bits != old.bits
}

// refuteLocked answers news of this host that it did not publish: of a former
// life, or forged. As SWIM does with incarnations, it steps past them, so a
// restarted host needs neither a wall clock nor a file to be believed.
func (t *table) refuteLocked(e entry) entry {
	mine := entry{record: t.own, born: e.born}
	if e.record == t.own || order(e, mine) < 0 || e.epoch == math.MaxUint32 {
		return entry{}
	}
	t.own.epoch, t.own.seq = e.epoch+1, 0
	if !t.live {
		return entry{}
	}
	return t.setOwnLocked(t.own, t.entries[t.self].born)
}

// get returns the newest vitals of a host and their age.
func (t *table) get(host uint64, now time.Time) (Vitals, time.Duration, bool) {
	t.mu.Lock()
	e, ok := t.entries[host]
	t.mu.Unlock()
	if !ok {
		return Vitals{}, 0, false
	}
	return e.vitals(), max(now.Sub(e.born), 0), true
}

// forget drops what is too old to matter.
func (t *table) forget(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for h, e := range t.entries {
		if h != t.self && now.Sub(e.born) >= forgetAfter {
			delete(t.entries, h)
		}
	}
}

// appendAll appends every record to b, for a whole-state exchange.
func (t *table) appendAll(b []byte, now time.Time) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entries {
		if now.Sub(e.born) < forgetAfter {
			b = appendRecord(b, e, now)
		}
	}
	return b
}

// appendOwn appends this host's own record, if it has published any.
func (t *table) appendOwn(b []byte, now time.Time) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live {
		b = appendRecord(b, t.entries[t.self], now)
	}
	return b
}

// appendQueued appends waiting records to b, changes of state first, while they
// fit into limit bytes.
func (t *table) appendQueued(b []byte, limit int) []byte {
	for _, q := range []*memberlist.TransmitLimitedQueue{t.urgent, t.routine} {
		for _, m := range q.GetBroadcasts(0, limit) {
			b = append(b, m...)
			limit -= len(m)
		}
	}
	return b
}

// queue passes e on, unless it is a refresh that probes tell everyone of anyway.
func (t *table) queue(e entry, urgent bool) {
	switch {
	case urgent:
		t.urgent.QueueBroadcast(&broadcast{e})
	case t.hosts.Load() > probedByAll:
		t.routine.QueueBroadcast(&broadcast{e})
	}
}

// broadcast is an entry on its way out. Its age is written anew each time it is
// sent; its length never changes, which the queue relies on.
type broadcast struct{ e entry }

func (b *broadcast) Message() []byte {
	return appendRecord(make([]byte, 0, recordSize), b.e, time.Now())
}

// Name lets newer vitals of a host replace older ones in the queue.
func (b *broadcast) Name() string { return strconv.FormatUint(b.e.host, 36) }

func (b *broadcast) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(*broadcast)
	return ok && o.e.host == b.e.host
}

func (b *broadcast) Finished() {}

var _ memberlist.NamedBroadcast = (*broadcast)(nil)
