//go:build linux

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
)

// monitorSlack is how late a sleep of the Go runtime's monitor may end: a tenth
// of the longest that the monitor takes by itself.
const monitorSlack = 1_000_000 // ns

// calmMonitor lets the kernel end the naps of the runtime's monitor late. Whenever
// the agent wakes up the monitor naps for 20 µs at a time until the agent is at
// rest again, which is more than half of all switches to an idle agent. What
// the monitor does is for what takes long: it takes the processor from a
// goroutine whose system call blocks, now after a millisecond.
//
// It is done to that thread alone; threads that are made by it inherit it, and
// copies never do, see program.ConfineThread. An agent without the right to it
// (CAP_SYS_NICE) runs as it is.
func calmMonitor(log *slog.Logger) {
	tid, err := monitorThread()
	if err == nil {
		err = os.WriteFile(fmt.Sprintf("/proc/%d/timerslack_ns", tid), []byte(strconv.Itoa(monitorSlack)), 0)
	}
	if err != nil {
		log.Debug("let the runtime's monitor sleep longer", "error", err)
	}
}

// monitorThread finds the runtime's monitor: the first thread that a Go program
// makes. The kernel lists threads in the order in which they were made.
func monitorThread() (int, error) {
	dir, err := os.Open("/proc/self/task")
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	tids, err := dir.Readdirnames(2)
	if err != nil {
		return 0, err
	}
	if len(tids) < 2 || tids[0] != strconv.Itoa(os.Getpid()) {
		return 0, errors.New("the threads are not listed in their order")
	}
	return strconv.Atoi(tids[1])
}
