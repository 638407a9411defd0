//go:build linux

package systemd

import (
	"fmt"
	"os/user"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

// checkUser looks a named user up, so that its absence is told in words.
func checkUser(name string) error {
	if name == "" {
		return nil
	}
	if _, err := user.Lookup(name); err != nil {
		if _, err := user.LookupId(name); err != nil {
			return fmt.Errorf("run as user %q: no such user; create it on this host or leave run.user out", name)
		}
	}
	return nil
}

// Exit statuses that PID 1 gives a process which it could not set up; the
// program never ran. They are those of systemd.exec(5).
const (
	firstSetupStatus = 200
	lastSetupStatus  = 245
	statusChdir      = 200
	statusExec       = 203
	statusUser       = 217
)

// explain turns such a status into what is wrong. Faults that will be there
// again become StartErrors.
func explain(p *prepared, status int32) error {
	id := p.spec.ID
	var why error
	switch status {
	case statusChdir:
		why = fmt.Errorf("the working directory %s does not exist or may not be entered", p.dir)
	case statusExec:
		if why = program.Executable(p.path); why == nil {
			why = fmt.Errorf("%s cannot be executed: it is no program for this machine, its interpreter or loader is missing, or the copy's user may not read it", p.path)
		}
	case statusUser:
		why = fmt.Errorf("the user %q cannot be had", p.spec.User)
	default:
		return fmt.Errorf("start %s: systemd could not set the process up: status %d (see systemd.exec(5))", id, status)
	}
	return &workload.StartError{ID: id, Err: why}
}
