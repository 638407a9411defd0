package artifact

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"slices"
)

// ChunkSize is the unit in which packages travel between hosts and are checked
// on arrival: a flipped bit costs one chunk, not the package.
const ChunkSize = 2 << 20

// Chunks are the hashes of a package's pieces. They are a hint by which a bad
// piece and who sent it is known at once; only the digest is the authority.
type Chunks struct {
	Size int64    `json:"size"` // bytes of the package
	Sums [][]byte `json:"sums"` // SHA-256 of each ChunkSize bytes, the last of the rest
}

// check refuses chunks that cannot be of one package within the limit.
func (c Chunks) check(limit int64) error {
	if c.Size <= 0 || c.Size > limit {
		return fmt.Errorf("%w: a package of %d bytes; at most %d are allowed", ErrRefused, c.Size, limit)
	}
	if int64(len(c.Sums)) != (c.Size+ChunkSize-1)/ChunkSize {
		return fmt.Errorf("%w: %d chunks for %d bytes", ErrCorrupt, len(c.Sums), c.Size)
	}
	for _, s := range c.Sums {
		if len(s) != sha256.Size {
			return fmt.Errorf("%w: a hash of %d bytes", ErrCorrupt, len(s))
		}
	}
	return nil
}

func (c Chunks) equal(o Chunks) bool {
	return c.Size == o.Size && slices.EqualFunc(c.Sums, o.Sums, bytes.Equal)
}

// span is where chunk i is.
func (c Chunks) span(i int) (off, n int64) {
	off = int64(i) * ChunkSize
	return off, min(ChunkSize, c.Size-off)
}

// chunker computes digest and chunks of what is written to it.
type chunker struct {
	whole, part hash.Hash
	size        int64
	sums        [][]byte
}

func newChunker() *chunker { return &chunker{whole: sha256.New(), part: sha256.New()} }

func (c *chunker) Write(p []byte) (int, error) {
	n := len(p)
	c.whole.Write(p)
	for len(p) > 0 {
		take := min(int64(len(p)), ChunkSize-c.size%ChunkSize)
		c.part.Write(p[:take])
		c.size += take
		p = p[take:]
		if c.size%ChunkSize == 0 {
			c.cut()
		}
	}
	return n, nil
}

func (c *chunker) cut() {
	c.sums = append(c.sums, c.part.Sum(nil))
	c.part.Reset()
}

// finish returns what was written. It is called once.
func (c *chunker) finish() (Digest, Chunks) {
	if c.size%ChunkSize != 0 {
		c.cut()
	}
	return digestOf(c.whole.Sum(nil)), Chunks{Size: c.size, Sums: c.sums}
}
