package senses

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// alarm rings after a time, exact to the kernel's clock. A timer of the runtime's is
// exact to a millisecond, and later by as much as sleeps of the process may be, which
// of an agent's is another.
type alarm struct{ f *os.File }

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	return &alarm{os.NewFile(uintptr(fd), "timerfd")}, nil
}

// set has it ring in d, which is above 0, and not at the time that was set before.
func (a *alarm) set(d time.Duration) error {
	raw, err := a.f.SyscallConn()
	if err != nil {
		return err
	}
	at := unix.ItimerSpec{Value: unix.NsecToTimespec(d.Nanoseconds())}
	if e := raw.Control(func(fd uintptr) { err = unix.TimerfdSettime(int(fd), 0, &at, nil) }); e != nil {
		return e
	}
	return os.NewSyscallError("timerfd_settime", err)
}

// wait returns when it has rung, or with an error when it is closed. One goroutine
// waits at a time.
func (a *alarm) wait() error {
	var times [8]byte
	_, err := a.f.Read(times[:])
	return err
}

func (a *alarm) close() { a.f.Close() }
