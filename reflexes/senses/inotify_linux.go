package senses

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// inotify is one inotify instance in the runtime's poller: a waiting reader
// costs no thread.
type inotify struct {
	f   *os.File
	buf [16 << 10]byte
}

func newInotify() (*inotify, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	return &inotify{f: os.NewFile(uintptr(fd), "inotify")}, nil
}

// add watches a path and returns the number by which its events are known. A path
// that is watched already keeps its number.
func (n *inotify) add(path string, mask uint32) (int32, error) {
	wd, err := n.control(func(fd int) (int, error) { return unix.InotifyAddWatch(fd, path, mask) })
	if err != nil {
		return 0, &fs.PathError{Op: "watch", Path: path, Err: err}
	}
	return int32(wd), nil
}

// remove ends a watch; that it has ended by itself is no error.
func (n *inotify) remove(wd int32) {
	_, _ = n.control(func(fd int) (int, error) { return unix.InotifyRmWatch(fd, uint32(wd)) })
}

func (n *inotify) control(do func(fd int) (int, error)) (wd int, err error) {
	raw, err := n.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { wd, inner = do(int(fd)) })
	return wd, errors.Join(err, inner)
}

// read waits for events and returns them. It returns os.ErrClosed after close.
func (n *inotify) read() ([]fileEvent, error) {
	k, err := n.f.Read(n.buf[:])
	if err != nil {
		return nil, err
	}
	return parseFileEvents(n.buf[:k])
}

func (n *inotify) close() { n.f.Close() }

// fileEvent is one event of inotify.
type fileEvent struct {
	wd   int32
	mask uint32
	name string // within a watched directory
}

// parseFileEvents reads what inotify has written: a header of 16 bytes and a
// padded name for each event.
func parseFileEvents(b []byte) ([]fileEvent, error) {
	var events []fileEvent
	for len(b) > 0 {
		if len(b) < unix.SizeofInotifyEvent {
			return events, fmt.Errorf("parse inotify: %d bytes are left", len(b))
		}
		e := fileEvent{wd: int32(binary.NativeEndian.Uint32(b)), mask: binary.NativeEndian.Uint32(b[4:])}
		size := binary.NativeEndian.Uint32(b[12:])
		b = b[unix.SizeofInotifyEvent:]
		if uint64(size) > uint64(len(b)) {
			return events, fmt.Errorf("parse inotify: a name of %d bytes in %d", size, len(b))
		}
		e.name, _, _ = strings.Cut(string(b[:size]), "\x00")
		b = b[size:]
		events = append(events, e)
	}
	return events, nil
}

// lost tells that the kernel had no room for events.
func (e fileEvent) lost() bool { return e.mask&unix.IN_Q_OVERFLOW != 0 }

// ended tells that the watch is over.
func (e fileEvent) ended() bool { return e.mask&unix.IN_IGNORED != 0 }
