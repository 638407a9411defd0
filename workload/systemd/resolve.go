//go:build linux

package systemd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/ganglion-mesh/ganglion/workload"
)

// workDir is where a copy runs: spec.Dir, in the package if relative; else the
// package; else the copy's own directory.
func workDir(spec workload.Spec, own string) string {
	home := spec.Package
	if home == "" {
		home = own
	}
	if filepath.IsAbs(spec.Dir) {
		return filepath.Clean(spec.Dir)
	}
	return filepath.Join(home, spec.Dir)
}

// resolve finds the program of a command: absolute, inside the package if it has
// a slash, else by the plain PATH.
func resolve(spec workload.Spec, name, own string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("the command is empty")
	case filepath.IsAbs(name):
		return name, executable(name)
	case !strings.Contains(name, "/"):
		return searchPath(name)
	case !filepath.IsLocal(name):
		return "", fmt.Errorf("%s leads out of the package", name)
	}
	dir := spec.Package
	if dir == "" {
		dir = workDir(spec, own)
	}
	path := filepath.Join(dir, name)
	return path, executable(path)
}

func searchPath(name string) (string, error) {
	for dir := range strings.SplitSeq(workload.PlainPath, ":") {
		if path := filepath.Join(dir, name); executable(path) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not found in %s; give its path, or ./%s if it is in the package", name, workload.PlainPath, name)
}

// executable finds the plain faults before they become a number of PID 1's.
func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist", path)
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s is a directory", path)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not executable; chmod +x it", path)
	}
	return nil
}

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
		if why = executable(p.path); why == nil {
			why = fmt.Errorf("%s cannot be executed: it is no program for this machine, its interpreter or loader is missing, or the copy's user may not read it", p.path)
		}
	case statusUser:
		why = fmt.Errorf("the user %q cannot be had", p.spec.User)
	default:
		return fmt.Errorf("start %s: systemd could not set the process up: status %d (see systemd.exec(5))", id, status)
	}
	return &workload.StartError{ID: id, Err: why}
}
