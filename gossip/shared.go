package gossip

import (
	"encoding/binary"
	"slices"
	"strconv"
	"sync"

	"github.com/hashicorp/memberlist"
)

// Notes are a few small texts that every host is to have: who freezes tells all.
// What they say, and whether to believe it, is for those above: a note is passed
// on only by a host that has taken it for its own.

const (
	// MaxNote bounds one note, so that it fits into a packet with room to spare.
	MaxNote = 1100
	// maxNotes bounds what is read of another host's notes, in bytes.
	maxNotes = 256 << 10

	noteMsg = 0xF3
)

// notes are those of this host, and the way out for news. Its lock is a leaf.
type notes struct {
	mu    sync.Mutex
	own   [][]byte
	heard func([]byte)
	queue *memberlist.TransmitLimitedQueue
}

// Share makes list the notes of this host: they are in every exchange of state
// from now on, and those that are new go out at once. Notes longer than MaxNote
// are left out.
func (p *Pool) Share(list [][]byte) {
	n := &p.table.notes
	list = slices.DeleteFunc(slices.Clone(list), func(b []byte) bool { return len(b) > MaxNote })
	n.mu.Lock()
	before := n.own
	n.own = list
	n.mu.Unlock()
	for _, b := range list {
		if !slices.ContainsFunc(before, func(o []byte) bool { return string(o) == string(b) }) {
			n.queue.QueueBroadcast(&noteCast{append([]byte{noteMsg}, b...)})
		}
	}
}

// OnNote has heard called with each note that another host sends, again and again,
// and whoever has the gossip key may have made it up. It must not block. It is to
// be set before Run.
func (p *Pool) OnNote(heard func([]byte)) {
	n := &p.table.notes
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heard = heard
}

func (n *notes) hear(b []byte) {
	n.mu.Lock()
	heard := n.heard
	n.mu.Unlock()
	if heard != nil && len(b) <= MaxNote {
		heard(b)
	}
}

// appendAll appends the notes to b as they stand in an exchange of state: the
// length of all, then each with its own.
func (n *notes) appendAll(b []byte) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []byte
	for _, note := range n.own {
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(note))), note...)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(all)))
	return append(b, all...)
}

// readAll hears the notes at the beginning of b and returns what follows them;
// ok is false if b is cut short. It trusts no length.
func (n *notes) readAll(b []byte) (rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, false
	}
	size := int64(binary.BigEndian.Uint32(b))
	if b = b[4:]; size > maxNotes || size > int64(len(b)) {
		return nil, false
	}
	list, rest := b[:size], b[size:]
	for len(list) >= 2 {
		one := int(binary.BigEndian.Uint16(list))
		if list = list[2:]; one > len(list) {
			return nil, false
		}
		n.hear(list[:one])
		list = list[one:]
	}
	return rest, len(list) == 0
}

// noteCast is a note on its way out.
type noteCast struct{ message []byte }

func (c *noteCast) Message() []byte { return c.message }
func (c *noteCast) Finished()       {}

// Name keeps the same note from waiting twice.
func (c *noteCast) Name() string { return strconv.Quote(string(c.message)) }

func (c *noteCast) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(*noteCast)
	return ok && string(o.message) == string(c.message)
}
