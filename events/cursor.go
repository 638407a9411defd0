package events

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
)

const (
	cursorName = "published"
	cursorSlot = 16 // seq, checksum, padding
)

// cursor is the seq up to which events have been published, on disk. Two slots
// are written in turn, so that a torn write costs one step back, which only
// means duplicates. It is not fsynced, for the same reason.
type cursor struct {
	path string
	seq  uint64
	turn int64
}

// openCursor reads the cursor of a ring's directory; 0 if there is none.
func openCursor(dir string) *cursor {
	return &cursor{path: filepath.Join(dir, cursorName), seq: readCursor(dir)}
}

// readCursor is the largest seq in the good slots of the cursor's file.
func readCursor(dir string) (seq uint64) {
	b, err := os.ReadFile(filepath.Join(dir, cursorName))
	if err != nil {
		return 0
	}
	for len(b) >= cursorSlot {
		n := binary.LittleEndian.Uint64(b)
		if crc32.Checksum(b[:8], castagnoli()) == binary.LittleEndian.Uint32(b[8:]) && n < maxSeq {
			seq = max(seq, n)
		}
		b = b[cursorSlot:]
	}
	return seq
}

// set moves the cursor, on disk too.
func (c *cursor) set(seq uint64) error {
	c.seq = seq
	f, err := os.OpenFile(c.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	b := make([]byte, cursorSlot)
	binary.LittleEndian.PutUint64(b, seq)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[:8], castagnoli()))
	c.turn = 1 - c.turn
	_, err = f.WriteAt(b, c.turn*cursorSlot)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
