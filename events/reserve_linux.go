package events

import (
	"os"

	"golang.org/x/sys/unix"
)

// reserve allocates blocks for the first size bytes of f without changing its
// length. File systems that cannot do it say so; only "disk full" matters.
func reserve(f *os.File, size int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
}
