package senses

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"
)

// triggers waits for the kernel to tell of pressure. It costs one blocked thread:
// the runtime's poller does not ask for what the kernel answers with (POLLPRI),
// and a poller of our own between the two would eat the event.
type triggers struct {
	files []int
	stop  int // eventfd that ends the wait; -1 before start
	wake  chan struct{}
	wg    sync.WaitGroup
}

// add sets a trigger such as "some 10000 500000": 10 ms within 500 ms.
func (t *triggers) add(path, trigger string) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	t.files = append(t.files, fd)
	if _, err := unix.Write(fd, append([]byte(trigger), 0)); err != nil {
		return fmt.Errorf("set trigger %q on %s: %w", trigger, path, err)
	}
	return nil
}

// start begins to wait. The channel wake has something to receive after each
// event, and is closed when there will be no more of them.
func (t *triggers) start() (err error) {
	if t.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("make eventfd: %w", err)
	}
	t.wake = make(chan struct{}, 1)
	t.wg.Go(t.wait)
	return nil
}

func (t *triggers) wait() {
	defer close(t.wake)
	fds := make([]unix.PollFd, 0, len(t.files)+1)
	for _, fd := range t.files {
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLPRI})
	}
	fds = append(fds, unix.PollFd{Fd: int32(t.stop), Events: unix.POLLIN})
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		for i := range fds {
			switch re := fds[i].Revents; {
			case re == 0:
			case i == len(fds)-1, re&unix.POLLPRI == 0: // stopped, or the file is of no use any more
				return
			default:
				select {
				case t.wake <- struct{}{}:
				default:
				}
			}
			fds[i].Revents = 0
		}
	}
}

// close ends the wait and the triggers. It may be called at any time, once.
func (t *triggers) close() {
	if t.stop >= 0 {
		_, _ = unix.Write(t.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // whichever end counts, it is not 0
		t.wg.Wait()
		unix.Close(t.stop)
	}
	for _, fd := range t.files {
		unix.Close(fd)
	}
}
