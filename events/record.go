package events

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
)

// A record on disk is a 28-byte header and the event's JSON:
//
//	magic "gev1" · crc32c · length · seq · wall clock in Unix ns · JSON
//
// all little-endian; the checksum covers everything after itself. Each record
// stands alone, so that a reader can find the next good one after any damage.
const (
	recordMagic  = "gev1"
	recordHeader = 4 + 4 + 4 + 8 + 8
	// maxRecord bounds one record; MaxData and the envelope fit well within.
	maxRecord = 32 << 10
	// maxSeq keeps seq exact in JSON readers that use doubles, and damage or
	// foreign files from making the counter overflow.
	maxSeq = 1 << 53
)

// record is one decoded record. payload is only valid until the next one.
type record struct {
	seq     uint64
	unixNS  int64
	payload []byte
	offset  int64 // of the header, from where the scanner started
	size    int   // header and payload
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // built once by the library

// appendRecord encodes one record.
func appendRecord(b []byte, seq uint64, unixNS int64, payload []byte) []byte {
	start := len(b)
	b = append(b, recordMagic...)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint64(b, seq)
	b = binary.LittleEndian.AppendUint64(b, uint64(unixNS))
	b = append(b, payload...)
	sum := crc32.Checksum(b[start+8:], castagnoli())
	binary.LittleEndian.PutUint32(b[start+4:], sum)
	return b
}

// scanner yields the good records of a segment in order and steps over
// whatever else is there. Only seqs that rise within (after, before) are
// believed, so leftovers and foreign records are not.
type scanner struct {
	in            *bufio.Reader
	after, before uint64
	pos           int64 // of in, from the start
	damaged       int64 // bytes stepped over before the last good record
	skipped       int64 // bytes stepped over since
}

// newScanner reads through in, whose buffer must hold a whole record.
func newScanner(in *bufio.Reader, after, before uint64) *scanner {
	return &scanner{in: in, after: after, before: before}
}

// next is the next good record, or io.EOF, or a read error.
func (s *scanner) next() (record, error) {
	for {
		rec, ok, err := s.here()
		if err != nil {
			return record{}, err
		}
		if ok {
			s.after = rec.seq
			s.damaged += s.skipped
			s.skipped = 0
			return rec, nil
		}
		if err := s.resync(); err != nil {
			return record{}, err
		}
	}
}

// here tries to decode the record that starts at the current position.
func (s *scanner) here() (record, bool, error) {
	head, err := s.in.Peek(recordHeader)
	if len(head) < recordHeader {
		s.skipped += int64(len(head))
		return record{}, false, eofOr(err)
	}
	size := recordHeader + int64(binary.LittleEndian.Uint32(head[8:]))
	seq := binary.LittleEndian.Uint64(head[12:])
	if string(head[:4]) != recordMagic || size > maxRecord || seq <= s.after || seq >= s.before {
		return record{}, false, nil
	}
	b, err := s.in.Peek(int(size))
	if len(b) < int(size) {
		if err != nil && err != io.EOF {
			return record{}, false, err
		}
		return record{}, false, nil
	}
	if crc32.Checksum(b[8:], castagnoli()) != binary.LittleEndian.Uint32(b[4:]) {
		return record{}, false, nil
	}
	rec := record{
		seq: seq, unixNS: int64(binary.LittleEndian.Uint64(b[20:])),
		payload: b[recordHeader:], offset: s.pos, size: int(size),
	}
	// The bytes stay valid: Discard does not move the buffer, the next Peek may.
	n, err := s.in.Discard(int(size))
	s.pos += int64(n)
	return rec, true, err
}

// resync moves to the next place that could be a record.
func (s *scanner) resync() error {
	if _, err := s.in.Discard(1); err != nil {
		return eofOr(err)
	}
	s.pos++
	s.skipped++
	b, _ := s.in.Peek(max(s.in.Buffered(), recordHeader))
	n := bytes.Index(b, []byte(recordMagic))
	if n < 0 {
		n = max(0, len(b)-len(recordMagic)+1) // the magic may straddle the buffer
	}
	n, err := s.in.Discard(n)
	s.pos += int64(n)
	s.skipped += int64(n)
	return err
}

// eofOr makes io.EOF of a short read without a reason.
func eofOr(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}
