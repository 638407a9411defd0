//go:build linux

package keeper

import (
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/bootclock"
)

// MayStart tells why no copy can be started now under a lease; nil: one can. Its
// keeper asks again.
func MayStart(lease workload.Lease) error { return mayStart(bootclock.Now(), lease) }

// alarm is a timerfd on CLOCK_BOOTTIME. Go's own timers run on a clock that
// stands still while the host is suspended.
type alarm struct {
	f    *os.File
	C    chan struct{} // holds at most one
	done sync.WaitGroup
}

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make a timer: %w", err)
	}
	a := &alarm{f: os.NewFile(uintptr(fd), "timerfd"), C: make(chan struct{}, 1)}
	a.done.Go(a.wait)
	return a, nil
}

func (a *alarm) wait() {
	var buf [8]byte
	for {
		if _, err := a.f.Read(buf[:]); err != nil {
			return
		}
		select {
		case a.C <- struct{}{}:
		default:
		}
	}
}

// set rings at a time since boot; 0 is never.
func (a *alarm) set(at time.Duration) error {
	conn, err := a.f.SyscallConn()
	if err != nil {
		return err
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
	var serr error
	err = conn.Control(func(fd uintptr) { serr = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME, &spec, nil) })
	if err != nil {
		return err
	}
	return serr
}

func (a *alarm) close() {
	a.f.Close()
	a.done.Wait()
}

// deadman is a timer of the kernel that kills this process, also one that is
// stopped by SIGSTOP, gets no CPU or is stuck. The copy's first process goes with
// it, by its parent death signal.
type deadman struct {
	id int32
	at time.Duration
}

// sigevent is struct sigevent of the kernel.
type sigevent struct {
	value  uintptr
	signo  int32
	notify int32
	_      [48]byte
}

func newDeadman() (*deadman, error) {
	d := &deadman{}
	ev := sigevent{signo: int32(unix.SIGKILL)} // notify 0: SIGEV_SIGNAL
	_, _, errno := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_BOOTTIME,
		uintptr(unsafe.Pointer(&ev)), uintptr(unsafe.Pointer(&d.id)))
	if errno != 0 {
		return nil, fmt.Errorf("make the timer that kills a stuck keeper: %w", errno)
	}
	return d, nil
}

// set moves it to a time since boot; 0 is never.
func (d *deadman) set(at time.Duration) error {
	if at == d.at {
		return nil
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
	const absolute = 1 // TIMER_ABSTIME
	_, _, errno := unix.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(d.id), absolute, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	d.at = at
	return nil
}
