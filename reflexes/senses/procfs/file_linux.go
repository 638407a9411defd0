package procfs

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of one file.
const maxFile = 1 << 20

// File reads one kernel file again and again through one descriptor into one
// buffer: a system call a read, and no allocation once the buffer has grown to
// what the file holds. It is for one goroutine at a time.
//
// A file of a process or of a cgroup stays that of the same process or group,
// also when another has got its number or name: it then fails with ESRCH or
// ENODEV.
type File struct {
	path string
	fd   int
	buf  []byte
}

// Open opens a file of which about size bytes are expected. The kernel has to
// show it whole in one read, as it does single values and what is small;
// mountinfo and vmstat are not such files.
func Open(path string, size int) (*File, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		return &File{path: path, fd: fd, buf: make([]byte, max(size, 64))}, nil
	}
}

// Read returns what the file says now. The bytes are valid until the next Read.
func (f *File) Read() ([]byte, error) {
	for {
		n, err := unix.Pread(f.fd, f.buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: f.path, Err: err}
		case n < len(f.buf):
			return f.buf[:n], nil
		case len(f.buf) >= maxFile:
			return nil, fmt.Errorf("read %s: more than %d bytes", f.path, maxFile)
		default:
			f.buf = make([]byte, min(2*len(f.buf), maxFile))
		}
	}
}

// Inode tells apart files of the same path, of which one was removed and another
// made.
func (f *File) Inode() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: f.path, Err: err}
	}
	return st.Ino, nil
}

// Path is what the file was opened by.
func (f *File) Path() string { return f.path }

// Close closes the file. It may be called on nil.
func (f *File) Close() error {
	if f == nil {
		return nil
	}
	return unix.Close(f.fd)
}
