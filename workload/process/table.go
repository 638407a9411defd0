//go:build linux

package process

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// table is a descriptor table that a launcher thread has to itself. A fork copies
// the table of its thread and the exec closes what the program does not get: with
// one that holds next to nothing that costs the same however many descriptors the
// agent has.
//
// A number means something else on such a thread than in all the rest of the
// process. So nothing may run there that uses descriptors opened elsewhere or lets
// its own out: no os.File, no log.
type table struct {
	agent int // pidfd of this process, by which descriptors are fetched
}

// errShared says that the launcher has to share the agent's table.
var errShared = errors.New("the launcher shares the agent's descriptors")

// newTable gives the calling thread a table of its own. It must be locked, must
// not be the main one and must end with its goroutine. After errShared nothing has
// changed, and the next thread would fare alike; after any other error the thread
// must end, and the next may fare better.
func newTable() (*table, error) {
	keep, err := pollerDescriptors()
	if err != nil {
		return nil, err
	}
	if err := mayFetch(); err != nil {
		return nil, refused(err)
	}
	last := keep[len(keep)-1] // what is above it is not even copied
	if err := unix.CloseRange(uint(last+1), math.MaxInt32, unix.CLOSE_RANGE_UNSHARE); err != nil {
		return nil, refused(err)
	}
	next := 3
	for _, fd := range keep {
		if next < fd {
			if err := unix.CloseRange(uint(next), uint(fd-1), 0); err != nil {
				return nil, err
			}
		}
		unix.CloseOnExec(fd)
		next = fd + 1
	}
	agent, err := unix.PidfdOpen(os.Getpid(), 0)
	return &table{agent: agent}, err
}

// refused makes an error of a system call errShared, unless it is of a want that
// passes.
func refused(err error) error {
	for _, passes := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
		if errors.Is(err, passes) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", errShared, err)
}

// pollerDescriptors finds the descriptors of the runtime's poller, in ascending
// order. The runtime uses them on whatever thread, ours too: a goroutine that ends
// a collection of garbage there polls, and one that sets a timer wakes who polls.
// Which of several are the runtime's it does not tell; those of others do no harm.
func pollerDescriptors() ([]int, error) {
	r, w, err := os.Pipe() // so that there is a poller
	if err != nil {
		return nil, err
	}
	r.Close()
	w.Close()
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var fds []int
	found := map[string]bool{"anon_inode:[eventpoll]": false, "anon_inode:[eventfd]": false}
	for _, e := range entries {
		target, _ := os.Readlink(filepath.Join(dir, e.Name()))
		fd, err := strconv.Atoi(e.Name())
		if _, ok := found[target]; ok && err == nil && fd > 2 {
			found[target] = true
			fds = append(fds, fd)
		}
	}
	for kind, ok := range found {
		if !ok {
			return nil, fmt.Errorf("%w: the runtime has no %s", errShared, kind)
		}
	}
	slices.Sort(fds)
	return fds, nil
}

// mayFetch tells whether descriptors can be fetched from another table of this
// process.
func mayFetch() error {
	agent, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(agent)
	fd, err := unix.PidfdGetfd(agent, agent, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// forkExec is syscall.ForkExec, with the descriptors of attr being the agent's.
// What is fetched for it is close-on-exec, and closed again.
func (t *table) forkExec(path string, argv []string, attr *syscall.ProcAttr) (int, error) {
	own, sys := *attr, *attr.Sys
	own.Sys, own.Files = &sys, make([]uintptr, 0, len(attr.Files))
	fetched := make([]int, 0, len(attr.Files)+1)
	defer func() {
		for _, fd := range fetched {
			unix.Close(fd)
		}
	}()
	fetch := func(fd int) (int, error) {
		got, err := unix.PidfdGetfd(t.agent, fd, 0)
		if err != nil {
			return 0, fmt.Errorf("hand over descriptor %d: %w", fd, err)
		}
		fetched = append(fetched, got)
		return got, nil
	}
	for _, file := range attr.Files {
		fd, err := fetch(int(file))
		if err != nil {
			return 0, err
		}
		own.Files = append(own.Files, uintptr(fd))
	}
	if sys.UseCgroupFD {
		var err error
		if sys.CgroupFD, err = fetch(sys.CgroupFD); err != nil {
			return 0, err
		}
	}
	return syscall.ForkExec(path, argv, &own)
}
