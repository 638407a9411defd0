//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// agentNice is the nice value of an agent that may choose: on a host whose cores
// are all taken, what heals it must not stand in the queue. Copies start at
// ordinary priority.
const agentNice = -20

// agentSlack is how late a sleep of the agent's threads may end. What an idle agent
// costs is wake-ups, most of them naps of 20 µs by which the Go runtime waits for
// its own threads; with the kernel's 50 µs of slack an idle agent was switched to
// half as often again, and what answered an exit was in the way of it more often.
// Nothing that the agent does waits for less than milliseconds.
const agentSlack = time.Millisecond

// eachThread calls f with every thread of this process, and returns the first error.
func eachThread(f func(tid int) error) error {
	tasks, err := os.ReadDir("/proc/self/task")
	for _, t := range tasks {
		tid, _ := strconv.Atoi(t.Name())
		if e := f(tid); e != nil && err == nil {
			err = e
		}
	}
	return err
}

// relaxTimers gives every thread of this process agentSlack; later ones inherit
// it, copies never do (see program.ConfineThread). An agent without the right to it
// (CAP_SYS_NICE) runs as it is.
func relaxTimers(log *slog.Logger) {
	slack := []byte(strconv.FormatInt(agentSlack.Nanoseconds(), 10))
	err := eachThread(func(tid int) error {
		err := os.WriteFile(fmt.Sprintf("/proc/%d/timerslack_ns", tid), slack, 0)
		if errors.Is(err, fs.ErrNotExist) { // it has ended
			return nil
		}
		return err
	})
	if err != nil {
		log.Debug("let the agent's timers be late", "error", err)
	}
}

// raisePriority gives every thread of this process agentNice; later ones inherit
// it. An agent without the right to it runs as it is.
func raisePriority(log *slog.Logger) {
	err := eachThread(func(tid int) error { return unix.Setpriority(unix.PRIO_PROCESS, tid, agentNice) })
	// Where the kernel schedules sessions as groups, it is the group's value that
	// counts against others. Another's session is not ours to favour.
	if sid, e := unix.Getsid(0); e == nil && sid == os.Getpid() && err == nil {
		err = os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(agentNice)), 0)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		log.Debug("raise the agent's priority", "error", err)
	}
}
