package senses

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/reflexes/senses/procfs"
)

// The bounds of reading the kernel's log: what a storm of messages may cost. A
// ring that overflows meanwhile says so.
const (
	kmsgBurst = 2000 // messages within kmsgPause
	kmsgPause = 100 * time.Millisecond
)

// kmsg reads the kernel's log from where it last was, or from the end.
type kmsg struct {
	f    *os.File
	next uint64 // the first number that was not read yet; 0 if none was
}

// openKmsg opens the log at its end, or, if next is not 0, at the oldest message,
// of which those before next are skipped.
func openKmsg(path string, next uint64) (*kmsg, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if next == 0 {
		if _, err := unix.Seek(fd, 0, io.SeekEnd); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("seek the end of %s: %w", path, err)
		}
	}
	return &kmsg{f: os.NewFile(uintptr(fd), path), next: next}, nil
}

// follow calls tell for each message of the kernel, and lost when some were
// overwritten before they were read, until the log is closed, which is no error,
// or ctx ends.
func (k *kmsg) follow(ctx context.Context, tell func(text []byte), lost func()) error {
	buf := make([]byte, procfs.MaxRecord)
	began, n := time.Now(), 0
	for {
		size, err := k.f.Read(buf)
		switch {
		case errors.Is(err, os.ErrClosed):
			return nil
		case errors.Is(err, unix.EPIPE):
			lost()
			continue
		case errors.Is(err, unix.EINVAL): // a message that is too long is skipped
		case err != nil:
			return err
		default:
			k.message(buf[:size], tell)
		}
		if n++; n < kmsgBurst {
			continue
		}
		if left := kmsgPause - time.Since(began); left > 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(left):
			}
		}
		began, n = time.Now(), 0
	}
}

func (k *kmsg) message(b []byte, tell func(text []byte)) {
	r, err := procfs.ParseRecord(b)
	if err != nil || r.Seq < k.next {
		return
	}
	k.next = r.Seq + 1
	if r.FromKernel() {
		tell(r.Text)
	}
}

func (k *kmsg) close() { k.f.Close() }
