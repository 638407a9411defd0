package gossip

import (
	"encoding/binary"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
)

// Message kinds of the pool. Serf's own start at 0; only its leave and join
// intents are let through, because the mesh uses none of its events, queries,
// relays and key changes, and who holds the gossip key must not gain them.
const (
	serfLeave   = 0
	serfJoin    = 1
	vitalsMsg   = 0xF1
	stateMarker = 0xF2
)

// delegate puts the vitals beside serf in one memberlist pool: it stands in
// front of serf's own delegate. Serf's messages go first, and memberlist sends
// its own before both, so vitals take only room that is left over.
//
// It is called by memberlist's goroutines, never under memberlist's node lock,
// and never blocks.
type delegate struct {
	serf  memberlist.Delegate
	table *table
	log   *slog.Logger
}

func (d *delegate) NodeMeta(limit int) []byte { return d.serf.NodeMeta(limit) }

func (d *delegate) NotifyMsg(b []byte) {
	if len(b) == 0 {
		return
	}
	switch b[0] {
	case serfLeave, serfJoin:
		d.serf.NotifyMsg(b)
	case vitalsMsg:
		d.receive(b[1:], true)
	case noteMsg:
		d.table.notes.hear(b[1:])
	case wishMsg:
		if err := d.table.wishes.hear(b[1:], d.table.self, time.Now()); err != nil {
			d.log.Debug("wishes not understood", "err", err)
		}
	}
}

func (d *delegate) receive(b []byte, relay bool) {
	now := time.Now()
	batch, err := decodeBatch(b, now)
	if err != nil {
		d.log.Debug("vitals not understood", "err", err)
		return
	}
	d.table.receive(batch, now, relay)
}

// GetBroadcasts packs all waiting vitals that fit into one message, so that a
// packet costs its receiver one slot of the hand-off queue. Notes and wishes, which
// are rare, go before them.
func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	out := d.serf.GetBroadcasts(overhead, limit)
	for _, m := range out {
		limit -= len(m) + overhead
	}
	for _, q := range []*memberlist.TransmitLimitedQueue{d.table.notes.queue, d.table.wishes.queue} {
		for _, m := range q.GetBroadcasts(overhead, limit) {
			out = append(out, m)
			limit -= len(m) + overhead
		}
	}
	room := limit - overhead - 1 - batchHeader
	if room < recordSize {
		return out
	}
	head := appendBatchHeader([]byte{vitalsMsg})
	if b := d.table.appendQueued(head, room); len(b) > len(head) {
		out = append(out, b)
	}
	return out
}

// LocalState is serf's state, framed, this host's notes, and every host's vitals.
func (d *delegate) LocalState(join bool) []byte {
	state := d.serf.LocalState(join)
	b := append([]byte{stateMarker}, binary.BigEndian.AppendUint32(nil, uint32(len(state)))...)
	b = d.table.notes.appendAll(append(b, state...))
	b = appendBatchHeader(b)
	return d.table.appendAll(b, time.Now())
}

func (d *delegate) MergeRemoteState(b []byte, join bool) {
	const header = 5
	if len(b) < header || b[0] != stateMarker {
		d.log.Debug("state of another host not understood", "bytes", len(b))
		return
	}
	size := int64(binary.BigEndian.Uint32(b[1:]))
	if int64(len(b)) < header+size {
		d.log.Debug("state of another host is cut short", "bytes", len(b))
		return
	}
	if size > 0 {
		d.serf.MergeRemoteState(b[header:header+size], join)
	}
	rest, ok := d.table.notes.readAll(b[header+size:])
	if !ok {
		d.log.Debug("notes of another host not understood", "bytes", len(b))
		return
	}
	d.receive(rest, false)
}

// pinger puts a host's own vitals into its answers to probes: each host is
// probed about once a second by someone, so what gossip missed is found with no
// packet more.
type pinger struct {
	*delegate
	trips *trips
}

func (p pinger) AckPayload() []byte {
	return p.table.appendOwn(appendBatchHeader(nil), time.Now())
}

func (p pinger) NotifyPingComplete(n *memberlist.Node, took time.Duration, payload []byte) {
	p.trips.note(n.Name, took, time.Now())
	if len(payload) > 0 {
		p.receive(payload, true)
	}
}

// seam is how the delegate gets in front of serf's. Serf builds its delegate
// inside serf.Create and hands it to memberlist in a config that the two share;
// memberlist asks the transport for the advertised address before it starts its
// first goroutine. That call is the one moment at which the delegate exists and
// nobody reads it yet, so it is exchanged there, with no data race.
type seam struct {
	memberlist.NodeAwareTransport
	install   func()
	installed bool
}

func (s *seam) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	if !s.installed {
		s.installed = true
		s.install()
	}
	return s.NodeAwareTransport.FinalAdvertiseAddr(ip, port)
}

// dialMax is what a host that never answers costs, to a join or to a probe.
const dialMax = 3 * time.Second

func (s *seam) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return s.NodeAwareTransport.DialAddressTimeout(a, min(timeout, dialMax))
}
