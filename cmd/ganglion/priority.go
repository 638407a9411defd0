//go:build linux

package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// agentNice is the nice value of an agent that may choose: on a host whose cores
// are all taken, what heals it must not stand in the queue. Copies start at
// ordinary priority.
const agentNice = -20

// raisePriority gives every thread of this process agentNice; later ones inherit
// it. An agent without the right to it runs as it is.
func raisePriority(log *slog.Logger) {
	tasks, err := os.ReadDir("/proc/self/task")
	for _, t := range tasks {
		tid, _ := strconv.Atoi(t.Name())
		if e := unix.Setpriority(unix.PRIO_PROCESS, tid, agentNice); e != nil && err == nil {
			err = e
		}
	}
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
