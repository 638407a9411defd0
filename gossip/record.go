package gossip

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// The wire form of a record: host 8, epoch 4, seq 4, bits 4, gauges 4, detail 8,
// age 2. A batch says how long its records are, so that a later version can add
// fields at the end that this one steps over.
const (
	recordSize   = 34
	batchVersion = 1
	batchHeader  = 2 // version, record size
	ageUnit      = 100 * time.Millisecond
)

// record is one host's vitals as all hosts agree on them: no clock is in it.
type record struct {
	host   uint64
	epoch  uint32
	seq    uint32
	bits   uint32
	gauges [4]uint8
	detail uint64
}

// entry is a record and when, on this host's clock, it was made. The wire
// carries the age alone, so clocks are never compared between hosts.
type entry struct {
	record
	born time.Time
}

// order is total: the newer record is greater, and of the same record the copy
// known to be older. Different content under one (epoch, seq), which only a
// forgery or two hosts of one name can produce, still has one winner everywhere.
func order(a, b entry) int {
	if c := cmp.Compare(a.epoch, b.epoch); c != 0 {
		return c
	}
	if c := cmp.Compare(a.seq, b.seq); c != 0 {
		return c
	}
	if c := cmp.Compare(a.bits, b.bits); c != 0 {
		return c
	}
	if c := bytes.Compare(a.gauges[:], b.gauges[:]); c != 0 {
		return c
	}
	if c := cmp.Compare(a.detail, b.detail); c != 0 {
		return c
	}
	return b.born.Compare(a.born)
}

// merge is the join of two views of one host: commutative, associative and
// idempotent, so neither order nor repetition of messages matters. Of two ages
// it keeps the greater: time in transit is not counted, so ages only ever err
// towards fresh.
func merge(a, b entry) entry {
	if order(a, b) >= 0 {
		return a
	}
	return b
}

// appendRecord writes an entry with its age at now, rounded down: rounding up
// would let two hosts age a record by passing it back and forth.
func appendRecord(b []byte, e entry, now time.Time) []byte {
	b = binary.BigEndian.AppendUint64(b, e.host)
	b = binary.BigEndian.AppendUint32(b, e.epoch)
	b = binary.BigEndian.AppendUint32(b, e.seq)
	b = binary.BigEndian.AppendUint32(b, e.bits)
	b = append(b, e.gauges[:]...)
	b = binary.BigEndian.AppendUint64(b, e.detail)
	age := min(max(now.Sub(e.born)/ageUnit, 0), math.MaxUint16)
	return binary.BigEndian.AppendUint16(b, uint16(age))
}

func decodeRecord(b []byte, now time.Time) entry {
	e := entry{record: record{
		host:   binary.BigEndian.Uint64(b),
		epoch:  binary.BigEndian.Uint32(b[8:]),
		seq:    binary.BigEndian.Uint32(b[12:]),
		bits:   binary.BigEndian.Uint32(b[16:]),
		gauges: [4]uint8(b[20:24]),
		detail: binary.BigEndian.Uint64(b[24:]),
	}}
	e.born = now.Add(-time.Duration(binary.BigEndian.Uint16(b[32:])) * ageUnit)
	return e
}

func appendBatchHeader(b []byte) []byte { return append(b, batchVersion, recordSize) }

// decodeBatch reads what any host may have sent. It never trusts a length.
func decodeBatch(b []byte, now time.Time) ([]entry, error) {
	if len(b) < batchHeader {
		return nil, fmt.Errorf("decode vitals: %d bytes hold no header", len(b))
	}
	version, size := b[0], int(b[1])
	if version < batchVersion || size < recordSize {
		return nil, fmt.Errorf("decode vitals: version %d with records of %d bytes is unknown here", version, size)
	}
	b = b[batchHeader:]
	if len(b)%size != 0 {
		return nil, fmt.Errorf("decode vitals: %d bytes are no whole number of records of %d", len(b), size)
	}
	out := make([]entry, 0, len(b)/size)
	for ; len(b) > 0; b = b[size:] {
		out = append(out, decodeRecord(b, now))
	}
	return out, nil
}

// hostHash names a host in a record. Eight bytes of SHA-256: by accident, two of
// 5,000 names meet once in 10^12 meshes.
func hostHash(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint64(sum[:])
}
